"""Step 5: a sentence's statements. A denial or doubt does not reach over the comma or "and" that begins a new one.

"No effusion, 8 mm nodule in the left upper lobe" and "No pneumothorax and edema is improved" are two statements.
"No consolidation, large effusion, or pneumothorax" is one: a list goes on to its closing "or" or "and".
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

from fedmrg_core.data.labeller.cues import FORWARD, Cue
from fedmrg_core.data.labeller.mentions import Phrase
from fedmrg_core.data.labeller.words import one_of

JOINER = re.compile(
    r"\s{0,3},\s{0,9}(?:(and/or|and|or|nor)\b\s{0,9})?|\s(and/or|and|or|nor)\s{1,9}"
    r"|\s?(/)\s?(?=[^\W\d_]{3})"
)

# Behind a comma these begin a new statement, list or not.
NEW_SUBJECT = re.compile(
    r"(?:there|it|this|these|that|those|heart|lungs|lung fields|cardiac silhouette|the (?:heart|lungs|cardiac"
    r"|mediastin\w+|patient)"
    r"|then|now|again|also|see|status[- ]post|s/p|\d+(?:\.\d+)?(?: ?x ?\d+(?:\.\d+)?)? ?-?(?:mm|cm|millimet\w+"
    r"|centimet\w+))\b"
)
# Behind a comma or "and" these begin one unless the list goes on: an article, a size, a side, a place, a course.
NEW_PHRASE = re.compile(
    r"(?:"
    + one_of(
        """an?|the|left|right|bilateral|bibasilar|bibasal|biapical|basilar|basal|retrocardiac|lingular|perihilar|upper|lower
        |middle|mid|apical|small|smaller|tiny|trace|minimal|minimally|mild|mildly|moderate|moderately|large
        |larger|big|severe
        |severely|marked|markedly|massive|extensive|huge|slight|slightly|stable|unchanged|persistent|persisting
        |residual
        |increased|increasing|decreased|decreasing|worsening|worsened|improved|improving|new|newly|enlarging|enlarged
        |scattered|patchy|multiple|several|few|some|chronic|old|healed|healing|multifocal|diffuse|diffusely|interval
        |progressive|loculated|layering|subtle|faint|hazy|linear|streaky|confluent|prominent|known|early|developing
        |probable|possible|likely|again|subsegmental|discoid|platelike|one|two|three|l|r|lll|rll|rul|lul|rml"""
    )
    + r")(?:-sided)?\b"
)
# "and" alone joins too often what belongs together, so that fewer words begin a statement behind it.
NEW_PHRASE_BEHIND_AND = re.compile(
    r"(?:an?|the|there|mild|mildly|moderate|small|tiny|stable|large|minimal|trace|subtle|patchy|unchanged|persistent"
    r"|increased|enlarged|left|right|bilateral|bibasilar|scattered|new|\d+(?:\.\d+)? ?-?(?:mm|cm))(?:-sided)?\b"
)
COURSE = one_of(
    """unchanged|stable|improv(?:ed|ing)|worse(?:ned|ning)?|increas(?:ed|ing)|decreas(?:ed|ing)|larger|smaller|resolving
    |persistent|enlarged|progress(?:ed|ing)|regress(?:ed|ing)|recurred|evolv(?:ed|ing)|mild|moderate|small
    |large|similar|better|new|prominent|as before|redemonstrated|again
    |still"""
)
COURSE_VERB = re.compile(
    rf"\b(?:persists?|persisted|remains?|remained|continues?|(?:is|are|was|were|has|have|had|appears?|looks?)"
    rf"(?: (?:been|again|now|also|still|mildly|slightly|otherwise|the|in|at))*\s+(?:{COURSE})|improves|worsens"
    rf"|increases)\b"
    rf"|\b(?:{COURSE})\s*$"
)
PRESENT_VERB = re.compile(r"\b(?:is|was|are|were|has been|have been)\b(?! not| no\b)")
PLACE = re.compile(
    r"^\s*(?:in|at|within|of|involving|on|along|over)\s+(?:the\s+|both\s+)?(?:left|right|lower|upper|mid"
    r"|lingula|bases?|ap(?:ex|ices))"
)
# "No acute, displaced fracture": nothing but adjectives yet.
ADJECTIVES = re.compile(
    r"\s*(?:(?:an?|the|any|new|old|acute|large|small|focal|definite|discrete|gross|obvious|rib|overt|frank"
    r"|airspace|more|most|very"
    r"|mild|early|dense|[a-z-]{2,20}(?:al|ed|ic|ous|ar|ive|ing|ary|ant|ble))\s*){1,8}"
)
THERE_IS = re.compile(r"\bthere\s+(?:is|are|was|were|has|have)\b")


@dataclasses.dataclass
class _Item:
    """What stands between two commas or conjunctions."""

    start: int
    end: int
    before: int  # the end of the item before
    joiner: str  # what stands before it: "", ",", "and", "or"; with a comma ", and", ", or"
    phrase: Phrase | None = None  # the first that names a finding
    last: Phrase | None = None
    cues: list[Cue] = dataclasses.field(default_factory=list)


def split_statements(sentence: str, phrases: Sequence[Phrase], cues: Sequence[Cue]) -> list[tuple[int, int]]:
    """Start and end of each statement of a sentence in plain letters; together they are the whole sentence."""
    if not any(cue.kind in FORWARD for cue in cues):
        return [(0, len(sentence))]
    items = list(_items(sentence, phrases, cues))
    goes_on = _lists_that_go_on(sentence, items)
    starts, so_far = [0], _SoFar()
    for item, listed in zip(items, goes_on, strict=True):
        if so_far.begins_another(sentence, item, listed):
            starts.append(item.start)
            so_far = _SoFar()
        so_far.add(sentence, item)
    return list(itertools.pairwise([*starts, len(sentence)]))


def _items(sentence: str, phrases: Sequence[Phrase], cues: Sequence[Cue]) -> Iterator[_Item]:
    """The parts between commas and conjunctions that stand outside phrases and cues."""
    taken = sorted([(part.start, part.end) for part in (*phrases, *cues) if getattr(part, "kind", "") != "either"])
    position, start, before, joiner = 0, 0, 0, ""
    edges: list[tuple[int, int, str]] = []
    for match in JOINER.finditer(sentence):
        while position < len(taken) and taken[position][1] <= match.start():
            position += 1
        if position < len(taken) and taken[position][0] < match.start() < match.end() <= taken[position][1]:
            continue
        word = next(filter(None, match.groups()), "")
        word = "or" if word in ("and/or", "nor", "/") else word
        edges.append((match.start(), match.end(), f", {word}".strip() if "," in match.group() else word))
    phrase, cue = 0, 0
    for end, following, next_joiner in [*edges, (len(sentence), len(sentence), "")]:
        item = _Item(start, end, before, joiner)
        while phrase < len(phrases) and phrases[phrase].start < max(end, following):
            if phrases[phrase].findings:
                item.phrase, item.last = item.phrase or phrases[phrase], phrases[phrase]
            phrase += 1
        while cue < len(cues) and cues[cue].start < max(end, following):
            if cues[cue].kind != "either":
                item.cues.append(cues[cue])
            cue += 1
        yield item
        start, before, joiner = following, end, next_joiner


def _lists_that_go_on(sentence: str, items: Sequence[_Item]) -> list[bool]:
    """For each item, whether it is a member of a list that a later "or", or "and" of bare members, closes."""
    goes_on = [False] * (len(items) + 1)
    bare_to_the_end = [False] * (len(items) + 1)  # closed by "and"
    for number in range(len(items) - 2, -1, -1):
        item, following = items[number], items[number + 1]
        if not _is_bare(sentence, item):
            continue
        plain = not NEW_PHRASE.match(sentence, item.start)
        if following.joiner.endswith("or"):
            goes_on[number] = following.phrase is not None
        elif following.joiner.endswith("and"):
            closed = _is_bare(sentence, following) and not NEW_PHRASE.match(sentence, following.start)
            bare_to_the_end[number] = plain and closed
        else:
            goes_on[number] = goes_on[number + 1]
            bare_to_the_end[number] = plain and bare_to_the_end[number + 1]
    return [listed or bare for listed, bare in zip(goes_on[:-1], bare_to_the_end[:-1], strict=True)]


def _is_bare(sentence: str, item: _Item) -> bool:
    """Whether an item names a finding and says nothing of it."""
    if item.phrase is None or any(cue.kind in FORWARD or cue.kind in ("break", "pseudo") for cue in item.cues):
        return False
    return not (NEW_SUBJECT.match(sentence, item.start) or COURSE_VERB.search(sentence, item.phrase.end, item.end))


@dataclasses.dataclass
class _SoFar:
    """The statement that a sentence's items have made so far."""

    acting: Cue | None = None  # the latest cue that acts on what follows
    named: bool = False  # whether a finding has been named behind it
    listed: bool = False  # whether a comma joined items of it
    there_is: bool = False

    def add(self, sentence: str, item: _Item) -> None:
        """Take an item in."""
        self.listed = self.listed or (self.acting is not None and item.joiner.startswith(","))
        self.there_is = self.there_is or THERE_IS.search(sentence, item.start, item.end) is not None
        forward = [cue for cue in item.cues if cue.kind in FORWARD]
        if forward:
            self.acting, self.named = forward[-1], False
        if item.last is not None and self.acting is not None and item.last.end > self.acting.end:
            self.named = True

    def begins_another(self, sentence: str, item: _Item, goes_on: bool) -> bool:
        """Whether `item` begins a statement of its own; `goes_on`: it is a member of a list that closes later."""
        kind = None if self.acting is None else self.acting.kind
        if (
            kind in (None, "uncertain_list", "indication")
            or item.joiner.endswith("or")
            or not self._is_complete(sentence, item)
        ):
            return False
        if item.joiner == ",":
            if kind == "procedure" or NEW_SUBJECT.match(sentence, item.start):
                return True
            return not goes_on and (NEW_PHRASE.match(sentence, item.start) is not None or _says(sentence, item))
        if NEW_SUBJECT.match(sentence, item.start) or NEW_PHRASE_BEHIND_AND.match(sentence, item.start):
            return True
        if item.phrase is None:
            return False
        if COURSE_VERB.search(sentence, item.phrase.end, item.end):
            return True
        if PRESENT_VERB.search(sentence, item.phrase.end, item.end) is None:
            return False
        return (item.joiner.startswith(",") or self.there_is) and not self.listed

    def _is_complete(self, sentence: str, item: _Item) -> bool:
        """Whether what the latest cue acts on is named; it is not in "no acute, displaced fracture"."""
        assert self.acting is not None
        if self.named or self.acting.kind == "procedure":
            return True
        return ADJECTIVES.fullmatch(sentence, self.acting.end, item.before) is None


def _says(sentence: str, item: _Item) -> bool:
    """Whether an item behind a comma has a verb or a place of its own."""
    if item.phrase is None or item.last is None:
        return False
    place, end = item.phrase.end, item.end
    if COURSE_VERB.search(sentence, place, end) or PLACE.match(sentence[place:end]):
        return True
    verb = PRESENT_VERB.search(sentence, place, end)
    return verb is not None and (verb.group() in ("is", "was", "has been") or sentence[place - 1] == "s")
