"""The findings labeller: negation, uncertainty, scope, anatomy, the no-finding rule, and the phantom's own truth."""

from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmrg_core.data.findings import BLANK, FINDINGS, NEGATIVE, POSITIVE, STATES, UNCERTAIN, states_to_names
from fedmrg_core.data.labeller import anatomy, find_mentions, label_report, mentions
from fedmrg_core.data.labeller.files import label_file, label_lines
from fedmrg_core.data.labeller.spelling import OTHER_WORDS, WORDS, mended
from fedmrg_core.data.phantom import CENTRES, PUBLIC_SITE, draw_study
from fedmrg_core.errors import InputError


def stated(text: str) -> dict[str, str]:
    """The findings a text states, without "no finding"."""
    names = states_to_names(label_report(text))
    return {name: state for name, state in names.items() if state != "blank" and name != "no finding"}


@pytest.mark.parametrize(
    "text",
    [
        "No pleural effusion.",
        "There is no evidence of a pleural effusion.",
        "Lungs without pleural effusion.",
        "The pleural spaces are free of effusion.",
        "Absence of pleural effusion.",
        "Negative for effusion.",
        "No definite effusion.",
        "No large or small effusion.",
        "No new pleural effusion has developed.",
        "Pleural effusion is not seen.",
        "An effusion is no longer visualized.",
        "The effusion has resolved.",
        "Resolved effusion.",
        "Interval resolution of the left effusion.",
        "Effusion: none.",
        "Neither effusion was confirmed.",
        "The study does not show an effusion.",
        "Pleural thickening is excluded, and a pleural effusion is absent.",
        "NO PLEURAL\nEFFUSION.",
    ],
)
def test_negation(text: str) -> None:
    assert stated(text)["pleural effusion"] == "negative"


@pytest.mark.parametrize(
    "text",
    [
        "No change in the pleural effusion.",
        "No significant interval change in the left effusion.",
        "The effusion is not significantly changed.",
        "Effusion without significant change.",
        "The effusion has not increased.",
        "Not only an effusion, also scarring.",
        "Nearly complete resolution of the effusion.",
        "Findings are consistent with a small effusion.",
        "Effusion has a volume of approx. 1.5 litres.",
        "Nodules noted; effusion has not resolved.",
        "Heart size is normal, with a small effusion.",
    ],
)
def test_pseudo_negation_and_affirmation(text: str) -> None:
    assert stated(text)["pleural effusion"] == "positive"


@pytest.mark.parametrize(
    "text",
    [
        "This may represent pneumonia.",
        "Possible pneumonia.",
        "Pneumonia cannot be excluded.",
        "Cannot exclude pneumonia.",
        "Questionable pneumonia.",
        "Findings suspicious for pneumonia.",
        "Findings suggest pneumonia.",
        "Pneumonia is likely.",
        "Pneumonia is unlikely.",
        "Atelectasis versus pneumonia.",
        "Atelectasis or pneumonia.",
        "Pneumonia is suspected but not certain.",
        "Evaluation for pneumonia.",
        "Early pneumonia suspected.",
        "No effusion, concerning for pneumonia.",
    ],
)
def test_uncertainty(text: str) -> None:
    assert stated(text)["pneumonia"] == "uncertain"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No effusion but a small pneumothorax.", {"pleural effusion": "negative", "pneumothorax": "positive"}),
        ("No large effusion, small pneumothorax.", {"pleural effusion": "negative", "pneumothorax": "positive"}),
        (
            "No effusion is seen and pneumothorax persists.",
            {"pleural effusion": "negative", "pneumothorax": "positive"},
        ),
        ("Pneumothorax, no effusion.", {"pleural effusion": "negative", "pneumothorax": "positive"}),
        ("Possible atelectasis, no effusion.", {"atelectasis": "uncertain", "pleural effusion": "negative"}),
        ("No effusion, possible atelectasis.", {"atelectasis": "uncertain", "pleural effusion": "negative"}),
        (
            "No pneumothorax, effusion or consolidation.",
            {"pneumothorax": "negative", "pleural effusion": "negative", "consolidation": "negative"},
        ),
        ("Pneumothorax and effusion are not seen.", {"pneumothorax": "negative", "pleural effusion": "negative"}),
        ("Edema in both bases, effusion is not seen.", {"edema": "positive", "pleural effusion": "negative"}),
        ("No opacity suspicious for pneumonia.", {"lung opacity": "negative", "pneumonia": "negative"}),
        ("No opacity to suggest pneumonia.", {"lung opacity": "negative", "pneumonia": "negative"}),
        ("Atelectasis rather than pneumonia.", {"atelectasis": "positive", "pneumonia": "negative"}),
        ("Opacity may represent edema.", {"lung opacity": "positive", "edema": "uncertain"}),
        ("Atelectasis or consolidation.", {"atelectasis": "uncertain", "consolidation": "uncertain"}),
        ("No fracture or pneumothorax.", {"fracture": "negative", "pneumothorax": "negative"}),
    ],
)
def test_scope(text: str, expected: dict[str, str]) -> None:
    assert stated(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Heart size normal.", {"cardiomegaly": "negative"}),
        ("The heart is not enlarged.", {"cardiomegaly": "negative"}),
        ("Heart size is at the upper limits of normal.", {"cardiomegaly": "negative"}),
        ("Borderline heart size.", {"cardiomegaly": "uncertain"}),
        ("Heart size is stable.", {}),
        ("Stable cardiomegaly.", {"cardiomegaly": "positive"}),
        ("The cardiac silhouette is mildly enlarged.", {"cardiomegaly": "positive"}),
        ("Possible enlarged heart.", {"cardiomegaly": "uncertain"}),
        ("Cardiomediastinal silhouette within normal limits.", {"enlarged cardiomediastinum": "negative"}),
        ("Widened mediastinum.", {"enlarged cardiomediastinum": "positive"}),
        ("No widened mediastinum.", {"enlarged cardiomediastinum": "negative"}),
        (
            "Heart size and mediastinal contours are within normal limits.",
            {"cardiomegaly": "negative", "enlarged cardiomediastinum": "negative"},
        ),
        (
            "Enlarged heart with normal mediastinal contours.",
            {"cardiomegaly": "positive", "enlarged cardiomediastinum": "negative"},
        ),
        ("The lungs are clear.", {"lung opacity": "negative"}),
        ("Clear lungs.", {"lung opacity": "negative"}),
        ("Lungs: Clear. Heart: Normal in size.", {"lung opacity": "negative", "cardiomegaly": "negative"}),
        ("Lungs are hyperexpanded.", {}),
    ],
)
def test_anatomy_counts_through_its_predicate(text: str, expected: dict[str, str]) -> None:
    assert stated(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Right-sided pacemaker and sternotomy wires.", {"support devices": "positive"}),
        ("The endotracheal tube has been removed.", {"support devices": "negative"}),
        ("No lines and tubes.", {"support devices": "negative"}),
        ("Devices: none.", {"support devices": "negative"}),
        ("Devices: Sternotomy wires.", {"support devices": "positive"}),
        ("Kerley lines are present.", {}),
        ("A pleural line is seen.", {}),
        ("Pericardial effusion.", {}),
        ("Lytic bone lesion.", {}),
        ("Nodular opacity in the left lung.", {"lung lesion": "positive"}),
        ("Hydropneumothorax.", {"pneumothorax": "positive", "pleural effusion": "positive"}),
        ("History of pneumonia.", {}),
        ("Healed rib fracture.", {"fracture": "positive"}),
        ("Apical pleural thickening.", {"pleural other": "positive"}),
        ("Consolidation in the right lower lobe.", {"consolidation": "positive"}),
    ],
)
def test_vocabulary(text: str, expected: dict[str, str]) -> None:
    assert stated(text) == expected


def test_positive_wins_over_uncertain_over_negative() -> None:
    assert stated("No effusion. Possible effusion.") == {"pleural effusion": "uncertain"}
    assert stated("Possible effusion. No effusion. Small effusion.") == {"pleural effusion": "positive"}


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("No pneumothorax. Heart size normal.", POSITIVE),
        ("Pacemaker in place. Clear lungs.", POSITIVE),
        ("Unremarkable examination.", POSITIVE),
        ("Possible pneumothorax.", BLANK),
        ("Cardiomegaly.", BLANK),
        ("", BLANK),
        (" \n. ", BLANK),
    ],
)
def test_no_finding_rule(text: str, state: int) -> None:
    assert label_report(text)[FINDINGS.index("no finding")] == state


def test_mentions_carry_their_place_and_sentence() -> None:
    text = "Clear lungs.  No EFFUSION, small\npneumothorax. Cardiomegaly!"
    found = find_mentions(text)
    assert [(mention.finding, mention.state, text[mention.start : mention.end]) for mention in found] == [
        ("lung opacity", NEGATIVE, "lungs"),
        ("pleural effusion", NEGATIVE, "EFFUSION"),
        ("pneumothorax", POSITIVE, "pneumothorax"),
        ("cardiomegaly", POSITIVE, "Cardiomegaly"),
    ]
    assert found[1].sentence == "No EFFUSION, small\npneumothorax"


def test_letters_that_grow_when_lowered_do_not_move_the_places() -> None:
    text = "İİİ Effusion."
    (mention,) = find_mentions(text)
    assert text[mention.start : mention.end] == "Effusion"


def test_every_word_of_the_lexicon_belongs_to_a_known_finding() -> None:
    named = {name for names, _ in mentions.MENTIONS for name in names}
    named |= {name for name, _ in anatomy.ANATOMY}
    assert named == set(FINDINGS) - {"no finding"}


# --- Styles of reports -------------------------------------------------------------------------------------------

REPORTS_OF_ALL_STYLES = [
    json.loads(line)
    for line in (pathlib.Path(__file__).parent / "labeller_reports.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize(
    "report", REPORTS_OF_ALL_STYLES, ids=lambda report: f"{report['kind']}: {report['text']!r:.40}"
)
def test_reports_of_all_styles_are_read(report: dict) -> None:
    """Each text with the states of the findings it names; a list allows any of its states."""
    read = states_to_names(label_report(report["text"]))
    allowed = {name: [state] if isinstance(state, str) else state for name, state in report["expected"].items()}
    assert {name: read[name] for name in allowed if read[name] not in allowed[name]} == {}


def test_places_lead_back_to_the_text_as_it_was_given() -> None:
    text = "\u2022 No\u00a0e\ufb00usion.\n\u2022 Con\u00adsolida\u00adtion, pneumo-\nthorax and a fratcure."
    assert [(mention.finding, text[mention.start : mention.end]) for mention in find_mentions(text)] == [
        ("pleural effusion", "e\ufb00usion"),
        ("consolidation", "Con\u00adsolida\u00adtion"),
        ("pneumothorax", "pneumo-\nthorax"),
        ("fracture", "fratcure"),
    ]


def test_a_mention_knows_what_decided_it_and_how_far_that_reached() -> None:
    text = "Lungs are clear. No effusion or edema, 8 mm nodule."
    lungs, effusion, edema, nodule = find_mentions(text)
    assert (lungs.cue[0], text[slice(*lungs.cue[1:])]) == ("predicate", "clear")
    assert (effusion.cue[0], text[slice(*effusion.cue[1:])]) == ("negated", "No")
    assert edema.cue == effusion.cue
    assert text[slice(*edema.statement)] == "No effusion or edema, "
    assert (nodule.cue, text[slice(*nodule.statement)]) == (None, "8 mm nodule")


def test_no_word_of_its_own_is_mended_into_another() -> None:
    assert not WORDS & OTHER_WORDS
    assert all(mended(word) == word for word in WORDS | OTHER_WORDS)
    assert [mended(word) for word in ("efusion", "nodulee", "injection", "module", "hemithorax")] == [
        "effusion", "nodule", "injection", "module", "hemithorax",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "piece",
    ["no effusion ", "no effusion, ", "no effusion and edema ", "effusion is not seen ", "heart lungs ", "a-", "a/",
     "?", " ", "\n", "- ", "x", "1) ", "status post ", "either or "],
)  # fmt: skip
def test_a_long_text_is_read_in_a_time_that_grows_with_its_length(piece: str) -> None:
    """200,000 characters without an end of sentence: work that grows with the square would take minutes."""
    assert len(label_report(piece * (200_000 // len(piece)))) == len(FINDINGS)


# --- Any text ----------------------------------------------------------------------------------------------------

PHRASES = st.sampled_from(
    "no not without effusion pneumothorax opacity heart lungs enlarged normal clear possible or and , . : \n but with "
    "may represent versus XXXX is seen cannot be excluded device tube mediastinum resolved 1.5 stable".split(" ")
)
REPORTS = st.one_of(st.text(), st.lists(PHRASES, max_size=40).map(" ".join))


@settings(deadline=None, max_examples=300)
@given(REPORTS)
def test_any_text_gets_consistent_states(text: str) -> None:
    states = label_report(text)
    assert len(states) == len(FINDINGS)
    assert set(states) <= set(range(len(STATES)))
    found = {FINDINGS.index(mention.finding) for mention in find_mentions(text)}
    assert found == {finding for finding, state in enumerate(states[:-1]) if state != BLANK}
    others = [state for name, state in zip(FINDINGS[:-1], states, strict=False) if name != "support devices"]
    assert states[-1] in (BLANK, POSITIVE)
    if any(state in (POSITIVE, UNCERTAIN) for state in others):
        assert states[-1] == BLANK


@settings(deadline=None, max_examples=200)
@given(REPORTS, st.sampled_from(["The patient is rotated.", "Comparison XXXX.", " ", "Two views of the chest."]))
def test_a_sentence_without_findings_changes_nothing(text: str, sentence: str) -> None:
    if text == text.lower():  # capitals elsewhere would tell where a line goes on
        sentence = sentence.lower()
    elif text == text.upper():
        sentence = sentence.upper()
    assert label_report(f"{text}\n\n{sentence}")[:-1] == label_report(text)[:-1]
    assert label_report(f"{sentence}\n\n{text}")[:-1] == label_report(text)[:-1]


# --- Lines and files ----------------------------------------------------------------------------------------------


def test_label_lines_gives_one_json_object_a_report() -> None:
    lines = list(label_lines(["Cardiomegaly. No pleural effusion.", "Possible edema."]))
    first, second = (json.loads(line)["states"] for line in lines)
    assert list(first) == list(FINDINGS)
    assert (first["cardiomegaly"], first["pleural effusion"], first["edema"]) == ("positive", "negative", "blank")
    assert second["edema"] == "uncertain"


def test_label_file_reads_utf_8_with_any_line_ending(tmp_path) -> None:
    path = tmp_path / "reports.txt"
    path.write_bytes(b"\xef\xbb\xbfCardiomegaly.\r\nNo effusion.")
    labels = [json.loads(line)["states"] for line in label_file(path)]
    assert [label["cardiomegaly"] for label in labels] == ["positive", "blank"]


def test_explain_shows_each_mention_with_what_decided_it(tmp_path) -> None:
    path = tmp_path / "reports.txt"
    path.write_text("No effusion, 8 mm nodule.\nNormal.\n", encoding="utf-8")
    first, second = label_file(path, explain=True)
    assert "states: lung lesion positive, pleural effusion negative" in first
    (row,) = (line for line in first.splitlines() if line.startswith("pleural effusion"))
    assert row.split("  ")[-1] == '"No effusion," [0:13]'
    assert 'negated: "No" [0:2]' in row
    assert "no mention of a finding" in second


@pytest.mark.parametrize(
    ("content", "clue"),
    [
        (None, "cannot be read"),
        (b"Normal.\n\nNormal.\n", "line 2 is empty"),
        (b"", "line 1 is empty"),
        (b"Normal.\nH\xe4matom.\n", "line 2 is not in UTF-8"),
    ],
)
def test_bad_files_end_in_one_clear_sentence(tmp_path, content: bytes | None, clue: str) -> None:
    path = tmp_path / "reports.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=clue) as error:
        label_file(path)
    assert str(path) in str(error.value)


# --- The phantom's truth ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", [*CENTRES, PUBLIC_SITE])
def test_phantom_states_are_recovered(centre: str) -> None:
    """At least 99.5 % of the report-finding pairs of every centre, and of the pairs the report speaks of."""
    studies = [draw_study(11, centre, index, image_size=32) for index in range(60)]
    pairs = [
        (true, read) for study in studies for true, read in zip(study.states, label_report(study.findings), strict=True)
    ]
    spoken = [(true, read) for true, read in pairs if true != BLANK or read != BLANK]
    for chosen in (pairs, spoken):
        assert sum(true == read for true, read in chosen) >= 0.995 * len(chosen)
