"""`fedmrg score`: anybody's reports, scored as the runs of this package are."""

import pandas
import pytest
from scores import score_states, score_texts
from typer.testing import CliRunner

from fedmrg_core.commands.command_line import app
from fedmrg_core.data.labeller import label_report
from fedmrg_core.errors import InputError
from fedmrg_core.tasks.reports.score_file import COLUMNS, read_reports, score_reports

ROWS = [
    ("1", "No effusion. The heart size is normal.", "No effusion. Heart size normal."),
    ("2", "Small left effusion, no pneumothorax.", "Small effusion. Cardiomegaly."),
    ("3", "Cardiomegaly with mild edema.", ""),
    ("NA", "Lungs are clear.", "Lungs are clear. Possible nodule."),
]


def table_of(tmp_path, rows=ROWS, columns=COLUMNS):
    path = tmp_path / "reports.csv"
    pandas.DataFrame(rows, columns=list(columns)).to_csv(path, index=False)
    return path


def test_values_are_those_of_the_measures_themselves(tmp_path):
    scored = score_reports(read_reports(table_of(tmp_path)), meteor=False, resamples=200).set_index("metric")
    references, generated = [row[1] for row in ROWS], [row[2] for row in ROWS]
    expected = score_texts(references, generated, meteor=False)
    expected |= score_states(list(map(label_report, references)), list(map(label_report, generated)))
    assert scored["value"][list(expected)].to_dict() == pytest.approx(expected, nan_ok=True)
    assert (scored["studies"] == 4).all()
    inside = scored.dropna()
    assert len(inside) > 30 and (inside["low"] <= inside["value"]).all() and (inside["value"] <= inside["high"]).all()
    assert scored["value"]["empty_share"] == 0.25


def test_the_same_seed_gives_the_same_intervals(tmp_path):
    table = read_reports(table_of(tmp_path))
    first, again, other = (score_reports(table, False, seed, resamples=50) for seed in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)


def test_the_command_prints_and_writes_the_table(tmp_path):
    done = CliRunner().invoke(
        app, ["score", str(table_of(tmp_path)), "--no-meteor", "--output", str(tmp_path / "s.csv")]
    )
    assert done.exit_code == 0, done.output
    assert "bleu_4" in done.output and "clinical_f1_micro_14_uncertain_negative" in done.output
    assert {"metric", "value", "low", "high", "studies"} == set(pandas.read_csv(tmp_path / "s.csv"))


@pytest.mark.parametrize(
    ("rows", "columns", "clue"),
    [
        ([], COLUMNS, "there are no rows"),
        ([("1", "a")], ("study_id", "reference"), "column 'generated' is missing"),
        ([ROWS[0], ROWS[0]], COLUMNS, "row 2 has study_id '1' a second time"),
        ([(" ", "Clear lungs.", "")], COLUMNS, "row 1 has no study_id"),
        ([("1", "", "Clear lungs.")], COLUMNS, r"row 1 \(study '1'\): empty"),
        ([("1", "nan", "Clear lungs.")], COLUMNS, "stands for a missing report"),
        ([("1", "___", "Clear lungs.")], COLUMNS, "no word"),
    ],
)
def test_a_table_that_cannot_be_scored_is_refused(tmp_path, rows, columns, clue):
    with pytest.raises(InputError, match=clue):
        read_reports(table_of(tmp_path, rows, columns))


def test_what_is_blank_or_of_no_use_is_said(tmp_path, caplog):
    rows = [(str(number), "Clear lungs.", "Keine Infiltrate, Herz normal gross.") for number in range(3)]
    score_reports(read_reports(table_of(tmp_path, rows)), meteor=False, resamples=20)
    said = " ".join(caplog.messages)
    for clue in ("CIDEr is blank", "clinical measures are blank", "same text", "'generated'"):
        assert clue in said
