"""What did federation add: values, paired differences of every column, tables and figures, from planted answers."""

from __future__ import annotations

import pathlib
import shutil

import numpy
import pandas
import pytest
from question_runs import BASE, CLIENTS, write_question_run

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation import federation_gain
from fedmrg_core.evaluation.reference import store_reference
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.metrics.diversity import harmonic_mean
from fedmrg_core.metrics.statistics import mean_statistics
from fedmrg_core.runs.experiments import runs_of
from fedmrg_core.tasks.medical_qa.answering import PROBABILITY
from fedmrg_core.tasks.medical_qa.measures import BASE_FLOOR, MAIN, MATRIX
from figures import question_rounds
from figures.question_tables import ASKED, write_gain

SHARES = {"local": (0.7, 0.25), "fed-lora": (0.9, 0.9), "centralised": (0.9, 0.9)}
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("gain")
    for method, shares in SHARES.items():
        for seed in SEEDS:
            write_question_run(folder, method, *shares, seed=seed)
    return folder


@pytest.fixture(scope="module")
def folders(root) -> list[pathlib.Path]:
    return [root / f"results/smoke/medical_world/{method}/seed-{seed}" for method in SHARES for seed in SEEDS]


@pytest.fixture(scope="module")
def gains(folders) -> pandas.DataFrame:
    return federation_gain.gain_table(load_runs(folders), ASKED, resamples=200)


def test_the_floor_comes_first_and_values_are_those_of_metrics(folders):
    runs = load_runs(folders)
    values = federation_gain.value_table(runs, ASKED).set_index("method")
    assert list(values.index) == [BASE_FLOOR, *SHARES] and set(values["seeds"]) == {2}
    assert values.loc[BASE_FLOOR, "mean"] == pytest.approx(BASE, abs=0.08)
    stored = [run.values("home").loc[f"harmonic_mean_{MAIN}", "value"] for run in runs if run.method == "local"]
    assert values.loc["local", "harmonic_mean"] == pytest.approx(numpy.mean(stored))
    assert values.loc["local", f"{MAIN}_elsewhere"] < 0.45 < values.loc["local", f"{MAIN}_here"]
    assert (values["deviation"] > 0).all() and (values["worst_client"] < values["mean"]).all()


def test_federation_is_ahead_of_the_floor_and_of_hospitals_alone_where_others_hold_the_answer(gains):
    found = gains.set_index(["method", "against", "column"])
    for against in (BASE_FLOOR, "local"):
        for column in ASKED.titles:
            row = found.loc[("fed-lora", against, column)]
            assert row["difference"] > 0 and row["seeds_tested"] == 2
        row = found.loc[("fed-lora", against, f"{MAIN}_elsewhere")]
        assert row["difference_low"] > 0.3 and row["p_holm"] < 0.05
    alike = found.loc[("fed-lora", "centralised", "mean")]
    assert alike["difference_low"] < 0 < alike["difference_high"] and alike["p_holm"] > 0.05
    assert ("local", "local", "mean") not in found.index


def test_holm_goes_over_the_methods_held_against_one(gains):
    for _, family in gains.groupby(["against", "column"]):
        assert (family["p_holm"] >= family["p_value"]).all()
        assert family["p_holm"].min() == pytest.approx(min(1.0, family["p_value"].min() * len(family)))


def test_worst_client_and_harmonic_mean_are_those_of_the_clients_means():
    values = numpy.array([1, 1, 0, 1, 0, 0, 0, 1.0])
    sites = ["a", "a", "a", "a", "b", "b", "b", "b"]
    whole = mean_statistics(values)
    found = federation_gain.over_clients(whole, sites)
    assert found["worst_client"].estimate() == 0.25
    assert found["harmonic_mean"].estimate() == pytest.approx(harmonic_mean([0.75, 0.25]))
    only_a = found["worst_client"].summands[:4].sum(axis=0)  # of b nothing was drawn: it keeps its mean
    assert found["worst_client"].value(only_a) == 0.25
    nothing_right = federation_gain.over_clients(mean_statistics(numpy.array([1.0, 0.0])), ["a", "b"])
    assert nothing_right["harmonic_mean"].estimate() == 0


def test_the_table_is_written_with_a_page_of_values_and_one_of_each_difference(folders, tmp_path):
    paths = write_gain(folders, tmp_path, "medical-qa")
    assert [path.suffix for path in paths] == [".csv", ".md", ".tex"]
    text = paths[1].read_text()
    for title in ("medical_world, Accuracy", "minus floor_base", "minus local", "minus centralised", "Worst client"):
        assert title in text
    assert "Synthetic data: medical world." in text and "phantom" not in text
    table = pandas.read_csv(paths[0]).set_index("method")
    assert table.loc["fed-lora", "minus_local_mean_difference"] > 0.2
    assert pandas.isna(table.loc["local", "minus_local_mean_difference"])


def test_models_of_several_sizes_stand_below_each_other(tmp_path):
    variant = "base_models.llm_width=64"
    folders = [
        write_question_run(tmp_path, method, *SHARES[method], variant=each)
        for method in ("local", "fed-lora")
        for each in ("", variant)
    ]
    text = write_gain(folders, tmp_path, "sizes")[1].read_text()
    assert f"medical_world, {variant}, minus local" in text and "medical_world, minus local" in text


def test_open_questions_are_asked_how_likely_a_right_answer_is(tmp_path):
    deals = ({}, {"partition": "random", "clients": 3})
    folders = [
        write_question_run(tmp_path, method, *SHARES[method], data="medquad", **deal)
        for method in ("local", "fed-lora")
        for deal in deals
    ]
    paths = write_gain(folders, tmp_path, "public")
    text = paths[1].read_text()
    for title in ("medquad, Probability of a right open answer", "medquad,random,clients=3, minus local", "Token F1"):
        assert title in text
    table = pandas.read_csv(paths[0]).set_index(["setting", "method"])
    assert table.loc[("medquad", "fed-lora"), "minus_local_mean_difference"] > 0.1


def test_stored_references_give_the_same_table(folders, root, tmp_path):
    names = [folder.relative_to(root / "results").as_posix() for folder in folders]
    kept = [store_reference(folder, name, tmp_path) for folder, name in zip(folders, names, strict=True)]
    assert {"matrix.csv", "matrix_by_round.csv", "predictions.csv.gz"} <= {path.name for path in kept[0].iterdir()}
    tables = [federation_gain.gain_table(load_runs(each), ASKED, resamples=50) for each in (folders, kept)]
    pandas.testing.assert_frame_equal(*tables)


def test_runs_of_other_questions_are_refused(root, folders, tmp_path):
    other = tmp_path / "results" / "smoke" / "medical_world" / "fed-lora" / "seed-0"
    shutil.copytree(folders[2], other)
    table = pandas.read_csv(other / "predictions.csv")
    table.assign(study_id=table["study_id"] + "x").to_csv(other / "predictions.csv", index=False)
    with pytest.raises(InputError, match="answered different test studies"):
        federation_gain.gain_table(load_runs([folders[0], other]), ASKED, resamples=10)


def test_rounds_and_matrices_are_drawn(folders, tmp_path):
    data = pandas.read_csv(question_rounds.draw(folders, tmp_path)[2])
    assert set(data["panel"]) == {"home", "worst", "away"} and set(data["line"]) == {"base", *SHARES}
    last = data[(data["line"] == "local") & (data["round"] == 3)].groupby("panel")["value"].mean()
    assert (last["home"], last["away"]) == pytest.approx(SHARES["local"])
    matrix = pandas.read_csv(question_rounds.draw_matrices(folders, tmp_path)[2])
    assert len(matrix[matrix["method"] == "local"]) == len(CLIENTS) * (len(CLIENTS) + 1)


def test_open_answers_are_drawn_on_their_own_scale_and_not_beside_shares(folders, tmp_path, monkeypatch):
    opened = [write_question_run(tmp_path, method, 0.05, 0.03, data="medquad") for method in ("local", "fed-lora")]
    drawn = {}
    monkeypatch.setattr(
        question_rounds.curves, "finish", lambda figure, name, *rest: drawn.update({name: (figure, rest)})
    )
    question_rounds.draw(opened, tmp_path)
    question_rounds.draw_matrices(opened, tmp_path)
    for name, (_, rest) in drawn.items():
        assert rest[2].startswith("Probability of a right open answer, per token"), name
        assert set(rest[0]["metric"]) == {PROBABILITY}
    axis = drawn["question_rounds"][0].axes[0]
    assert axis.get_ylabel().startswith("Probability") and axis.get_ylim()[1] < 0.5
    mixed = pandas.read_csv(opened[0] / MATRIX)
    mixed.loc[mixed["adapter"] == "base", "metric"] = MAIN
    mixed.to_csv(opened[0] / MATRIX, index=False)
    for draw in (question_rounds.draw, question_rounds.draw_matrices):
        with pytest.raises(InputError, match=f"hold {MAIN} and {PROBABILITY}, which have no scale in common"):
            draw(opened, tmp_path)


def test_a_method_with_several_adapters_has_a_row_for_each(tmp_path):
    further = {"specialised": (0.95, 0.9), "both": (0.8, 0.3)}
    folders = [
        write_question_run(tmp_path, method, 0.6, 0.3, data="medquad", further=further if method == "dual" else None)
        for method in ("local", "dual")
    ]
    paths = write_gain(folders, tmp_path, "adapters")
    table = pandas.read_csv(paths[0]).set_index("method")
    dual = ["dual, generic", "dual, specialised", "dual, both"]
    assert list(table.index) == [BASE_FLOOR, "local", *dual]
    assert table.loc[dual[1], "mean"] > 1.5 * table.loc[dual[0], "mean"]
    gained = table.loc[dual[1], "mean"] - table.loc["local", "mean"]
    assert table.loc[dual[1], "minus_local_mean_difference"] == pytest.approx(gained)
    text = paths[1].read_text()
    assert text.count("dual, specialised") == 3 and "[secondary]" in text and "+2.3 to +4.1 points" in text


def test_the_experiments_of_this_task_name_runs_that_can_be_made(tmp_path):
    runs = runs_of(["medical-qa", "medical-qa-sizes"], "standard")
    assert {run.task for run in runs} == {"medical_qa"} and len({run.name for run in runs}) == len(runs)
    assert len(runs_of(["medical-qa"], "standard")) == 24
    places = {run.base_models(tmp_path) for run in runs_of(["medical-qa-sizes"], "standard")}
    assert len(places) == 3  # a base model of each size
    (run,) = [run for run in runs_of(["smoke"], "smoke") if run.task == "medical_qa"]
    assert run.name == "smoke/medical_world/fed-lora/seed-0"
