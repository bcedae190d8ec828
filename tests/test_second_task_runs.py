"""The task of `linear_task` through all that serves every task: federation, rules, references, verify, tables."""

from __future__ import annotations

import pathlib

import pytest
from federation_fake import everything
from linear_task import CLIENTS, LinearHospital, LinearMethod

from fedmrg_core.federation.run import run_federation
from fedmrg_core.federation.task import forget_tasks
from fedmrg_core.paths import REPOSITORY
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.runs.methods import ClientRule, Ownership, Payload, ServerRule
from fedmrg_core.runs.run_configuration import RunConfiguration

PERSONAL_NORM = {"norm": Ownership.PERSONAL, "classifier": Ownership.SHARED}
ROWS = {
    "plain": {},
    "scaffold": {"client": ClientRule(control_variates=True)},
    "fedadam": {"server": ServerRule(rule="fedadam", learning_rate=0.01)},
    "compressed": {"payload": Payload(rank=1, bits=8)},
    "fedrep": {"modules": PERSONAL_NORM, "client": ClientRule(alternating=True)},
    "moon": {"client": ClientRule(moon=1.0)},
    "tuned": {"client": ClientRule(fine_tuning_epochs=2)},
}


def configuration(name: str = "plain", seed: int = 0, rounds: int = 3) -> RunConfiguration:
    profile = load_profile("smoke")
    profile = profile.model_copy(update={"federation": profile.federation.model_copy(update={"rounds": rounds})})
    return RunConfiguration(
        profile=profile, method=LinearMethod(name=name, description="", **ROWS[name]), data="rows", task="linear",
        prepared="nowhere", base_models="nowhere", seed=seed, threads=1,
    )  # fmt: skip


def run(folder: pathlib.Path, *given: object, **options: object) -> dict[str, bytes]:
    run_federation(folder, configuration(*given), progress=False, **options)
    return everything(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Every row of `ROWS`, undisturbed in one process."""
    folder = tmp_path_factory.mktemp("finished")
    return {name: run(folder / name, name, test=True) for name in ROWS}


def test_the_task_is_small():
    assert len((REPOSITORY / "tests" / "linear_task.py").read_text().splitlines()) <= 100


def test_each_row_is_another_run_and_hospitals_test_themselves(finished):
    models = {name: files["model/shared.safetensors"] for name, files in finished.items()}
    assert len({*models.values()}) >= len(ROWS) - 1  # fine-tuning alone leaves the shared model as it is
    for files in finished.values():
        assert {f"model/personal/{client}.safetensors" for client in CLIENTS} <= files.keys()
        lines = files["hospital_tests.csv"].decode().splitlines()
        assert len(lines) == 1 + len(CLIENTS) and lines[1].startswith("a,accuracy,") and lines[1].endswith(",48")
    sizes = {name: len(files["checkpoint/round-0003/shared.safetensors"]) for name, files in finished.items()}
    assert sizes["scaffold"] > sizes["plain"] > sizes["fedrep"]


@pytest.mark.parametrize("name", ["plain", "scaffold", "compressed"])
def test_side_by_side_it_ends_with_the_same_bytes(name, finished, tmp_path):
    assert run(tmp_path, name, workers=2, test=True) == finished[name]


@pytest.mark.parametrize("name", ROWS)
def test_killed_and_taken_up_again_it_ends_with_the_same_bytes(name, finished, tmp_path, monkeypatch):
    """Once while the second client trains in round 2, once in a process that has forgotten everything."""
    original, calls = LinearHospital.train, []

    def then_die(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LinearHospital, "train", then_die)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, name)
    forget_tasks()
    run(tmp_path, name, stop_after_round=2)
    assert run(tmp_path, name, test=True) == finished[name]


def test_under_flwr_run_it_ends_with_the_same_bytes(finished, tmp_path):
    run(tmp_path, "scaffold", stop_after_round=1)
    assert run(tmp_path, "scaffold", engine="simulation", test=True) == finished["scaffold"]
