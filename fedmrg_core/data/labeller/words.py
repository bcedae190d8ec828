"""How the tables of words are written and compiled.

An entry is a regular expression over plain text for whole words; a blank stands for any white space. Repetitions
have an upper end, so that the time to read a report grows with its length and not faster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

ANY_WORD = r"[\w-]{1,30}"


def few_words(most: int) -> str:
    """Up to `most` words, each with the blank behind it."""
    return rf"(?:{ANY_WORD} ){{0,{most}}}"


def one_of(words: str) -> str:
    """A group of the words and phrases that stand between bars or line ends in `words`."""
    return (
        "(?:" + "|".join(word.strip() for line in words.splitlines() for word in line.split("|") if word.strip()) + ")"
    )


def compile_table(entries: Iterable[str]) -> re.Pattern[str]:
    """One pattern for a table, one group an entry, earlier entries first."""
    spaced = (entry.replace(" ?", r"\s{0,3}").replace(" ", r"\s{1,9}") for entry in entries)
    # The word's start is looked for once, not once an entry.
    return re.compile(rf"(?!\B\w)(?=\S)(?:{'|'.join(f'({entry})' for entry in spaced)})(?<!\w\B)")
