"""Runs of the task of `linear_task`: rows of methods, and a configuration of each."""

from __future__ import annotations

import pathlib

from federation_fake import everything
from linear_task import LinearMethod

from fedmrg_core.federation.run import run_federation
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
    changes = {"federation": {"rounds": rounds}, "training": {"learning_rate": 0.05}}
    sections = {name: getattr(profile, name).model_copy(update=change) for name, change in changes.items()}
    method = LinearMethod(name=name, description="", **ROWS[name])
    return RunConfiguration(
        profile=profile.model_copy(update=sections), method=method, data="rows", task="linear",
        prepared="nowhere", base_models="nowhere", seed=seed, threads=1,
    )  # fmt: skip


def run(folder: pathlib.Path, *given: object, **options: object) -> dict[str, bytes]:
    run_federation(folder, configuration(*given), progress=False, **options)
    return everything(folder)
