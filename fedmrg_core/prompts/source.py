"""What a prompt source is, and how a row of methods.yaml finds one by its name."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

import transformers
from torch import Tensor, nn

from fedmrg_core.errors import InputError
from fedmrg_core.files.strict_yaml import Strict

if TYPE_CHECKING:
    from fedmrg_core.runs.configuration import Training
    from fedmrg_core.tasks.reports.batch import Batch
    from fedmrg_core.tasks.reports.methods import ReportMethod

GROUP = "fedmrg.prompts"


class PromptSettings(Strict):
    """A source's own numbers, `prompt_settings` of a row; this one has none."""


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """The model that a source makes prompts for."""

    visual_width: int  # d_v, of the encoder's pooled feature
    width: int  # D, of the embeddings that the LLM reads
    scale: float  # the spread (standard deviation) of those embeddings
    tokenizer: transformers.PreTrainedTokenizerBase
    embed: Callable[[Tensor], Tensor]  # token ids (T,) to the frozen LLM's embeddings (T, D)


@dataclasses.dataclass(frozen=True)
class PromptOutput:
    """Prompt tokens and whatever else a source computed on the way."""

    prompts: Tensor  # (B, N, D)
    auxiliary: dict[str, Tensor]
    parts: tuple[PromptOutput, ...] = ()  # of joined sources, in their order


@dataclasses.dataclass(frozen=True)
class SeenReports:
    """What a source's losses may look at, beside its own output."""

    batch: Batch
    disease_weights: Tensor  # (14,) p_d of the client
    settings: Training


class PromptSource(nn.Module, abc.ABC):
    """The interface (contract 2) that all three papers' prompts share.

    Attributes:
        own_modules: the modules of a row that it brings, each with the name of the attribute that holds it.
        encoder_paced: those of them that learn at the encoder's pace; the others learn at the adapters'.
        own_losses: terms of its own; their weights stand in the row's `losses`, each zero unless said.
        settings_type: its own numbers.
        count: N, prompt tokens an image.
    """

    own_modules: ClassVar[Mapping[str, str]] = {}
    encoder_paced: ClassVar[frozenset[str]] = frozenset()
    own_losses: ClassVar[tuple[str, ...]] = ()
    settings_type: ClassVar[type[PromptSettings]] = PromptSettings
    count: int

    @classmethod
    @abc.abstractmethod
    def build(cls, row: ReportMethod, settings: PromptSettings, model: Surroundings) -> Self:
        """Make the source for a model.

        Args:
            row: that asks for it, as `row.prompts`: a class may stand under several names.
            settings: the row's `prompt_settings`, of `settings_type`.
            model: widths, tokenizer and embeddings of the model.
        """

    @abc.abstractmethod
    def forward(self, tokens: Tensor, pooled: Tensor, states: Tensor | None = None) -> PromptOutput:
        """Make prompts.

        Args:
            tokens: (B, M, D) image tokens at the LLM's width.
            pooled: (B, d_v) pooled feature of the encoder.
            states: (B, 14) true states in training; None at inference. Sources without diagnoses ignore them.
        """

    def loss_terms(self, output: PromptOutput, seen: SeenReports) -> dict[str, Tensor]:
        """Its losses, unweighted scalars by name; called when one of them has a weight."""
        return {}

    def part(self, module: str) -> nn.Module:
        """What holds the tensors of one of its modules."""
        return getattr(self, self.own_modules[module])


_SOURCES: dict[str, type[PromptSource]] = {}
Source = TypeVar("Source", bound=type[PromptSource])


def prompt_source(*names: str) -> Callable[[Source], Source]:
    """Put a class under the names by which rows of methods.yaml ask for it."""

    def register(source: Source) -> Source:
        _SOURCES.update(dict.fromkeys(names, source))
        return source

    return register


def one_source(name: str) -> type[PromptSource]:
    """The class that stands under a name: of this package, or of another one that has an entry point for it.

    Raises:
        InputError: no source has this name, or its file cannot be imported.
    """
    if name not in _SOURCES:
        place = _place_of(name)
        try:
            if place is not None:
                importlib.import_module(place)
        except (ImportError, SyntaxError) as error:
            raise InputError(f"prompt source {name!r} cannot be imported from {place} ({error}).") from error
    if name not in _SOURCES:
        known = ", ".join(sorted(_known_names()))
        raise InputError(f"prompt source {name!r} is unknown; expected one of {known}, or several joined by +.")
    return _SOURCES[name]


def _known_names() -> set[str]:
    """Every name that a row may ask for; a file that cannot be imported brings none."""
    folder = sys.modules[__package__].__path__
    for found in pkgutil.iter_modules(folder):
        with contextlib.suppress(ImportError, SyntaxError):
            importlib.import_module(f"{__package__}.{found.name}")
    return {*_SOURCES, *(entry.name for entry in importlib.metadata.entry_points(group=GROUP))}


def _place_of(name: str) -> str | None:
    """The module that should register the name; None if there is none."""
    for entry in importlib.metadata.entry_points(group=GROUP, name=name):
        return entry.module
    own = f"{__package__}.{name.replace('-', '_')}"
    return own if name.replace("-", "_").isidentifier() and importlib.util.find_spec(own) else None


@prompt_source("none")
class NoPrompts(PromptSource):
    """No prompt tokens: the LLM sees the image tokens only."""

    count = 0

    @classmethod
    def build(cls, row: ReportMethod, settings: PromptSettings, model: Surroundings) -> Self:
        """There is nothing to set."""
        return cls()

    def forward(self, tokens: Tensor, pooled: Tensor, states: Tensor | None = None) -> PromptOutput:
        """Return (B, 0, D) prompts."""
        return PromptOutput(tokens[:, :0], {})
