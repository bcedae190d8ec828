"""The federation around a very small real model on a very small phantom: what leaves a hospital under every method."""

from __future__ import annotations

import json
import pathlib

import pandas
import pytest
import safetensors.torch
import torch
import transformers
from federation_fake import everything
from flwr.common.serde import recorddict_to_proto
from peft import PeftModel
from small_model import PROFILE

from fedmrg_core.errors import InputError
from fedmrg_core.federation import grid
from fedmrg_core.federation.hospital import HospitalDisk
from fedmrg_core.federation.run import configure_run, run_federation
from fedmrg_core.runs.methods import Ownership, load_methods
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.training.batch_statistics import is_statistic

SMALL = PROFILE.model_copy(
    update={"federation": PROFILE.federation.model_copy(update={"rounds": 2})},
)


def configuration(workspace: pathlib.Path, run: pathlib.Path, method: str = "fedmrg", **others) -> RunConfiguration:
    row = load_methods()[method]
    if row.payload.rank:  # factors of the row's rank would be larger than this model's matrices
        row = row.model_copy(update={"payload": row.payload.model_copy(update={"rank": 8})})
    if row.alignment_rounds:  # one of the two rounds is for the reports
        row = row.model_copy(update={"alignment_rounds": 1})
    return configure_run(
        run,
        profile=SMALL,
        method=row,
        data="phantom",
        prepared=workspace / "prepared",
        base_models=workspace / "base_models",
        threads=1,
        **others,
    )


@pytest.mark.parametrize("method", load_methods())
def test_what_leaves_a_hospital(
    method: str, workspace: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    contents, carry = [], grid._over_the_wire

    def watch(message):
        arrived = carry(message)
        if arrived.metadata.message_type == "train" and arrived.metadata.reply_to_message_id:
            assert not arrived.has_error(), arrived.error.reason
            contents.append(recorddict_to_proto(arrived.content))
        return arrived

    monkeypatch.setattr(grid, "_over_the_wire", watch)
    row = load_methods()[method]
    clients = 2 if row.server.attackers is None else 5
    dealt = {"partition": "random", "clients": clients}
    run_federation(tmp_path, configuration(workspace, tmp_path, method, **dealt), stop_after_round=1, progress=False)
    shared = {name for name, owner in row.modules.items() if owner is Ownership.SHARED}
    travelling = shared | ({"control"} if row.client.control_variates else set())
    contrast = row.losses.contrast_inter or row.losses.contrast_intra
    assert len(contents) == (1 if row.training == "centralised" else clients)
    for content in contents:
        leaving = {item.key: {array.key for array in item.array_record.items} for item in content.items}
        assert set(leaving) == {"arrays", "metrics"} | ({"prototypes"} if contrast else set())
        assert {key.split("/")[0] for key in leaving["arrays"]} == travelling
    ledger = pandas.read_csv(tmp_path / "ledger.csv")
    assert set(ledger[ledger.direction == "up"].module) & set(row.modules) == shared
    kept = HospitalDisk(tmp_path, "pooled" if row.training == "centralised" else "client-1").load(1)
    personal = {name for name, owner in row.modules.items() if owner is Ownership.PERSONAL}
    assert {key.split("/")[0] for key in kept.part("personal") if not is_statistic(key)} == personal
    assert kept.part("optimiser")


@pytest.mark.numerical
def test_a_finished_run_can_be_opened(workspace: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run = tmp_path / "results" / "run"
    run_federation(run, configuration(workspace, run, unseen_sites=("centre-e", "centre-f")), progress=False)
    table = pandas.read_csv(run / "rounds.csv")
    assert set(table.client) == {"centre-a", "centre-b", "centre-c", "centre-d"}
    assert set(table.num_examples) == {6} and set(table.validation_examples) == {3}
    model = run / "model"
    llm = transformers.AutoModelForCausalLM.from_pretrained(workspace / "base_models" / "llm")
    adapted = PeftModel.from_pretrained(llm, model / "generic_adapter")
    weights = {name: tensor for name, tensor in adapted.named_parameters() if "lora_B" in name}
    assert any(tensor.abs().sum() > 0 for tensor in weights.values())
    specialised = [
        safetensors.torch.load_file(model / "specialised" / client / "adapter_model.safetensors")
        for client in ("centre-a", "centre-b")
    ]
    assert any(not torch.equal(specialised[0][key], specialised[1][key]) for key in specialised[0])
    assert not any(str(workspace) in path.read_text(errors="replace") for path in model.rglob("*.json"))


def test_the_engines_end_with_the_same_bytes(workspace: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Engine (a) without a stop; then its first round in (a) and its second in (b): `flwr run` and Ray, on one core.

    In few bits, whose remainders both keep; test_second_task_runs.py has the same of a model that is sent whole.
    """
    whole, mixed = tmp_path / "whole", tmp_path / "mixed"
    sites = ("centre-d", "centre-e", "centre-f")  # three clients are enough
    run_federation(whole, configuration(workspace, whole, "fedmrg-compressed", unseen_sites=sites), progress=False)
    settings = configuration(workspace, mixed, "fedmrg-compressed", unseen_sites=sites)
    run_federation(mixed, settings, stop_after_round=1, progress=False)
    assert not (mixed / "model").exists()
    run_federation(mixed, settings, engine="simulation", progress=False)
    expected, ended = everything(whole), everything(mixed)
    assert ended.keys() == expected.keys()
    assert [path for path, content in expected.items() if ended[path] != content] == []


def test_half_of_the_clients_train(workspace: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Those who have not trained yet validate with initial personal modules, and the model is complete."""
    half = SMALL.model_copy(update={"federation": SMALL.federation.model_copy(update={"participation": 0.4})})
    settings = configuration(workspace, tmp_path).model_copy(update={"profile": half})
    run_federation(tmp_path, settings, stop_after_round=1, progress=False)
    table = pandas.read_csv(tmp_path / "rounds.csv").query("round == 1")
    assert sorted(table.status) == ["not_sampled"] * 3 + ["ok"] * 2
    assert table.validation_loss.notna().all()
    run_federation(tmp_path, settings, progress=False)
    trained = set(pandas.read_csv(tmp_path / "rounds.csv").query("status == 'ok'").client)
    assert {path.stem for path in (tmp_path / "model" / "personal").iterdir()} <= trained


def test_compression_shows_on_the_wire(workspace: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A quarter at most, where the model is tiny and what frames the numbers weighs much."""
    sizes = {}
    for method in ("fedmrg", "fedmrg-compressed"):
        run_federation(tmp_path / method, configuration(workspace, tmp_path / method, method), progress=False)
        ledger = pandas.read_csv(tmp_path / method / "ledger.csv").query("module == 'message'")
        sizes[method] = ledger.groupby("direction").bytes.sum()
    assert (sizes["fedmrg-compressed"] < sizes["fedmrg"] / 4).all()


def test_customised_prompts_run_to_their_end(workspace: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Two rounds: as they are, in few bits, and after a round of alignment, which is not chosen."""
    sites, sent, chosen = ("centre-c", "centre-d", "centre-e", "centre-f"), {}, {}
    rows = {name: f"mrg-llm-prompt-wise{name}" for name in ("", "-compressed", "-aligned")}
    for name, row in rows.items():
        run = tmp_path / row
        run_federation(run, configuration(workspace, run, row, unseen_sites=sites), progress=False)
        ledger = pandas.read_csv(run / "ledger.csv").query("direction == 'up' and phase == 'train'")
        assert {"prompt_wise_book", "prompt_wise_network"} <= set(ledger.module)
        sent[name] = ledger.query("module == 'message'").bytes.sum()
        model = safetensors.torch.load_file(run / "model" / "shared.safetensors")
        assert {key.partition("/")[0] for key in model} == set(load_methods()[row].modules)
        assert model["prompt_wise_network/leave"].any()  # zero at the start
        chosen[name] = json.loads((run / "manifest.json").read_text())["selected_round"]
    assert sent["-compressed"] < sent[""] / 3 and chosen["-aligned"] == 2
    table = pandas.read_csv(tmp_path / rows["-aligned"] / "rounds.csv").set_index("round")
    assert table.loc[1, "train_language"].isna().all() and table.loc[1, "train_alignment"].notna().all()
    assert table.loc[2, "train_language"].notna().all() and table.loc[2, "train_alignment"].isna().all()


def test_another_image_size_is_refused(workspace: pathlib.Path, tmp_path: pathlib.Path) -> None:
    settings = configuration(workspace, tmp_path)
    larger = settings.model_copy(update={"profile": settings.profile.model_copy(update={"image_size": 64})})
    with pytest.raises(InputError, match="images are 32 pixels wide.*image_size 64"):
        run_federation(tmp_path, larger, progress=False)


@pytest.mark.parametrize("missing", ["prepared", "base_models"])
def test_a_missing_folder_is_named_first(missing: str, workspace: pathlib.Path, tmp_path: pathlib.Path) -> None:
    settings = configuration(workspace, tmp_path).model_copy(update={missing: "nowhere"})
    with pytest.raises(InputError, match="nowhere"):
        run_federation(tmp_path, settings, progress=False)
    assert not (tmp_path / "rounds.csv").exists()


def test_an_unknown_setting_is_named(workspace: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="partitions"):
        configuration(workspace, tmp_path, partitions="site")
