"""The federation around a model of a few numbers: resume, failing clients, selection, what is kept and what refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import pathlib
import signal

import federation_fake
import numpy
import pandas
import pytest
import safetensors.torch
import torch
from federation_fake import EXAMPLES, everything, fake_configuration, server_json
from flwr.app import Array, ArrayRecord, MetricRecord
from fork_server import run_program

from fedmrg_core.errors import InputError
from fedmrg_core.federation import grid, hospital
from fedmrg_core.federation.rounds import TooFewClients
from fedmrg_core.federation.run import continue_federation, run_federation
from fedmrg_core.files import whole_files as files
from fedmrg_core.runs.run_configuration import read_configuration
from fedmrg_core.training.client_state import HospitalState


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run of three rounds that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_federation(folder, fake_configuration(), progress=False)
    return folder


# ---- resume ----


def _die_at(folder: pathlib.Path, moment: int) -> None:
    """Run, and be killed at the n-th time that a client trains, a file is flushed, or one moves into place."""
    moments: list[str] = []

    def then_die(function, name):
        def wrapper(*arguments, **options):
            # Arguments of train: hospital, round. Of os.replace: from, to.
            what = (
                f"{arguments[0].client.name}-{arguments[1]}"
                if name == "train"
                else pathlib.Path(str(arguments[-1])).name
            )
            moments.append(f"{name} {what if name != 'flush' else ''}")
            if len(moments) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return wrapper

    os.replace, os.fsync = then_die(os.replace, "place"), then_die(os.fsync, "flush")
    federation_fake.FakeHospital.train = then_die(federation_fake.FakeHospital.train, "train")
    run_federation(folder, fake_configuration(rounds=2), progress=False)
    (folder / "moments.json").write_text(json.dumps(moments))


def _fork(folder: pathlib.Path, moment: int) -> int:
    process = multiprocessing.get_context("fork").Process(target=_die_at, args=(folder, moment))
    process.start()
    process.join(60)
    return process.exitcode


def test_a_run_killed_anywhere_ends_with_the_same_bytes(tmp_path: pathlib.Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    assert _fork(undisturbed, 0) == 0
    moments = json.loads((undisturbed / "moments.json").read_text())
    (undisturbed / "moments.json").unlink()
    expected = everything(undisturbed)
    # The last of each kind: both rounds' training, every file of the hospitals, the checkpoint and the model.
    last = {name: number for number, name in enumerate(moments, start=1)}
    assert {"train b-2", "place shared.safetensors", "place round-0002", "place current", "place model"} <= set(last)
    for name, moment in last.items():
        folder = tmp_path / name
        assert _fork(folder, moment) == -signal.SIGKILL
        run_federation(folder, fake_configuration(rounds=2), progress=False)
        assert everything(folder) == expected, f"killed at {name}"


def test_killed_twice_in_one_round(tmp_path: pathlib.Path) -> None:
    run_federation(tmp_path / "undisturbed", fake_configuration(rounds=2), progress=False)
    for moment in (40, 15):
        assert _fork(tmp_path / "killed", moment) == -signal.SIGKILL
    run_federation(tmp_path / "killed", fake_configuration(rounds=2), progress=False)
    assert everything(tmp_path / "killed") == everything(tmp_path / "undisturbed")


def test_stopped_after_a_round_and_continued(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run_federation(tmp_path, fake_configuration(), stop_after_round=1, progress=False)
    assert server_json(tmp_path)["round_number"] == 1
    assert not (tmp_path / "model").exists()
    continue_federation(tmp_path, progress=False)
    assert everything(tmp_path) == everything(finished)


def test_a_finished_run_is_left_alone(finished: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "model").rglob("*")}
    monkeypatch.setattr(federation_fake.FakeHospital, "train", None)  # calling it would raise
    run_federation(finished, fake_configuration(), progress=False)
    assert {path: path.stat().st_mtime_ns for path in (finished / "model").rglob("*")} == before


def test_another_seed_gives_other_bytes(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run_federation(tmp_path, fake_configuration(seed=1), progress=False)
    name = "model/shared.safetensors"
    assert everything(tmp_path)[name] != everything(finished)[name]


# ---- clients that fail ----


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("raises", "error: ValueError"),
        ("nan", "NaN or infinity"),
        ("infinite_prototype", "NaN or infinity"),
        ("shape", "shape (2, 4), expected (2, 5)"),
        ("extra", "error: ValueError"),
        ("tells", "error: InputError"),
        ("renames", "metric 'round' is not declared"),
        ("nothing", "sent nothing"),
        ("empty", "no metrics were sent"),
        ("double", "type float64, expected float32"),
        ("missing", "generic_adapter/lora_A is missing"),
        ("unreadable", "cannot be read"),
    ],
)
def test_a_failing_client_is_left_out_and_named(
    kind: str, reason: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAKE_FAILURES", f"b:{kind}:2")
    monkeypatch.setattr(grid.InProcessGrid, "_deliver", _spoilt(grid.InProcessGrid._deliver))
    run_federation(tmp_path, fake_configuration(), progress=False)
    table = pandas.read_csv(tmp_path / "rounds.csv", keep_default_na=False).set_index(["round", "client"])
    assert table.loc[(2, "b"), "status"] == "left_out"
    assert reason in table.loc[(2, "b"), "reason"]
    assert table.loc[(2, "b"), "num_examples"] == ""
    assert (table.drop((2, "b")).status == "ok").all()
    assert any("client b left out" in record.getMessage() for record in caplog.records)
    assert server_json(tmp_path)["state_rounds"] == {"a": 3, "b": 3, "c": 3}


def test_what_an_error_says_stays_in_the_hospital(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can hold a file's name or a word of a report; the server learns the error's class and no more."""
    monkeypatch.setenv("FAKE_FAILURES", "b:raises:2")
    run_federation(tmp_path, fake_configuration(), progress=False)
    holding = [path.name for path in tmp_path.rglob("*") if path.is_file() and b"scanner" in path.read_bytes()]
    assert holding == ["errors-1.log"]
    assert "ValueError: the scanner is on fire" in (tmp_path / "hospitals" / "errors-1.log").read_text()


def _spoilt(deliver):
    """What an honest app cannot be made to send is spoilt on its way."""

    def wrapper(self, message):
        reply = deliver(self, message)
        if message.metadata.message_type != "train" or not reply.has_content():
            return reply
        client = self._contexts[message.metadata.dst_node_id].node_config["partition-id"]
        kind = federation_fake.failure("abc"[client], message.content["config"]["server-round"])
        arrays = ArrayRecord(dict(reply.content["arrays"])) if kind in ("double", "missing", "unreadable") else None
        if kind == "nothing":
            return None
        if kind == "empty":
            reply.content.clear()
        if kind == "renames":
            reply.content["metrics"] = MetricRecord({**reply.content["metrics"], "round": 7.0})
        if kind == "double":
            arrays["generic_adapter/lora_A"] = Array(numpy.zeros((2, 5)))
        if kind == "missing":
            del arrays["generic_adapter/lora_A"]
        if kind == "unreadable":
            arrays["generic_adapter/lora_A"] = Array("float32", (2, 5), "numpy.ndarray", b"\x93NUMPY\x01")
        if arrays is not None:
            reply.content["arrays"] = arrays
        return reply

    return wrapper


def test_a_left_out_update_has_no_influence(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("nan", "raises"):
        monkeypatch.setenv("FAKE_FAILURES", f"b:{kind}:2")
        run_federation(tmp_path / kind, fake_configuration(), progress=False)
    models = [everything(tmp_path / kind)["model/shared.safetensors"] for kind in ("nan", "raises")]
    assert models[0] == models[1]  # b's state and its prototype of round 1 were gone on with in both


def test_too_few_clients_stop_the_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAILURES", "b:nan:2 c:raises:2")
    with pytest.raises(TooFewClients, match="round 2: 1 usable clients are left and min_clients is 2.*b: .*NaN.*c: "):
        run_federation(tmp_path, fake_configuration(), progress=False)
    assert server_json(tmp_path)["round_number"] == 1
    table = pandas.read_csv(tmp_path / "rounds.csv")
    assert set(table[table["round"] == 2].query("status == 'left_out'").client) == {"b", "c"}
    monkeypatch.delenv("FAKE_FAILURES")
    run_federation(tmp_path, fake_configuration(), progress=False)  # the hospitals are back
    assert server_json(tmp_path)["round_number"] == 3


def test_too_few_clients_end_the_process_with_an_error(tmp_path: pathlib.Path) -> None:
    script = (
        "import pathlib, sys; from federation_fake import fake_configuration;"
        "from fedmrg_core.federation.run import run_federation;"
        "run_federation(pathlib.Path(sys.argv[1]), fake_configuration(), progress=False)"
    )
    done = run_program(script, tmp_path, FAKE_FAILURES="b:nan:1 c:raises:1")
    assert done.returncode != 0
    assert "client b left out" in done.stderr
    assert "TooFewClients" in (tmp_path / "failure.txt").read_text()


# ---- selection, state, files ----


def test_validation_chooses_the_round(finished: pathlib.Path) -> None:
    table = pandas.read_csv(finished / "rounds.csv")
    means = table.groupby("round").validation_loss.mean()
    best = server_json(finished)["best"]
    assert best["round_number"] == means.idxmin()
    chosen = finished / "checkpoint" / f"round-{means.idxmin():04d}" / "shared.safetensors"
    selected = safetensors.torch.load_file(finished / "model" / "shared.safetensors")
    for key, tensor in safetensors.torch.load_file(chosen).items():
        assert torch.equal(tensor, selected[key])
    for client in EXAMPLES:
        kept = hospital.HospitalDisk(finished, client).load(best["state_rounds"][client]).part("personal")
        saved = safetensors.torch.load_file(finished / "model" / f"{client}.safetensors")
        assert all(torch.equal(kept[key], saved[key]) for key in saved) and len(saved) == 1


def test_the_hospital_keeps_what_is_needed_and_no_more(tmp_path: pathlib.Path) -> None:
    disk = hospital.HospitalDisk(tmp_path, "St. Mary / West")
    assert disk.folder.parent == tmp_path / "hospitals"
    assert disk.load(0) is None
    for round_number in range(1, 6):
        trained = HospitalState({"a": torch.full((2,), float(round_number)), "disease_weights": torch.ones(2)})
        validated = HospitalState({**trained.tensors, "disease_weights": torch.full((2,), 0.5)})
        disk.save_trained(round_number, trained)
        disk.save_validated(round_number, trained, validated)
        disk.keep({2, round_number - 1, round_number})
    assert sorted({path.name[:10] for path in disk.folder.glob("*.safetensors")}) == [
        "round-0002",
        "round-0004",
        "round-0005",
    ]
    assert torch.equal(disk.load(2).tensors["disease_weights"], torch.full((2,), 0.5))
    disk.save_trained(5, trained)  # a round that is run again forgets its old validation
    assert torch.equal(disk.load(5).tensors["disease_weights"], torch.ones(2))


def test_another_configuration_is_refused(tmp_path: pathlib.Path) -> None:
    run_federation(tmp_path, fake_configuration(), stop_after_round=1, progress=False)
    with pytest.raises(InputError, match="another seed"):
        run_federation(tmp_path, fake_configuration(seed=1), progress=False)


def test_other_data_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_federation(tmp_path, fake_configuration(), stop_after_round=1, progress=False)
    monkeypatch.setattr(federation_fake.FakeTask, "fingerprints", lambda self: {"data": "other"})
    with pytest.raises(InputError, match="another configuration, base model, data or training code"):
        run_federation(tmp_path, fake_configuration(), progress=False)


def test_other_training_code_does_not_go_on_with_a_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_federation(tmp_path, fake_configuration(), stop_after_round=1, progress=False)
    monkeypatch.setattr("fedmrg_core.federation.task.training_code_hash", lambda task: "other")
    with pytest.raises(InputError, match="training code; choose another run folder or delete this one"):
        run_federation(tmp_path, fake_configuration(), progress=False)


def test_a_damaged_checkpoint_is_named(tmp_path: pathlib.Path) -> None:
    run_federation(tmp_path, fake_configuration(), stop_after_round=1, progress=False)
    path = tmp_path / "checkpoint" / "round-0001" / "shared.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="round-0001/shared.safetensors"):
        run_federation(tmp_path, fake_configuration(), progress=False)


def test_a_run_folder_is_used_by_one_process(tmp_path: pathlib.Path) -> None:
    import filelock

    with filelock.FileLock(tmp_path / ".lock"), pytest.raises(InputError, match="another process"):
        run_federation(tmp_path, fake_configuration(), progress=False)
    run_federation(tmp_path, fake_configuration(rounds=1), progress=False)


def test_a_run_goes_on_with_its_own_threads(tmp_path: pathlib.Path) -> None:
    run_federation(tmp_path, fake_configuration(), stop_after_round=1, progress=False)
    more = fake_configuration().model_copy(update={"threads": 2})
    run_federation(tmp_path, more, progress=False)
    assert read_configuration(tmp_path).threads == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("seed: [", "not valid YAML"), ("sede: 1", "config.yaml: "), ("[]", "config.yaml: the whole")],
)
def test_a_broken_configuration_is_named(text: str, message: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_configuration(tmp_path)


def test_wrong_arguments_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="engine"):
        run_federation(tmp_path, fake_configuration(), engine="spark")
    with pytest.raises(InputError, match="stop_after_round is 0"):
        run_federation(tmp_path, fake_configuration(), stop_after_round=0)
    with pytest.raises(InputError, match="config.yaml does not exist"):
        continue_federation(tmp_path)


def test_half_written_files_are_removed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "hospitals").mkdir()
    (tmp_path / "hospitals" / ".round.1.partial").write_text("half")
    (tmp_path / "model.partial").mkdir()
    files.remove_partial(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["hospitals"]
