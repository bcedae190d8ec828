"""R2Gen: a decoder with a relational memory of what it has written [related: Chen et al. 2020].

S memory slots M attend to themselves and to the word read last, y; gates decide what is kept and what is taken in:

    Z    = MultiHead(Q = M, K = V = [M; y]),    y = sqrt(D) times the word's embedding
    M~   = ReLU(MLP(Z + M)) + Z + M
    M'   = sigmoid(G_f) o M + sigmoid(G_i) o tanh(M~),    G = y W + tanh(M) U, one pair W, U for each gate

Every layer normalisation of the decoder's layers is conditioned on the memory m = [M'_1; ...; M'_S]:

    MCLN(r) = (gamma + MLP_gamma(m)) o (r - mean) / deviation + beta + MLP_beta(m)

That the MLPs of MCLN start at zero, so that it starts as a layer normalisation, is ours, and that y has no position:
the memory reads words in their order [ours].
"""

from __future__ import annotations

import math

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, EncoderDecoderCache

from fedmrg_core.tasks.reports.baselines.transformer import ReportDecoder, Sizes, mlp

SLOTS = 3  # [related: R2Gen]


class RelationalMemory(nn.Module):
    """Memory slots, moved on by each word.

    Args:
        width: D, of a slot and of a word's embedding.
        heads: of the attention.
        slots: S.
    """

    def __init__(self, width: int, heads: int, slots: int = SLOTS) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = mlp(width, width)
        self.of_word = nn.Linear(width, 2 * width)  # W of the forget and the input gate
        self.of_memory = nn.Linear(width, 2 * width, bias=False)  # U of both
        # The slots start different from each other, or they would stay alike.
        self.register_buffer("start", torch.eye(slots, width), persistent=False)

    def step(self, memory: Tensor, word: Tensor) -> Tensor:
        """M' from M.

        Args:
            memory: (B, S, D).
            word: (B, D).
        """
        known = torch.cat([memory, word.unsqueeze(1)], dim=1)  # (B, S + 1, D)
        attended, _ = self.attention(memory, known, known)  # (B, S, D)
        attended = attended + memory
        candidate = functional.relu(self.mlp(attended)) + attended
        return self.gated(memory, candidate, word)

    def gated(self, memory: Tensor, candidate: Tensor, word: Tensor) -> Tensor:
        """Keep some of `memory` and take in some of `candidate`, both (B, S, D), under `word` (B, D)."""
        gates = self.of_word(word).unsqueeze(1) + self.of_memory(memory.tanh())  # (B, S, 2 D)
        forget, take = gates.sigmoid().chunk(2, dim=-1)
        return forget * memory + take * candidate.tanh()

    def forward(self, words: Tensor, memory: Tensor | None = None) -> Tensor:
        """The memory after each word.

        Args:
            words: (B, T, D).
            memory: (B, S, D) before the first; None at a report's start.

        Returns:
            (B, T, S, D).
        """
        memory = self.start.expand(len(words), -1, -1) if memory is None else memory
        passed = []
        for word in words.unbind(dim=1):
            memory = self.step(memory, word)
            passed.append(memory)
        return torch.stack(passed, dim=1)


class MemoryDrivenLayerNorm(nn.LayerNorm):
    """MCLN: a layer normalisation whose gain and shift follow the memory.

    It stands where the decoder has a LayerNorm, which is called with the hidden states alone: the decoder sets `memory`
    before each forward pass.

    Args:
        width: D.
        memory_width: S * D.
    """

    memory: Tensor | None = None  # (B, T, S * D)

    def __init__(self, width: int, memory_width: int) -> None:
        super().__init__(width)
        self.gain, self.shift = mlp(memory_width, width), mlp(memory_width, width)
        for last in (self.gain[-1], self.shift[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise (B, T, D) hidden states."""
        normal = functional.layer_norm(hidden, self.normalized_shape, eps=self.eps)
        return (self.weight + self.gain(self.memory)) * normal + self.bias + self.shift(self.memory)


class MemoryCache(EncoderDecoderCache):
    """Keys, values and memory of the reports being written; beams that are dropped take all of it with them."""

    def __init__(self) -> None:
        super().__init__(DynamicCache(), DynamicCache())
        self.memory: Tensor | None = None  # (B, S, D)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams that were chosen."""
        super().reorder_cache(beam_idx)
        self.memory = self.memory[beam_idx]


class MemoryDrivenDecoder(ReportDecoder):
    """The report decoder with a relational memory in its layer normalisations.

    Args:
        sizes: width, layers, heads and longest report.
        tokenizer: its size and special tokens.
    """

    def __init__(self, sizes: Sizes, tokenizer: transformers.PreTrainedTokenizerBase) -> None:
        super().__init__(sizes, tokenizer)
        self.relational_memory = RelationalMemory(sizes.width, sizes.heads)
        names = ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm")
        for layer in self.model.decoder.layers:
            for name in names:
                setattr(layer, name, MemoryDrivenLayerNorm(sizes.width, SLOTS * sizes.width))

    def new_cache(self) -> MemoryCache:
        """An empty cache for one call of `generate`."""
        return MemoryCache()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        past_key_values: MemoryCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **others: object,
    ) -> transformers.modeling_outputs.CausalLMOutputWithCrossAttentions:
        """As of any causal LM of Hugging Face; `input_ids` (B, T) are the words since the cache was last used."""
        before = None if past_key_values is None else past_key_values.memory
        words = self.get_input_embeddings()(input_ids)  # (B, T, D)
        memory = self.relational_memory(math.sqrt(words.shape[-1]) * words, before)  # (B, T, S, D)
        if past_key_values is not None:
            past_key_values.memory = memory[:, -1]
        self._condition(memory.flatten(2))
        try:
            return super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                encoder_hidden_states=encoder_hidden_states,
                past_key_values=past_key_values,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                **others,
            )
        finally:
            self._condition(None)

    def _condition(self, memory: Tensor | None) -> None:
        for module in self.modules():
            if isinstance(module, MemoryDrivenLayerNorm):
                module.memory = memory
