"""A task that knows nothing of reports (`linear_task`) under the rules, optimiser and state that every task has."""

from __future__ import annotations

import ast
import dataclasses
import pathlib

import pytest
import torch
import yaml
from linear_task import TABLE, WIDTH, LinearMethod, LinearModel, rows_of
from small_model import PROFILE

from fedmrg_core.data.sources import DATA_SOURCES
from fedmrg_core.errors import InputError
from fedmrg_core.federation.tensor_folders import TensorBatches
from fedmrg_core.files.strict_yaml import validated
from fedmrg_core.paths import REPOSITORY
from fedmrg_core.runs import methods
from fedmrg_core.runs import task_registry as tasks
from fedmrg_core.runs.experiments import RunSettings, check_run
from fedmrg_core.runs.methods import ClientRule, Method, Ownership, check_row, load_method, load_methods, method_table
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.training.client_rules import initial_controls, shared_parameters
from fedmrg_core.training.client_state import HospitalState, LocalUpdate
from fedmrg_core.training.client_update import Plan, Turn, first_state, receive, train_alone, train_round
from fedmrg_core.training.trained_model import TrainedModel, parameter_counts

PACKAGE = REPOSITORY / "fedmrg_core"
FREE_OF_REPORTS = (
    "federation/model_task", "federation/tensor_folders", "runs/measures", "runs/methods", "runs/metric_table",
    "evaluation/answers", "evaluation/changes", "evaluation/comparison", "evaluation/evaluate", "evaluation/reference",
    "evaluation/run_sets", "evaluation/seed_variance", "evaluation/stored_runs", "evaluation/table_writers",
    "evaluation/verify", "training/batch_statistics", "training/client_rules", "training/client_state",
    "training/client_update", "training/optimisation", "training/trained_model", "training/training_steps",
)  # fmt: skip


def row(**settings) -> LinearMethod:
    return LinearMethod(name="linear", description="", **settings)


def batches_of(client: str) -> TensorBatches:
    return TensorBatches(rows_of(client), size=4)


def train(model: LinearModel, client: str, shared: dict, state: HospitalState | None, turn: Turn) -> LocalUpdate:
    """A round of a client, as `ModelHospital.train` has it."""
    state = state or first_state(model)
    receive(model, shared, state)
    model.remember_shared()
    return train_round(model, batches_of(client), lambda batch, _: model.loss_terms(batch), shared, state, turn)


def rounds(method: LinearMethod, count: int = 3) -> tuple[list, dict[str, HospitalState]]:
    """Two clients, averaged by hand."""
    model, states, updates = LinearModel(method), {"a": None, "b": None}, []
    shared = {key: tensor.clone() for key, tensor in model.state(Ownership.SHARED).items()}
    shared |= initial_controls(model) if method.client.control_variates else {}
    for number in range(1, count + 1):
        pair = []
        for client in states:
            turn = Turn(client, number, PROFILE, method, seed=0, progress=False)
            pair.append(train(model, client, shared, states[client], turn))
            states[client] = pair[-1].state
        updates.append(pair)
        shared = {key: (pair[0].shared[key] + pair[1].shared[key]) / 2 for key in shared}
    return updates, states


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_it_learns_and_repeats_to_the_byte():
    (first, *_, last), _ = rounds(row(), 4)
    assert last[0].metrics["train_loss"] < first[0].metrics["train_loss"]
    assert set(last[0].metrics) == {"train_cross_entropy", "train_loss"} and last[0].examples == 16
    again, _ = rounds(row(), 4)
    assert same(again[-1][0].shared, last[0].shared) and same(again[-1][0].state.tensors, last[0].state.tensors)


@pytest.mark.parametrize(
    ("rule", "kept", "term"),
    [
        ({"control_variates": True}, "control/classifier/weight", None),
        ({"proximal": 5.0}, None, "train_proximal"),
        ({"moon": 1.0}, "previous/norm/weight", "train_model_contrast"),
    ],
)
def test_the_rules_of_clients_hold_for_it(rule, kept, term):
    plain, _ = rounds(row())
    ruled, states = rounds(row(client=ClientRule(**rule)))
    assert not torch.equal(ruled[-1][0].shared["norm/weight"], plain[-1][0].shared["norm/weight"])
    assert kept is None or kept in states["a"].tensors
    assert term is None or ruled[-1][0].metrics[term] > 0


def test_alternating_trains_personal_then_shared_and_batchnorm_of_what_is_still_stays():
    modules = {"norm": Ownership.PERSONAL, "classifier": Ownership.SHARED}
    method = row(modules=modules, client=ClientRule(alternating=True))
    model = LinearModel(method)
    model.train_only({"classifier"})
    assert model.training and not model.norm.training and model.classifier.training
    model.train_only({"norm"})
    assert model.norm.training
    updates, states = rounds(method)
    assert set(updates[-1][0].shared) == {"classifier/weight", "classifier/bias"}
    assert not torch.equal(states["a"].tensors["personal/norm/weight"], states["b"].tensors["personal/norm/weight"])


def test_statistics_moments_and_what_the_task_keeps_stay_in_the_hospital():
    model, method = LinearModel(row()), row()
    shared = {key: tensor.clone() for key, tensor in model.state(Ownership.SHARED).items()}
    kept = HospitalState({"seen": torch.ones(3)})
    update = train(model, "a", shared, kept, Turn("a", 1, PROFILE, method, 0, progress=False))
    assert torch.equal(update.state.tensors["seen"], torch.ones(3)) and "seen" not in update.shared
    assert "norm/running_mean" in update.state.part("personal")
    assert {key.rpartition("/")[0] for key in update.state.part("optimiser")} == shared_parameters(model).keys()
    assert parameter_counts(model)["shared"] == 2 * WIDTH + 2 * WIDTH + 2


def test_it_goes_on_alone():
    method = row()
    model, rows = LinearModel(method), batches_of("a")
    norm = model.norm.weight.detach().clone()
    plan = Plan(frozenset({"classifier"}), epochs=1, rate=1.0, least_steps=7)
    before = model.loss_terms(rows.batch(range(16)))["cross_entropy"].item()
    train_alone(
        model, rows, lambda batch, indices: model.loss_terms(batch), plan,
        stream=("alone", "a"), profile=PROFILE, method=method, seed=0,
    )  # fmt: skip
    assert torch.equal(model.norm.weight, norm)
    assert model.loss_terms(rows.batch(range(16)))["cross_entropy"].item() < before


def test_a_model_without_features_says_so():
    class Plain(LinearModel):
        feature_modules = ()
        batch_features = TrainedModel.batch_features

    method = row(client=ClientRule(moon=1.0))
    model = Plain(method)
    shared = {key: tensor.clone() for key, tensor in model.state(Ownership.SHARED).items()}
    with pytest.raises(InputError, match=r"method 'linear': client\.moon compares features, and its model has none"):
        train(model, "a", shared, None, Turn("a", 1, PROFILE, method, 0, progress=False))


# ---- its rows ----


@pytest.fixture
def registered(monkeypatch, tmp_path) -> pathlib.Path:
    """The task "rows" with a table of its own, as this package names its tasks."""
    path = tmp_path / "rows.yaml"
    path.write_text("plain: {description: as it is}\nsmooth: {like: plain, smoothing: 0.1, client: {proximal: 0.01}}\n")
    monkeypatch.setattr("linear_task.TABLE", methods.MethodTable(LinearMethod, path))
    monkeypatch.setitem(tasks.METHODS, "rows", "linear_task:TABLE")
    return path


def test_a_task_brings_its_rows(registered):
    rows = load_methods(task="rows")
    assert isinstance(rows["smooth"], LinearMethod) and rows["smooth"].smoothing == 0.1
    assert rows["smooth"].client.proximal == 0.01 and methods.family_of("smooth", task="rows") == "plain"
    assert load_method("smooth", "rows") == rows["smooth"]
    assert set(rows["plain"].model_dump()) & {"prompts", "adapter_kind", "boosting"} == set()


@pytest.mark.parametrize(
    ("content", "clue"),
    [
        ({"prompts": "diagnosis"}, "prompts is unknown; expected name, description"),
        ({"modules": {"encoder": "shared"}}, "encoder"),
        ({"losses": {"language": 1.0}}, "losses.language is unknown; expected cross_entropy"),
        ({"smoothing": 0.1, "modules": {"norm": "shared"}}, "smoothing needs a classifier"),
        ({"client": {"alternating": True}}, "both shared and personal"),
    ],
)
def test_its_fields_are_checked_by_it(registered, content, clue):
    registered.write_text(yaml.safe_dump({"mine": {"description": "", **content}}))
    with pytest.raises(InputError, match=rf"rows\.yaml: method 'mine': .*{clue}"):
        load_methods(task="rows")


def configuration(method: Method, task: str) -> RunConfiguration:
    folders = {"prepared": "nowhere", "base_models": "nowhere"}
    content = {"profile": PROFILE, "method": method, "data": "x", "threads": 1, "task": task, **folders}
    return validated(RunConfiguration, content, "run")


def test_a_row_of_another_task_is_refused_in_one_sentence(registered):
    configuration(load_method("fedmrg"), "reports")
    with pytest.raises(InputError, match=r"^run: method 'linear' is a row of another task than 'reports'; .*methods"):
        configuration(row(), "reports")
    with pytest.raises(InputError, match=r"method 'fedmrg' is a row of another task than 'rows'; expected rows\.yaml"):
        check_row(load_method("fedmrg"), "rows")
    with pytest.raises(InputError, match=r"'smooth' is a row of task 'rows', and the data are for 'reports'; expected"):
        load_method("smooth")
    with pytest.raises(InputError, match=r"'fedmrg' is a row of task 'reports', and the data are for 'rows'"):
        load_method("fedmrg", "rows")
    with pytest.raises(InputError, match="task 'poems' is unknown"):
        load_method("fedmrg", "poems")


def test_data_say_which_task_they_are_for(registered, monkeypatch, tmp_path):
    data = dataclasses.replace(DATA_SOURCES["phantom"], task="rows")
    monkeypatch.setitem(DATA_SOURCES, "phantom", data)
    settings = RunSettings(profile="smoke", data="phantom", method="smooth")
    assert settings.load()[1].smoothing == 0.1
    assert (settings.configuration(tmp_path).task, settings.name) == ("rows", "smoke/phantom/smooth/seed-0")
    with pytest.raises(InputError, match="'fedmrg' is a row of task 'reports', and the data are for 'rows'; expected"):
        check_run(RunSettings(profile="smoke", data="phantom", method="fedmrg"))


def test_a_task_of_another_package_says_which_rows_it_takes(tmp_path, monkeypatch):
    folder = tmp_path / "linear_rows-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: linear-rows\nVersion: 0\n")
    (folder / "entry_points.txt").write_text(
        "[fedmrg.tasks]\nlinear = linear_task:LinearModel\nbare = linear_task:LinearModel\n"
        "gone = linear_task:LinearModel\n[fedmrg.methods]\nlinear = linear_task:TABLE\ngone = linear_task:NOTHING\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert method_table("linear") is TABLE
    assert method_table("bare").row is Method and load_methods(task="bare") == {}
    with pytest.raises(InputError, match="task 'gone': its methods cannot be imported from linear_task:NOTHING"):
        method_table("gone")


def test_modules_of_every_task_know_nothing_of_reports():
    """Neither by a name nor by an import, but for the task that is meant where nothing is said."""
    words = ("report", "image", "diagnosis", "disease", "generic", "finding", "prompt", "encoder")
    for name in FREE_OF_REPORTS:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        told = {found for found in names for word in words if word in found.lower()} - {"REPORTS"}
        assert not told, (name, told)
