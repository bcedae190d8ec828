"""The task of `linear_task` through what serves every task after a run: references, verify, tables."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator

import numpy
import pandas
import pytest
from linear_runs import run
from linear_task import CLIENTS, COUNTS, MEASURES
from run_folders import write_run

from fedmrg_core.commands.html_report import write_html_report
from fedmrg_core.data.sources import DATA_SOURCES
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation import comparison, reference, reruns, table_writers
from fedmrg_core.evaluation.evaluate import evaluate_answers
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.evaluation.seed_variance import FILE, read_seed_variance, write_seed_variance
from fedmrg_core.evaluation.stored_runs import load_run
from fedmrg_core.evaluation.verify import EQUAL, NOT_REPRODUCED, REPRODUCED, verdicts, verify
from fedmrg_core.runs.measures import Measure, Measures, measures_of

SEEDS, COMPARED = (0, 1, 2), ("plain", "fedadam")
NAME = "smoke/rows/plain/seed-0"


def name_of(method: str, seed: int) -> str:
    return f"smoke/rows/{method}/seed-{seed}"


def committed(folder: pathlib.Path) -> pathlib.Path:
    """A run folder as a clean clone leaves it."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "a" * 40, "uncommitted_changes": False}))
    return folder


@pytest.fixture(scope="module", autouse=True)
def data() -> Iterator[None]:
    """The data set "rows", for the task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATA_SOURCES, "rows", dataclasses.replace(DATA_SOURCES["phantom"], task="linear"))
        yield


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, data: None) -> pathlib.Path:
    """results/ and reference/ of two methods with three seeds each, and the variance between these."""
    root = tmp_path_factory.mktemp("kept")
    for method in COMPARED:
        for seed in SEEDS:
            folder = root / "results" / name_of(method, seed)
            run(folder, method, seed)
            evaluate_answers(folder, progress=False)
            reference.store_reference(committed(folder), name_of(method, seed), root / "reference")
    reference.store_seed_variance(root / "reference")
    return root


@pytest.fixture
def well_known(kept: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """reference/ where many seeds are known to differ by little."""
    root = tmp_path / "reference"
    shutil.copytree(kept / "reference", root)
    known = read_seed_variance(root / FILE).assign(between_seeds=1e-4, beyond_studies=1e-5, degrees=20)
    write_seed_variance(root / FILE, known)
    return root


@pytest.fixture
def again(kept: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """results/ of one run made a second time."""
    folder = tmp_path / "results" / NAME
    run(folder)
    evaluate_answers(folder, progress=False)
    return tmp_path / "results"


def published(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setitem(DATA_SOURCES, "rows", dataclasses.replace(DATA_SOURCES["rows"], publish=level))


def test_its_reference_is_small_and_whole(kept):
    files = {path.name for path in (kept / "reference" / NAME).iterdir()}
    assert files == {
        "config.yaml", "manifest.json", "ledger.csv", "timing.csv", "rounds.csv", "metrics.csv", "predictions.csv.gz",
        "files.sha256",
    }  # fmt: skip
    stored = load_run(kept / "reference" / NAME)
    assert stored.measures is MEASURES and stored.answer("home") == "own" and stored.answer("unseen") is None
    value = stored.values("home").loc["accuracy"]
    assert 0.6 < value.low < value.value < value.high < 1 and value.studies == len(CLIENTS) * COUNTS["test"]
    assert {"worst_client_accuracy", "harmonic_mean_accuracy"} <= set(stored.metrics.metric)


def test_a_run_made_again_is_reproduced(kept, again, capsys, monkeypatch, tmp_path):
    rows = verify(kept / "reference", again, [NAME])
    assert verdicts(rows) == {NAME: EQUAL}
    assert {*CLIENTS, "home", "wire", "federation"} <= set(rows.scope) and "validation_loss" in set(rows.metric)
    monkeypatch.setattr(reruns, "REPOSITORY", tmp_path)
    assert reruns.print_verdict(rows, "smoke") == 0 and "equal to the digit" in capsys.readouterr().out


def test_the_workflow_does_not_make_its_runs(kept, again, monkeypatch):
    monkeypatch.setattr(reruns, "reference_folder", lambda profile: kept / "reference" / profile)
    monkeypatch.setattr(reruns, "REPOSITORY", again.parent)
    with pytest.raises(InputError, match="is a run of task 'linear', which the workflow does not make; .*--no-rerun"):
        reruns.verify_references("smoke", ["plain"], rerun=True, data_root="", cores=1)
    rows = reruns.verify_references("smoke", [NAME], rerun=False, data_root="", cores=1)
    assert verdicts(rows) == {NAME: EQUAL}


def cut_in_half(folder):
    path = folder / "metrics.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))


def without_numbers(folder):
    path = folder / "metrics.csv"
    pandas.read_csv(path).assign(value=numpy.nan).to_csv(path, index=False)


@pytest.mark.parametrize(
    "spoil",
    [
        cut_in_half,
        without_numbers,
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "files.sha256").unlink(),
        lambda folder: (folder / "more.csv").write_text("a\n1\n"),
    ],
)
def test_a_damaged_reference_is_told_and_has_its_own_exit_code(kept, again, monkeypatch, capsys, tmp_path, spoil):
    """Half of its measures, none of them a number, a file too few or too many: nothing is held against it."""
    shutil.copytree(kept / "reference", tmp_path / "reference")
    spoil(tmp_path / "reference" / NAME)
    monkeypatch.setattr(reruns, "reference_folder", lambda profile: tmp_path / "reference" / profile)
    monkeypatch.setattr(reruns, "REPOSITORY", tmp_path)
    rows = reruns.verify_references("smoke", [NAME], rerun=False, data_root="", cores=1)
    assert reruns.print_verdict(rows, "smoke") == 4
    assert "damaged reference" in (said := capsys.readouterr().out) and "restore the reference" in said


def answers_of(folder: pathlib.Path, wrong: int) -> None:
    """The run's answers scored anew, with some studies of each client said wrong that were right."""
    answers = MEASURES.read_answers(folder / "predictions.csv")
    right = answers[answers.accuracy == 1].groupby("site").head(wrong).index
    answers.loc[right, "accuracy"] = 0.0
    MEASURES.write(folder, answers, root_seed=0)


def test_a_few_other_answers_are_within_chance_and_many_are_not(well_known, again, capsys, monkeypatch, tmp_path):
    answers_of(again / NAME, wrong=1)
    assert verdicts(verify(well_known, again, [NAME])) == {NAME: REPRODUCED}
    answers_of(again / NAME, wrong=25)
    rows = verify(well_known, again, [NAME])
    assert verdicts(rows) == {NAME: NOT_REPRODUCED}
    monkeypatch.setattr(reruns, "REPOSITORY", tmp_path)
    assert reruns.print_verdict(rows, "smoke") == 1 and "Accuracy, home, own: 0." in capsys.readouterr().out


def test_a_damaged_number_is_told(well_known, again):
    """One that its answers contradict, and one that nothing else knows: the loss of the chosen round."""
    path = again / NAME / "metrics.csv"
    table = pandas.read_csv(path)
    table.assign(value=table.value * 0.9).to_csv(path, index=False)
    with pytest.raises(InputError, match="another accuracy of a, own than its answers give"):
        verify(well_known, again, [NAME])
    table.to_csv(path, index=False)
    path = again / NAME / "rounds.csv"
    rounds = pandas.read_csv(path)
    rounds.assign(validation_loss=rounds.validation_loss + 5).to_csv(path, index=False)
    assert verdicts(verify(well_known, again, [NAME])) == {NAME: NOT_REPRODUCED}


def test_a_measure_that_is_not_declared_is_refused(kept, again):
    path = again / NAME / "metrics.csv"
    path.write_text(path.read_text() + "home,own,model,sharpness,0.5,0.4,0.6,144\n")
    sentence = r"metrics\.csv: metric 'sharpness' is none that its task declares; expected accuracy, or declare it"
    with pytest.raises(InputError, match=sentence):
        load_run(again / NAME)
    before = (kept / "reference" / NAME / "metrics.csv").read_bytes()
    with pytest.raises(InputError, match=sentence):
        reference.store_reference(committed(again / NAME), NAME, kept / "reference")
    assert (kept / "reference" / NAME / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize("level", ["scores", "aggregates"])
def test_it_publishes_what_its_data_allow(level, kept, again, tmp_path, monkeypatch):
    published(monkeypatch, level)
    for seed in SEEDS:
        folder = kept / "results" / name_of("plain", seed)
        stored = reference.store_reference(folder, name_of("plain", seed), tmp_path / "kept")
    reference.store_seed_variance(tmp_path / "kept")
    names = {path.name for path in stored.iterdir()}
    assert ("study_scores.csv.gz" in names) == (level == "scores") and "predictions.csv.gz" not in names
    if level == "scores":
        scores = pandas.read_csv(stored / "study_scores.csv.gz", dtype=str)
        assert list(scores) == ["study", "role", "adapter", "accuracy"] and not scores.study.str.contains("a-").any()
    assert verdicts(verify(tmp_path / "kept", again, [NAME])) == {NAME: EQUAL}


def test_its_methods_stand_in_one_table(kept, tmp_path):
    folders = [kept / "reference" / name_of(method, seed) for method in COMPARED for seed in SEEDS]
    runs = load_runs(folders)
    table = comparison.main_table(runs, "plain", resamples=50)
    assert set(table.metric) == {"accuracy"} and set(table.system) == {"model"}
    whole = table.set_index("method")
    for method in COMPARED:
        stored = [
            load_run(folder).values("home").loc["accuracy", "value"] for folder in folders if method in str(folder)
        ]
        assert whole.loc[method, "value"] == pytest.approx(sum(stored) / len(SEEDS))
        assert whole.loc[method, "low"] < whole.loc[method, "value"] < whole.loc[method, "high"]
    assert pandas.notna(whole.loc["fedadam", "p_holm"]) and whole.loc["fedadam", "seeds_tested"] == len(SEEDS)
    paths = table_writers.write_comparison(table, tmp_path, "rows", measures=runs.measures, against="plain")
    text = paths[1].read_text()
    assert "| Method | Accuracy | Worst client, Accuracy |" in text and "Clinical" not in text and "Floors" not in text


def test_the_html_report_tells_of_reports_alone(kept, tmp_path):
    with pytest.raises(InputError, match="is a run of task 'linear', and a summary tells of reports alone"):
        write_html_report(kept / "results" / NAME, [], tmp_path / "index.html")
    assert not list(tmp_path.iterdir())


def test_runs_of_two_tasks_stand_in_no_table(kept, tmp_path):
    reports = write_run(tmp_path)
    with pytest.raises(InputError, match="are runs of the tasks 'reports' and 'linear'; compare runs of one"):
        load_runs([reports, kept / "reference" / NAME])


def test_evaluation_needs_a_finished_run_of_such_a_task(kept, tmp_path):
    shutil.copytree(kept / "results" / NAME, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"manifest\.json is missing; finish the run first"):
        evaluate_answers(tmp_path / "run")
    with pytest.raises(InputError, match="task 'fake-alone' declares no measures"):
        measures_of("fake-alone")
    with pytest.raises(InputError, match="accuracy has no number for some study"):
        MEASURES.write(
            tmp_path, pandas.DataFrame({"study_id": ["1"], "site": "a", "role": "home", "adapter": "own"}), 0
        )


def test_the_lowest_is_best_where_a_task_says_so():
    errors = Measures(Measure("error", "Error", higher_is_better=False))
    answers = pandas.DataFrame(
        [(f"{site}{n}", site, "home", "own", error) for site, error in (("a", 0.1), ("b", 0.4)) for n in range(3)],
        columns=["study_id", "site", "role", "adapter", "error"],
    )
    table = errors.score(answers, 0, resamples=10).set_index(["scope", "metric"]).value
    assert table["home", "worst_client_error"] == pytest.approx(0.4) and table["home", "error"] == pytest.approx(0.25)
    rows = pandas.DataFrame(
        [("x", "home", name, "model", "federated", "error", value) for name, value in (("one", 0.1), ("two", 0.4))],
        columns=list(comparison.COLUMNS[:7]),
    ).reindex(columns=[*comparison.COLUMNS, *comparison.TEST_COLUMNS])
    page = table_writers._page(rows.assign(seeds=1, studies=6), errors, "x", "home", differences=False)
    assert [row[1].bold for row in page.rows] == [True, False]
