"""Which source a row's name stands for: one, or several joined by "+", such as ``diagnosis+prompt-wise`` [ours].

Joined sources stand behind each other before the LLM. Each keeps its modules, its losses and what it computes. A
number of `prompt_settings` that several know holds for each of them.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn

from fedmrg_core.errors import InputError
from fedmrg_core.prompts.source import (
    NoPrompts,
    PromptOutput,
    PromptSettings,
    PromptSource,
    SeenReports,
    Surroundings,
    one_source,
)

if TYPE_CHECKING:
    from fedmrg_core.tasks.reports.methods import ReportMethod

JOIN = "+"


def source_named(name: str) -> type[PromptSource]:
    """The class that a row's `prompts` stands for.

    Raises:
        InputError: no source has this name or one of its parts', a file cannot be imported, or parts do not go
            together.
    """
    return joined_source(name) if JOIN in name else one_source(name)


class JoinedPrompts(PromptSource):
    """Several sources behind each other; `joined_source` makes a class of it for each choice of them.

    Attributes:
        names: of its parts, in their order.

    Args:
        parts: the sources.
    """

    names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def build(cls, row: ReportMethod, settings: PromptSettings, model: Surroundings) -> Self:
        """Every part as if it stood alone, with those of the numbers that are given and that it knows."""
        given, parts = settings.model_dump(exclude_unset=True), []
        for name in cls.names:
            source = one_source(name)
            known = {key: value for key, value in given.items() if key in source.settings_type.model_fields}
            numbers = source.settings_type.model_validate(known)
            parts.append(source.build(row.model_copy(update={"prompts": name}), numbers, model))
        return cls(parts)

    def __init__(self, parts: Sequence[PromptSource]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.count = sum(part.count for part in parts)

    def forward(self, tokens: Tensor, pooled: Tensor, states: Tensor | None = None) -> PromptOutput:
        """Return all parts' prompts in their order, and what they computed by name.

        A name that two parts use is the first's; each part's own output stands in `parts`.
        """
        outputs = tuple(part(tokens, pooled, states) for part in self.parts)
        auxiliary = {key: value for output in reversed(outputs) for key, value in output.auxiliary.items()}
        return PromptOutput(torch.cat([output.prompts for output in outputs], dim=1), auxiliary, outputs)

    def loss_terms(self, output: PromptOutput, seen: SeenReports) -> dict[str, Tensor]:
        """All parts' losses, each of its own output."""
        pairs = zip(self.parts, output.parts, strict=True)
        return {name: value for part, own in pairs for name, value in part.loss_terms(own, seen).items()}

    def part(self, module: str) -> nn.Module:
        """What holds the tensors of a module of one of its parts."""
        return next(part.part(module) for part in self.parts if module in part.own_modules)


@functools.cache
def joined_source(name: str) -> type[JoinedPrompts]:
    """The class of sources joined by "+".

    Raises:
        InputError: a part is unknown, joined with itself, makes no prompts, or brings what another brings.
    """
    names = tuple(name.split(JOIN))
    twice = [part for part, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{name} joins {twice[0]} with itself; expected each source once.")
    sources = [one_source(part) for part in names]
    if NoPrompts in sources:
        raise InputError(f"{name} joins a source with none, which has no prompts; expected the other alone.")
    for kind, brought in (("module", "own_modules"), ("loss", "own_losses")):
        counts = Counter(each for source in sources for each in getattr(source, brought))
        if both := [each for each, count in counts.items() if count > 1]:
            raise InputError(f"{name} joins two sources that both bring the {kind} {both[0]}; expected one of them.")
    content = {
        "__module__": __name__,
        "names": names,
        "own_modules": {module: held for source in sources for module, held in source.own_modules.items()},
        "encoder_paced": frozenset().union(*(source.encoder_paced for source in sources)),
        "own_losses": tuple(loss for source in sources for loss in source.own_losses),
        "settings_type": _settings_of(sources),
    }
    return type("JoinedPrompts", (JoinedPrompts,), content)


def _settings_of(sources: Sequence[type[PromptSource]]) -> type[PromptSettings]:
    """The numbers that any of the sources knows."""
    kinds = list(dict.fromkeys(source.settings_type for source in sources))
    # A kind that another is built on says nothing of its own, and Python refuses it before that one.
    kinds = [kind for kind in kinds if not any(other is not kind and issubclass(other, kind) for other in kinds)]
    return kinds[0] if len(kinds) == 1 else type("JoinedSettings", tuple(kinds), {"__module__": __name__})
