"""A synthetic attack on a federation, for measurements on one machine: some of its clients send what harms the model.

It stands in the run's profile and so in config.yaml: `federation.attacking` carries it out, and no other app has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import pydantic

from fedmrg_core.files.strict_yaml import Strict
from fedmrg_core.seeds import numpy_stream

TOLD = {"sign": "sign-flipped updates", "noise": "Gaussian noise", "scale": "scaled updates"}


class Attack(Strict):
    """What dishonest clients send in place of their update.

    sign: the update with its sign flipped; scale: the update itself; noise: normal numbers, in each tensor as large as
    the update's. All of it `strength` times as long as the update. The server's check of lengths refuses an update of
    more than a hundred times the others' median; who attacks knows that, and stays below it [ours].
    """

    kind: Literal["none", "sign", "noise", "scale"] = "none"
    clients: int = pydantic.Field(0, ge=0)  # f, how many of them are dishonest
    strength: float = pydantic.Field(30.0, gt=0)

    @pydantic.model_validator(mode="after")
    def _kind_and_clients_agree(self) -> Attack:
        if (self.kind == "none") != (self.clients == 0):
            raise ValueError(f"kind is {self.kind} and clients is {self.clients}; give both of an attack, or neither")
        return self

    @property
    def planned(self) -> bool:
        """Whether there is one."""
        return self.clients > 0


def attack_notes(attacks: Iterable[Attack]) -> list[str]:
    """A sentence for tables and pictures of runs with these attacks; none where nobody attacks."""
    planned = [attack for attack in attacks if attack.planned]
    if not planned:
        return []
    most, kinds = max(attack.clients for attack in planned), {attack.kind for attack in planned}
    lengths = sorted({attack.strength for attack in planned})
    who = ("up to " if len({attack.clients for attack in planned}) > 1 else "") + f"{most} of the clients"
    what = " or ".join(text for kind, text in TOLD.items() if kind in kinds)
    times = " or ".join(f"{length:g}" for length in lengths)
    return [f"Synthetic attack: {who} sent {what}, {times} times as long as an update."]


def attackers(names: Iterable[str], attack: Attack, seed: int) -> list[str]:
    """Which clients are dishonest: the first of an order that the seed draws, so that one of two is one of one as well.

    Args:
        names: of all clients.
        attack: how many.
        seed: the run's.
    """
    return numpy_stream(seed, "attackers").permutation(sorted(names)).tolist()[: attack.clients]
