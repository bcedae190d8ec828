"""Step 6: the state of each phrase, by the cues of its statement. What no cue reaches is affirmed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fedmrg_core.data.findings import BLANK, FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN
from fedmrg_core.data.labeller.cues import ATTRIBUTES, UNCERTAIN_AHEAD, Cue
from fedmrg_core.data.labeller.mentions import Phrase
from fedmrg_core.data.labeller.sentences import WORD

# What these join is no list: a time, and what a finding is or comes from.
TIME = r"after|following|since|despite|status|post"
LINK = rf"(?:(?:compatible|consistent|keeping) with|for|to|from|due|{TIME}|represent\w*|reflect\w*|suggest\w*|causing)"
LIST = r"[\s,/]*(?:(?:and|or|nor)\b)?[\s,/]*(?:[\w-]{1,30} ?){0,2}$"
DENIED_GAP = re.compile(
    rf"(?!.*\b(?:{TIME})\b){LIST}", re.DOTALL
)  # "opacity to suggest pneumonia is not seen" denies both
DOUBTED_GAP = re.compile(
    rf"(?!.*\b{LINK}\b){LIST}", re.DOTALL
)  # "opacity due to pneumonia is possible" doubts the cause
NO_LINK = re.compile(rf"(?!.*\b{LINK}\b|.*,)", re.DOTALL)
COMMA_GAP = re.compile(r",\s*(?:[\w-]{1,30}\s+){0,2}")
EXPLAINED = re.compile(r"[^,]{0,40},(?!\s*(?:and|or|nor)\b).{0,60}", re.DOTALL)
FAR = 12  # words between a cue and the phrases before it
FURTHEST = 100  # characters between two members of a list
NEAR = 2  # words between "or" and what it joins
BACKWARD = {
    "negated_back": NEGATIVE,
    "negated_both": NEGATIVE,
    "uncertain_back": UNCERTAIN,
    "uncertain_both": UNCERTAIN,
}
OPACITY = FINDINGS.index("lung opacity")
DEVICES = FINDINGS.index("support devices")


def decide(sentence: str, phrases: Sequence[Phrase], cues: Sequence[Cue]) -> None:
    """Set the states of the phrases of one statement; phrases and cues are places in `sentence`."""
    if not phrases:
        return
    events = sorted([*phrases, *cues], key=lambda event: event.start)
    _decide_forward(sentence, events)
    _decide_backward(sentence, events)


def _decide_forward(sentence: str, events: Sequence[Phrase | Cue]) -> None:
    """Carry the state of the latest cue to the phrases behind it, up to a break."""
    state, acting = POSITIVE, None
    previous: Phrase | None = None  # the latest phrase since the last cue that set a state
    named, joined = False, -1  # `joined`: a phrase whose state "A or B" has set
    for position, event in enumerate(events):
        if isinstance(event, Phrase):
            if position != joined:
                _set(event, state, acting)
            previous, named = event, True
            continue
        kind = event.kind
        if acting is not None and acting.kind == "indication":
            continue
        if kind in ("negated", "negated_both") or (kind == "negated_back" and not named):  # "Resolved edema."
            state, acting, previous = NEGATIVE, event, None
        elif kind in UNCERTAIN_AHEAD:
            if state != NEGATIVE or previous is not None:  # "no questionable nodule" stays denied
                state, acting, previous = UNCERTAIN, event, None
        elif kind == "uncertain_link":
            # "No opacity suspicious for pneumonia" stays denied; "no effusion, suspicious for pneumonia" does not.
            linked = previous is None or "," not in sentence[previous.end : event.start]
            if state != NEGATIVE or not linked:
                state, acting = UNCERTAIN, event
        elif kind == "either" and state == POSITIVE:
            joined = _either(sentence, events, position)
        elif kind == "borderline" and state == POSITIVE:
            joined = _doubt_next(sentence, events, position)
        elif kind == "versus" and state == POSITIVE:
            _either(sentence, events, position)
            state, acting, previous = UNCERTAIN, event, None
        elif kind == "break" or (kind == "with" and state in (NEGATIVE, BLANK)):
            state, acting, previous = POSITIVE, None, None
        elif kind in ("history", "indication", "procedure"):
            state, acting, previous = BLANK, event, None


def _set(phrase: Phrase, state: int, cue: Cue | None) -> None:
    if cue is not None and cue.kind == "procedure" and phrase.findings == (DEVICES,):
        return  # "status post pacemaker placement": it is there
    phrase.state = state
    phrase.cue = None if cue is None else (cue.kind, cue.start, cue.end)


def _either(sentence: str, events: Sequence[Phrase | Cue], position: int) -> int:
    """Make both of "A or B" uncertain, outside a denial; the place of B among the events, or -1."""
    cue = events[position]
    assert isinstance(cue, Cue)
    before = events[position - 1] if position else None
    if isinstance(before, Phrase) and len(WORD.findall(sentence, before.end, cue.start)) <= NEAR:
        if NO_LINK.match(sentence[before.end : cue.start]):
            _set(before, UNCERTAIN, cue)
        if sentence[before.end : cue.start].strip() == ",":  # "edema, infection, or hemorrhage": all are alternatives
            _doubt_list(sentence, events, position - 1, cue)
    return _doubt_next(sentence, events, position)


def _doubt_next(sentence: str, events: Sequence[Phrase | Cue], position: int) -> int:
    """Make the phrase that the cue at `position` stands right before uncertain; its place among the events, or -1."""
    cue, after = events[position], events[position + 1] if position + 1 < len(events) else None
    assert isinstance(cue, Cue)
    if isinstance(after, Phrase) and _joins(sentence[cue.end : after.start]):
        _set(after, UNCERTAIN, cue)
        return position + 1
    return -1


def _doubt_list(sentence: str, events: Sequence[Phrase | Cue], last: int, cue: Cue) -> None:
    """Make the members before `last` of a list of bare findings uncertain."""
    _set(events[last], UNCERTAIN, cue)
    for place in range(last - 1, -1, -1):
        gap = sentence[events[place].end : events[place + 1].start]
        if not isinstance(events[place], Phrase) or COMMA_GAP.fullmatch(gap) is None:
            return
        _set(events[place], UNCERTAIN, cue)


def _joins(gap: str) -> bool:
    """Whether "or" reaches the phrase behind it over the words in `gap`."""
    return len(WORD.findall(gap)) <= NEAR or (NO_LINK.match(gap) is not None and ATTRIBUTES.fullmatch(gap) is not None)


def _decide_backward(sentence: str, events: Sequence[Phrase | Cue]) -> None:
    """Give the state of a cue that follows its phrases ("... is not seen") to the list of phrases right before it."""
    for position, cue in enumerate(events):
        if not isinstance(cue, Cue) or cue.kind not in BACKWARD:
            continue
        edge, nearest = cue.start, True
        for place in range(position - 1, -1, -1):
            event = events[place]
            if isinstance(event, Cue) and event.kind in ("either", "pseudo", "with"):
                continue
            if not isinstance(event, Phrase) or not _reaches(sentence, event.end, edge, nearest, cue.kind):
                break
            if not nearest and cue.kind == "uncertain_back" and _is_explained(sentence, event, edge):
                break
            if event.state != NEGATIVE:
                _set(event, BACKWARD[cue.kind], cue)
            edge, nearest = event.start, False


def _is_explained(sentence: str, phrase: Phrase, end: int) -> bool:
    """Whether what follows a comma explains an opacity: "basilar opacity, atelectasis is favored"."""
    return phrase.findings == (OPACITY,) and EXPLAINED.fullmatch(sentence, phrase.end, end) is not None


def _reaches(sentence: str, start: int, end: int, nearest: bool, kind: str) -> bool:
    """Whether a cue, or the list that it acts on, which begins at `end` reaches the phrase that ends at `start`."""
    if nearest:
        return len(WORD.findall(sentence, start, end)) <= FAR
    gap = DENIED_GAP if kind.startswith("negated") else DOUBTED_GAP
    return end - start <= FURTHEST and gap.match(sentence, start, end) is not None
