"""predictions.csv to metrics.csv, and the floors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy
import pandas
import pytest
from scores import score_states, score_texts

from fedmrg_core.data.labeller import label_report
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.answers import stored_numbers
from fedmrg_core.runs.metric_table import METRIC_COLUMNS, read_metrics, write_metrics
from fedmrg_core.tasks.reports.floors import constant_report, floor_predictions, nearest_image, random_report
from fedmrg_core.tasks.reports.measures import DECLARED
from fedmrg_core.tasks.reports.predictions import (
    COLUMNS,
    check_predictions,
    read_predictions,
    score_predictions,
    state_array,
    write_predictions,
)

TEXTS = [
    "The heart is enlarged. No pleural effusion.",
    "Lungs are clear. No pneumothorax.",
    "There is a small left pleural effusion, possible atelectasis.",
    'Heart size is normal, "clear" lungs.\nNo acute disease.',
]


def digits(text):
    return "".join(map(str, label_report(text)))


@pytest.fixture
def predictions():
    rows = []
    for number in range(12):
        site, role = [("a", "home"), ("b", "home"), ("c", "unseen")][number % 3]
        for adapter in ("generic", "specialised") if role == "home" else ("generic",):
            reference, generated = TEXTS[number % 4], TEXTS[(number * 3 + len(adapter)) % 4]
            states = (digits(reference), digits(generated), digits(reference))
            rows.append((f"s{number:02}", site, "test", role, adapter, reference, generated, *states))
    return pandas.DataFrame(rows, columns=list(COLUMNS))


@pytest.fixture
def training():
    return pandas.DataFrame(
        {"study_id": ["t0", "t1", "t2", "t3"], "site": ["a", "a", "b", "b"], "reference": [*TEXTS[:3], TEXTS[2]]}
    )


def test_a_site_called_na_or_none_keeps_its_name(predictions, tmp_path):
    renamed = predictions.assign(site=predictions["site"].map({"a": "NA", "b": "None", "c": "null"}))
    metrics = score_predictions(renamed, resamples=10, meteor=False)
    write_metrics(tmp_path / "metrics.csv", metrics)
    again = read_metrics(tmp_path / "metrics.csv")
    assert again["scope"].tolist() == metrics["scope"].tolist() and {"NA", "None"} < set(again["scope"])
    assert again["low"].isna().tolist() == metrics["low"].isna().tolist() and again["low"].isna().any()


def test_round_trip(predictions, tmp_path):
    predictions.loc[0, ["generated", "states_head"]] = ["", ""]
    write_predictions(tmp_path / "predictions.csv", predictions)
    again = read_predictions(tmp_path / "predictions.csv")
    pandas.testing.assert_frame_equal(again.drop(columns="system"), predictions, check_dtype=False)
    assert set(again["system"]) == {"model"}
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_scores_are_those_of_the_plain_functions(predictions, training, tmp_path):
    floors = floor_predictions(predictions, training, root_seed=0)
    metrics = score_predictions(pandas.concat([predictions, floors]), root_seed=1, resamples=50, meteor=False)
    assert tuple(metrics.columns) == METRIC_COLUMNS
    assert not metrics.duplicated(["scope", "adapter", "system", "metric"]).any()
    generic = predictions[predictions.adapter == "generic"]
    for scope, rows in (
        ("a", generic[generic.site == "a"]),
        ("home", generic[generic.role == "home"]),
        ("unseen", generic[generic.role == "unseen"]),
    ):
        here = metrics[(metrics.scope == scope) & (metrics.adapter == "generic") & (metrics.system == "model")]
        here = here.set_index("metric")
        expected = score_texts(rows.reference.tolist(), rows.generated.tolist(), meteor=False)
        expected |= score_states(state_array(rows.states_reference), state_array(rows.states_generated))
        assert here.loc[list(expected), "value"].to_dict() == pytest.approx(expected)
        assert here.loc["bleu_1", "studies"] == len(rows)
        assert here.loc["distinct_reports", "value"] == rows.generated.nunique()
    intervals = metrics.dropna()
    assert (intervals.low <= intervals.value + 1e-9).mean() > 0.99 and (intervals.low <= intervals.high).all()
    write_metrics(tmp_path / "metrics.csv", metrics)
    pandas.testing.assert_frame_equal(read_metrics(tmp_path / "metrics.csv"), metrics)
    again = score_predictions(pandas.concat([predictions, floors]), root_seed=1, resamples=50, meteor=False)
    pandas.testing.assert_frame_equal(again, metrics)


def test_fairness_rows(predictions):
    metrics = score_predictions(predictions, resamples=10, meteor=False).query("adapter == 'specialised'")
    by_client = metrics[(metrics.metric == "rouge_l") & metrics.scope.isin(["a", "b"])].value
    home = metrics[metrics.scope == "home"].set_index("metric").value
    assert home["worst_client_rouge_l"] == by_client.min()
    assert home["harmonic_mean_rouge_l"] == pytest.approx(2 / (1 / by_client).sum())
    assert "unseen" not in set(metrics.scope)


def test_floors(predictions, training):
    features = {name: numpy.eye(4)[number] for number, name in enumerate(training.study_id)}
    features |= {name: numpy.eye(4)[int(name[1:]) % 4] * 3 + 0.1 for name in predictions.study_id}
    floors = floor_predictions(predictions, training, 0, features)
    assert len(floors) == 3 * predictions.study_id.nunique() and set(floors.adapter) == {"none"}
    check_predictions(floors, "floors")
    own = training.groupby("site").reference.agg(set)
    for row in floors[floors.role == "home"].itertuples():
        assert row.generated in own[row.site]
    constant = floors[(floors.system == "floor_constant") & (floors.role == "unseen")]
    assert set(constant.generated) == {TEXTS[2]}  # the most frequent of all clients' reports
    nearest = floors[(floors.system == "floor_nearest") & (floors.study_id == "s02")]
    assert nearest.generated.item() == TEXTS[2]
    assert nearest.states_generated.item() == digits(TEXTS[2])
    pandas.testing.assert_frame_equal(floors, floor_predictions(predictions, training, 0, features))


def test_floor_functions():
    assert constant_report(["B.", "A", "b"], 2) == ["B.", "B."]
    assert random_report(TEXTS, 50, 0) == random_report(TEXTS, 50, 0) != random_report(TEXTS, 50, 1)
    assert set(random_report(TEXTS, 200, 0)) == set(TEXTS)
    assert nearest_image(["x", "y"], [[1, 0], [0, 5]], [[9, 1], [1, 2]]) == ["x", "y"]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: constant_report([], 1), "no training reports"),
        (lambda: random_report(["a", ""], 1, 0), "row 1 is empty"),
        (lambda: nearest_image(["a"], [[1.0]], [[0.0]]), "test_features row 0"),
        (lambda: nearest_image(["a"], [[1.0], [2.0]], [[1.0]]), "2 rows for 1"),
        (lambda: nearest_image(["a"], [[1.0]], [[1.0, 2.0]]), "width 2"),
    ],
)
def test_bad_floor_input_is_named(call, named):
    with pytest.raises(InputError, match=named):
        call()


def test_floor_needs_training_and_features(predictions, training):
    with pytest.raises(InputError, match="Site 'b' has no training study"):
        floor_predictions(predictions, training[training.site == "a"], 0)
    with pytest.raises(InputError, match="Study 't0' has no image features"):
        floor_predictions(predictions, training, 0, {})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: f.drop(columns="role"), "column 'role' is missing"),
        (lambda f: f.head(0), "no rows"),
        (lambda f: f.assign(role="guest"), "role 'guest'"),
        (lambda f: f.assign(adapter="other"), "adapter 'other'"),
        (lambda f: f.assign(reference=" . "), "study 's00'.*reference"),
        (lambda f: f.assign(reference=None), "study 's00'.*reference None; expected text"),
        (lambda f: f.assign(generated=float("nan")), "study 's00'.*generated .*nan.*; expected text"),
        (lambda f: f.assign(states_generated="012"), "states_generated '012'"),
        (lambda f: f.assign(states_head="9" * 14), "states_head"),
        (lambda f: pandas.concat([f, f.tail(1)], ignore_index=True), "repeats"),
    ],
)
def test_bad_predictions_are_named(predictions, change, named, tmp_path):
    with pytest.raises(InputError, match=named):
        score_predictions(change(predictions), meteor=False)
    with pytest.raises(InputError, match=named):
        write_predictions(tmp_path / "predictions.csv", change(predictions))
    assert not list(tmp_path.iterdir())


def test_bad_files_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_predictions(tmp_path / "predictions.csv")
    (tmp_path / "predictions.csv").write_bytes(b"study_id\n\xff\xfe\n")
    with pytest.raises(InputError, match="not a readable UTF-8 CSV"):
        read_predictions(tmp_path / "predictions.csv")
    (tmp_path / "metrics.csv").write_text("scope\nhome\n")
    with pytest.raises(InputError, match="column 'adapter' is missing"):
        read_metrics(tmp_path / "metrics.csv")
    with pytest.raises(InputError, match="does not exist"):
        read_metrics(tmp_path / "no.csv")


def test_what_cannot_be_said_is_blank_with_a_reason_said_once(predictions, caplog, tmp_path):
    """One study at a site, equal references at another, and no positive finding of the five."""
    one = predictions[(predictions.site != "a") | (predictions.study_id == "s00")].copy()
    at_b = one.site == "b"
    one.loc[at_b, ["reference", "states_reference"]] = ["The lungs are clear.", "0" * 14]
    metrics = score_predictions(one, resamples=20, meteor=False)
    table = metrics.set_index(["scope", "adapter", "metric"]).sort_index()
    for scope in ("a", "b"):
        assert numpy.isnan(table.loc[(scope, "generic", "cider"), "value"])
    assert table.loc[("home", "generic", "cider"), "value"] >= 0
    assert numpy.isnan(table.loc[("home", "generic", "worst_client_cider"), "value"])
    f1 = "clinical_f1_micro_14_uncertain_negative"
    assert table.loc[("b", "generic", f1), ["value", "low", "high"]].isna().all()
    assert table.loc[("home", "generic", f1), "value"] >= 0
    assert table.loc[("home", "generic", f"worst_client_{f1}"), "value"] == table.loc[("a", "generic", f1), "value"]
    assert table.loc[("a", "generic", "bleu_1"), "value"] >= 0
    assert table.loc[("a", "generic", "bleu_1"), ["low", "high"]].isna().all()  # one study says nothing of a spread
    said = [record.getMessage() for record in caplog.records if record.name.startswith("fedmrg_core")]
    assert len(said) == 3
    assert any(text.startswith("a, b: CIDEr is blank") for text in said)
    assert any("clinical measures are blank" in text and text.startswith("b") for text in said)
    assert any(text.startswith("a: intervals are blank") for text in said)
    write_metrics(tmp_path / "metrics.csv", metrics)
    pandas.testing.assert_frame_equal(read_metrics(tmp_path / "metrics.csv"), metrics)


def test_a_report_too_long_for_meteor_is_named(predictions, caplog, meteor_asked):
    predictions.loc[predictions.study_id == "s04", "generated"] = "the heart is clear and normal " * 300
    metrics = score_predictions(predictions, resamples=10).set_index(["scope", "adapter", "metric"]).sort_index()
    assert numpy.isnan(metrics.loc[("b", "generic", "meteor"), "value"])
    assert metrics.loc[("a", "generic", "meteor"), "value"] > 0
    assert "METEOR is blank" in caplog.text and "reports of more than 600 words: s04." in caplog.text


def test_blank_measures_are_not_compared_and_lost_ones_are_told(predictions, tmp_path):
    one = predictions[(predictions.site != "a") | (predictions.study_id == "s00")]
    settings = {"folder": tmp_path, "manifest": {}, "measures": DECLARED}
    run = SimpleNamespace(metrics=score_predictions(one, resamples=10, meteor=False), **settings)
    numbers = stored_numbers(run)
    assert ("a", "generic", "bleu_1") in numbers.index and ("b", "generic", "cider") in numbers.index
    assert ("a", "generic", "cider") not in numbers.index and numbers.value.notna().all()
    for column, metric, scope in (("value", "bleu_1", "a"), ("high", "cider", "home")):
        lost = run.metrics.copy()
        lost.loc[(lost.metric == metric) & (lost.scope == scope), column] = numpy.nan
        with pytest.raises(InputError, match="has empty values"):
            stored_numbers(SimpleNamespace(metrics=lost, **settings))
