"""All steps together: the states of a report, and every mention with the cue and the statement that decided it."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import re

from fedmrg_core.data.findings import BLANK, FINDINGS, NO_FINDING, POSITIVE, STATE_RANK, SUPPORT_DEVICES, UNCERTAIN
from fedmrg_core.data.labeller.anatomy import anatomy_states
from fedmrg_core.data.labeller.cues import find_cues
from fedmrg_core.data.labeller.mentions import Phrase, find_phrases
from fedmrg_core.data.labeller.scope import decide
from fedmrg_core.data.labeller.sentences import split_sentences
from fedmrg_core.data.labeller.statements import split_statements
from fedmrg_core.data.labeller.text import plain_text
from fedmrg_core.data.report_words import is_report


@dataclasses.dataclass(frozen=True)
class Mention:
    """One phrase of a report that names a finding, and the state it is in.

    Attributes:
        finding: one of `FINDINGS`, never "no finding".
        state: class number, POSITIVE, NEGATIVE or UNCERTAIN.
        start, end: the phrase is ``text[start:end]``.
        sentence: the sentence around it.
        cue: kind, start and end of the words that denied or doubted it, or of an anatomical noun's predicate; None
            where there are none.
        statement: start and end of the statement that its cues are looked for in.
    """

    finding: str
    state: int
    start: int
    end: int
    sentence: str
    cue: tuple[str, int, int] | None
    statement: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class _Found:
    """A mention at its place in a sentence."""

    finding: int
    state: int
    start: int
    end: int
    cue: tuple[str, int, int] | None
    statement: tuple[int, int]


def label_report(text: str) -> tuple[int, ...]:
    """The state of each finding in one report.

    Args:
        text: a report or section of one, any length.

    Returns:
        14 class numbers (see `STATES`) in the order of `FINDINGS`; all blank for what is no report
        (`report_words.is_report`).
    """
    states = [BLANK] * len(FINDINGS)
    plain = plain_text(text)
    for start, end in split_sentences(plain):
        for found in _read_sentence(plain.text[start:end]):
            states[found.finding] = max(states[found.finding], found.state, key=STATE_RANK.index)
    others = (state for finding, state in enumerate(states) if finding not in (SUPPORT_DEVICES, NO_FINDING))
    if is_report(text) and not any(state in (POSITIVE, UNCERTAIN) for state in others):
        states[NO_FINDING] = POSITIVE
    return tuple(states)


def find_mentions(text: str) -> list[Mention]:
    """Every phrase of `text` that names a finding, in reading order, with its state, its place and what decided it."""
    plain, mentions = plain_text(text), []
    for start, end in split_sentences(plain):
        first, last = plain.original_span(start, end)
        for found in _read_sentence(plain.text[start:end]):
            place = plain.original_span(start + found.start, start + found.end)
            statement = plain.original_span(start + found.statement[0], start + found.statement[1])
            cue = None
            if found.cue is not None:
                cue = (found.cue[0], *plain.original_span(start + found.cue[1], start + found.cue[2]))
            name, sentence = FINDINGS[found.finding], text[first:last].strip()
            mentions.append(Mention(name, found.state, *place, sentence, cue, statement))
    return mentions


def phrase_states(text: str, pattern: re.Pattern[str]) -> list[int]:
    """The states of phrases that are no finding of the 14, by the same cues.

    Args:
        text: a report.
        pattern: matches the phrases in lower-case text.
    """
    plain, states = plain_text(text), []
    for start, end in split_sentences(plain):
        sentence = plain.text[start:end]
        phrases = [Phrase(match.start(), match.end(), (0,), POSITIVE) for match in pattern.finditer(sentence)]
        _decide_statements(sentence, phrases)
        states += [phrase.state for phrase in phrases]
    return states


@functools.lru_cache(maxsize=20_000)  # the same sentences come again and again in radiology reports
def _read_sentence(sentence: str) -> tuple[_Found, ...]:
    """Every mention of a sentence in plain letters, in reading order."""
    phrases = find_phrases(sentence, POSITIVE)
    statements = _decide_statements(sentence, phrases)
    found = [
        _Found(finding, phrase.state, phrase.start, phrase.end, phrase.cue, _around(statements, phrase.start))
        for phrase in phrases
        if phrase.state != BLANK
        for finding in phrase.findings
    ]
    starts = [phrase.start for phrase in phrases]
    for part in anatomy_states(sentence):
        before = bisect.bisect_right(starts, part.start) - 1
        if before < 0 or phrases[before].end <= part.start:  # not within "enlarged heart", which is a phrase
            around = _around(statements, part.start)
            found.append(_Found(part.finding, part.state, part.start, part.end, part.predicate, around))
    return tuple(sorted(found, key=lambda mention: (mention.start, mention.end, mention.finding)))


def _decide_statements(sentence: str, phrases: list[Phrase]) -> list[tuple[int, int]]:
    """Split a sentence into statements and set the states of its phrases in each."""
    if not phrases:
        return [(0, len(sentence))]
    cues = find_cues(sentence, phrases)
    statements = split_statements(sentence, phrases, cues)
    phrase_starts, cue_starts = [phrase.start for phrase in phrases], [cue.start for cue in cues]
    for start, end in statements:
        mine = phrases[bisect.bisect_left(phrase_starts, start) : bisect.bisect_left(phrase_starts, end)]
        decide(sentence, mine, cues[bisect.bisect_left(cue_starts, start) : bisect.bisect_left(cue_starts, end)])
    return statements


def _around(statements: list[tuple[int, int]], place: int) -> tuple[int, int]:
    """The statement that a place lies in."""
    return statements[bisect.bisect_right(statements, (place, float("inf"))) - 1]
