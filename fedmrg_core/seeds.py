"""One root seed, many named streams (contract 5): no part of a run disturbs the random numbers of another."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    import torch


def stream_seed(root_seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names`, e.g. ``stream_seed(0, "batches", round_number, client)``."""
    text = "\x1f".join([str(root_seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_stream(root_seed: int, *names: str | int) -> numpy.random.Generator:
    """An independent NumPy generator for a named stream."""
    return numpy.random.default_rng(stream_seed(root_seed, *names))


def torch_stream(root_seed: int, *names: str | int) -> torch.Generator:
    """An independent CPU torch generator for a named stream."""
    import torch  # takes seconds, and not everybody who draws numbers needs it

    return torch.Generator().manual_seed(stream_seed(root_seed, *names))


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with `count` CPU threads: their number decides the last bits of sums, so a run keeps to one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
