"""Step 2: a report's sentences. One ends at a full stop, a line end, a bullet, the number of a list, a dash or `;`."""

from __future__ import annotations

import re

from fedmrg_core.data.labeller.text import PlainText

WORD = re.compile(r"[\w'-]+")

# What a heading or the name of a finding may be answered with, behind a colon, a dash or a bullet.
ANSWER = r"(?:none|nil|no|not|absent|negative|neg|-ve|yes|present|positive|normal|clear|unchanged|stable|n/?a)\b"
# A dash that joins the parts of one word although blanks stand around it ("right - sided").
JOINED = r"(?:sided?|like|shaped|based|dependent|displaced|calcified|specific|rays?|positioned|defined|lying|lead)\b"
ABBREVIATIONS = r"(?<!\bvs)(?<!\bdr)(?<!\be\.g)(?<!\bi\.e)(?<!\bapprox)(?<!\bcf)"

ENDS: tuple[tuple[str, str], ...] = (
    # A full stop ends a sentence before a letter too ("apex.There"), but not within 1.5; "base.2 mm" are two sentences.
    ("stop", rf"{ABBREVIATIONS}[.!](?!\d)(?!(?<=\bneg\.)\s?for\b)|(?<=[^\W\d_]{{3}})\.(?=\d)"),
    ("semicolon", r";"),
    # "?consolidation" and "shadow ? effusion" doubt what follows; "Pneumonia?" ends.
    ("question", rf"(?<=[\w)])\?(?=\s|$)(?!\s{ANSWER})"),
    ("empty line", r"\n[ \t]*\n\s*"),
    (
        "bullet",
        r"(?:\n[ \t]*)?[\u2022\u25aa\u25cf\u25e6\u2023\u00b7\u25a0\u2043]"
        r"|\n[ \t]*[*\-\u2013\u2014>+](?=\s*\w)",
    ),
    ("number", r"\s[ \t]{0,8}(?:\((?:\d{1,2}|[a-h])\)|\d{1,2}[.)-]|[a-h]\))(?=\s+[^\W\d_]|[^\W\d_])"),
    (
        "dash",
        rf"(?<![\d\s])[ \t]{{1,3}}[-\u2013]{{1,2}}[ \t]+(?!{ANSWER}|{JOINED})"
        rf"|(?<=\d)[ \t]{{1,3}}[-\u2013][ \t]+(?!{ANSWER}|\d)"
        rf"|--+(?! ?{ANSWER})|[ \t]?\u2014[ \t]?(?!{ANSWER})",
    ),
    ("line", r"\n"),
)
# The first look keeps the time short: hardly any character can begin an end.
_END = re.compile(r"(?=[^\w,'\"])(?:" + "|".join(f"({pattern})" for _, pattern in ENDS) + ")")
_END_KINDS = [kind for kind, _ in ENDS]

# A line that ends in one of these, or in a comma, goes on in the next.
_UNFINISHED = re.compile(
    r"(?:[,/(-]|(?<![:=])(?<![:=]\s)\b(?:and|or|nor|of|in|the|an?|no|without|with|to|for|by|at|on|from|as|than"
    r"|that|this|these|which|is|are"
    r"|was|were|has|have|be|been|may|could|might|not|left|right|small|large|moderate|mild|tiny|trace|minimal|pleural"
    r"|pulmonary|focal|definite|acute|new|bilateral|lower|upper|middle|lung|rib|cardiac|mediastinal|hilar|interval"
    r"|significant|evidence|increased|stable|central|venous|possible|likely|patchy|its|their|there))\s*$"
)
_WRAPPED_LINE = 50  # characters; in a text of one case, a line of this length went on because the page ended


def split_sentences(plain: PlainText) -> list[tuple[int, int]]:
    """Start and end of each sentence with a word in it, in the plain text."""
    text = plain.text
    one_case = not (any(map(str.isupper, plain.original)) and any(map(str.islower, plain.original)))
    spans, start, line_start = [], 0, 0
    for match in _END.finditer(text):
        kind = _END_KINDS[match.lastindex - 1]
        if kind == "line" and _goes_on(plain, line_start, match.start(), match.end(), one_case):
            line_start = match.end()
            continue
        end = match.end() if kind == "question" else match.start()
        if kind in ("line", "bullet") and _awaits_answer(text, start, match):
            continue
        if end > start:
            spans.append((start, end))
        start = line_start = match.end()
    spans.append((start, len(text)))
    return [(_visible(text, *span), span[1]) for span in spans if WORD.search(text, *span)]


def _visible(text: str, start: int, end: int) -> int:
    """The place of the first character that is no white space."""
    return end - len(text[start:end].lstrip())


def _goes_on(plain: PlainText, line_start: int, end: int, following: int, one_case: bool) -> bool:
    """Whether the line that ends at `end` is continued by the line that starts at `following`."""
    if _UNFINISHED.search(plain.text, max(line_start, end - 40), end):
        return True
    if one_case:
        return end - line_start >= _WRAPPED_LINE
    first, _ = plain.original_span(following, following + 1)
    while first < len(plain.original) and plain.original[first].isspace():
        first += 1
    return plain.original[first : first + 1].islower()


_LONE_ANSWER = re.compile(rf"[ \t]*{ANSWER}[^\n]{{0,20}}(?=\n|$)")


def _awaits_answer(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether a heading's line is answered by the next one ("Support devices:", "- None.")."""
    before = text[max(start, match.start() - 2) : match.start()].rstrip()
    return before.endswith(":") and _LONE_ANSWER.match(text, match.end()) is not None
