"""The Transformer under all four baselines: image tokens in, a report out [related: Vaswani et al. 2017].

It is mBART's, trained from nothing: layer normalisation before each part, learnt positions, one table for the words
read and the words written. That Hugging Face decoder brings its own beam search with it.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import transformers
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, MBartConfig, MBartForCausalLM
from transformers.models.mbart.modeling_mbart import MBartEncoder

from fedmrg_core.errors import InputError
from fedmrg_core.runs.configuration import Generation

IMAGE_LAYERS = 2  # of the encoder over image tokens [ours]
DROPOUT = 0.1  # as in R2Gen [related]
LARGEST_WIDTH, LAYERS_AT_LARGEST_WIDTH = 512, 3  # R2Gen's own [related]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Widths and lengths of one Transformer."""

    width: int  # D, of a token
    layers: int  # of the decoder
    heads: int
    image_tokens: int  # M, the most there are
    report_tokens: int  # the longest report, its first <s> included

    @classmethod
    def like_llm(cls, llm: transformers.PretrainedConfig, image_tokens: int, report_tokens: int) -> Sizes:
        """As wide and as deep as the LLM that the other methods use, up to R2Gen's own size [ours].

        So small models can be compared; beside a 7 B LLM, a decoder is R2Gen's 512 wide and 3 layers deep [related].
        """
        text = llm.get_text_config()
        width, layers = min(text.hidden_size, LARGEST_WIDTH), text.num_hidden_layers
        layers = layers if text.hidden_size <= LARGEST_WIDTH else min(layers, LAYERS_AT_LARGEST_WIDTH)
        heads = math.gcd(width, text.num_attention_heads)
        return cls(width, layers, heads, image_tokens, report_tokens)


class ImageEncoder(MBartEncoder):
    """Self-attention over the image tokens, with learnt positions.

    Args:
        sizes: width, heads, and how many image tokens there are.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(_configuration(sizes, sizes.image_tokens, vocabulary=1, padding=0))
        self.embed_tokens = None  # images come as vectors: no table of words


class ReportDecoder(MBartForCausalLM):
    """Causal self-attention over the report, cross-attention to what is known of the image.

    Args:
        sizes: width, layers, heads and longest report.
        tokenizer: its size and special tokens.
    """

    def __init__(self, sizes: Sizes, tokenizer: transformers.PreTrainedTokenizerBase) -> None:
        vocabulary = max(tokenizer.get_vocab().values()) + 1  # above their number where ids are left out
        super().__init__(_configuration(sizes, sizes.report_tokens, vocabulary, tokenizer.pad_token_id))
        self.generation_config = transformers.GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    def new_cache(self) -> EncoderDecoderCache:
        """An empty cache for one call of `generate`."""
        return EncoderDecoderCache(DynamicCache(), DynamicCache())

    def logits(self, seen: Tensor, report_ids: Tensor) -> Tensor:
        """Teacher-forced logits.

        Args:
            seen: (B, M, D) what the decoder attends to.
            report_ids: (B, T), padded on the right: being causal, the decoder needs no mask for that.

        Returns:
            (B, T, vocabulary), at place t of token t.
        """
        first = torch.full_like(report_ids[:, :1], self.generation_config.bos_token_id)
        read = torch.cat([first, report_ids[:, :-1]], dim=1)
        return self(input_ids=read, encoder_hidden_states=seen, use_cache=False).logits

    def read(self, report_ids: Tensor, report_mask: Tensor) -> Tensor:
        """What a report says: (B, D), the mean of its tokens' last hidden states when no image is attended to.

        Args:
            report_ids: (B, T), padded on the right.
            report_mask: (B, T).
        """
        hidden = self.model.decoder(input_ids=report_ids, use_cache=False).last_hidden_state  # (B, T, D)
        weights = report_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

    def write(self, seen: Tensor, settings: Generation, cached: bool = True) -> Tensor:
        """Token ids (B, T) of reports by beam search, special tokens included.

        Args:
            seen: (B, M, D) what the decoder attends to.
            settings: beams, lengths and penalties.
            cached: keep keys and values from step to step; without, everything is computed anew, to the same end.

        Raises:
            InputError: longer reports are asked for than the model has positions.
        """
        longest = self.config.max_position_embeddings - 1
        if settings.max_new_tokens > longest:
            raise InputError(
                f"generation.max_new_tokens: {settings.max_new_tokens} is more than the {longest} positions this model "
                "was trained with; train it with a profile of that length."
            )
        first = torch.full((len(seen), 1), self.generation_config.bos_token_id, device=seen.device)
        cache = {"past_key_values": self.new_cache()} if cached else {"use_cache": False}
        return self.generate(
            input_ids=first,
            attention_mask=torch.ones_like(first),
            encoder_hidden_states=seen,
            **settings.arguments(self.generation_config.eos_token_id),
            **cache,
        )


def mlp(inputs: int, width: int) -> nn.Sequential:
    """Two linear layers with a ReLU between them."""
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width))


def _configuration(sizes: Sizes, positions: int, vocabulary: int, padding: int) -> MBartConfig:
    return MBartConfig(
        d_model=sizes.width,
        encoder_layers=IMAGE_LAYERS,
        decoder_layers=sizes.layers,
        encoder_attention_heads=sizes.heads,
        decoder_attention_heads=sizes.heads,
        encoder_ffn_dim=4 * sizes.width,
        decoder_ffn_dim=4 * sizes.width,
        max_position_embeddings=positions,
        vocab_size=vocabulary,
        pad_token_id=padding,
        bos_token_id=None,  # `generation_config` says which tokens begin and end a report
        eos_token_id=None,
        forced_eos_token_id=None,
        dropout=DROPOUT,
        attn_implementation="eager",  # fused attention sums its gradients on a GPU in no fixed order
    )
