"""Batches of texts of similar length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy


def shuffled_by_length(lengths: Sequence[int], size: int, generator: numpy.random.Generator) -> list[list[int]]:
    """Batches of places in `lengths`, each once: texts of similar length together, so that little is padding [ours].

    Lengths are sorted within random groups of eight batches, so batches differ from epoch to epoch. A last batch of one
    joins the one before it (BatchNorm, InfoNCE).

    Args:
        lengths: N lengths, in tokens.
        size: places in a batch.
        generator: of this epoch.
    """
    order = generator.permutation(len(lengths)).tolist()
    groups = [order[i : i + 8 * size] for i in range(0, len(order), 8 * size)]
    order = [place for group in groups for place in sorted(group, key=lengths.__getitem__)]
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        alone = batches.pop()
        batches[-1] += alone
    return [batches[i] for i in generator.permutation(len(batches))]
