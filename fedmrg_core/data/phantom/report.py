"""[ours] From the truth of a study to what a centre's radiologist writes about it, and the states which that text
says.

The states are built together with the sentences: a finding gets the state of the sentence that names it and stays
blank when no sentence does. So `states` is what the findings section says, not what the image shows (contract 1).
"""

from __future__ import annotations

import re

import numpy

from fedmrg_core.data.findings import BLANK, FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN
from fedmrg_core.data.phantom.centres import ReportStyle
from fedmrg_core.data.phantom.truth import DRAWN_FINDINGS, Detail, Truth
from fedmrg_core.data.phantom.vocabulary import CM, CO, COMMON, EC, ED, LL, LO, PE, PN, SD, Dialect

# The sections of a report and the findings each speaks of, in the order of speaking.
SECTIONS: dict[str, tuple[str, ...]] = {
    "heart": (CM, EC),
    "lungs": (ED, CO, PN, LO, LL, "atelectasis"),
    "pleura": (PE, "pneumothorax", "pleural other"),
    "bones": ("fracture",),
    "devices": (SD,),
}


def write_report(
    truth: Truth, style: ReportStyle, rng: numpy.random.Generator, wording_strength: float = 1.0
) -> tuple[str, str, list[int]]:
    """Write one report.

    Args:
        truth: what is there to see.
        style: the centre's reporting style.
        rng: decides what is said, hedged or left out, and the words.
        wording_strength: share of the sentences in the centre's own dialect, the others are in the common one (0..1).

    Returns:
        The findings section, the impression, and the 14 states of the findings section in the order of FINDINGS.
    """
    states = choose_states(truth, style, rng)
    parts = [_section(name, truth, states, style, rng, wording_strength) for name in style.order]
    findings = " ".join(part for part in parts if part)
    if not findings:  # a report says at least something: the heart's size is always visible
        states[CM] = POSITIVE if CM in truth else NEGATIVE
        findings = _section("heart", truth, states, style, rng, wording_strength)
    impression = _impression(truth, states, _pick_dialect(style, rng, wording_strength), rng)
    return findings, impression, _as_list(states)


def choose_states(truth: Truth, style: ReportStyle, rng: numpy.random.Generator) -> dict[str, int]:
    """Decide for each finding whether the report affirms it, hedges it, denies it or keeps silent."""
    states = dict.fromkeys(DRAWN_FINDINGS, BLANK)
    for name in DRAWN_FINDINGS:
        draws = rng.random(3)
        if name in truth:
            hedge = style.hedging * (1.6 if truth[name].severity == 1 else 0.7) * (name != SD)
            said = draws[0] < style.completeness or name == SD
            states[name] = (UNCERTAIN if draws[1] < hedge else POSITIVE) if said else BLANK
        elif draws[0] < style.false_hedge and name not in (SD, PN):
            states[name] = UNCERTAIN
        elif draws[1] < style.denial[name]:
            states[name] = NEGATIVE
    _settle_pneumonia(truth, states)
    if states[LO] == NEGATIVE and any(states[name] in (POSITIVE, UNCERTAIN) for name in SECTIONS["lungs"]):
        states[LO] = BLANK  # nobody denies any opacity beside a consolidation
    return states


def _settle_pneumonia(truth: Truth, states: dict[str, int]) -> None:
    """Infection is read from a consolidation: it can be no surer than that, and is never denied beside one."""
    if states[CO] == UNCERTAIN and states[PN] == POSITIVE:
        states[PN] = UNCERTAIN
    if states[CO] in (BLANK, NEGATIVE) and PN in truth:
        states[PN] = BLANK
    if states[CO] in (POSITIVE, UNCERTAIN) and states[PN] == NEGATIVE:
        states[PN] = BLANK


def _as_list(states: dict[str, int]) -> list[int]:
    """The 14 states; "no finding" is positive exactly if nothing except devices is positive or uncertain."""
    found = any(state in (POSITIVE, UNCERTAIN) for name, state in states.items() if name != SD)
    return [*(states[name] for name in FINDINGS[:-1]), BLANK if found else POSITIVE]


def _pick_dialect(style: ReportStyle, rng: numpy.random.Generator, wording_strength: float) -> Dialect:
    return style.dialect if rng.random() < wording_strength else COMMON


def _section(
    section: str,
    truth: Truth,
    states: dict[str, int],
    style: ReportStyle,
    rng: numpy.random.Generator,
    wording_strength: float,
) -> str:
    names = SECTIONS[section]
    if style.denials_first:
        names = tuple(sorted(names, key=lambda name: states[name] != NEGATIVE))
    sentences: list[str] = []
    denied: list[str] = []
    clear = not any(states[name] in (POSITIVE, UNCERTAIN) for name in SECTIONS["lungs"])
    for name in names:
        dialect = _pick_dialect(style, rng, wording_strength)
        if states[name] in (POSITIVE, UNCERTAIN):
            sentences.extend(_affirmation(name, truth.get(name), states[name], dialect, rng))
        elif states[name] == NEGATIVE:
            # "The lungs are clear" would contradict any other lung finding.
            usable = name in dialect.normal and (name != LO or clear)
            if usable and rng.random() < style.ready_made:
                sentences.append(_choice(dialect.normal[name], rng))
            else:
                denied.append(name)
    dialect = _pick_dialect(style, rng, wording_strength)
    denials = _denials(denied, style, dialect, rng)
    sentences = denials + sentences if style.denials_first else sentences + denials
    heading = dialect.headings.get(section, "")
    return " ".join(([heading] if heading and sentences else []) + sentences)


def _denials(denied: list[str], style: ReportStyle, dialect: Dialect, rng: numpy.random.Generator) -> list[str]:
    nouns = [_choice(dialect.nouns[name], rng) for name in denied]
    if len(nouns) > 1 and rng.random() < style.joined_denials:
        nouns = [", ".join(nouns[:-1]) + " or " + nouns[-1]]
    return [_sentence(_choice(dialect.negative, rng).format(nouns=noun)) for noun in nouns]


def _affirmation(
    name: str, detail: Detail | None, state: int, dialect: Dialect, rng: numpy.random.Generator
) -> list[str]:
    """The sentences for one finding that is affirmed or hedged; a hedge about nothing (no detail) picks a place at
    random.
    """
    if name == PN:
        return [dialect.infection[state == UNCERTAIN]]
    detail = detail or Detail(side=("right", "left")[int(rng.integers(2))], zone=int(rng.integers(1, 3)), severity=1)
    frames = dialect.positive if state == POSITIVE else dialect.uncertain
    keys = [f"{name}/{kind}" for kind in detail.kinds] or [f"{name}/both" if detail.side == "both" else name]
    return [_framed(_choice(frames, rng), _phrase(_choice(dialect.phrases[key], rng), detail, dialect)) for key in keys]


def _phrase(template: str, detail: Detail, dialect: Dialect) -> str:
    text = template.format(
        side=detail.side,
        zone=dialect.zones[detail.zone],
        size=dialect.sizes[detail.severity - 1],
        grade=dialect.grades[detail.severity - 1],
    )
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def _framed(frame: str, phrase: str) -> str:
    plural = phrase.startswith("*")
    phrase = phrase.lstrip("*")
    bare = re.sub(r"^an? ", "", phrase)
    return _sentence(
        frame.format(phrase=phrase, bare=bare, is_="are" if plural else "is", was="have been" if plural else "has been")
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _choice(options: tuple[str, ...], rng: numpy.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _impression(truth: Truth, states: dict[str, int], dialect: Dialect, rng: numpy.random.Generator) -> str:
    """The impression names what the findings section affirms or hedges, shortest first noun of the dialect for each."""
    named = [name for name in DRAWN_FINDINGS if name != SD and states[name] in (POSITIVE, UNCERTAIN)]
    if not named:
        return _choice(dialect.clear, rng)
    words = []
    for name in named:
        detail = truth.get(name)
        side = f"{detail.side} " if detail is not None and detail.side in ("right", "left") and name != PN else ""
        side = "bilateral " if detail is not None and detail.side == "both" else side
        words.append(
            ("possible " if states[name] == UNCERTAIN else "")
            + side
            + dialect.nouns[name][0].replace("suspicious ", "")
        )
    text = ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1]
    return _sentence(_choice(dialect.impression, rng).format(list=text))
