"""What a client keeps between rounds, and what its update sends."""

from __future__ import annotations

import dataclasses

from torch import Tensor

# Server controls and client controls travel among the shared tensors under this name, as if it were a module's.
CONTROL = "control"
_PARTS = ("personal", "optimiser", "previous", CONTROL)


@dataclasses.dataclass(frozen=True)
class HospitalState:
    """All that stays in the hospital between rounds: flat tensors, so that safetensors holds it.

    Keys: ``personal/<module>/<name>`` (also the client's BatchNorm statistics of shared modules),
    ``optimiser/<key>/<moment>``, and where the method's rules ask for them ``previous/<key>`` (MOON: the client's last
    local model) and ``control/<key>`` (SCAFFOLD: its control). Every other key is the task's own.
    """

    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix/``, without it."""
        return {k.removeprefix(prefix + "/"): v for k, v in self.tensors.items() if k.startswith(prefix + "/")}

    def of_the_task(self) -> dict[str, Tensor]:
        """What the task keeps for itself; training hands it on as it is."""
        return {key: tensor for key, tensor in self.tensors.items() if key.partition("/")[0] not in _PARTS}


@dataclasses.dataclass(frozen=True)
class LocalUpdate:
    """What one client's update leaves: `shared` and `prototype` travel, `state` stays."""

    shared: dict[str, Tensor]
    prototype: Tensor | None  # (D,) mean feature of the client's examples, mu_k; None where a task or method has none
    state: HospitalState
    examples: int
    metrics: dict[str, float]


def without_controls(shared: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's own tensors among the shared ones."""
    return {key: tensor for key, tensor in shared.items() if not key.startswith(f"{CONTROL}/")}
