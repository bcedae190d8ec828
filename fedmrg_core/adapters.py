"""Generic and specialised adapters on a frozen LLM, and the mutual boosting between them.

Both are LoRA, dW = (alpha / r) B A [derived], through `peft`. The generic one is averaged over hospitals, the
specialised one never leaves its hospital [secondary]. They teach each other token by token [paper]:

    L_g2l = T^2 KL( sg(p_generic) || p_specialised )      L_l2g = T^2 KL( sg(p_specialised) || p_generic )

Two directional losses are [secondary], temperature and T^2 FedDAT's [related], this form ours [ours].
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Sequence

import peft
import transformers
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.errors import InputError

GENERIC, SPECIALISED = "generic_adapter", "specialised_adapter"


class AdaptedLLM(nn.Module):
    """A frozen causal LM with one LoRA adapter, or two run side by side in one batch.

    Args:
        llm: any Hugging Face causal LM; its own weights are frozen here.
        names: the adapters to add, of GENERIC and SPECIALISED.
        rank: r of every adapter.
        alpha: alpha, the update is scaled by alpha / r.
        target_modules: the linear layers that get an adapter, by the LLM's own names.

    Raises:
        InputError: the LLM has no layer of such a name.
    """

    def __init__(
        self,
        llm: transformers.PreTrainedModel,
        names: Sequence[str],
        rank: int = 16,
        alpha: int = 16,
        target_modules: Sequence[str] = ("q_proj", "v_proj"),
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        if not self.names:
            raise InputError("adapters: a method needs generic_adapter, specialised_adapter or both.")
        config = peft.LoraConfig(
            r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=list(target_modules), task_type="CAUSAL_LM"
        )
        try:
            self.peft = peft.get_peft_model(llm, config, adapter_name=self.names[0])
        except ValueError as error:
            raise InputError(
                f"adapter.target_modules: {', '.join(target_modules)} not found in the LLM's layers."
            ) from error
        for name in self.names[1:]:
            self.peft.add_adapter(name, config)
        # Adding or activating an adapter flips requires_grad of the other one: set the trainable set by hand.
        self.mark_trainable()
        self.peft.eval()  # frozen LLM: no dropout; peft's mixed batches ask for it, and gradients flow all the same

    @property
    def width(self) -> int:
        """D, the LLM's width."""
        return self.peft.config.hidden_size

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings (..., D) of token ids (...)."""
        return self.peft.get_input_embeddings()(ids)

    def embedding_scale(self) -> float:
        """The standard deviation of the LLM's token embeddings."""
        return self.peft.get_input_embeddings().weight.detach().float().std().item()

    def train(self, mode: bool = True) -> AdaptedLLM:
        """Stay in evaluation mode: nothing in a frozen LLM behaves differently in training."""
        return super().train(False)

    def mark_trainable(self) -> None:
        """Freeze the LLM and make every adapter trainable."""
        for parameter in self.peft.parameters():
            parameter.requires_grad_(False)
        for name in self.names:
            for parameter in self.parameters_of(name).values():
                parameter.requires_grad_(True)

    def parameters_of(self, name: str) -> dict[str, nn.Parameter]:
        """The parameters of one adapter, keyed by the layer they adapt, e.g. ``layers.0...q_proj.lora_A``."""
        found = {}
        for path, layer in self.peft.base_model.model.named_modules():
            if isinstance(layer, peft.tuners.lora.LoraLayer):
                found[f"{path}.lora_A"] = layer.lora_A[name].weight
                found[f"{path}.lora_B"] = layer.lora_B[name].weight
        return found

    def forward(self, embeddings: Tensor, mask: Tensor, report_length: int, names: Sequence[str]) -> list[Tensor]:
        """Next-token logits of the last `report_length` positions under each adapter, in one batched pass.

        Args:
            embeddings: (B, L, D) input embeddings.
            mask: (B, L) attention mask.
            report_length: T, positions at the end to keep.
            names: the adapters to run.

        Returns:
            One (B, T, vocabulary) tensor for each name.
        """
        rows = [name for name in names for _ in range(len(embeddings))]
        logits = self.peft(
            inputs_embeds=embeddings.repeat(len(names), 1, 1),
            attention_mask=mask.repeat(len(names), 1),
            logits_to_keep=report_length,
            adapter_names=rows,
            use_cache=False,
        ).logits
        return list(logits.chunk(len(names)))

    @contextlib.contextmanager
    def active(self, name: str) -> Iterator[peft.PeftModel]:
        """The PEFT model with one adapter switched on, for generation."""
        self.peft.set_adapter(name)
        try:
            yield self.peft
        finally:
            self.mark_trainable()

    def save(self, name: str, folder: pathlib.Path) -> None:
        """Save one adapter as an ordinary PEFT folder that `PeftModel.from_pretrained(llm, folder)` opens."""
        self.peft.save_pretrained(str(folder), selected_adapters=[name], safe_serialization=True)
        nested = folder / name  # peft puts an adapter that is not called "default" into a folder of its own
        for file in nested.iterdir():
            file.replace(folder / file.name)
        nested.rmdir()


def mutual_boosting(generic: Tensor, specialised: Tensor, mask: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(L_g2l, L_l2g): each adapter taught by the other, which is held still, on report tokens.

    Args:
        generic: (B, T, vocabulary) logits under the generic adapter.
        specialised: (B, T, vocabulary) logits under the specialised adapter.
        mask: (B, T) true where there is a report token.
        temperature: T > 0.

    Returns:
        Two scalars, means over report tokens.
    """
    log_generic = functional.log_softmax(generic[mask] / temperature, dim=-1)  # (tokens, vocabulary)
    log_specialised = functional.log_softmax(specialised[mask] / temperature, dim=-1)

    def taught(student: Tensor, teacher: Tensor) -> Tensor:
        return temperature**2 * functional.kl_div(student, teacher.detach(), reduction="batchmean", log_target=True)

    return taught(log_specialised, log_generic), taught(log_generic, log_specialised)
