"""The kinds of adapters a row of methods.yaml may ask for, as PEFT configurations, and what AdaLoRA needs besides.

Rank, alpha and layers are the profile's wherever a kind has them; `adapter_settings` of the row overrides any field of
the kind's PEFT configuration.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import peft
import torch
import transformers
from torch import Tensor, nn

from fedmrg_core.errors import InputError

KINDS: dict[str, type[peft.PeftConfig]] = {
    "lora": peft.LoraConfig,
    "adalora": peft.AdaLoraConfig,
    "loha": peft.LoHaConfig,
    "vera": peft.VeraConfig,
    "prefix": peft.PrefixTuningConfig,
    "p-tuning": peft.PromptEncoderConfig,
}
VIRTUAL_TOKEN_KINDS = ("prefix", "p-tuning")
# The layers a kind adapts: GPT-2 has its linear layers as Conv1D, which PEFT's LoHa does not know.
LINEAR = (nn.Linear, transformers.pytorch_utils.Conv1D)
LAYER_CLASSES = {"lora": LINEAR, "adalora": LINEAR, "vera": LINEAR, "loha": (nn.Linear,)}

# Rows of VeRA's two frozen random matrices; its paper uses 256 and more, and a row costs one trained number a layer.
VERA_RANK = 256
# They are drawn from this key alone, so they are the same in every process, and they never travel [ours].
VERA_KEY = 0
# Virtual tokens of prefix and p-tuning. The paper's traffic fits a prefix of 200 at its scale [derived]; beside the 16
# image tokens and 100 report tokens of the small models 20 are already many [ours].
VIRTUAL_TOKENS = 20
# Standard deviation of a prefix at its start. Keys and values of real words, the choice of its paper, disturb a
# small LLM: after three rounds on 240 IU X-ray studies the validation loss was 2.08 from words and 1.99 so [ours].
PREFIX_START = 0.02
# AdaLoRA starts at 3/4 of the rank and ends at 1/2 on average: 12 and 8 at rank 16, PEFT's own defaults, which fit the
# paper's traffic [derived]. Its budget stays whole for a tenth of the run and final for the last three [ours].
ADALORA_START, ADALORA_END = 3 / 4, 1 / 2
ADALORA_SCHEDULE = {"total_step": 1000, "tinit": 100, "tfinal": 300}
# A client gives the budget out anew after so many of its steps: importance is then a mean over as many batches [ours].
ADALORA_INTERVAL = 5


def kind_configuration(
    kind: str, rank: int, alpha: int, target_modules: Sequence[str], width: int, settings: Mapping[str, object]
) -> peft.PeftConfig:
    """The PEFT configuration of one adapter.

    Args:
        kind: a key of KINDS.
        rank: r, for the kinds that have one.
        alpha: the update is scaled by alpha / r, for the kinds that scale it.
        target_modules: the linear layers to adapt, for the kinds that adapt layers.
        width: D, of the embeddings that the LLM reads.
        settings: fields of the configuration that a row sets itself.

    Raises:
        InputError: the configuration has no such field, or refuses its value.
    """
    layers = {"target_modules": list(target_modules)}
    fields: dict[str, object] = {
        "lora": {"r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, **layers},
        "adalora": {
            "init_r": max(1, round(ADALORA_START * rank)),
            "target_r": max(1, round(ADALORA_END * rank)),
            "lora_alpha": alpha,
            "deltaT": ADALORA_INTERVAL,
            **ADALORA_SCHEDULE,
            **layers,
        },
        "loha": {"r": rank, "alpha": alpha, **layers},
        "vera": {"r": VERA_RANK, "projection_prng_key": VERA_KEY, **layers},
        "prefix": {"num_virtual_tokens": VIRTUAL_TOKENS},
        "p-tuning": {"num_virtual_tokens": VIRTUAL_TOKENS, "encoder_hidden_size": width, "token_dim": width},
    }[kind]
    try:
        return KINDS[kind](**{**fields, "task_type": "CAUSAL_LM", **settings})
    except (TypeError, ValueError) as error:
        raise InputError(
            f"adapter_settings: {', '.join(settings) or 'the defaults'} not accepted for adapter_kind {kind} "
            f"({' '.join(str(error).split())}); expected fields of peft.{KINDS[kind].__name__}."
        ) from error


def check_layers(llm: transformers.PreTrainedModel, kind: str, rank: int, target_modules: Sequence[str]) -> None:
    """Whether the LLM has the layers to adapt, and whether they are wide enough for the rank.

    Raises:
        InputError: a name matches no linear layer, or the rank is above a layer's width.
    """
    if kind in VIRTUAL_TOKEN_KINDS:
        return
    head = llm.get_output_embeddings()
    linear = {
        path: layer
        for path, layer in llm.named_modules()
        if isinstance(layer, LAYER_CLASSES[kind]) and layer is not head
    }
    found = {
        name: [layer for path, layer in linear.items() if f".{path}".endswith(f".{name}")] for name in target_modules
    }
    missing = [name for name, layers in found.items() if not layers]
    if missing:
        there = dict.fromkeys(path.rpartition(".")[2] for path in linear)
        raise InputError(
            f"adapter.target_modules: {', '.join(missing)} not found among the layers of this LLM that {kind} can "
            f"adapt; expected some of {', '.join(there) or 'none'}."
        )
    width = min(min(layer.weight.shape) for layers in found.values() for layer in layers)
    if kind != "vera" and rank > width:
        raise InputError(f"adapter.rank: {rank} is above {width}, the width of a layer it adapts; expected less.")


def adapter_parameters(model: peft.PeftModel, name: str) -> dict[str, nn.Parameter]:
    """The trained parameters of one adapter, keyed by the layer they adapt, e.g. ``model.layers.0...q_proj.lora_A``.

    What an adapter only reads (VeRA's random matrices, AdaLoRA's rank counters) is not among them.
    """
    if model.peft_config[name].is_prompt_learning:
        return dict(model.prompt_encoder[name].named_parameters())
    return layer_parameters(model.base_model.model, name)


def layer_parameters(model: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """The trained parameters of one adapter in the layers of a model, keyed by the layer they adapt."""
    found = {}
    for path, layer in model.named_modules():
        if isinstance(layer, peft.tuners.tuners_utils.BaseTunerLayer):
            for part in layer.adapter_layer_names:
                held = getattr(layer, part, {})
                if name in held:
                    found[f"{path}.{part}"] = held[name] if isinstance(held[name], nn.Parameter) else held[name].weight
    return found


@torch.no_grad()
def start_prefix_small(model: peft.PeftModel, name: str) -> None:
    """Start a prefix as numbers so small that the LLM hardly notices them, see PREFIX_START."""
    if not model.peft_config[name].prefix_projection:  # a prefix that comes out of a network is small already
        model.prompt_encoder[name].embedding.weight.mul_(PREFIX_START)


def orthogonality(parameters: Mapping[str, Tensor]) -> Tensor:
    """AdaLoRA's regulariser, the mean of ||A A' - I|| and ||B' B - I|| (Frobenius) over all layers [related].

    Args:
        parameters: of an AdaLoRA adapter: A (r, in) under keys that end in lora_A, B (out, r) in lora_B.

    Returns:
        A scalar.
    """
    factors = [factor for key, factor in parameters.items() if key.endswith("lora_A")]
    factors += [factor.T for key, factor in parameters.items() if key.endswith("lora_B")]
    grams = [factor @ factor.T for factor in factors]
    return torch.stack([torch.linalg.norm(gram - torch.eye(len(gram)).to(gram)) for gram in grams]).mean()


class RankBudget:
    """AdaLoRA's allocation of ranks by importance, in a federation [ours; the allocator is PEFT's].

    The budget follows the progress of the whole run. Importance is a client's own and starts anew at every round, so
    no state outlives a round and a resumed run gives the same numbers. A rank is taken away by setting its singular
    value to zero; the mean over clients therefore keeps every rank that some client keeps.

    Args:
        model: a PEFT model with one AdaLoRA adapter.
    """

    def __init__(self, model: peft.PeftModel) -> None:
        self.llm = model.base_model.model
        self.allocator = model.base_model.rankallocator
        self.start_round()

    def start_round(self) -> None:
        """Forget the importance of ranks."""
        self.allocator.reset_ipt()
        self.steps = 0
        self.kept: dict[str, list[bool]] | None = None

    def after_step(self, progress: float) -> None:
        """Update importance from the gradients, and take ranks away where the budget says so.

        Args:
            progress: share of the whole run that is done, in [0, 1].
        """
        configuration = self.allocator.peft_config
        step = round(progress * configuration.total_step)
        self.allocator.update_ipt(self.llm)
        self.steps += 1
        budget, _ = self.allocator.budget_schedule(step)
        if budget >= self.allocator.init_bgt:
            return
        if self.steps % configuration.deltaT == 0:
            self.kept = self.allocator.mask_to_budget(self.llm, budget)
        elif self.kept is not None and step > configuration.total_step - configuration.tfinal:
            self.allocator.mask_using_rank_pattern(self.llm, self.kept)  # no rank grows back in the last part


def embedding_width(llm: nn.Module) -> int:
    """D of an LLM."""
    return llm.get_input_embeddings().weight.shape[1]


def forget_place(llm: transformers.PreTrainedModel) -> None:
    """Name an LLM from a folder "base_models/<folder>": PEFT writes the name into every adapter it saves."""
    path = pathlib.Path(llm.name_or_path)
    if path.is_absolute():
        llm.name_or_path = llm.config._name_or_path = f"base_models/{path.name}"
