"""Keys and values of a beam search, written in place: Transformers' own copies all of them twice for every token.

Its cache grows by concatenation, and changes places with the beams by selecting whole rows. Here the buffer has room
beforehand, and only what was written since the beginning, of beams that changed, is moved. The numbers are the same.
"""

from __future__ import annotations

from typing import NoReturn

import torch
import transformers
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

SPARE = 64  # positions that a buffer has room for beyond what was asked


class BeamLayer(DynamicLayer):
    """One layer's keys and values, (B x beams, heads, positions, D).

    The beams of a study read the same at first and never change places with another study's. So the positions of the
    first update stay where they are, whatever `reorder_cache` says.
    """

    is_croppable = False

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append some positions.

        Returns:
            All keys and values so far, views of the buffers.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._read, self._buffers = key_states.shape[-2], [key_states[..., :0, :], value_states[..., :0, :]]
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            self._buffers = [_longer(buffer, end + SPARE) for buffer in self._buffers]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = states
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let every row go on from another one, (B x beams,) their numbers."""
        moved = (beam_idx != torch.arange(len(beam_idx), device=beam_idx.device)).nonzero()[:, 0]
        if self.get_seq_length() > self._read and len(moved):
            for states in (self.keys, self.values):
                written = states[..., self._read :, :]
                written[moved] = written[beam_idx[moved]]

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        """What no beam search asks: inherited, it would change the keys and leave the buffers as they were.

        Raises:
            TypeError: always.
        """
        raise TypeError("The cache of a beam search is not cropped, moved, repeated or selected; take DynamicCache.")

    crop = batch_repeat_interleave = batch_select_indices = offload = prefetch = _refuse


def _longer(states: Tensor, length: int) -> Tensor:
    """A buffer of some length that begins with `states`."""
    buffer = states.new_empty(*states.shape[:-2], length, states.shape[-1])
    buffer[..., : states.shape[-2], :] = states
    return buffer


def beam_cache(configuration: transformers.PretrainedConfig) -> Cache:
    """An empty cache for a beam search; layers that attend to a window of positions keep Transformers' own."""
    cache = DynamicCache(config=configuration)
    cache.layers = [BeamLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
