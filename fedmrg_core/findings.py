"""The 14 findings and their four states (the only home of both lists), and the labeller that reads them from a report.

Order of the findings: CheXpert's, as PromptMRG lists them [related].

The labeller works by rules in the phases of NegBio and CheXpert [related]: split into sentences; find the
phrases that name a finding; decide by the cues around each phrase whether it is affirmed, negated or uncertain,
where words such as "but" end a cue's scope; aggregate over the report by positive > uncertain > negative >
blank. Choices of our own [ours]:

- Every finding is read from its own phrases only: a positive consolidation does not make the lung opacity
  positive. Vascular congestion and heart failure are not oedema, a blunted costophrenic angle is not an
  effusion, a granuloma is not a lesion.
- Anatomy counts through its predicate. A normal (also top-normal), borderline or enlarged heart is cardiomegaly
  negative, uncertain or positive; a heart that is only called stable says nothing. The cardiomediastinal
  silhouette speaks for the enlarged cardiomediastinum alone, clear lungs for lung opacity (negative) alone.
- "Likely", "possible", "unlikely" and "A or B" outside a negation are uncertain; "consistent with" affirms;
  "history of" says nothing; a resolved finding and a removed device are negative.
- "No finding" is positive exactly if the text has a word and nothing but support devices is positive or uncertain
  (CheXpert's rule [related]); otherwise blank.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Iterable, Iterator

from fedmrg_core import findings_lexicon as lexicon
from fedmrg_core.errors import InputError

FINDINGS: tuple[str, ...] = (
    "enlarged cardiomediastinum",
    "cardiomegaly",
    "lung opacity",
    "lung lesion",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural effusion",
    "pleural other",
    "fracture",
    "support devices",
    "no finding",
)

# The index of a state is its class number everywhere: a study's `states`, the diagnosis head, the prompt table.
STATES: tuple[str, ...] = ("blank", "positive", "negative", "uncertain")
BLANK, POSITIVE, NEGATIVE, UNCERTAIN = range(len(STATES))

STATE_RANK = (BLANK, NEGATIVE, UNCERTAIN, POSITIVE)  # aggregation: the last one found in a report wins
NO_FINDING = FINDINGS.index("no finding")
SUPPORT_DEVICES = FINDINGS.index("support devices")

# A full stop ends a sentence also before a letter ("apex.There"), but not inside "1.5" or "vs."; so does a line break
# before a list item or an empty line.
SENTENCE_END = re.compile(
    r"(?<!\bvs)(?<!\bdr)(?<!\be\.g)(?<!\bi\.e)[.!;](?!\d)|\?(?=\s*$|\s+[a-z]|\n)|\n\s*\n|\n(?=\s*(?:\d+\.|-|\*))"
)
LIST_GAP = re.compile(r"[\s,/]*(?:(?:and|or|nor)\b)?[\s,/]*(?:[\w-]+ ?){0,2}$")
WORD = re.compile(r"[\w'-]+")


@dataclasses.dataclass(frozen=True)
class Mention:
    """One phrase of a report that names a finding, and the state it is in.

    Attributes:
        finding: one of `FINDINGS`, never "no finding".
        state: class number, POSITIVE, NEGATIVE or UNCERTAIN.
        start, end: the phrase is ``text[start:end]``.
        sentence: the sentence around it.
    """

    finding: str
    state: int
    start: int
    end: int
    sentence: str


def label_report(text: str) -> tuple[int, ...]:
    """The state of each finding in one report.

    Args:
        text: a report or section of one, any length.

    Returns:
        14 class numbers (see `STATES`) in the order of `FINDINGS`; all blank for a text without a word.
    """
    states = [BLANK] * len(FINDINGS)
    for start, end in split_sentences(text):
        for finding, state, _, _ in _sentence_mentions(text[start:end]):
            states[finding] = max(states[finding], state, key=STATE_RANK.index)
    others = (state for finding, state in enumerate(states) if finding not in (SUPPORT_DEVICES, NO_FINDING))
    if WORD.search(text) and not any(state in (POSITIVE, UNCERTAIN) for state in others):
        states[NO_FINDING] = POSITIVE
    return tuple(states)


def find_mentions(text: str) -> list[Mention]:
    """Every phrase of `text` that names a finding, in reading order, with its state and place."""
    return [
        Mention(FINDINGS[finding], state, start + first, start + last, text[start:end].strip())
        for start, end in split_sentences(text)
        for finding, state, first, last in _sentence_mentions(text[start:end])
    ]


def phrase_states(text: str, pattern: re.Pattern[str]) -> list[int]:
    """The states of phrases that are no finding of the 14, by the same cues.

    Args:
        text: a report.
        pattern: matches the phrases in lower-case text.
    """
    states = []
    for start, end in split_sentences(text):
        sentence = _lower(text[start:end])
        phrases = [_Event(match.start(), match.end(), "mention") for match in pattern.finditer(sentence)]
        states += [event.state for event in _decide(sentence, phrases)]
    return states


def states_to_names(states: Iterable[int]) -> dict[str, str]:
    """Finding name to state name, ``{"cardiomegaly": "positive", ...}``, for 14 class numbers in `FINDINGS` order."""
    return {finding: STATES[state] for finding, state in zip(FINDINGS, states, strict=True)}


def label_lines(lines: Iterable[str], source: str = "input") -> Iterator[str]:
    """One JSON object a report, ``{"states": {finding name: state name}}``, for one report a line.

    Raises:
        InputError: a line holds no report; `source` names the lines' origin in the message.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise InputError(f"{source}: line {number} is empty; expected one report a line, so remove or fill it.")
        yield json.dumps({"states": states_to_names(label_report(line))})


def label_file(path: str | pathlib.Path) -> Iterator[str]:
    """`label_lines` of a UTF-8 text file; a bad line raises before the first label is handed out.

    Raises:
        InputError: the file is missing, unreadable or empty, is not in UTF-8, or has an empty line.
    """
    path = pathlib.Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a file of one report a line.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line} is not in UTF-8 (byte {error.start}); convert the file to UTF-8."
        ) from error
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return iter(list(label_lines(lines, source=str(path))))


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence with a word in it; the sentence is ``text[start:end]``."""
    spans, start = [], 0
    for match in SENTENCE_END.finditer(_lower(text)):
        spans.append((start, match.start()))
        start = match.end()
    spans.append((start, len(text)))
    return [(first, last) for first, last in spans if WORD.search(text, first, last)]


def _lower(text: str) -> str:
    """Lower case of the same length, so that offsets keep their meaning; white space becomes plain blanks."""
    lowered = text.lower()
    if len(lowered) != len(text):  # some letters outside English grow when lowered
        lowered = "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)
    return lowered


# --- Phases 2 and 3: mentions and cues of one sentence -------------------------------------------------------------


def _compile(entries: Iterable[str]) -> re.Pattern[str]:
    """One pattern, one group an entry, for whole words; a blank in an entry stands for any white space."""
    spaced = (entry.replace(" ?", r"\s*").replace(" ", r"\s+") for entry in entries)
    return re.compile("|".join(rf"((?!\B\w)(?:{entry})(?<!\w\B))" for entry in spaced))


MENTION_PATTERN = _compile(pattern for _, pattern in lexicon.MENTIONS)
MENTION_FINDINGS = [tuple(FINDINGS.index(name) for name in names) for names, _ in lexicon.MENTIONS]
CUE_PATTERN = _compile([*(pattern for _, pattern in lexicon.CUES), lexicon.COMMA_BREAK])
CUE_KINDS = [*(kind for kind, _ in lexicon.CUES), "break"]
ANATOMY_PATTERN = _compile(
    [*(pattern for _, pattern in lexicon.ANATOMY), *(pattern for _, pattern in lexicon.PREDICATES)]
)
ANATOMY_FINDINGS = [FINDINGS.index(name) for name, _ in lexicon.ANATOMY]
PREDICATE_KINDS = [kind for kind, _ in lexicon.PREDICATES]


@dataclasses.dataclass
class _Event:
    """A mention or a cue at its place in a sentence."""

    start: int
    end: int
    kind: str  # "mention" or a kind of cue
    findings: tuple[int, ...] = ()
    state: int = POSITIVE


@functools.lru_cache(maxsize=20_000)  # the same sentences come again and again in radiology reports
def _sentence_mentions(sentence: str) -> tuple[tuple[int, int, int, int], ...]:
    """(finding, state, start, end) of every mention in one sentence."""
    lowered = _lower(sentence)
    mentions = [
        _Event(match.start(), match.end(), "mention", MENTION_FINDINGS[match.lastindex - 1])
        for match in MENTION_PATTERN.finditer(lowered)
    ]
    decided = [event for event in _decide(lowered, mentions) if event.state != BLANK]
    found = [(finding, event.state, event.start, event.end) for event in decided for finding in event.findings]
    for part in _anatomy_mentions(lowered):
        if not any(event.start <= part[2] < event.end for event in mentions):
            found.append(part)
    return tuple(sorted(found, key=lambda mention: mention[2:]))


def _decide(sentence: str, mentions: list[_Event]) -> list[_Event]:
    """Set the states of the mentions of a lower-case sentence by the cues outside and around them."""
    if not mentions:
        return []
    events = list(mentions)
    for match in CUE_PATTERN.finditer(sentence):
        if not any(event.start <= match.start() < event.end for event in mentions):
            events.append(_Event(match.start(), match.end(), CUE_KINDS[match.lastindex - 1]))
    events.sort(key=lambda event: event.start)
    _decide_forward(sentence, events)
    _decide_backward(sentence, events)
    return mentions


def _decide_forward(sentence: str, events: list[_Event]) -> None:
    """Carry the state of the latest forward cue to the mentions after it, up to a break."""
    state, previous = POSITIVE, None  # `previous`: the latest mention since the last cue that set a state
    named = False
    for event in events:
        if event.kind == "mention":
            event.state, previous, named = state, event, True
        elif event.kind == "either mention":
            previous = event
        elif event.kind == "negated" or (event.kind == "negated_back" and not named):  # "Resolved edema."
            state, previous = NEGATIVE, None
        elif event.kind == "uncertain":
            if state != NEGATIVE or previous is not None:  # "no questionable nodule" stays negated
                state, previous = UNCERTAIN, None
        elif event.kind == "uncertain_link":
            # "No opacity suspicious for pneumonia" stays negated; "no effusion, suspicious for pneumonia" does not.
            linked = previous is None or "," not in sentence[previous.end : event.start]
            state = NEGATIVE if state == NEGATIVE and linked else UNCERTAIN
        elif event.kind == "either" and state == POSITIVE:
            _either(sentence, events, event)
        elif event.kind == "break" or (event.kind == "with" and state == NEGATIVE):
            state, previous = POSITIVE, None
        elif event.kind == "history":
            state, previous = BLANK, None


def _either(sentence: str, events: list[_Event], cue: _Event) -> None:
    """Make both of "A or B" uncertain, outside a negation (marked here; the forward pass has not reached B yet)."""
    position = events.index(cue)
    before = events[position - 1] if position else None
    if before is not None and before.kind == "mention" and len(WORD.findall(sentence, before.end, cue.start)) <= 2:
        before.state = UNCERTAIN
    after = events[position + 1] if position + 1 < len(events) else None
    if after is not None and after.kind == "mention" and len(WORD.findall(sentence, cue.end, after.start)) <= 2:
        after.kind = "either mention"
        after.state = UNCERTAIN


def _decide_backward(sentence: str, events: list[_Event]) -> None:
    """Give the state of a cue that follows its mentions ("... is not seen") to the list of mentions right before it."""
    for position, cue in enumerate(events):
        if cue.kind not in ("negated_back", "uncertain_back"):
            continue
        edge, nearest = cue.start, True
        for event in reversed(events[:position]):
            if event.kind in ("either", "pseudo", "with"):
                continue
            gap = sentence[event.end : edge]
            if not event.kind.endswith("mention") or (
                len(WORD.findall(gap)) > 12 if nearest else not LIST_GAP.match(gap)
            ):
                break
            if event.state != NEGATIVE:
                event.state = NEGATIVE if cue.kind == "negated_back" else UNCERTAIN
            edge, nearest = event.start, False


# --- Anatomy and its predicates ----------------------------------------------------------------------------------


def _anatomy_mentions(sentence: str) -> list[tuple[int, int, int, int]]:
    """(finding, state, start, end) for "heart size is normal", "enlarged heart", "clear lungs" and their like."""
    parts = [(match.lastindex - 1, match.start(), match.end()) for match in ANATOMY_PATTERN.finditer(sentence)]
    count = len(ANATOMY_FINDINGS)
    found, inherited = [], None
    for position, (index, start, end) in enumerate(parts):
        if index >= count:
            inherited = None if PREDICATE_KINDS[index - count] == "break" else inherited
            continue
        before = parts[position - 1] if position else None
        attribute = None
        if before is not None and before[0] >= count and _adjacent(sentence[before[2] : start]):
            attribute = PREDICATE_KINDS[before[0] - count]  # "normal heart size"
            inherited = attribute
        predicate = attribute or _predicate_after(sentence, parts[position + 1 :], end) or inherited
        state = _predicate_state(ANATOMY_FINDINGS[index], predicate)
        if state is not None:
            found.append((ANATOMY_FINDINGS[index], state, start, end))
    return found


def _adjacent(gap: str) -> bool:
    """Whether an adjective stands right before its noun."""
    return re.fullmatch(r"\s*(?:(?:in|size|sized|appearing|appearance|of|the|overall|and|-)\s*)*", gap) is not None


def _predicate_after(sentence: str, parts: list[tuple[int, int, int]], end: int) -> str | None:
    """The kind of the first predicate after a noun, up to a break."""
    count = len(ANATOMY_FINDINGS)
    for index, start, stop in parts:
        if index < count:
            continue
        kind = PREDICATE_KINDS[index - count]
        if kind == "break" or len(WORD.findall(sentence, end, start)) > 12:
            return None
        attributive = any(
            other < count and first >= stop and _adjacent(sentence[stop:first]) for other, first, _ in parts
        )
        if not attributive:
            return kind
    return None


def _predicate_state(finding: int, predicate: str | None) -> int | None:
    """What a predicate says of an anatomical finding, or None if it says nothing of it."""
    if FINDINGS[finding] == "lung opacity":
        return NEGATIVE if predicate in ("clear", "negative") else None
    return {"negative": NEGATIVE, "positive": POSITIVE, "uncertain": UNCERTAIN}.get(predicate or "")
