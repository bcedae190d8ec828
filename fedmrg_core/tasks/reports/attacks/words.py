"""The words of the reports behind one update of an LLM or of its adapter.

    dL/dW = sum over tokens t of  d_t x(v_t)^T        dL/dA likewise        x(v): what the first layer reads of token v

Of a causal LM with rotary positions, what its first layer's query and value read depends on the token alone, and the
server can compute it for every token of the vocabulary. So the rows of such a gradient are combinations of known
vectors: those of the tokens that were read. Where a whole matrix travels and fewer tokens were read than it has
columns, they are those that lie in the span of its rows [related: DAGER 2024]. The rows of an adapter are too few for
that. There they are found as the group lasso finds them [method ours],

    min over C of  |C X - G|^2 / 2 + w sum over tokens of |C_v| / prior_v

Where A is frozen and B alone travels (FFA-LoRA), rows of dL/dB are combinations of A x(v), which have few dimensions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fedmrg_core.errors import InputError
from fedmrg_core.report_generator import ReportGenerator

ITERATIONS = 400
# Chosen on a run of profile smoke [ours].
LASSO = 0.03  # w, of the smallest weight that finds no token
MOST_ROWS = 32
TOLD_BY_FREQUENCY = 0.1  # power of a token's frequency in other reports, its prior
BEFORE = 0.1  # of all directions, the strongest of what stands before a report: they are left out
ROUNDED = 1e-6  # of the largest singular value: below it is what float32 has rounded


@dataclasses.dataclass(frozen=True)
class Reader:
    """A linear layer whose input depends on the token alone.

    Attributes:
        name: of the layer in the LLM.
        inputs: (V, D), x(v) for every token of the vocabulary.
        before: (P, D), of what stands before a report, as the attacker guesses it.
    """

    name: str
    inputs: Tensor
    before: Tensor


@torch.no_grad()
def find_readers(model: ReportGenerator, prefix: Tensor, layers: Sequence[str]) -> list[Reader]:
    """Those of some layers that read a token alike wherever it stands.

    Args:
        model: its LLM is asked.
        prefix: (P, D), the embeddings before a report, as the attacker guesses them.
        layers: names of linear layers within the LLM.

    Raises:
        InputError: there are none: this attack needs an LLM without learned positions, and an adapter of its first
            layer.
    """
    tokens = model.llm.embed(torch.arange(len(model.tokenizer), device=prefix.device))  # (V, D)
    once = _read(model, tokens[:, None], layers)
    twice = _read(model, tokens[:2][None], layers)  # the second token behind the first
    alike = [name for name in layers if torch.allclose(twice[name][0, 1], once[name][1, 0], atol=1e-5)]
    if not alike:
        raise InputError(
            "attack: no adapted layer of this LLM reads a token alike wherever it stands; expected an adapter on "
            "query, key or value of the first layer, and no learned positions."
        )
    before = _read(model, prefix[None], alike)
    return [Reader(name, once[name][:, 0], before[name][0]) for name in alike]


def _read(model: ReportGenerator, embeddings: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """What layers read, (B, T, D) each, of embeddings (B, T, D)."""
    found: dict[str, Tensor] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: found.update({name: inputs[0].detach()})

    modules = {name: model.llm.peft.get_base_model().get_submodule(name) for name in layers}
    hooks = [module.register_forward_pre_hook(noting(name)) for name, module in modules.items()]
    try:
        mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
        model.llm(embeddings, mask, 1, [model.adapters[0]])
    finally:
        for hook in hooks:
            hook.remove()
    return found


def token_strengths(rows: Tensor, inputs: Tensor, before: Tensor, prior: Tensor) -> Tensor:
    """How strongly each token has part in an update: (V,), zero for most.

    Args:
        rows: (R, D), of the update, such as dL/dA of a layer.
        inputs: (V, D), x(v).
        before: (P, D), whose directions are left out, as what stands there is no word.
        prior: (V,), positive; a token of twice the prior is believed at half the evidence.
    """
    rows, atoms = rows.double(), inputs.double() / inputs.double().norm(dim=1, keepdim=True).clamp(min=1e-12)
    found = torch.linalg.svd(before.double(), full_matrices=False)
    told = found.S > ROUNDED * found.S[0].clamp(min=1e-300)  # of those that are there at all
    others = found.Vh[told][: int(BEFORE * inputs.shape[1])].T
    rows, atoms = _strongest(rows - rows @ others @ others.T), atoms - atoms @ others @ others.T
    atoms = atoms * prior.double()[:, None]
    rows = rows / rows.norm().clamp(min=1e-300)
    weight = LASSO * (rows @ atoms.T).norm(dim=0).max()
    return (_group_lasso(rows, atoms, weight) * prior).float()


def in_the_span(rows: Tensor, inputs: Tensor, error: float = 0.0) -> Tensor | None:
    """How near each token is to the span of an update's rows: (V,), 1 within; None if the rows span everything.

    Args:
        rows: (R, D), of the update of whole matrices.
        inputs: (V, D), x(v).
        error: standard deviation of what a defence has changed in each number; shorter directions are left out.
    """
    found = torch.linalg.svd(rows.double(), full_matrices=False)
    noise = error * sum(math.sqrt(side) for side in rows.shape)  # the largest singular value of such noise
    within = found.Vh[found.S > max(ROUNDED * found.S[0].item(), noise)]
    if len(within) >= inputs.shape[1]:
        return None
    atoms = inputs.double() / inputs.double().norm(dim=1, keepdim=True).clamp(min=1e-12)
    return (atoms @ within.T).norm(dim=1).float()


def _strongest(rows: Tensor) -> Tensor:
    """At most `MOST_ROWS` that say the same: those of the largest singular values."""
    if len(rows) <= MOST_ROWS:
        return rows
    found = torch.linalg.svd(rows, full_matrices=False)
    return found.S[:MOST_ROWS, None] * found.Vh[:MOST_ROWS]


def _group_lasso(rows: Tensor, atoms: Tensor, weight: Tensor) -> Tensor:
    """|C_v| by accelerated proximal gradient steps, (V,)."""
    pace = 1 / torch.linalg.matrix_norm(atoms, 2) ** 2
    found = ahead = torch.zeros(len(rows), len(atoms), dtype=rows.dtype)
    momentum = 1.0
    for _ in range(ITERATIONS):
        moved = ahead - pace * (ahead @ atoms - rows) @ atoms.T
        shrunk = moved * (1 - weight * pace / moved.norm(dim=0).clamp(min=1e-300)).clamp(min=0)
        momentum, last = (1 + math.sqrt(1 + 4 * momentum**2)) / 2, momentum
        found, ahead = shrunk, shrunk + (last - 1) / momentum * (shrunk - found)
    return found.norm(dim=0)
