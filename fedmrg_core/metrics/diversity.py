"""Does a model say different things about different studies, and does it serve every client?"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from fedmrg_core.errors import InputError
from fedmrg_core.metrics.normalise import normalise

# A model counts as degenerate beyond these shares [ours].
LARGEST_EMPTY_SHARE = 0.5
LARGEST_REPEATED_SHARE = 0.9
LEAST_DISTINCT_SHARE = 0.02
LARGEST_LOOPING_SHARE = 0.5
_SHORTEST_LOOP = 12  # words; shorter reports repeat words for good reasons


@dataclasses.dataclass(frozen=True)
class Diversity:
    """How varied a set of reports is, after `normalise`; shares are of the N reports."""

    distinct_reports: int
    distinct_share: float
    most_frequent_share: float
    empty_share: float
    looping_share: float  # reports of 12 or more words in which at most a quarter of the words are distinct

    def degenerate_reason(self) -> str | None:
        """Why the output is of no use, in one sentence; None if nothing speaks against it."""
        if self.empty_share > LARGEST_EMPTY_SHARE:
            return f"{self.empty_share:.0%} of the generated reports are empty."
        if self.most_frequent_share > LARGEST_REPEATED_SHARE:
            return f"{self.most_frequent_share:.0%} of the generated reports are the same text."
        if self.distinct_share < LEAST_DISTINCT_SHARE:
            return f"Only {self.distinct_reports} of the generated reports differ."
        if self.looping_share > LARGEST_LOOPING_SHARE:
            return f"{self.looping_share:.0%} of the generated reports repeat a few words over and over."
        return None


def diversity(generated: Sequence[str]) -> Diversity:
    """Count distinct, most frequent, empty and looping reports among N generated ones.

    Raises:
        InputError: no reports.
    """
    if not generated:
        raise InputError("There are no generated reports to compare; give at least one.")
    texts = [normalise(text) for text in generated]
    counts = collections.Counter(texts)
    return Diversity(
        distinct_reports=len(counts),
        distinct_share=len(counts) / len(texts),
        most_frequent_share=max(counts.values()) / len(texts),
        empty_share=counts[""] / len(texts),
        looping_share=sum(map(_loops, texts)) / len(texts),
    )


def _loops(text: str) -> bool:
    words = text.split()
    return len(words) >= _SHORTEST_LOOP and len(set(words)) <= len(words) / 4


def worst_client(values: Iterable[float]) -> float:
    """The lowest of the clients' values (Min-Acc of [secondary])."""
    return min(_non_empty(values))


def harmonic_mean(values: Iterable[float]) -> float:
    """The harmonic mean of the clients' values, which a single bad client pulls down (H-mean of [secondary]).

    Raises:
        InputError: no value, or one below 0.
    """
    numbers = _non_empty(values)
    if min(numbers) < 0:
        raise InputError(f"A client's value is {min(numbers)}; the harmonic mean needs values of at least 0.")
    return 0.0 if min(numbers) == 0 else len(numbers) / sum(1 / number for number in numbers)


def _non_empty(values: Iterable[float]) -> list[float]:
    numbers = [float(value) for value in values]
    if not numbers:
        raise InputError("There are no clients' values; give at least one.")
    return numbers
