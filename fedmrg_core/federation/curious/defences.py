"""What a hospital may do to its update before it leaves: noise, or small messages.

Noise at the hospital, after the update is cut to one length, is local differential privacy of that update [related:
Flower's `LocalDpMod`]. The rule `private` of the server is another thing: there the server sees the update as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedmrg_core.errors import InputError
from fedmrg_core.federation.compression import pack
from fedmrg_core.runs.methods import Payload


@dataclasses.dataclass(frozen=True)
class Defence:
    """One way to send an update.

    Attributes:
        noise: standard deviation of the noise on each number, in lengths to which updates are cut. The attacked update
            is taken to be of that length [ours].
        payload: factors and bits of small messages, see `federation.compression`; what they leave out is not sent
            later.
    """

    noise: float = 0.0
    payload: Payload = Payload()

    def sent(self, update: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """An update as the server sees it.

        Args:
            update: of a model's shared parameters, by key.
            generator: draws the noise.
        """
        if self.payload.compressed:
            nothing = {key: torch.zeros_like(change, device="cpu") for key, change in update.items()}
            received = pack(update, nothing, {}, self.payload).received
            update = {key: received[key].to(change) for key, change in update.items()}
        if self.noise:
            deviation = self.noise * _length(update)
            update = {
                key: change + deviation * torch.randn(change.shape, generator=generator).to(change)
                for key, change in update.items()
            }
        return update

    def epsilon(self, delta: float = 0.01) -> float:
        """Of one update under local differential privacy; infinite without noise.

            rho + 2 sqrt(rho ln 1/delta),  rho = 2 / noise^2        [related: Bun and Steinke 2016]

        Two updates of one length are at most two lengths apart. Each further update costs as much again.

        Args:
            delta: the probability that epsilon does not cover, between 0 and 1.
        """
        if not self.noise:
            return math.inf
        rho = 2 / self.noise**2
        return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def errors(update: Mapping[str, Tensor], sent: Mapping[str, Tensor]) -> dict[str, float]:
    """How far each tensor's numbers are from the update's, root mean square: told the attacker in his favour [ours].

    He knows the noise's deviation, and the scale of every block of small messages. What factors leave out he would
    have to guess.

    Args:
        update: as it was before a defence.
        sent: as the server sees it.

    Returns:
        By key, in the units of the update.
    """
    return {key: (sent[key] - change).square().mean().sqrt().item() for key, change in update.items()}


def _length(update: dict[str, Tensor]) -> float:
    return torch.stack([change.norm() for change in update.values()]).norm().item()


DEFENCES = {
    "none": Defence(),
    "8 bits": Defence(payload=Payload(bits=8)),
    "rank 8, 8 bits": Defence(payload=Payload(rank=8, bits=8)),
    "noise .0001": Defence(noise=1e-4),
    "noise .001": Defence(noise=1e-3),
    "noise .01": Defence(noise=1e-2),
}


def check_defences(names: Sequence[str]) -> None:
    """Raises InputError if one is no key of `DEFENCES`."""
    for unknown in [name for name in names if name not in DEFENCES]:
        raise InputError(f"attack: defence {unknown!r} is unknown; expected one of {', '.join(DEFENCES)}.")
