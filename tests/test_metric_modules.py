"""The `evaluate` modules: the one way to every measure, offline, and nothing of a report is left on the disk."""

from __future__ import annotations

import re
import socket

import evaluate
import numpy
import pandas
import pytest
from scores import score_states, score_texts

from fedmrg_core.data.labeller import label_report
from fedmrg_core.errors import InputError
from fedmrg_core.metrics.modules import METRICS, load_metric
from fedmrg_core.metrics.statistics import mean_statistics
from fedmrg_core.tasks.reports.predictions import COLUMNS, score_predictions
from fedmrg_core.tasks.reports.score_file import score_reports

REFERENCES = ["The heart is enlarged.", "Lungs are clear.", "Small left effusion.", "No effusion."]
GENERATED = ["The heart is normal.", "Lungs are clear.", "", "No acute effusion."]
FOLDER = "fedmrg_core/metrics/modules"


def states(texts: list[str]) -> list[list[int]]:
    return [list(label_report(text)) for text in texts]


def inputs(name: str) -> dict:
    texts = {"predictions": GENERATED, "references": REFERENCES}
    return texts if name == "report_text" else {side: states(reports) for side, reports in texts.items()}


def expected(name: str) -> dict[str, float]:
    if name == "report_text":
        return score_texts(REFERENCES, GENERATED, meteor=False)
    return score_states(states(REFERENCES), states(GENERATED))


def without_java(name: str) -> dict[str, bool]:
    return {"meteor": False} if name == "report_text" else {}


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", METRICS)
def test_a_module_loads_from_its_folder_at_the_repository_root(name, repository, monkeypatch, no_network):
    monkeypatch.chdir(repository)
    for path in (f"{FOLDER}/{name}", f"{FOLDER}/{name}/{name}.py"):
        found = evaluate.load(path).compute(**inputs(name), **without_java(name))
        assert found == pytest.approx(expected(name), nan_ok=True)
    assert load_metric(name).compute(**inputs(name), **without_java(name)) == pytest.approx(found, nan_ok=True)


def test_an_unknown_module_is_named():
    with pytest.raises(InputError, match="nosuch"):
        load_metric("nosuch")


@pytest.mark.parametrize("name", METRICS)
def test_a_module_says_what_it_is(name, repository):
    module = load_metric(name)
    assert module.description and module.citation.count("@") == module.citation.count("year=")
    arguments = module.inputs_description.partition("Returns:")[0]
    takes = set(re.findall(r"^    (\w+): ", arguments, re.MULTILINE))
    code = module._compute.__func__.__code__
    assert takes == set(code.co_varnames[1 : code.co_argcount])
    assert evaluate.__name__ in (repository / FOLDER / name / "README.md").read_text()


@pytest.mark.parametrize("name", METRICS)
def test_statistics_by_study_are_of_the_same_measures(name):
    numbers = load_metric(name).compute(**inputs(name), **without_java(name))
    measures = load_metric(name).compute(**inputs(name), **without_java(name), per_study=True)
    assert {key: measure.estimate() for key, measure in measures.items()} == pytest.approx(numbers, nan_ok=True)
    assert {measure.studies for measure in measures.values()} == {len(REFERENCES)}


@pytest.mark.parametrize("rows", [[0, 1, 3], [1, 2], [3], [1, 3]])
def test_a_subset_is_scored_as_if_it_were_alone(rows):
    """Also CIDEr, which counts words in the references, and clinical measures, which are blank without a finding."""
    references, generated = ([texts[row] for row in rows] for texts in (REFERENCES, GENERATED))
    alone = score_texts(references, generated, meteor=False) | score_states(states(references), states(generated))
    together = {}
    for name in METRICS:
        together |= load_metric(name).compute(**inputs(name), **without_java(name), per_study=True)
    found = {key: measure.subset(numpy.array(rows)).estimate() for key, measure in together.items()}
    assert found == pytest.approx(alone, nan_ok=True)


def test_a_subset_of_a_subset_keeps_its_rows():
    cider = load_metric("report_text").compute(**inputs("report_text"), meteor=False, per_study=True)["cider"]
    twice = cider.subset(numpy.array([3, 1, 0])).subset(numpy.array([2, 1]))
    assert twice.estimate() == cider.subset(numpy.array([0, 1])).estimate()


def test_a_measure_that_is_added_to_a_module_is_in_every_table(monkeypatch):
    globals_of_module = type(load_metric("report_text"))._compute.__globals__
    before = globals_of_module["per_study_scores"]

    def longer(references, generated, meteor):
        words = mean_statistics([len(text.split()) for text in generated])
        return {**before(references, generated, meteor), "bleu_words": words}

    monkeypatch.setitem(globals_of_module, "per_study_scores", longer)
    ids = [f"s{number}" for number in range(4)]
    reports = pandas.DataFrame({"study_id": ids, "reference": REFERENCES, "generated": GENERATED})
    digits = {f"states_{side}": ["".join(map(str, row)) for row in states(reports[side])] for side in COLUMNS[5:7]}
    run = reports.assign(
        site=["a", "a", "b", "b"], split="test", role="home", adapter="generic", states_head="", **digits
    )
    metrics = score_predictions(run, resamples=20, meteor=False).set_index(["scope", "metric"])
    scopes = {"a": 3.5, "b": 1.5, "home": 2.5}
    assert {scope: metrics.value[scope, "bleu_words"] for scope in scopes} == scopes
    assert metrics.low["home", "bleu_words"] <= 2.5 and metrics.value["home", "worst_client_bleu_words"] == 1.5
    assert score_reports(reports, meteor=False, resamples=20).set_index("metric").value["bleu_words"] == 2.5


def test_meteor_starts_once_for_all_scopes_and_systems(meteor_asked):
    row = {"split": "test", "role": "home", "adapter": "generic", "states_head": "", "reference": "Clear lungs."}
    row |= {"states_reference": "0" * 14, "states_generated": "0" * 14, "generated": "Clear."}
    rows = [
        {**row, "study_id": f"{site}{number}", "site": site, "system": system}
        for site in "ab"
        for number in range(2)
        for system in ("model", "floor_constant")
    ]
    metrics = score_predictions(pandas.DataFrame(rows), resamples=5)
    assert [len(lines) for lines in meteor_asked] == [8] and (metrics.metric == "meteor").sum() == 6


def test_no_report_is_written_to_the_cache_of_the_home(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path)
    module, written = load_metric("report_text"), []
    before = module.add_batch

    def watched(**batch):
        before(**batch)
        written.extend(path for path in tmp_path.rglob("*") if path.is_file())

    monkeypatch.setattr(module, "add_batch", watched)
    module.compute(**inputs("report_text"), meteor=False)
    assert not written


@pytest.mark.parametrize("name", METRICS)
def test_a_home_that_cannot_be_written_is_no_obstacle(name, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for place in ("HF_MODULES_CACHE", "HF_METRICS_CACHE"):
        monkeypatch.setattr(evaluate.config, place, str(tmp_path / "file" / "cache"))
    found = load_metric(name).compute(**inputs(name), **without_java(name))
    assert found == pytest.approx(expected(name), nan_ok=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
