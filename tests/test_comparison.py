"""Runs beside each other: planted differences are found, null ones are not, and what does not belong is refused."""

from __future__ import annotations

import gzip
import re
import shutil

import numpy
import pandas
import pytest
import yaml
from run_folders import CLIENTS, write_run

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.comparison import (
    ablation_table,
    approximate_interval,
    estimates,
    floor_rows,
    main_table,
    paired_tests,
)
from fedmrg_core.evaluation.published import published_client_curve, published_table
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.evaluation.stored_runs import is_synthetic, load_run
from fedmrg_core.evaluation.table_writers import escape_latex, write_comparison
from fedmrg_core.tasks.reports.measures import CLINICAL_F1, DECLARED

SEEDS = (0, 1)
QUALITIES = {"fedmrg": 0.8, "fed-lora": 0.3, "promptmrg": 0.8, "centralised": 0.9}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Four methods, two seeds: Fed-LoRA is worse, PromptMRG as good by other luck."""
    root = tmp_path_factory.mktemp("benchmark")
    return {
        (method, seed): write_run(root, quality, method=method, seed=seed, draws=number)
        for number, (method, quality) in enumerate(QUALITIES.items())
        for seed in SEEDS
    }


@pytest.fixture(scope="module")
def runs(folders):
    return load_runs(list(folders.values()))


@pytest.fixture(scope="module")
def table(runs):
    return main_table(runs, resamples=300)


def rows_of(table, method, metric, role="home"):
    return table[(table.method == method) & (table.metric == metric) & (table.role == role)].squeeze()


def test_values_are_means_of_the_stored_ones(table, folders):
    stored = [pandas.read_csv(folders["fedmrg", seed] / "metrics.csv") for seed in SEEDS]
    for role, adapter in (("home", "specialised"), ("unseen", "generic")):
        expected = numpy.mean(
            [
                one.query(f"scope == {role!r} and adapter == {adapter!r} and metric == 'bleu_4'").value.item()
                for one in stored
            ]
        )
        row = rows_of(table, "fedmrg", "bleu_4", role)
        assert row.value == pytest.approx(expected) and row.low < row.value < row.high
        assert (row.seeds, row.interval) == (2, "bootstrap")
    at_home = [
        one[(one.adapter == "specialised") & (one.metric == "bleu_4")].set_index("scope").value for one in stored
    ]
    worst = [values[list(CLIENTS)].min() for values in at_home]
    assert rows_of(table, "fedmrg", "bleu_4").worst_client == pytest.approx(numpy.mean(worst))


def test_what_travels(table):
    row = rows_of(table, "fed-lora", "bleu_4")
    assert (row.bytes_up, row.bytes_down, row.parameters_sent, row.exchange) == (4e5, 8e5, 1000, "federated")
    row = rows_of(table, "centralised", "bleu_4")
    assert (row.bytes_up, row.parameters_sent, row.exchange) == (0, 0, "centralised")


def test_parameters_are_not_counted_where_others_travel(folders, tmp_path):
    others = [write_run(tmp_path, method=name) for name in ("fedmrg-compressed", "scaffold")]
    runs = load_runs([folders["fedmrg", 0], *others])
    assert numpy.isnan([run.parameters_sent for run in runs]).tolist() == [False, True, True]
    text = write_comparison(main_table(runs, resamples=20), tmp_path, "sent", measures=DECLARED)[1].read_text()
    rows = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert rows["| scaffold"].endswith(" – |") and rows["| fedmrg"].endswith(" 0.001 M |")
    assert "Parameters sent: – where" in text


def test_bytes_under_partial_participation(tmp_path):
    """Those who have a pause validate, and those whose update does not come were sent the model: neither counts."""
    folder = write_run(tmp_path)
    full = load_run(folder)
    messages = [
        ("a", "train", "down", 100), ("a", "train", "up", 4000), ("a", "evaluate", "down", 4000),
        ("a", "evaluate", "up", 50), ("b", "evaluate", "down", 4000), ("b", "evaluate", "up", 50),
        ("c", "train", "down", 100),
    ]  # fmt: skip
    rows = pandas.DataFrame(messages, columns=["client", "phase", "direction", "bytes"])
    rows.assign(round=1, module="message").to_csv(folder / "ledger.csv", index=False)
    partial = load_run(folder)
    assert (partial.bytes_per_round("up"), partial.bytes_per_round("down")) == (4050, 4100)
    assert (full.bytes_per_round("up"), full.bytes_per_round("down")) == (4e5, 8e5)
    rows[:0].assign(round=1, module="message").to_csv(folder / "ledger.csv", index=False)
    assert load_run(folder).bytes_per_round("up") == 0


def test_synthetic_data_are_known_by_name():
    names = ("phantom", "phantom-image0.5-wording0", "iu_xray", "folder")
    assert [is_synthetic(name) for name in names] == [True, True, False, False]
    with pytest.raises(InputError, match="'phantoms'"):
        is_synthetic("phantoms")


def test_planted_difference_is_found_and_a_null_one_is_not(table):
    for role in ("home", "unseen"):
        worse = rows_of(table, "fed-lora", CLINICAL_F1, role)
        assert worse.difference > 0.1 and worse.difference_low > 0 and worse.p_holm < 0.05
        alike = rows_of(table, "promptmrg", CLINICAL_F1, role)
        assert alike.difference_low < 0 < alike.difference_high and alike.p_value > 0.05
    assert numpy.isnan(rows_of(table, "fedmrg", CLINICAL_F1).p_value)


def test_differences_and_holm_by_hand(table):
    value = {method: rows_of(table, method, "bleu_4").value for method in QUALITIES}
    tested = [method for method in QUALITIES if method != "fedmrg"]
    rows = {method: rows_of(table, method, "bleu_4") for method in tested}
    for method, row in rows.items():
        assert row.difference == pytest.approx(value["fedmrg"] - value[method])
    order = sorted(tested, key=lambda method: rows[method].p_value)
    largest = 0.0
    for rank, method in enumerate(order):
        largest = max(largest, min(1.0, (3 - rank) * rows[method].p_value))
        assert rows[method].p_holm == pytest.approx(largest)


def test_tests_use_common_seeds_only(folders):
    some = load_runs([folders["fedmrg", 0], folders["fedmrg", 1], folders["fed-lora", 1]])
    tests = paired_tests(some, resamples=50)
    assert set(tests.seeds_tested) == {1}
    assert paired_tests(load_runs([folders["fedmrg", 0], folders["fed-lora", 1]])).empty
    assert paired_tests(load_runs([folders["fed-lora", 0], folders["fed-lora", 1]])).empty


def test_the_same_runs_give_the_same_table(runs, table, folders):
    pandas.testing.assert_frame_equal(table, main_table(load_runs(list(folders.values())), resamples=300))
    other = main_table(runs, root_seed=1, resamples=300)
    assert (other.low != table.low).any() and (other.value.dropna() == table.value.dropna()).all()


def test_floors_stand_below(table, runs):
    floors = table[table.exchange == "floor"]
    assert set(floors.method) == {"floor_constant", "floor_random"} and floors.p_value.isna().all()
    assert len(floor_rows(runs, against="nobody")) == len(floors)


def test_numbers_only_runs_have_no_tests(tmp_path):
    pair = [
        write_run(tmp_path, 0.5, method=name, seed=seed, predictions=False)
        for name in ("fedmrg", "fed-lora")
        for seed in SEEDS
    ]
    table = main_table(load_runs(pair), resamples=20)
    assert table.p_value.isna().all() and set(table.interval) == {"approximate"}
    row = rows_of(table, "fedmrg", "bleu_4")
    assert row.low < row.value < row.high


def test_approximate_interval_by_hand():
    seeds = [
        pandas.DataFrame({"value": [v], "low": [v - h], "high": [v + h]}, index=["m"]) for v, h in ((1, 3), (2, 5))
    ]
    interval = approximate_interval([seed + 10 for seed in seeds], "m")
    half = numpy.sqrt(4**2 + (1.959964 * numpy.sqrt(0.5) / numpy.sqrt(2)) ** 2)
    assert (interval.value, interval.low, interval.high) == pytest.approx((11.5, 11.5 - half, 11.5 + half))
    assert approximate_interval(seeds, "m").low == 0  # no measure is below


def test_compressed_predictions_count_as_well(folders, tmp_path):
    copy = tmp_path / "seed-0"
    shutil.copytree(folders["fedmrg", 0], copy)
    (copy / "predictions.csv.gz").write_bytes(gzip.compress((copy / "predictions.csv").read_bytes()))
    (copy / "predictions.csv").unlink()
    one, other = load_run(copy).statistics("home"), load_run(folders["fedmrg", 0]).statistics("home")
    assert one[0] == other[0]
    for key, measure in other[1].items():
        numpy.testing.assert_array_equal(one[1][key].summands, measure.summands)


def test_other_data_profiles_and_codes(folders, tmp_path):
    first = folders["fedmrg", 0]
    other = write_run(tmp_path / "a", method="fed-lora", fingerprint="data-2")
    with pytest.raises(InputError, match=rf"(?s){re.escape(str(first))}.*{re.escape(str(other))}.*different data"):
        load_runs([first, other])
    other = write_run(tmp_path / "b", variant="training.contrast_temperature=0.05")
    with pytest.raises(InputError, match=rf"{re.escape(str(other))}.*training.contrast_temperature is 0.07 and 0.05"):
        load_runs([first, other])
    for name in ("fedmrg", "transformer"):  # a method may have a learning rate of its own, but only one
        folder = write_run(tmp_path / "e", method=name, variant="training.learning_rate=0.004")
        if name == "fedmrg":
            with pytest.raises(InputError, match=rf"{re.escape(str(folder))}.*training.learning_rate is 0.0015 and"):
                load_runs([first, folder])
    assert load_runs([first, folder]).notes == ("Learning rate 0.0015, but 0.004 for transformer.",)
    both = load_runs([first, other], varying=["training.contrast_temperature"])
    assert [both.label(run) for run in both] == ["fedmrg", "fedmrg training.contrast_temperature=0.05"]
    with pytest.raises(InputError, match="same run"):
        load_runs([first, write_run(tmp_path / "c", 0.1)])
    other = write_run(tmp_path / "d", method="fed-lora", training_code="code-2", commit="b" * 40, gpu="Some GPU")
    notes = " ".join(load_runs([first, other]).notes)
    assert "1 of 2 runs were made on a GPU (Some GPU)" in notes
    assert "2 states of the training code" in notes and "aaaaaaa, bbbbbbb" in notes
    with pytest.raises(InputError, match="different code"):
        load_runs([first, other], same_code=True)
    assert not load_runs([first]).notes


def test_other_test_studies_are_refused(folders, tmp_path):
    first = folders["fedmrg", 0]
    fewer = write_run(tmp_path / "a", method="fed-lora", studies=40)
    with pytest.raises(InputError, match="45 and 30 studies"):
        load_runs([first, fewer])
    other = write_run(tmp_path / "b", method="fed-lora")
    text = (other / "predictions.csv").read_text()
    (other / "predictions.csv").write_text(text.replace("s000,", "other,"))
    with pytest.raises(InputError, match=r"different test studies \(home\); evaluate"):
        paired_tests(load_runs([first, other]))


def test_broken_folders_are_named(folders, tmp_path):
    with pytest.raises(InputError, match="no run folder"):
        load_runs([])
    with pytest.raises(InputError, match="is not a folder"):
        load_runs([tmp_path / "nowhere"])
    for name, message in (
        ("config.yaml", "config.yaml does not exist"),
        ("manifest.json", "manifest.json does not exist"),
        ("metrics.csv", "metrics.csv does not exist"),
    ):
        copy = tmp_path / name
        shutil.copytree(folders["fedmrg", 0], copy)
        (copy / name).unlink()
        with pytest.raises(InputError, match=message):
            load_run(copy)
    for number, (name, text, message) in enumerate(
        (
            ("metrics.csv", "", r"metrics\.csv is not a readable UTF-8 CSV file"),
            ("ledger.csv", "round,client\n1,a\n", r"ledger\.csv: column 'direction' is missing"),
        )
    ):
        copy = tmp_path / f"spoilt-{number}"
        shutil.copytree(folders["fedmrg", 0], copy)
        (copy / name).write_text(text)
        with pytest.raises(InputError, match=message):
            load_run(copy)
    (tmp_path / "config.yaml" / "config.yaml").write_text(yaml.safe_dump({"data": "phantom"}))
    with pytest.raises(InputError, match=r"config\.yaml"):
        load_run(tmp_path / "config.yaml")
    (tmp_path / "metrics.csv" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="data_fingerprint"):
        load_run(tmp_path / "metrics.csv")


def test_settings_stay_apart(tmp_path):
    both = [write_run(tmp_path, 0.5), write_run(tmp_path, 0.5, partition="random", clients=3)]
    runs = load_runs(both)
    assert runs.settings == ["phantom", "phantom,random,clients=3"]
    assert list(dict.fromkeys(estimates(runs, resamples=20).setting)) == runs.settings


def test_ablation_needs_the_whole(folders):
    with pytest.raises(InputError, match="'fedmrg'"):
        ablation_table(load_runs([folders["fed-lora", 0]]))


def balanced(text):
    """Braces, environments and cells of LaTeX fit."""
    plain = re.sub(r"\\[{}]", "", text)
    depth = 0
    for sign in plain:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    open_environments = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert depth == 0 and not open_environments
    for tabular in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        for line in tabular[1].splitlines():
            if line.endswith(r"\\"):
                assert len(re.findall(r"(?<!\\)&", line)) == len(tabular[0]) - 1


def test_tables_are_written(table, runs, tmp_path):
    paths = write_comparison(table, tmp_path, "main", measures=DECLARED, notes=["One 100 % note."])
    csv, markdown, latex = (path.read_text() for path in paths)
    pandas.testing.assert_frame_equal(pandas.read_csv(paths[0])[["method", "value"]], table[["method", "value"]])
    assert csv.startswith("setting,role,method")
    balanced(latex)
    assert latex.count(r"\begin{table}") == 2 and r"floor\_random" in latex and r"One 100 \% note." in latex
    assert "Synthetic phantom data." in markdown and "call a difference clear only when both agree" in markdown
    assert "(all are in the CSV)" in markdown and "the nearest image is found by the trained encoder" in markdown
    home = markdown.split("**phantom,")[1]
    bold = {line.split(" | ")[0] for line in home.splitlines() if "**" in line.removeprefix("**")}
    assert "| centralised" not in bold  # best of the federated ones only
    lengths = {line.count(" | ") for line in home.splitlines() if line.startswith("| ")}
    assert len(lengths) == 1
    with_differences = write_comparison(
        ablation_table(runs, resamples=20), tmp_path, "ablation", measures=DECLARED, differences=True
    )
    balanced(with_differences[2].read_text())
    assert "Worst client, Clinical F1" in with_differences[1].read_text()
    assert "A difference is over the seeds that both rows have" in with_differences[1].read_text()
    assert "Δ BLEU-4" in with_differences[1].read_text() and r"$\Delta$" in with_differences[2].read_text()


def test_latex_escapes():
    assert escape_latex("a_b & 5 % {x} \\") == r"a\_b \& 5 \% \{x\} \textbackslash{}"
    with pytest.raises(AssertionError):
        balanced(r"\textbf{a")


def test_published_numbers():
    table = published_table().set_index(["method", "metric"])
    assert table.loc[("fedmrg", CLINICAL_F1), "value"] == pytest.approx(0.339)
    assert table.loc[("wcl", "rouge_l"), ["value", "parameters_sent"]].tolist() == pytest.approx([0.266, 203e6])
    assert len(table) == 14 * 8 and (table.value < 1).all()
    assert published_client_curve().set_index("clients").value[7] == pytest.approx(0.5314)
    with pytest.raises(InputError, match="'nothing'"):
        published_table("nothing")
