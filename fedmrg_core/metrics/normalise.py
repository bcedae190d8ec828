"""The one text normaliser: both sides of every text measure pass through it.

The same reports score very differently under different normalisations, so the package has exactly one, and its name
(`NORMALISER`) belongs beside every published number.
"""

from __future__ import annotations

import re
import unicodedata

NORMALISER = "lower_alnum"

# Letters and digits of any script; the underscore counts as punctuation.
_WORD = re.compile(r"[^\W_]+")


def normalise(text: str) -> str:
    """Bring a report into the form in which it is scored: ``lower_alnum`` [ours].

    Unicode NFKC, lower case, every run of letters and digits becomes a token, everything else (full stops included)
    separates tokens; tokens are joined by single blanks. ``"No X-ray change, 2.5 cm."`` becomes
    ``"no x ray change 2 5 cm"``. References are never shortened. Full stops are dropped because a full stop token
    earns n-gram matches that say nothing about the image; pipelines that keep it report a higher BLEU.

    Returns:
        The normalised text; an empty string if the text holds no letter and no digit.
    """
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).lower()))
