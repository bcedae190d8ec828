"""Real federations on loopback: SuperLink and SuperNodes under TLS, each in a folder of its own, and what they survive.

They take minutes: a message starts a process at its hospital. `make deployment` runs them, `make test` does not.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import textwrap

import pandas
import pytest
from deployed import Running, call, make_places, make_site, python_path, started, wait_until
from federation_fake import everything
from identity_runs import serving
from linear_runs import configuration
from linear_task import CLIENTS
from small_model import PROFILE
from small_questions import small_inputs, small_run

from fedmrg_core.errors import InputError
from fedmrg_core.federation.deployment import nodes, running
from fedmrg_core.federation.roster import read_roster
from fedmrg_core.federation.run import configure_run, run_federation
from fedmrg_core.identity.audit import audit_run
from fedmrg_core.identity.keys import make_keys, read_account
from fedmrg_core.identity.members import COORDINATOR, keys_folder
from fedmrg_core.runs.methods import load_method
from fedmrg_core.runs.run_configuration import Identities, RunConfiguration, write_configuration

pytestmark = pytest.mark.deployment
# Folders differ, and bytes of the last message.
OTHER = {"config.yaml", "clients.json", "finish.csv"}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process starts imports the tests' tasks."""
    monkeypatch.setenv("PYTHONPATH", python_path())


def undisturbed(folder: pathlib.Path, settings: RunConfiguration, *faults: str) -> pathlib.Path:
    """The same run in one process; in it a hospital that is away raises."""
    folder.mkdir()
    for fault in faults:
        (folder / fault).write_text("raises")
    run_federation(folder, settings, progress=False, test=True)
    for fault in faults:
        (folder / fault).unlink()
    return folder


def client_folders(run: pathlib.Path) -> dict[str, pathlib.Path]:
    return {client.name: run / client.folders[0] for client in read_roster(run).clients}


def gathered(place: pathlib.Path, clients: list[str]) -> dict[str, bytes]:
    """Every file of the server's run folder, and what is a hospital's of its own, where it lies and nowhere else."""
    found = everything(place / "server" / "run")
    for name in clients:
        own = everything(place / name / "run")
        assert not [path for path in own for other in clients if other != name and f"/{other}" in path]
        # The shared adapters of each round are kept by every hospital, and the server opens none.
        kept = f"/{name}", "adapters_by_round/"
        found |= {path: content for path, content in own.items() if any(part in path for part in kept)}
    return found


def comparable(path: str, content: bytes) -> object:
    """A checkpoint also says what the data are: in one process by what was prepared, here by what hospitals have."""
    if path.startswith("checkpoint/") and path.endswith("server.json"):
        return {name: value for name, value in json.loads(content).items() if name != "fingerprint"}
    return None if path.startswith("checkpoint/") and path.endswith(("current", "files.sha256")) else content


def assert_equal_bytes(place: pathlib.Path, run: pathlib.Path) -> None:
    found, expected = gathered(place, list(client_folders(run))), everything(run)
    same = [path for path in expected if not path.startswith("clients/") and path not in OTHER]
    assert len(same) > 20 and [path for path in same if path not in found] == []
    assert [path for path in same if comparable(path, found[path]) != comparable(path, expected[path])] == []


def statuses(run_folder: pathlib.Path) -> dict[tuple[int, str], str]:
    path = run_folder / "rounds.csv"
    rows = pandas.read_csv(path) if path.is_file() else pandas.DataFrame()
    return {(row.round, row.client): row.status for row in rows.itertuples()}


def test_two_rounds_of_reports(workspace, tmp_path):
    federation = PROFILE.federation.model_copy(update={"rounds": 2})
    settings = configure_run(
        tmp_path / "run", profile=PROFILE.model_copy(update={"federation": federation}), method=load_method("fedmrg"),
        data="phantom", partition="random", clients=3, prepared=workspace / "prepared",
        base_models=workspace / "base_models", threads=1,
    )  # fmt: skip
    run = undisturbed(tmp_path / "run", settings)
    deployed_run(tmp_path, run, workspace / "base_models")


def test_two_rounds_of_medical_questions(tmp_path):
    inputs = small_inputs(tmp_path / "inputs")
    run = undisturbed(tmp_path / "run", small_run(inputs, tmp_path / "run", "fed-lora"))
    deployed_run(tmp_path, run, inputs / "base")


def deployed_run(tmp_path: pathlib.Path, run: pathlib.Path, base_models: pathlib.Path) -> None:
    clients = client_folders(run)
    place = make_places(tmp_path, run, clients, "--base-models", base_models)
    with started(place, "server", *clients):
        running.run(place / "server", test=True, progress=False)
    assert_equal_bytes(place, run)
    assert json.loads((place / "server" / "run" / "manifest.json").read_text())["engine"] == "deployment"
    assert set(statuses(place / "server" / "run").values()) == {"ok"}


# ---- faults ----


def full_disk(folder: pathlib.Path) -> pathlib.Path:
    """A hook: while `folder/full` is there, no file of the server's app may have more than a few bytes."""
    folder.mkdir()
    (folder / "full").touch()
    (folder / "sitecustomize.py").write_text(
        textwrap.dedent(
            f"""
            import os, pathlib, resource, signal, sys
            def fill():
                if pathlib.Path({str(folder / "full")!r}).exists():
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            if "forkserver" in " ".join(sys.orig_argv):  # the server's app is a fork of it
                os.register_at_fork(after_in_child=fill)
            """
        )
    )
    return folder


def test_what_a_federation_survives(tmp_path):
    """One after the other: a full disk, a node killed, the SuperLink killed, once more and its database gone."""
    settings = configuration("plain", 2, 3).model_copy(update={"task": "faulty"})
    run = undisturbed(tmp_path / "run", settings, "fault-c-1")
    place, hooks = make_places(tmp_path, run, client_folders(run)), full_disk(tmp_path / "hooks")
    server = place / "server"
    make_site(place, "stranger", "c-studies")  # its key is registered nowhere
    for client, number in (("c", 1), ("b", 2), ("a", 3)):
        (place / client / "run" / f"fault-{client}-{number}").write_text("hangs")
    with started(place, *CLIENTS, "stranger") as programs:
        wait_until(lambda: "does not answer; asked again" in programs.log("a").read_text())
        programs.start("server", [hooks])

        (place / "c" / "run" / "fault-c-1").rename(tmp_path / "later")
        with pytest.raises(InputError, match="there is no room left to write it; make some, and start the same"):
            running.run(server, progress=False)
        (hooks / "full").unlink()
        (tmp_path / "later").rename(place / "c" / "run" / "fault-c-1")
        shutil.rmtree(place / "c" / "run" / "hospitals")  # as if c had never trained

        going = Running(place)
        going.until(place / "c" / "run" / "hanging")
        programs.end("c", signal.SIGKILL)
        going.until(place / "b" / "run" / "hanging")
        assert statuses(server / "run") == {(1, "a"): "ok", (1, "b"): "ok", (1, "c"): "left_out"}
        (place / "c" / "run" / "fault-c-1").unlink()
        programs.start("c")

        programs.end("server", signal.SIGKILL)
        assert isinstance(going.ended(), InputError | RuntimeError)
        (place / "b" / "run" / "fault-b-2").unlink()
        programs.start("server")
        going = Running(place)
        going.until(place / "a" / "run" / "hanging")

        programs.end("server", signal.SIGKILL)
        assert isinstance(going.ended(), InputError | RuntimeError)
        (place / "a" / "run" / "fault-a-3").unlink()
        for path in server.glob("state.db*"):
            path.unlink()
        programs.start("server")
        running.run(server, test=True, progress=False)
        assert "did not let c in; asked again" in programs.log("stranger").read_text()
    left_out = {key for key, status in statuses(server / "run").items() if status != "ok"}
    assert left_out == {(1, "c")} and len(statuses(server / "run")) == 9
    found, expected = gathered(place, list(CLIENTS)), everything(run)
    kept = [path for path in expected if path.endswith(".safetensors") and not path.startswith("clients/")]
    assert len(kept) > 10 and [path for path in kept if found.get(path) != expected[path]] == []


# ---- identities ----


def alters(folder: pathlib.Path) -> pathlib.Path:
    """A hook: somebody changes what a hospital signs before it is sent, in round 2."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import sys
            if "forkserver" in " ".join(sys.orig_argv):  # what answers messages is a fork of it
                from fedmrg_core.identity import vouching
                vouch = vouching.vouch
                def altered(message, context, call_next):
                    second = message.metadata.message_type == "train" and message.content["config"]["server-round"] == 2
                    reply = vouch(message, context, call_next)
                    if second:
                        reply.content["metrics"]["num-examples"] = 31
                    return reply
                vouching.vouch = altered
            """
        )
    )
    return folder


def test_identities_over_several_machines(tmp_path):
    """Each makes and registers its own over one node; an altered update is refused, and the rest is untouched."""
    settings = configuration("plain", 2, 2).model_copy(update={"task": "faulty"})
    run = undisturbed(tmp_path / "run", settings, "fault-c-2")
    folders_with_keys = {"server": COORDINATOR, **{name: name for name in CLIENTS}}
    accounts = []
    for folder, name in folders_with_keys.items():
        keys = keys_folder(tmp_path / folder / "run", name)
        make_keys(keys)
        accounts.append(read_account(keys / "account.key").address)
    with serving(accounts) as node:
        with_node = settings.model_copy(update={"identities": Identities(chain=node.url)})
        (tmp_path / "asked").mkdir()
        write_configuration(tmp_path / "asked", with_node)
        place = make_places(tmp_path, tmp_path / "asked", client_folders(run))
        with pytest.raises(InputError, match="ask the server for its members.json and take it with fedmrg site join"):
            nodes.start_site(place / "a")
        for name in CLIENTS:
            call("site", "join", name, "server/run/identity/members.json", cwd=place)
        with started(place, "server", "a", "b") as programs:
            programs.start("c", [alters(tmp_path / "hooks")])
            running.run(place / "server", progress=False)
        codes = pandas.read_csv(place / "server" / "run" / "identity.csv")
        told = {(row.round, row.client): row.code for row in codes.itertuples()}
        assert told.pop((2, "c")) == "altered" and set(told.values()) == {"admitted"} and len(told) == 5
        assert audit_run(place / "server" / "run").problems == []
    path = "model/shared.safetensors"
    assert (place / "server" / "run" / path).read_bytes() == (run / path).read_bytes()
