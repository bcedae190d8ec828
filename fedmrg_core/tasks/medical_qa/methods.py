"""The rows of medical question answering: who owns which adapter, and what trains it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pydantic

from fedmrg_core.paths import REPOSITORY
from fedmrg_core.runs.methods import Losses, Method, MethodTable, Ownership

if TYPE_CHECKING:
    from fedmrg_core.runs.configuration import Training

FACTORS = {"generic_adapter_a", "generic_adapter_b"}
Module = Literal["generic_adapter", "generic_adapter_a", "generic_adapter_b", "specialised_adapter"]


class QuestionLosses(Losses):
    """Weights of the loss terms; zero switches a term off."""

    language: float = pydantic.Field(1.0, gt=0)  # of the answers' tokens, summed over the adapters
    generic_to_specialised: float = pydantic.Field(0.0, ge=0)  # mutual boosting, as in the report generator
    specialised_to_generic: float = pydantic.Field(0.0, ge=0)


class QuestionMethod(Method):
    """One row of methods_medical_qa.yaml."""

    modules: dict[Module, Ownership]
    losses: QuestionLosses = QuestionLosses()

    misfits = {
        "generic_adapter_a and _b come together, in place of generic_adapter": lambda row, has: (
            bool(has & FACTORS) and (not has >= FACTORS or "generic_adapter" in has)
        ),
        "modules must hold generic_adapter, or its factors": lambda row, has: (
            "generic_adapter" not in has and not has & FACTORS
        ),
        "mutual boosting needs both generic_adapter and specialised_adapter": lambda row, has: (
            "specialised_adapter" not in has
            and (row.losses.generic_to_specialised > 0 or row.losses.specialised_to_generic > 0)
        ),
        "server.rule exact-lora needs a shared generic_adapter": lambda row, has: (
            row.server.rule == "exact-lora" and row.modules.get("generic_adapter") is not Ownership.SHARED
        ),
        **Method.misfits,
    }

    def pace_of(self, module: str, settings: Training) -> float:
        """Every module is an adapter."""
        return settings.adapter_learning_rate


TABLE = MethodTable(QuestionMethod, REPOSITORY / "methods_medical_qa.yaml")
