"""The rows of visual prompts: what is trained beside, or in place of, a frozen vision model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pydantic

from fedmrg_core.paths import REPOSITORY
from fedmrg_core.runs.methods import Losses, Method, MethodTable, Ownership

if TYPE_CHECKING:
    from fedmrg_core.runs.configuration import Training

# global_prompt: P_g; with generator P(x), by itself static prompts. head: of classes, or SAM's mask decoder.
# backbone: the vision model, trained whole. adapter: LoRA in it. network: a small convolutional one in place of all.
Module = Literal["global_prompt", "generator", "head", "backbone", "adapter", "network"]


class PictureLosses(Losses):
    """Weights of the loss terms."""

    cross_entropy: float = pydantic.Field(1.0, gt=0)  # of classes, or of a mask's pixels
    dice: float = pydantic.Field(1.0, ge=0)  # of masks


class PictureMethod(Method):
    """One row of methods_visual_prompts.yaml."""

    modules: dict[Module, Ownership]
    losses: PictureLosses = PictureLosses()
    # Of the profile's learning rate, the share that every module of this row learns at.
    pace: float = pydantic.Field(1.0, gt=0)

    misfits = {
        "modules must hold head, or network in place of all others": lambda row, has: (
            (has != {"network"}) and ("head" not in has or "network" in has)
        ),
        "a generator needs global_prompt": lambda row, has: "generator" in has and "global_prompt" not in has,
        "adapter goes into a frozen backbone: leave one of them out": lambda row, has: has >= {"adapter", "backbone"},
        "client.moon compares features, and this task's models have none": lambda row, has: row.client.moon > 0,
        "server.rule exact-lora needs a shared adapter": lambda row, has: (
            row.server.rule == "exact-lora" and row.modules.get("adapter") is not Ownership.SHARED
        ),
        **Method.misfits,
    }

    def pace_of(self, module: str, settings: Training) -> float:
        """One pace for all modules of a row."""
        return self.pace * settings.learning_rate


TABLE = MethodTable(PictureMethod, REPOSITORY / "methods_visual_prompts.yaml")
