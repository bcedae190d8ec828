"""Groups of pictures dealt to the three splits, where a data set has none of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream

SHARES = {"test": 0.2, "validation": 0.1}  # of the pictures; the others train [ours]


def split_groups(sizes: Mapping[str, int], site: str, seed: int) -> dict[str, str]:
    """The split of every group of one site: groups are drawn until a split has its share of the pictures.

    Args:
        sizes: pictures of each group.
        site: names the stream.
        seed: root seed.

    Raises:
        InputError: there are fewer than three groups: some split would be empty.
    """
    if len(sizes) < 3:
        raise InputError(
            f"site {site!r} has {len(sizes)} groups of pictures, too few for train, validation and test; give the "
            "column split, or more groups."
        )
    order: Sequence[str] = numpy_stream(seed, "picture split", site).permutation(sorted(sizes)).tolist()
    found, place, total = {}, 0, sum(sizes.values())
    for number, (split, share) in enumerate(SHARES.items(), start=1):
        count, left = 0, len(SHARES) + 1 - number  # splits that still need a group each
        while not count or (count < share * total and len(order) - place > left):
            found[order[place]] = split
            count += sizes[order[place]]
            place += 1
    return found | dict.fromkeys(order[place:], "train")
