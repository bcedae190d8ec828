"""Generic and specialised adapters on a frozen LLM, and the boosting between them.

FedMRG's are LoRA, dW = (alpha / r) B A [derived], through `peft`. The generic one is averaged over hospitals, the
specialised one never leaves its hospital [secondary]. They teach each other token by token [paper]:

    L_g2l = T^2 KL( sg(p_generic) || p_specialised )      L_l2g = T^2 KL( sg(p_specialised) || p_generic )

Two directional losses are [secondary], temperature and T^2 FedDAT's [related], this form ours [ours]. In FedDAT itself
a mixture stands in the specialised one's place. Other baselines have one adapter of another kind
(`adapter_kinds.py`), or none.
"""

from __future__ import annotations

import contextlib
import inspect
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import peft
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.errors import InputError
from fedmrg_core.training.adapter_kinds import (
    VIRTUAL_TOKEN_KINDS,
    RankBudget,
    adapter_parameters,
    check_layers,
    embedding_width,
    forget_place,
    kind_configuration,
    orthogonality,
    start_prefix_small,
)
from fedmrg_core.training.adapter_names import ADAPTER_MODULES, BASE, BOTH, COPY, GENERIC, HALVES, adapter_of
from fedmrg_core.training.adapters_in_blocks import read_in_blocks
from fedmrg_core.training.beam_cache import beam_cache


class AdaptedLLM(nn.Module):
    """A frozen causal LM with no adapter, one of any kind, or LoRA adapters run side by side in one batch.

    Args:
        llm: any Hugging Face causal LM; its own weights are frozen here.
        names: the adapters to add, of GENERIC and SPECIALISED; none leaves the LLM as it is, and GENERIC then names
            the one way to write.
        rank: r of every adapter.
        alpha: alpha, the update is scaled by alpha / r.
        target_modules: the linear layers that get an adapter, by the LLM's own names.
        kind: a key of `adapter_kinds.KINDS`; several adapters are of kind lora.
        settings: fields of the kind's PEFT configuration that override the defaults.
        copied: also hold COPY, a frozen copy of the generic adapter (LoRA).

    Raises:
        InputError: the LLM has no layer of such a name, the rank is above a layer's width, or a setting is unknown.
    """

    def __init__(
        self,
        llm: transformers.PreTrainedModel,
        names: Sequence[str],
        rank: int = 16,
        alpha: int = 16,
        target_modules: Sequence[str] = ("q_proj", "v_proj"),
        kind: str = "lora",
        settings: Mapping[str, object] | None = None,
        copied: bool = False,
    ) -> None:
        super().__init__()
        self.adapters, self.names = tuple(names), tuple(names) or (GENERIC,)
        self.kind = kind
        self.rank_budget: RankBudget | None = None
        self._takes_positions = "position_ids" in inspect.signature(llm.forward).parameters
        self.peft: peft.PeftModel | transformers.PreTrainedModel = llm
        if self.adapters:
            given = settings or {}
            configuration = kind_configuration(kind, rank, alpha, target_modules, embedding_width(llm), given)
            check_layers(llm, kind, int(given.get("r", given.get("init_r", rank))), target_modules)
            forget_place(llm)
            self._add_adapters((*self.adapters, COPY) if copied else self.adapters, configuration)
        # Adding or activating an adapter flips requires_grad of the other one: set the trainable set by hand.
        self.mark_trainable()
        self.remember_shared()
        self.peft.eval()  # frozen LLM: no dropout; peft's mixed batches ask for it, and gradients flow all the same

    def _add_adapters(self, names: Sequence[str], configuration: peft.PeftConfig) -> None:
        self.peft = peft.get_peft_model(self.peft, configuration, adapter_name=names[0])
        for name in names[1:]:
            self.peft.add_adapter(name, configuration)
        if len(names) > 1:
            read_in_blocks(self.peft)
        if self.kind == "prefix":
            start_prefix_small(self.peft, names[0])
        if self.kind == "adalora":
            self.rank_budget = RankBudget(self.peft)

    @property
    def width(self) -> int:
        """D, of the embeddings that the LLM reads; some (OPT-350m) widen them before their first layer."""
        return embedding_width(self.peft)

    @property
    def virtual_tokens(self) -> int:
        """Positions that a prefix or prompt adapter takes in front of everything."""
        if not self.adapters:
            return 0
        return getattr(self.peft.peft_config[self.adapters[0]], "num_virtual_tokens", None) or 0

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings (..., D) of token ids (...), in float32 whatever the LLM's precision."""
        # They stand between image tokens and prompts, which are trained in float32 and joined with them.
        return self.peft.get_input_embeddings()(ids).float()

    @property
    def precision(self) -> torch.dtype:
        """Of the frozen LLM; adapters are in float32."""
        return self.peft.get_input_embeddings().weight.dtype

    @torch.no_grad()
    def embedding_scale(self) -> float:
        """The standard deviation of the token embeddings as the LLM reads them; some (Gemma, BioGPT) enlarge theirs."""
        table = self.peft.get_input_embeddings().weight
        return self.embed(torch.arange(len(table), device=table.device)).std().item()

    def train(self, mode: bool = True) -> AdaptedLLM:
        """Stay in evaluation mode: nothing in a frozen LLM behaves differently in training."""
        return super().train(False)

    def mark_trainable(self) -> None:
        """Freeze the LLM and make every adapter trainable."""
        self._set_trainable([p for name in self.adapters for p in self.parameters_of(name).values()])

    def _set_trainable(self, parameters: Sequence[nn.Parameter]) -> None:
        self.peft.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)

    def parameters_of(self, name: str) -> dict[str, nn.Parameter]:
        """The parameters of one adapter, keyed by the layer they adapt, e.g. ``layers.0...q_proj.lora_A``."""
        return adapter_parameters(self.peft, name) if self.adapters else {}

    def tensors_of(self, module: str) -> dict[str, nn.Parameter]:
        """The parameters of a module of `ADAPTER_MODULES`, all of an adapter or one factor of each layer's."""
        name = adapter_of(module)
        found = self.parameters_of(name) if name in self.adapters else {}
        return {key: tensor for key, tensor in found.items() if key.endswith(ADAPTER_MODULES[name][module])}

    def forward(
        self,
        embeddings: Tensor,
        mask: Tensor,
        report_length: int,
        names: Sequence[str],
        positions: Tensor | None = None,
    ) -> list[Tensor]:
        """Next-token logits of the last `report_length` positions under each adapter.

        Adapters share one batched pass, a key of HALVES takes one of its own.

        Args:
            embeddings: (B, L, D) input embeddings.
            mask: (B, L) attention mask.
            report_length: T, positions at the end to keep.
            names: the adapters to run, keys of HALVES, or BASE; several adapters only of kind lora.
            positions: (B, L) place of each token in its text, where padding stands before it; None: one after another.

        Returns:
            One (B, T, vocabulary) tensor for each name, in float32.
        """
        alone = [name for name in names if name not in HALVES and name != BASE]
        found = {}
        if alone:
            # One pass over a longer batch: the frozen weights, by far the most, are read once for all. PEFT adds
            # to each row the update of the adapter named for it; it can do so with LoRA alone. Where there is one
            # adapter it is the active one, and looking up its rows would take a fifth of the pass.
            rows = [name for name in alone for _ in range(len(embeddings))]
            batched: dict[str, object] = {"adapter_names": rows} if len(self.adapters) > 1 else {}
            count = len(alone)
            given = batched | self._placed(positions, count)
            logits = self._logits(embeddings.repeat(count, 1, 1), mask.repeat(count, 1), report_length, given)
            found = dict(zip(alone, logits.chunk(count), strict=True))
        for name in HALVES.keys() & names:  # two adapters on one row: PEFT's rows take one name each
            with self._half_of_each(HALVES[name]):
                found[name] = self._logits(embeddings, mask, report_length, self._placed(positions, 1))
        if BASE in names:
            with self.active(BASE) as _:
                found[BASE] = self._logits(embeddings, mask, report_length, self._placed(positions, 1))
        return [found[name] for name in names]

    def _placed(self, positions: Tensor | None, count: int) -> dict[str, object]:
        """Positions as the LLM takes them; some have none of their own (BLOOM) and read them off the mask."""
        if positions is None or not self._takes_positions:
            return {}
        return {"position_ids": positions.repeat(count, 1)}

    def _logits(self, embeddings: Tensor, mask: Tensor, report_length: int, settings: Mapping[str, object]) -> Tensor:
        # No loss reads the prefix, and the vocabulary is the widest layer: only the report's positions go through it.
        # The losses sum over the vocabulary, for which half precision has too few digits: hence float32.
        return self.peft(
            inputs_embeds=embeddings.to(self.precision),
            attention_mask=mask,
            logits_to_keep=report_length,
            use_cache=False,
            **settings,
        ).logits.float()

    @contextlib.contextmanager
    def _half_of_each(self, names: Sequence[str]) -> Iterator[None]:
        """Every adapted layer adds the mean of these LoRA adapters' updates; gradients reach those that train."""
        trainable = [parameter for parameter in self.peft.parameters() if parameter.requires_grad]
        layers = [layer for layer in self.peft.modules() if isinstance(layer, peft.tuners.lora.LoraLayer)]
        self.peft.base_model.set_adapter(list(names))  # PEFT adds the updates of all active adapters
        self._set_trainable(trainable)  # activating an adapter makes it trainable, the frozen copy too
        # The mean of products B A, not the product of mean factors, which would be another matrix.
        for layer in layers:
            layer.scale_layer(1 / len(names))
        try:
            yield
        finally:
            for layer in layers:
                layer.unscale_layer()
            self.peft.set_adapter(GENERIC)
            self._set_trainable(trainable)

    @property
    def answers(self) -> tuple[str, ...]:
        """The ways to write: each adapter alone and, where there are two, BOTH."""
        return (*self.names, BOTH) if len(self.adapters) == 2 else self.names

    @contextlib.contextmanager
    def active(self, name: str) -> Iterator[peft.PeftModel | transformers.PreTrainedModel]:
        """The model with one adapter switched on, BOTH, or BASE without any.

        Afterwards what was trainable before is trainable again.
        """
        trainable = [parameter for parameter in self.peft.parameters() if parameter.requires_grad]
        if name == BOTH:  # made for this once: it would be stale after the next step or load
            # "cat" puts the factors side by side, so that the product is the mean of products to the digit; the other
            # ways to combine take means of the factors, or shorten the result to one adapter's rank.
            weights = [1 / len(self.adapters)] * len(self.adapters)
            self.peft.add_weighted_adapter(list(self.adapters), weights, BOTH, combination_type="cat")
        if self.adapters and name != BASE:
            self.peft.set_adapter(name)
        without = self.peft.disable_adapter() if self.adapters and name == BASE else contextlib.nullcontext()
        try:
            with without:
                yield self.peft
        finally:
            if name == BOTH:
                self.peft.set_adapter(GENERIC)
                self.peft.delete_adapter(BOTH)
            self._set_trainable(trainable)

    @torch.no_grad()
    def generate(
        self, embeddings: Tensor, name: str, num_beams: int = 1, mask: Tensor | None = None, **settings: object
    ) -> Tensor:
        """Token ids (B, T) that the LLM writes under one adapter after reading `embeddings`.

        Args:
            embeddings: (B, P, D), padded on the left if at all.
            name: one of `answers`, or BASE.
            num_beams: of the beam search.
            mask: (B, P) one where there is a token; None: everywhere.
            settings: further arguments of Hugging Face's `generate`.
        """
        embeddings = embeddings.to(self.precision)
        with self.active(name) as model:
            read: dict[str, object] = {}
            if self.kind in VIRTUAL_TOKEN_KINDS and self.adapters:
                embeddings, read = self._with_virtual_tokens(embeddings, num_beams)
                model = model.get_base_model()  # PEFT's own generate drops given embeddings here
            elif num_beams > 1:
                read = {"past_key_values": beam_cache(self.peft.config)}
            if mask is None:
                mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
            return model.generate(
                inputs_embeds=embeddings,
                attention_mask=mask,
                generation_config=transformers.GenerationConfig(num_beams=num_beams, **settings),
                **read,
            )

    def _with_virtual_tokens(self, embeddings: Tensor, beams: int) -> tuple[Tensor, dict[str, object]]:
        """Virtual tokens in front of the embeddings, or keys and values of as many positions read already."""
        if self.kind == "p-tuning":
            return torch.cat([self.peft.get_prompt(len(embeddings)).to(embeddings), embeddings], dim=1), {}
        cache = self.peft.get_prompt(len(embeddings) * beams)  # `generate` repeats tensors for its beams, no cache
        # Going on from a cache, `generate` wants the whole sequence and cuts off what the cache holds.
        read = embeddings.new_zeros(len(embeddings), cache.get_seq_length(), embeddings.shape[-1])
        return torch.cat([read, embeddings], dim=1), {"past_key_values": cache}

    def orthogonality(self) -> Tensor:
        """AdaLoRA's regulariser of its factors; zero for every other kind."""
        if self.rank_budget is None:
            return torch.zeros((), device=self.peft.device)
        return orthogonality(self.parameters_of(self.adapters[0]))

    @torch.no_grad()
    def remember_shared(self) -> None:
        """A round begins: the copy becomes the generic adapter as it came, and AdaLoRA's importances start anew."""
        if self.rank_budget is not None:
            self.rank_budget.start_round()
        if COPY in getattr(self.peft, "peft_config", {}):
            generic, copies = self.parameters_of(GENERIC), self.parameters_of(COPY)
            for key, parameter in copies.items():
                parameter.copy_(generic[key])

    def after_step(self, progress: float) -> None:
        """AdaLoRA gives out its budget of ranks, see :class:`RankBudget`; nothing for every other kind.

        Args:
            progress: share of the whole run that is done, in [0, 1].
        """
        # A pass in which the adapter is not trained (FedRep's) leaves no gradients to tell important ranks by.
        if self.rank_budget is not None and all(
            parameter.grad is not None for parameter in self.parameters_of(self.adapters[0]).values()
        ):
            self.rank_budget.after_step(progress)

    def save(self, name: str, folder: pathlib.Path) -> None:
        """Save one adapter as an ordinary PEFT folder that `PeftModel.from_pretrained(llm, folder)` opens.

        Raises:
            InputError: there is no such adapter.
        """
        if name not in self.adapters:
            raise InputError(f"adapter {name!r} is unknown; expected one of {', '.join(self.adapters) or 'none'}.")
        configuration = self.peft.peft_config[name]
        layers = getattr(configuration, "target_modules", None)
        if layers:  # a set, whose order differs between processes; PEFT needs it again to join adapters
            configuration.target_modules = sorted(layers)
        # PEFT would ask the hub whether the embeddings have changed: they are frozen, and a hospital may be offline.
        self.peft.save_pretrained(str(folder), selected_adapters=[name], save_embedding_layers=False)
        if layers:
            configuration.target_modules = layers
        nested = folder / name  # peft puts an adapter that is not called "default" into a folder of its own
        for file in nested.iterdir():
            file.replace(folder / file.name)
        nested.rmdir()


def mutual_boosting(generic: Tensor, specialised: Tensor, mask: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(L_g2l, L_l2g): each adapter taught by the other, which does not learn from it, on report tokens.

    Args:
        generic: (B, T, vocabulary) logits under the generic adapter.
        specialised: (B, T, vocabulary) logits under the specialised adapter, or under FedDAT's mixture.
        mask: (B, T) true where there is a report token.
        temperature: T > 0.

    Returns:
        Two scalars, means over report tokens.
    """
    # Padding has no right next token to agree on, and a batch of short reports is mostly padding.
    log_generic = functional.log_softmax(generic[mask] / temperature, dim=-1)  # (tokens, vocabulary)
    log_specialised = functional.log_softmax(specialised[mask] / temperature, dim=-1)

    # Without detach a teacher would move towards its student too, and each loss would pull both [related: FedDAT].
    # Dividing logits by T makes gradients smaller by T^2: the factor keeps the loss's weight independent of T.
    def taught(student: Tensor, teacher: Tensor) -> Tensor:
        return temperature**2 * functional.kl_div(student, teacher.detach(), reduction="batchmean", log_target=True)

    return taught(log_specialised, log_generic), taught(log_generic, log_specialised)
