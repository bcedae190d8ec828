"""Invented names of conditions, drugs, signs and specialities: syllables joined at random, which nobody knows."""

from __future__ import annotations

import dataclasses

import numpy

# What comes twice is drawn twice as often.
ONSETS = "b d f g k l m n p r s t v z b d f g k l m n p r s t v z br dr gl kr pl st tr vr zl".split()
VOWELS = "a e i o u".split()
CODAS = ["", "", "", "", "", "l", "n", "r", "s"]
# What a kind of name ends in: a reader sees what it is, but no more.
ENDINGS = {
    "condition": ("osis", "itis", "emia", "asia"),
    "drug": ("ine", "ol", "ate", "ide"),
    "sign": ("ic", "al"),
    "speciality": ("ology", "iatry"),
}
SIGN_NOUNS = "ache cough cramp fever itch pallor rash stiffness swelling tremor".split()
MOST_SYLLABLES = 3


@dataclasses.dataclass(frozen=True)
class Names:
    """The names of a world, each once."""

    specialities: tuple[str, ...]
    conditions: tuple[str, ...]
    drugs: tuple[str, ...]
    leading_signs: tuple[str, ...]
    late_signs: tuple[str, ...]


class NameMaker:
    """Makes names whose stems never come twice, so that a drug's name says nothing of its condition."""

    def __init__(self, rng: numpy.random.Generator) -> None:
        self._rng = rng
        self._stems: set[str] = set()

    def names(self, kind: str, count: int) -> tuple[str, ...]:
        """New names of a kind, all in lower case; signs are two words."""
        return tuple(self._name(kind) for _ in range(count))

    def passing_name(self, kind: str) -> str:
        """A name that is none of those that `names` gave, and that may come again."""
        return self._name(kind, keep=False)

    def _name(self, kind: str, keep: bool = True) -> str:
        name = self._stem(keep) + self._one(ENDINGS[kind])
        return f"{name} {self._one(SIGN_NOUNS)}" if kind == "sign" else name

    def _stem(self, keep: bool) -> str:
        while True:
            count = int(self._rng.integers(2, MOST_SYLLABLES + 1))
            parts = [self._one(ONSETS) + self._one(VOWELS) + self._one(CODAS) for _ in range(count - 1)]
            stem = "".join(parts) + self._one(ONSETS)
            if len(stem) >= 4 and stem not in self._stems:
                if keep:
                    self._stems.add(stem)
                return stem

    def _one(self, values: list[str] | tuple[str, ...]) -> str:
        return values[int(self._rng.integers(len(values)))]
