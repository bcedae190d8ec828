"""What is a report: a word, no placeholder, a language that the labeller reads."""

from __future__ import annotations

import pytest

from fedmrg_core.data.phantom.studies import public_texts
from fedmrg_core.data.report_words import (
    clean_name,
    has_word,
    is_missing,
    is_missing_name,
    is_report,
    knows_language,
    language_warning,
    why_no_report,
)

PLACEHOLDERS = ["nan", "None", "NaN", "N/A", "NULL", "na", "n.a.", "<NA>", "#N/A", "NaT", "not available.", " none "]
WORDLESS = ["", "  ", "___", "-", "\u2014", "...", "\u200b", "\ufeff", "12 3.4", "XXXX", "xxxx XXXX, XXXX.", "\u00b2"]


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_a_placeholder_is_no_report(text: str) -> None:
    assert has_word(text) and is_missing(text) and not is_report(text)
    assert "stands for a missing report" in why_no_report(text)


@pytest.mark.parametrize("text", WORDLESS)
def test_what_has_no_word_is_no_report(text: str) -> None:
    assert not has_word(text) and not is_report(text)
    assert why_no_report(text).startswith(("empty", "no word"))


@pytest.mark.parametrize(
    "text", ["None seen.", "No findings", "Nil acute", "XXXX-ray of the chest", "\u5fc3", "Normal"]
)
def test_short_reports_are_reports(text: str) -> None:
    assert is_report(text) and why_no_report(text) == ""


def test_a_site_may_be_called_na_but_not_nan() -> None:
    assert not any(map(is_missing_name, ["NA", "None", "Nantes", "north"]))
    assert all(map(is_missing_name, ["nan", "NaN", "NULL", "N/A", "<NA>", "", "\u200b"]))


def test_names_have_one_spelling() -> None:
    spellings = [
        "Universit\u00e9 Sud",
        "Universite\u0301 Sud",
        "\ufeffUniversit\u00e9\u00a0 Sud ",
        "Univer\u200bsit\u00e9 Sud",
    ]
    assert {clean_name(name) for name in spellings} == {"Universit\u00e9 Sud"}


@pytest.mark.parametrize(
    "text",
    [
        "Keine Infiltrate.",
        "Kein Pleuraerguss. Herz normal gro\u00df.",
        "Kein Nachweis eines Pneumothorax oder Pleuraergusses.",
        "No se observa derrame pleural ni neumot\u00f3rax. Silueta cardiaca normal.",
        "No hay consolidaci\u00f3n focal.",
        "Absence de pneumothorax ou de consolidation.",
        "\u53cc\u80ba\u7eb9\u7406\u6e05\u6670\uff0c\u672a\u89c1\u660e\u663e\u5f02\u5e38\u3002",
        "\u53f3\u4fa7\u80f8\u8154\u79ef\u6db2\uff0cPICC\u7ba1\u5728\u4f4d",
    ],
)
def test_another_language_is_told(text: str) -> None:
    assert not knows_language(text)


@pytest.mark.parametrize(
    "text",
    [
        "Clear lungs", "Nil acute", "No PTX", "NAD", "Normal.", "Pneumothorax.", "No infiltrate", "Infiltrate RLL",
        "Lungs CTA", "XXXX", "No acute disease", "The heart is enlarged. No pleural effusion.",
    ],
)  # fmt: skip
def test_short_english_is_not_told(text: str) -> None:
    assert knows_language(text)


def test_no_text_of_the_phantom_is_told() -> None:
    assert all(knows_language(text) and is_report(text) for text in public_texts(400, 0))


def test_the_warning_counts_and_names_a_few() -> None:
    reports = {f"s{number}": "Herz nicht vergr\u00f6\u00dfert." for number in range(5)} | {"s9": "Clear lungs."}
    sentence = language_warning(reports.items(), "studies.csv")
    assert sentence.startswith("studies.csv: 5 of 6 reports") and "(s0, s1, s2, ...)" in sentence
    assert language_warning([("s9", "Clear lungs.")], "studies.csv") == ""
