"""Step 1: a report's letters, made plain. Places in the plain text lead back to the text as it was given.

Lower case; ligatures and other forms of a letter as the letter; typographic quotes and hyphens as typed ones; no
invisible characters; words that a line end cut in two joined; one wrong letter in a long word of the lexicon mended.
"""

from __future__ import annotations

import array
import dataclasses
import functools
import re
import unicodedata
from collections.abc import Sequence

from fedmrg_core.data.labeller.spelling import LONG_WORD, mended

_SAME = str.maketrans(
    "\u2018\u2019\u201b\u2032\u00b4`\u201c\u201d\u2010\u2011\u2012\u2212\r\f\v\x85\u2028\u2029",
    "''''''\"\"----\n\n\n\n\n\n",
)
_INVISIBLE = dict.fromkeys([0x00AD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF], "")
_CUT_WORD = re.compile(r"(?<=[^\W\d_]{2})-[ \t]*\n[ \t]*(?=[^\W\d_]{3})")


@dataclasses.dataclass(frozen=True)
class PlainText:
    """A report in plain letters.

    Attributes:
        text: lower case, the same words and line ends.
        places: the place in the original of each character of `text` and of its end; None where they are the same.
        capitals, small: whether the original has capital and small letters, so that a capital can tell something.
    """

    text: str
    places: Sequence[int] | None
    original: str

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original that ``text[start:end]`` was made from."""
        if self.places is None:
            return start, end
        return self.places[start], max(self.places[end - 1] + 1, self.places[start]) if end > start else start


def plain_text(original: str) -> PlainText:
    """`original` in plain letters, any length."""
    pieces = _Pieces(original)
    pieces.replace_characters()
    pieces.substitute(_CUT_WORD, lambda _: "")
    pieces.substitute(LONG_WORD, lambda match: mended(match.group()))
    return PlainText(pieces.text, pieces.places, original)


class _Pieces:
    """A text under change, with the place of each of its characters in the original."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.places: Sequence[int] | None = None

    def replace_characters(self) -> None:
        """Plain characters, in lower case."""
        if self.text.isascii():
            self.text = self.text.translate(_SAME).lower()
            return
        plain = {letter: _plain_character(letter) for letter in set(self.text)}
        longer = [letter for letter, new in plain.items() if len(new) != 1]
        self.text = self.text.translate({ord(letter): new for letter, new in plain.items() if len(new) == 1})
        if longer:
            self.substitute(re.compile(f"[{re.escape(''.join(longer))}]"), lambda match: plain[match.group()])

    def substitute(self, pattern: re.Pattern[str], replacement) -> None:  # noqa: ANN001
        """Replace every match, by characters of the same place where the length stays, of the match's start if not."""
        changes = [(*match.span(), replacement(match)) for match in pattern.finditer(self.text)]
        changes = [(start, end, new) for start, end, new in changes if new != self.text[start:end]]
        if not changes:
            return
        old = array.array("q", range(len(self.text) + 1) if self.places is None else self.places)
        parts, places, last = [], array.array("q"), 0
        for start, end, new in changes:
            parts += [self.text[last:start], new]
            places += old[last:start]
            places.extend(old[min(start + number, end - 1)] for number in range(len(new)))
            last = end
        self.places = places + old[last:]
        self.text = "".join([*parts, self.text[last:]])


@functools.lru_cache(maxsize=4096)
def _plain_character(letter: str) -> str:
    """One character in plain form: none, one or several."""
    if ord(letter) in _INVISIBLE:
        return ""
    plain = unicodedata.normalize("NFKC", letter.translate(_SAME)).translate(_SAME)
    return plain.lower() or letter
