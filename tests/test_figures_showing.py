"""What notebooks 08 and 10 do beside drawing."""

import pytest

from fedmrg_core.errors import InputError
from figures import showing


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, as text."""
    found = []
    monkeypatch.setattr(showing, "display", lambda *parts: found.extend(parts))
    monkeypatch.setattr(showing, "Image", lambda path: path)
    monkeypatch.setattr(showing, "Markdown", lambda text: text)
    return found


def test_a_figure_is_shown_as_its_png_alone(tmp_path, shown):
    showing.show([tmp_path / f"bytes.{kind}" for kind in ("pdf", "png", "csv")])
    assert shown == ["`bytes.png` beside bytes.pdf and bytes.csv", str(tmp_path / "bytes.png")]


def test_a_figure_without_runs_enough_is_named_and_not_drawn(tmp_path, shown, capsys):
    benchmark = showing.Benchmark("profiles/mine.yaml", tmp_path)
    assert benchmark.out == tmp_path / "report" / "benchmark-mine"

    def refusing(folders, out, name):
        raise InputError(f"{name} has no rows.")

    benchmark.show(refusing, [tmp_path])
    benchmark.show(refusing, [tmp_path], least=1, name="x.csv")
    benchmark.tabulate("main", [])
    assert capsys.readouterr().out == "Not drawn: too few of its runs are there.\nNot drawn: x.csv has no rows.\n"
    assert shown == []


def test_runs_that_are_missing_are_named(tmp_path, capsys):
    found = showing.Benchmark("smoke", tmp_path).stored("ablation")
    text = capsys.readouterr().out
    assert text.startswith(f"ablation: {len(found)} runs\n") and "  not run: smoke/phantom/" in text
