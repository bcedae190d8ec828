"""Step 7: anatomy that becomes a finding through its predicate: "heart size is normal", "clear lungs".

A normal (also top-normal), borderline or enlarged heart is cardiomegaly negative, uncertain or positive; a heart that
is only called stable says nothing. The cardiomediastinal silhouette speaks for the enlarged cardiomediastinum
alone, clear lungs for lung opacity (negative) alone [ours].
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

from fedmrg_core.data.findings import FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN
from fedmrg_core.data.labeller.sentences import WORD
from fedmrg_core.data.labeller.words import compile_table

PARTS = r"(?: (?:silhouettes?|contours?|outlines?|shadows?|structures?|size|width|borders?|margins?))*"
ANATOMY: tuple[tuple[str, str], ...] = (
    (
        "enlarged cardiomediastinum",
        r"cardiac[- ]mediastinal (?:silhouettes?|contours?|outlines?|shadows?)|cardio-?\s?mediastin(?:al|um)" + PARTS,
    ),
    ("enlarged cardiomediastinum", r"mediastin(?:al|um)(?:(?: and|/|,) (?:pulmonary )?hilar)?" + PARTS),
    (
        "cardiomegaly",
        r"(?:the )?(?:heart|cardiac|cardio-?thoracic)"
        r"(?! (?:failure|disease|surgery|monitor|leads?|valve|pacemaker|enlargement|apex))"
        r"(?: (?:silhouettes?|contours?|outlines?|shadows?|size|borders?|ratio))*",
    ),
    (
        "lung opacity",
        r"(?<!neither\s)(?:lungs?(?: (?:fields?|zones?|bases?|parenchyma|apices))?|pulmonary parenchyma)"
        r"(?! (?:volumes?|markings?|cancer|nodules?|mass|lesions?|disease|apex|opacit\w+|densit\w+|base))",
    ),
)
NOT_MORE = (
    r"(?:not|nor|no longer) (?:(?:significantly|definitely|grossly|appreciably|clearly|markedly|overtly|frankly|be"
    r"|appear|abnormally) )*"
)
PREDICATES: tuple[tuple[str, str], ...] = (
    (
        "neutral",
        r"far from clear|(?:not|nor|isn't|aren't) (?:(?:entirely|completely|fully|quite|yet|all) )*(?:clear(?:ed)?"
        r"|normal|unremarkable)",
    ),
    (
        "uncertain",
        r"border-?line(?: (?:normal|enlarged|in size|size|prominent|enlargement))*"
        r"|(?:upper limits? (?:of )?)?normal (?:to|or) (?:only )?(?:mildly|slightly|minimally|borderline)"
        r" (?:enlarged|large)"
        r"|(?:may be|possibly|probably|questionabl[ey]|likely|might be|could be"
        r"|suspected to be) (?:[\w-]{1,30} ){0,2}"
        r"(?:enlarged|widened|large)",
    ),
    (
        "negative",
        r"(?:at |near |on )*(?:the )?upper limits? (?:of |for )?normal|(?:near )?top[- ]normal|high normal"
        rf"|{NOT_MORE}(?:enlarged|widened|large|dilated|increased)|normal(?:ly|-sized)?"
        r"|within (?:[\w-]{1,30} )?limits|unremarkable|wnl"
        r"|(?:without|no) (?:(?:significant|definite|evidence of|gross|focal) )?(?:enlargement|widening"
        r"|abnormalit\w+)"
        r"|(?:not|in)? ?(?:below|under|less than) (?:0\.5|50)\S*|(?:is|of|measures|at) 0\.[34]\d?",
    ),
    (
        "positive",
        r"enlarged?|widened|wide|increased(?: in)?(?: size)?|dilated|(?:too )?(?:large|big)"
        r"|(?:exceeds|above|over|greater than) (?:0\.5|50)\S*|(?:is|of|measures|at) 0\.(?:5[1-9]|[6-9]\d?)",
    ),
    ("clear", r"clear(?:ed)?"),
    (
        "neutral",
        r"(?:stable|unchanged|obscured|not (?:well )?(?:seen|evaluated|assessed))"
        r"(?!,?(?: (?:and|but|in (?:size|appearance) and))?"
        r"(?: (?:mildly|moderately|markedly|slightly|minimally|severely|still))?"
        r" (?:within|normal(?! (?:heart|cardi|media|lung))|enlarged(?! (?:heart|cardi))|in size))",
    ),
    (
        "break",
        r"but(?! (?:otherwise )?(?:clear|normal|stable))|however|although(?! (?:enlarged|large|normal))"
        r"|with(?! (?:normal|clear) )|which|there (?:is|are)|without|no",
    ),
)

_PATTERN = compile_table([*(pattern for _, pattern in ANATOMY), *(pattern for _, pattern in PREDICATES)])
_FINDINGS = [FINDINGS.index(name) for name, _ in ANATOMY]
_KINDS = [kind for kind, _ in PREDICATES]
_MOST_WORDS = 12  # between a noun and its predicate
_FURTHEST = 240  # characters between them
_ADJACENT = re.compile(r"\s*(?:(?:in|size|sized|appearing|appearance|of|the|overall|-)\s*){0,8}")
_AND = re.compile(r"\s*,?\s*and\s+(?:the\s+)?")
_AT_THE_END = re.compile(r"\s*(?:$|[,;])")

Part = tuple[int, int, int]  # number of the entry among nouns and predicates, start, end


@dataclasses.dataclass(frozen=True)
class AnatomyState:
    """A noun with its predicate, at their places in a sentence."""

    finding: int
    state: int
    start: int
    end: int
    predicate: tuple[str, int, int]


def anatomy_states(sentence: str) -> Iterator[AnatomyState]:
    """Every noun of a sentence in plain letters that has a predicate."""
    parts = [(match.lastindex - 1, match.start(), match.end()) for match in _PATTERN.finditer(sentence)]
    inherited: Part | None = None
    for position, (index, start, end) in enumerate(parts):
        if index >= len(_FINDINGS):
            inherited = None if _kind(parts[position]) == "break" else inherited
            continue
        before, attribute = parts[position - 1] if position else None, None
        if before is not None and _is_attribute(sentence, before, start):
            attribute = inherited = before  # "normal heart size"
        predicate = attribute or _predicate_after(sentence, parts, position) or inherited
        if predicate is None and before is not None and _is_shared(sentence, before, start, end):
            predicate = before
        if predicate is None:
            continue
        state = _state(_FINDINGS[index], _kind(predicate))
        if state is not None:
            yield AnatomyState(_FINDINGS[index], state, start, end, ("predicate", *predicate[1:]))


def _kind(predicate: Part) -> str:
    return _KINDS[predicate[0] - len(_FINDINGS)]


def _is_attribute(sentence: str, before: Part, start: int) -> bool:
    """Whether the part `before` stands right before the noun at `start` and tells of it; "but the heart" does not."""
    if before[0] < len(_FINDINGS) or not _adjacent(sentence, before[2], start):
        return False
    return _kind(before) != "break" or sentence[before[1] : before[2]] in ("no", "without")


def _is_shared(sentence: str, before: Part, start: int, end: int) -> bool:
    """Whether a noun that ends the statement shares a predicate: "heart size within normal limits and mediastinum"."""
    shared = before[0] >= len(_FINDINGS) and _kind(before) != "break" and _AND.fullmatch(sentence, before[2], start)
    return bool(shared) and _AT_THE_END.match(sentence, end) is not None


def _adjacent(sentence: str, start: int, end: int) -> bool:
    """Whether an adjective that ends at `start` stands right before the noun that begins at `end`."""
    return _ADJACENT.fullmatch(sentence, start, end) is not None


def _predicate_after(sentence: str, parts: Sequence[Part], position: int) -> Part | None:
    """The first predicate behind a noun, up to a break."""
    end = parts[position][2]
    for place in range(position + 1, len(parts)):
        index, start, stop = parts[place]
        if start - end > _FURTHEST:
            return None
        if index < len(_FINDINGS):
            continue
        if _kind(parts[place]) == "break" or len(WORD.findall(sentence, end, start)) > _MOST_WORDS:
            return None
        following = parts[place + 1] if place + 1 < len(parts) else None
        if following is None or following[0] >= len(_FINDINGS) or not _adjacent(sentence, stop, following[1]):
            return parts[place]
    return None


def _state(finding: int, predicate: str) -> int | None:
    """What a predicate says of an anatomical finding, or None if it says nothing of it."""
    if FINDINGS[finding] == "lung opacity":
        return NEGATIVE if predicate in ("clear", "negative") else None
    return {"negative": NEGATIVE, "positive": POSITIVE, "uncertain": UNCERTAIN}.get(predicate)
