"""Who uses a model uses what its interface declares: seen in the code, and by a model that hides the rest."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from small_model import PROFILE, small_model, small_studies

from fedmrg_core.paths import REPOSITORY
from fedmrg_core.runs.methods import Ownership, load_method
from fedmrg_core.tasks.reports.fine_tuning import train_alone
from fedmrg_core.tasks.reports.inference import image_features, state_probabilities, write_reports
from fedmrg_core.tasks.reports.local_training import train_client, validate_client
from fedmrg_core.tasks.reports.report_model import ReportModel
from fedmrg_core.training.client_rules import initial_controls
from fedmrg_core.training.client_update import fine_tuned
from fedmrg_core.training.trained_model import TrainedModel, parameter_counts

INTERFACES = {"TrainedModel": TrainedModel, "ReportModel": ReportModel}
# Those that make a model, or are one: they know which.
IMPLEMENTATIONS = {"report_generator.py", "baselines/whole_model.py", "report_model.py", "trained_model.py"}


def declared(interface: type[TrainedModel]) -> set[str]:
    """Names that the interface has, by definition or by annotation, and what every module of torch has."""
    annotated = {name for each in interface.__mro__ for name in each.__dict__.get("__annotations__", {})}
    return {name for name in {*dir(interface), *annotated} if not name.startswith("__")}


def uses(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """Interface, attribute and line of every use of an argument that is typed as a model, or of what one is kept as."""
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef | ast.ClassDef):
            continue
        functions = [scope] if isinstance(scope, ast.FunctionDef) else [f for f in scope.body if _is_maker(f)]
        for function in functions:
            typed = {
                argument.arg: argument.annotation.id
                for argument in (*function.args.args, *function.args.kwonlyargs)
                if isinstance(argument.annotation, ast.Name) and argument.annotation.id in INTERFACES
            }
            for node in ast.walk(scope):
                if not isinstance(node, ast.Attribute):
                    continue
                owner = node.value
                kept = isinstance(owner, ast.Attribute) and ast.unparse(owner.value) == "self" and owner.attr
                name = owner.id if isinstance(owner, ast.Name) and scope is function else kept
                if name in typed:
                    yield typed[name], node.attr, node.lineno


def _is_maker(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"


MODELS_OF_RUNS = ("run.model", "task.model", "self.task.model", "hospital.model")


def of_runs(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """The same for the model of a run of reports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in (
            "run.model",
            "task.model",
            "self.task.model",
            "hospital.model",
        ):
            yield "ReportModel", node.attr, node.lineno


def test_callers_use_nothing_undeclared():
    found = 0
    for path in sorted((REPOSITORY / "fedmrg_core").rglob("*.py")):
        name = path.relative_to(REPOSITORY / "fedmrg_core").as_posix()
        if name in IMPLEMENTATIONS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for interface, attribute, line in (*uses(tree), *of_runs(tree)):
            found += 1
            assert attribute in declared(INTERFACES[interface]), f"{name}:{line} {attribute} is not in {interface}"
    assert found > 50


def test_a_use_that_is_not_declared_is_found():
    source = "def f(model: ReportModel):\n    model.features(1)\n    model.llm\nclass A:\n"
    source += "    def __init__(self, model: TrainedModel):\n        self.model = model\n"
    source += "    def g(self):\n        return self.model.tokenizer\n"
    seen = [(attribute, attribute in declared(INTERFACES[kind])) for kind, attribute, _ in uses(ast.parse(source))]
    assert sorted(seen) == [("features", True), ("llm", False), ("tokenizer", False)]


class Hiding:
    """A model that shows what the interface declares."""

    def __init__(self, model: ReportModel) -> None:
        self._shown = model

    def __getattribute__(self, name: str):
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        assert name in declared(ReportModel), f"{name} is not declared"
        return getattr(object.__getattribute__(self, "_shown"), name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("base") / "models"


@pytest.mark.parametrize("name", ["fedmrg", "moon", "scaffold", "feddat", "dcl"])
def test_training_validation_and_writing_ask_for_what_is_declared(folder, name):
    method = load_method(name)
    model, studies = Hiding(small_model(folder, method)), small_studies(6)
    studies.study_ids = [str(number) for number in range(6)]
    shared = {key: tensor.clone() for key, tensor in model.state(Ownership.SHARED).items()}
    shared |= initial_controls(model) if method.client.control_variates else {}
    state, settings = None, {"client": "a", "profile": PROFILE, "method": method}
    for number in (1, 2):
        update = train_client(
            model, studies, shared, state, {}, round_number=number, seed=0, progress=False, **settings
        )
        shared, state = update.shared, update.state
    validate_client(model, studies, shared, state, **settings)
    for answer in model.answers[:1]:
        assert len(write_reports(model, studies, answer, PROFILE.generation)) == 6
    assert len(image_features(model, studies)) == 6 and parameter_counts(model)["total"] > 0
    if "diagnosis_head" in method.modules:
        assert state_probabilities(model, studies).shape == (6, 14, 4)
    start = {**model.state(Ownership.SHARED), **model.state(Ownership.PERSONAL)}
    alone = {"stream": ("fine-tuning", "a"), "profile": PROFILE, "method": method, "seed": 0}
    fine_tuned(model, start, 1, lambda plan: train_alone(model, studies, plan, **alone))
    with pytest.raises(AssertionError, match="llm is not declared"):
        model.llm  # noqa: B018
