"""A model trained whole: the visual encoder, and a decoder in the widest sense that writes the report.

L = L_LM + lambda L_contrast        (the contrast: WCL and DCL only)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import transformers
from torch import Tensor, nn

from fedmrg_core.encoder import VisualEncoder, VisualProjection
from fedmrg_core.prompts import PromptOutput
from fedmrg_core.runs.configuration import Generation, Profile
from fedmrg_core.tasks.reports.baseline_rows import LOSSES, check_method
from fedmrg_core.tasks.reports.baselines.findings_graph import FindingsGraph
from fedmrg_core.tasks.reports.baselines.image_report_contrast import (
    HARDEST,
    ContrastHeads,
    image_report_contrast,
    negative_weights,
)
from fedmrg_core.tasks.reports.baselines.relational_memory import MemoryDrivenDecoder
from fedmrg_core.tasks.reports.baselines.transformer import ImageEncoder, ReportDecoder, Sizes
from fedmrg_core.tasks.reports.batch import Batch, Contrast, language_loss
from fedmrg_core.tasks.reports.methods import ReportLosses, ReportMethod
from fedmrg_core.tasks.reports.report_model import Prefix, ReportModel
from fedmrg_core.training.adapter_names import GENERIC


class WholeDecoder(nn.Module):
    """The module `decoder`: everything from the encoder's tokens to the report.

    Args:
        model: transformer, r2gen, wcl or dcl.
        visual_width: d_v, of the encoder's tokens.
        sizes: of the Transformer.
        tokenizer: of the reports.
    """

    def __init__(
        self, model: str, visual_width: int, sizes: Sizes, tokenizer: transformers.PreTrainedTokenizerBase
    ) -> None:
        super().__init__()
        self.projection = VisualProjection(visual_width, sizes.width)
        self.image = ImageEncoder(sizes)
        self.report = (MemoryDrivenDecoder if model == "r2gen" else ReportDecoder)(sizes, tokenizer)
        self.graph = FindingsGraph(sizes.width, sizes.heads) if model == "dcl" else None
        self.contrast = ContrastHeads(sizes.width) if "image_report_contrast" in LOSSES[model] else None

    def seen(self, tokens: Tensor) -> Tensor:
        """What the report is written from, (B, M, D) or (B, M + 15, D), of the encoder's tokens (B, M, d_v)."""
        image = self.image(inputs_embeds=self.projection(tokens)).last_hidden_state
        return image if self.graph is None else torch.cat([image, self.graph(image)], dim=1)


class WholeModel(ReportModel):
    """A report model without an LLM; it has one way to write, GENERIC.

    Args:
        encoder: E.
        sizes: of the Transformer.
        tokenizer: of the reports, the LLM's own.
        method: which model it is, and who owns `encoder` and `decoder`.
        profile: temperatures and the like.

    Raises:
        InputError: the method asks for prompts, modules or losses that this model does not have.
    """

    adapters: tuple[str, ...] = (GENERIC,)
    answers: tuple[str, ...] = (GENERIC,)

    def __init__(
        self,
        encoder: VisualEncoder,
        sizes: Sizes,
        tokenizer: transformers.PreTrainedTokenizerBase,
        method: ReportMethod,
        profile: Profile,
    ) -> None:
        super().__init__(method)
        check_method(method)
        self.training_settings = profile.training
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.feature_width = sizes.width
        self.decoder = WholeDecoder(method.model, encoder.width, sizes, tokenizer)
        self.settle_ownership()

    def features(self, images: Tensor) -> Tensor:
        """Feature h, (B, D): the encoder's pooled feature at the decoder's width."""
        return self.decoder.projection(self.encoder(images).pooled)

    def prefix(self, images: Tensor, states: Tensor | None = None) -> Prefix:
        """What the report is written from; no prompts, so `states` are not looked at."""
        found = self.encoder(images)
        seen = self.decoder.seen(found.tokens)
        return Prefix(seen, self.decoder.projection(found.pooled), PromptOutput(seen[:, :0], {}))

    def report_logits(self, prefix: Prefix, batch: Batch, adapters: Sequence[str]) -> list[Tensor]:
        """Teacher-forced logits (B, T, vocabulary) of the report, once for each name in `adapters`."""
        return [self.decoder.report.logits(prefix.embeddings, batch.report_ids)] * len(adapters)

    def loss_terms(
        self, batch: Batch, weights: ReportLosses, disease_weights: Tensor, contrast: Contrast | None
    ) -> dict[str, Tensor]:
        """The unweighted loss terms, see :meth:`ReportModel.loss_terms`."""
        prefix = self.prefix(batch.images)
        logits = self.report_logits(prefix, batch, self.adapters)[0]
        terms = {"language": language_loss(logits, batch.report_ids, batch.report_mask)}
        if weights.image_report_contrast:
            heads = self.decoder.contrast
            terms["image_report_contrast"] = image_report_contrast(
                heads.image(prefix.embeddings.mean(dim=1)),
                heads.report(self.decoder.report.read(batch.report_ids, batch.report_mask)),
                negative_weights(batch.states, batch.report_ids, HARDEST if self.method.model == "wcl" else 1.0),
                self.training_settings.contrast_temperature,
            )
        return terms

    @torch.no_grad()
    def generate(
        self, images: Tensor, adapter: str, settings: Generation, states: Tensor | None = None
    ) -> tuple[list[str], PromptOutput]:
        """Write reports by beam search; GENERIC is the only way, and `states` are not looked at."""
        prefix = self.prefix(images)
        ids = self.decoder.report.write(prefix.embeddings, settings)
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts], prefix.prompts
