"""Tables come back as they were written, and no cell of text is a formula to a spreadsheet."""

from __future__ import annotations

import csv
import io

import pandas
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedmrg_core.data.study import LeftOut, LoadedStudies
from fedmrg_core.files.stored_tables import cell_text, read_table, table_text, text_of_cell
from fedmrg_core.runs.run_folder import RunFolder

FORMULA = '=HYPERLINK("http://example.org","report")'


@given(st.text() | st.text(alphabet="'=+-@\t\r a"))
@example(FORMULA)
@example("'=1")
@example("''=1")
def test_text_comes_back_and_is_no_formula(text):
    cell = cell_text(text)
    assert text_of_cell(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell == text or cell == f"'{text}"


@pytest.mark.parametrize("text", ["No effusion.", "'quoted'", "a = b", "centre-a", "", "1e5"])
def test_ordinary_text_is_written_as_it_is(text):
    assert cell_text(text) == text


def test_a_table_is_read_back_as_it_was(tmp_path):
    table = pandas.DataFrame(
        {"site": ["=a", "b"], "generated": [FORMULA, "- no effusion"], "bleu_4": [-0.5, 1.0], "empty": ["+1", None]}
    )
    (tmp_path / "table.csv").write_text(table_text(table), encoding="utf-8")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as handle:
        cells = [cell for row in list(csv.reader(handle))[1:] for cell in row]
    assert cells == ["'=a", f"'{FORMULA}", "-0.5", "'+1", "b", "'- no effusion", "1.0", ""]
    again = read_table(tmp_path / "table.csv", ("site",), "make it again")
    assert again.site.tolist() == ["=a", "b"] and again.generated.tolist() == [FORMULA, "- no effusion"]
    assert again.bleu_4.tolist() == [-0.5, 1.0] and again["empty"].tolist()[0] == "+1"


def test_rows_of_a_run_folder_and_of_what_was_left_out_are_guarded(tmp_path):
    RunFolder(tmp_path).write_csv("rounds.csv", [{"client": "=a", "loss": -1.5, "reason": "@x"}])
    assert (tmp_path / "rounds.csv").read_text() == "client,loss,reason\n'=a,-1.5,'@x\n"
    LoadedStudies(None, [LeftOut("=1", "-a.png", "too dark")]).write_left_out(tmp_path / "left_out.csv")
    rows = list(csv.reader(io.StringIO((tmp_path / "left_out.csv").read_text())))
    assert rows[1] == ["'=1", "'-a.png", "too dark"]
