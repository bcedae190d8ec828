"""What training, inference and adaptation ask of a model that writes reports: the report task's own interface.

The paper's model is one (`report_generator`), those trained whole are others (`tasks.reports.baselines.whole_model`).
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Sequence

import transformers
from torch import Tensor, nn

from fedmrg_core.encoder import VisualEncoder
from fedmrg_core.errors import InputError
from fedmrg_core.prompts import PromptOutput
from fedmrg_core.runs.configuration import Generation
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.tasks.reports.batch import Batch, Contrast
from fedmrg_core.tasks.reports.methods import ReportLosses, ReportMethod
from fedmrg_core.training.trained_model import TrainedModel


@dataclasses.dataclass(frozen=True)
class Prefix:
    """What stands before the report."""

    embeddings: Tensor  # (B, P, D)
    h: Tensor  # (B, D), the projected pooled feature
    prompts: PromptOutput


class ReportModel(TrainedModel, abc.ABC):
    """A model that sees an image and writes a report, in one or several ways (one an adapter).

    Attributes:
        method: its row of methods.yaml.
        encoder: E.
        tokenizer: of the reports.
        feature_width: D of `features`.
        adapters: the ways to write that training trains, the shared one first.
        answers: the ways to write that a finished run is asked for.
    """

    method: ReportMethod
    encoder: VisualEncoder
    tokenizer: transformers.PreTrainedTokenizerBase
    feature_width: int
    # What h is made with; a model trained whole has its projection in its decoder.
    feature_modules = ("encoder", "projection", "decoder")

    @property
    @abc.abstractmethod
    def adapters(self) -> tuple[str, ...]:
        """See the class."""

    @property
    @abc.abstractmethod
    def answers(self) -> tuple[str, ...]:
        """See the class."""

    @property
    def validated(self) -> tuple[str, ...]:
        """The ways to write whose language loss validation measures, those that training measures: its adapters."""
        return self.adapters

    @abc.abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Feature h, (B, D), of the contrast, the prototypes and the feature map; images (B, 1, H, W) in [0, 1]."""

    @abc.abstractmethod
    def prefix(self, images: Tensor, states: Tensor | None = None) -> Prefix:
        """Everything that stands before the report; `states` are the true ones in training, None at inference."""

    @abc.abstractmethod
    def report_logits(self, prefix: Prefix, batch: Batch, adapters: Sequence[str]) -> list[Tensor]:
        """Teacher-forced logits (B, T, vocabulary) of the report, once for each way to write."""

    @abc.abstractmethod
    def loss_terms(
        self, batch: Batch, weights: ReportLosses, disease_weights: Tensor, contrast: Contrast | None
    ) -> dict[str, Tensor]:
        """The unweighted loss terms, keyed as in `weights`; a term of weight zero is not computed.

        The language loss always is, but where the alignment is all there is.

        Args:
            batch: B studies.
            weights: of the terms.
            disease_weights: (14,) p_d of the client.
            contrast: what the batch is compared with; None where nothing is.
        """

    @abc.abstractmethod
    def generate(
        self, images: Tensor, adapter: str, settings: Generation, states: Tensor | None = None
    ) -> tuple[list[str], PromptOutput]:
        """Write reports by beam search.

        Args:
            images: (B, 1, H, W) in [0, 1].
            adapter: one of `answers`.
            settings: beams, lengths and penalties.
            states: (B, 14) to prompt with given states; predicted ones if None.

        Returns:
            B reports, and the prompt source's output.
        """

    def adapter_owner(self, name: str) -> Ownership | None:
        """Who owns an adapter that can be saved; None if there is none of this name."""
        return None

    def save_adapter(self, name: str, folder: pathlib.Path) -> None:
        """Save one adapter as a PEFT folder that opens without this package.

        Raises:
            InputError: the model has no such adapter.
        """
        raise InputError(f"{folder}: method {self.method.name!r} has no {name} to save; its model is trained whole.")

    def batch_features(self, batch: Batch) -> Tensor:
        """Feature h, (B, D)."""
        return self.features(batch.images)

    @contextlib.contextmanager
    def computed_once(self) -> Iterator[None]:
        """See :func:`encoded_once`."""
        with encoded_once(self.encoder):
            yield

    def train_only(self, modules: Collection[str]) -> None:
        """As of any model; an encoder that does not learn is in evaluation as a whole."""
        super().train_only(modules)
        if "encoder" not in modules:
            self.encoder.eval()


@contextlib.contextmanager
def encoded_once(encoder: nn.Module) -> Iterator[None]:
    """Inside, the encoder answers the batch of images that it saw last from memory, gradient included.

    The model contrast needs h of the batch that the loss was computed on: without a second pass, and without counting
    the batch twice in BatchNorm's statistics.
    """
    plain, last = encoder.forward, {}

    def forward(images: Tensor) -> object:
        if last.get("images") is not images:
            last.update(images=images, seen=plain(images))
        return last["seen"]

    encoder.forward = forward
    try:
        yield
    finally:
        del encoder.forward
