"""Why the labeller reads a report as it does: each mention, the words that decided it and how far they reach."""

from __future__ import annotations

from fedmrg_core.data.findings import BLANK, STATES, states_to_names
from fedmrg_core.data.labeller.reading import Mention, find_mentions, label_report

HEAD = ("finding", "state", "phrase", "decided by", "statement")


def explain_report(text: str) -> str:
    """A report's states and a table of its mentions, places as [start:end] in the text.

    Args:
        text: a report or section of one.
    """
    names = states_to_names(label_report(text))
    stated = ", ".join(f"{name} {state}" for name, state in names.items() if state != STATES[BLANK])
    rows = [HEAD, *(_row(text, mention) for mention in find_mentions(text))]
    if len(rows) == 1:
        return f"states: {stated or 'all blank'}\nno mention of a finding"
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    return "\n".join([f"states: {stated or 'all blank'}", *lines])


def _row(text: str, mention: Mention) -> tuple[str, ...]:
    """One mention as cells of the table."""
    cue = "-" if mention.cue is None else f"{mention.cue[0]}: {_quoted(text, *mention.cue[1:])}"
    phrase = _quoted(text, mention.start, mention.end)
    return mention.finding, STATES[mention.state], phrase, cue, _quoted(text, *mention.statement)


def _quoted(text: str, start: int, end: int) -> str:
    """A span of the text on one line, with its place."""
    while start < end and text[start].isspace():
        start += 1
    return f'"{" ".join(text[start:end].split())}" [{start}:{end}]'
