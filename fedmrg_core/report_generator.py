"""The report generator: encoder, prompt source and adapted LLM in one model, its loss and its decoding.

The LLM reads  <s> V prompts "Findings:" report </s>  with V = P(E(x)) the image tokens and one prompt token a finding,
or the prompts of another source (MRG-LLM's customised ones, see `prompts`).

    L = L_LM(generic) + L_LM(specialised) + 8 L_cls + lambda_rep (L_inter + L_intra) + lambda_kd (L_g2l + L_l2g)

8 is PromptMRG's 4 [related] for each language loss [ours]. Each term stands in the file of its part; here they are only
weighted and added [form ours, terms: paper/secondary].
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import torch
import transformers
from torch import Tensor

from fedmrg_core.adapters import AdaptedLLM, mutual_boosting
from fedmrg_core.contrast import inter_client_contrast, intra_client_contrast
from fedmrg_core.encoder import VisualEncoder, VisualProjection
from fedmrg_core.prompts import PromptOutput, SeenReports, Surroundings
from fedmrg_core.runs.configuration import Generation, Profile
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.tasks.reports.baselines.image_report_contrast import image_report_contrast, negative_weights
from fedmrg_core.tasks.reports.batch import INSTRUCTION, Batch, Contrast, language_loss
from fedmrg_core.tasks.reports.methods import ReportLosses, ReportMethod
from fedmrg_core.tasks.reports.report_model import Prefix, ReportModel
from fedmrg_core.training.adapter_names import BOTH, GENERIC, MIXTURE, adapter_of, adapter_owner, adapters_made_of


class ReportGenerator(ReportModel):
    """Composes the three parts of FedMRG for any Hugging Face vision backbone and causal LM.

    Args:
        encoder: E.
        llm: the frozen causal LM, before any adapter is added.
        tokenizer: the LLM's tokenizer.
        method: which modules exist and who owns them.
        profile: sizes of the adapters, temperatures.
    """

    def __init__(
        self,
        encoder: VisualEncoder,
        llm: transformers.PreTrainedModel,
        tokenizer: transformers.PreTrainedTokenizerBase,
        method: ReportMethod,
        profile: Profile,
    ) -> None:
        super().__init__(method)
        self.training_settings = profile.training
        self.tokenizer = tokenizer
        adapter = profile.adapter
        self.llm = AdaptedLLM(
            llm,
            adapters_made_of(method.modules),
            adapter.rank,
            adapter.alpha,
            adapter.target_modules,
            kind=method.adapter_kind,
            settings=method.adapter_settings,
            copied=method.boosting == "feddat",
        )
        self.encoder = encoder
        scale = self.llm.embedding_scale()
        self.projection = VisualProjection(encoder.width, self.llm.width, scale)
        self.feature_width = self.llm.width
        surroundings = Surroundings(encoder.width, self.llm.width, scale, tokenizer, self.llm.embed)
        self.prompt_source = method.prompt_type.build(method, method.prompt_numbers(), surroundings)
        instruction = tokenizer(INSTRUCTION, add_special_tokens=False).input_ids
        self.register_buffer("instruction_ids", torch.tensor(instruction), persistent=False)
        self.settle_ownership()

    # ---- parts and their owners ----

    @property
    def adapters(self) -> tuple[str, ...]:
        """The adapters this method trains, generic first; GENERIC alone if it has none."""
        return self.llm.names

    @property
    def answers(self) -> tuple[str, ...]:
        """The ways to write a report, see :attr:`AdaptedLLM.answers`."""
        return self.llm.answers

    @property
    def validated(self) -> tuple[str, ...]:
        """See :attr:`ReportModel.validated`; FedDAT trains no specialised adapter alone, but the mixture."""
        return (GENERIC, BOTH) if self.method.boosting == "feddat" else self.adapters

    def tensors_of(self, module: str) -> dict[str, Tensor]:
        """Parameters and floating-point buffers (BatchNorm statistics) of one module of its row."""
        if adapter_of(module):
            return dict(self.llm.tensors_of(module))
        own = {"encoder": self.encoder, "projection": self.projection}
        part = own[module] if module in own else self.prompt_source.part(module)
        buffers = {name: buffer for name, buffer in part.named_buffers() if buffer.is_floating_point()}
        return {**dict(part.named_parameters()), **buffers}

    def save_adapter(self, name: str, folder: pathlib.Path) -> None:
        """Save one adapter as a PEFT folder that opens without this package.

        Raises:
            InputError: the method has no such adapter.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.llm.save(name, folder)

    def adapter_owner(self, name: str) -> Ownership | None:
        """Who owns an adapter: personal if a part of it is, else shared if a part is; None if there is none."""
        return adapter_owner(name, self.ownership)

    def remember_shared(self) -> None:
        """See :meth:`AdaptedLLM.remember_shared`: FedDAT's copy, AdaLoRA's importances."""
        self.llm.remember_shared()

    def after_step(self, progress: float) -> None:
        """See :meth:`AdaptedLLM.after_step`: AdaLoRA's budget of ranks."""
        self.llm.after_step(progress)

    # ---- forward ----

    def features(self, images: Tensor) -> Tensor:
        """Feature h = P(z), (B, D), of the contrast, the prototypes and the feature map."""
        return self.projection(self.encoder(images).pooled)

    def prefix(self, images: Tensor, states: Tensor | None = None) -> Prefix:
        """Everything the LLM reads before the report; `states` are the true ones in training, None at inference."""
        seen = self.encoder(images)
        tokens = self.projection(seen.tokens)  # (B, M, D)
        prompts = self.prompt_source(tokens, seen.pooled, states)
        first = torch.tensor([self.tokenizer.bos_token_id], device=images.device)
        start, instruction = (self.llm.embed(ids).expand(len(images), -1, -1) for ids in (first, self.instruction_ids))
        embeddings = torch.cat([start, tokens, prompts.prompts, instruction], dim=1)  # (B, P, D)
        return Prefix(embeddings, self.projection(seen.pooled), prompts)

    def prefix_length(self, image_tokens: int) -> int:
        """Positions that are taken before a report, virtual tokens of the adapter among them."""
        return 1 + image_tokens + self.prompt_source.count + len(self.instruction_ids) + self.llm.virtual_tokens

    def report_logits(self, prefix: Prefix, batch: Batch, adapters: Sequence[str]) -> list[Tensor]:
        """Teacher-forced logits (B, T, vocabulary) of the report under each adapter."""
        report = self.llm.embed(batch.report_ids[:, :-1])
        embeddings = torch.cat([prefix.embeddings, report], dim=1)  # (B, P + T - 1, D)
        before = batch.report_mask.new_ones(prefix.embeddings.shape[:2])
        mask = torch.cat([before, batch.report_mask[:, :-1]], dim=1).long()
        return self.llm(embeddings, mask, batch.report_ids.shape[1], adapters)

    def loss_terms(
        self, batch: Batch, weights: ReportLosses, disease_weights: Tensor, contrast: Contrast | None
    ) -> dict[str, Tensor]:
        """The unweighted loss terms, see :meth:`ReportModel.loss_terms`."""
        if weights.alignment and not weights.language:  # a stage of its own: no report is written
            return {"alignment": self.alignment(batch, self.features(batch.images))}
        settings = self.training_settings
        prefix = self.prefix(batch.images, batch.states)
        read = (GENERIC, MIXTURE) if self.method.boosting == "feddat" else self.adapters
        logits = self.report_logits(prefix, batch, read)
        terms = {"language": sum(language_loss(each, batch.report_ids, batch.report_mask) for each in logits)}
        terms |= self._prompt_terms(prefix, SeenReports(batch, disease_weights, settings), weights)
        if contrast is not None and weights.contrast_inter and contrast.own >= 0 and len(contrast.prototypes) > 1:
            terms["contrast_inter"] = inter_client_contrast(
                prefix.h, contrast.prototypes, contrast.own, settings.contrast_temperature
            )
        if contrast is not None and weights.contrast_intra:
            terms["contrast_intra"] = intra_client_contrast(prefix.h, contrast.h_global, settings.contrast_temperature)
        if weights.generic_to_specialised or weights.specialised_to_generic:
            terms["generic_to_specialised"], terms["specialised_to_generic"] = mutual_boosting(
                *logits, batch.report_mask, settings.distillation_temperature
            )
        if weights.orthogonality and self.llm.kind == "adalora":
            terms["orthogonality"] = self.llm.orthogonality()
        if weights.alignment:
            terms["alignment"] = self.alignment(batch, prefix.h)
        return terms

    def alignment(self, batch: Batch, h: Tensor) -> Tensor:
        """MRG-LLM's alignment of images with their reports [secondary; form ours]: symmetric InfoNCE over the batch.

            L_align = (InfoNCE(h, r) + InfoNCE(r, h)) / 2,    r = mean of the report's tokens as the frozen LLM reads

        The same report word for word is no negative; the temperature is the contrast's [ours].

        Args:
            batch: B studies.
            h: (B, D), their projected pooled features.

        Returns:
            A scalar, the mean over the batch.
        """
        mask = batch.report_mask[..., None]
        reports = (self.llm.embed(batch.report_ids) * mask).sum(dim=1) / mask.sum(dim=1)  # (B, D)
        weights = negative_weights(batch.states, batch.report_ids, hardest=1.0)
        return image_report_contrast(h, reports.detach(), weights, self.training_settings.contrast_temperature)

    def _prompt_terms(self, prefix: Prefix, seen: SeenReports, weights: ReportLosses) -> dict[str, Tensor]:
        """What the prompt source brings, as far as it has a weight."""
        wanted = {name for name in self.prompt_source.own_losses if getattr(weights, name, 0)}
        found = self.prompt_source.loss_terms(prefix.prompts, seen) if wanted else {}
        return {name: value for name, value in found.items() if name in wanted}

    # ---- generation ----

    def decoding(self, settings: Generation) -> dict[str, object]:
        """All that decides how reports are written: the profile, and the tokenizer's special tokens."""
        special = {name: getattr(self.tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        return {**settings.arguments(self.tokenizer.eos_token_id), **special}

    @torch.no_grad()
    def generate(
        self, images: Tensor, adapter: str, settings: Generation, states: Tensor | None = None
    ) -> tuple[list[str], PromptOutput]:
        """Write reports by beam search, see :meth:`ReportModel.generate`."""
        prefix = self.prefix(images, states)
        ids = self.llm.generate(prefix.embeddings, adapter, **self.decoding(settings))
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts], prefix.prompts
