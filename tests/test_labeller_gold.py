"""benchmarks/labeller_gold.py: which hedged findings count as present, and which reports as normal."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "benchmarks"))
from labeller_gold import predict, read_gold, score

from fedmrg_core.errors import InputError


@pytest.mark.parametrize(
    ("text", "present"),
    [
        ("Probable small effusion.", True),
        ("A small effusion is likely.", True),
        ("Small effusion or pleural thickening.", True),
        ("Pleural thickening versus effusion.", True),
        ("Small effusion.", True),
        ("Blunting may represent a small effusion.", False),
        ("Possible small effusion.", False),
        ("An effusion is less likely.", False),
        ("An effusion is unlikely.", False),
        ("No effusion or thickening.", False),
    ],
)
def test_a_hedged_finding_is_present_if_more_probable_than_not(text: str, present: bool) -> None:
    assert predict(text)["Effusion"] is present


def test_a_borderline_heart_is_present() -> None:
    assert predict("The heart is borderline enlarged.")["Cardiomegaly"]
    assert predict("Borderline cardiomegaly.")["Cardiomegaly"]
    assert not predict("The heart may be enlarged.")["Cardiomegaly"]


def test_a_report_with_another_abnormality_is_not_normal() -> None:
    assert predict("The heart is normal and the lungs are clear.")["normal"]
    assert not predict("Lungs are clear. Changes of chronic bronchitis.")["normal"]
    assert not predict("Lungs are clear. Possible scoliosis.")["normal"]


def test_the_gold_is_read_by_report_number(tmp_path: pathlib.Path) -> None:
    names = "Atelectasis,Cardiomegaly,Effusion,Pneumothorax,Consolidation,Edema,Pneumonia,normal"
    (tmp_path / "negbio_gold_labels.csv").write_text(f"filename,{names}\nCXR1,0,0,1,0,0,0,0,0\nCXR2,0,0,0,0,0,0,0,1\n")
    (tmp_path / "indiana_reports.csv").write_text("uid,findings,impression\n1,Small effusion.,\n")
    gold = read_gold(tmp_path)
    assert list(gold) == [1]
    text, labels = gold[1]
    assert score([(labels, predict(text))], ("Effusion", "normal")) == (1, 1, 1.0, 1.0, 1.0)


def test_a_folder_without_the_gold_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"negbio_gold_labels\.csv is missing"):
        read_gold(tmp_path)
