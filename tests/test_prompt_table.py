"""Sources of prompts against what else is trained: which row is which cell, the tables, and what stays blank."""

from __future__ import annotations

import numpy
import pandas
import pytest
from run_folders import write_run

from fedmrg_core.evaluation import prompt_table
from fedmrg_core.evaluation.comparison import paired_differences, paired_tests
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.metrics.statistics import holm
from fedmrg_core.runs.experiments import runs_of
from fedmrg_core.runs.methods import load_methods
from fedmrg_core.tasks.reports import prompt_cells
from fedmrg_core.tasks.reports.measures import CLINICAL_F1

QUALITIES = {
    "fedmrg": 0.8, "fed-lora": 0.3, "mrg-llm-none": 0.2, "mrg-llm-static": 0.5, "mrg-llm-prompt-wise": 0.9,
    "centralised-mrg-llm-static": 0.7, "centralised-mrg-llm-none": 0.7,
}  # fmt: skip
SEEDS = {"fedmrg": (0, 1), "mrg-llm-static": (0, 1), "mrg-llm-none": (0, 1)}
CELLS = prompt_cells.prompt_cells()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("cells")
    return {
        (method, seed): write_run(root, quality, method=method, seed=seed)
        for method, quality in QUALITIES.items()
        for seed in SEEDS.get(method, (0,))
    }


@pytest.fixture(scope="module")
def runs(folders):
    (folders["mrg-llm-none", 0] / "timing.csv").write_text("round,local_seconds\n1,30\n2,50\n")
    rounds = pandas.read_csv(folders["mrg-llm-none", 0] / "rounds.csv")
    rounds.assign(num_examples=20).to_csv(folders["mrg-llm-none", 0] / "rounds.csv", index=False)
    return load_runs(list(folders.values()))


@pytest.fixture(scope="module")
def table(runs):
    return prompt_table.cell_table(runs, CELLS, prompt_cells.SHOWN)


def test_every_cell_is_a_row_of_the_methods():
    found = {place: name for name, place in CELLS.items()}
    assert set(found) == {(source, besides) for besides in prompt_cells.BASES for source in prompt_cells.SOURCES}
    assert found["diagnosis", "FedMRG's two"] == "fedmrg" and found["none", "one LoRA"] == "fed-lora"
    assert found["none", "FedMRG's two"] == "fedmrg-without-prompts"
    assert found["diagnosis", "one LoRA"] == "mrg-llm-diagnosis-lora"  # promptmrg goes at another pace
    asked = {run.method for run in runs_of(["mrg-llm"], "standard")}
    centralised = prompt_cells.prompt_cells(prompt_cells.CENTRALISED)
    assert asked == {*CELLS, *centralised, *prompt_cells.ALIGNMENT}
    adapters = {name: sum("adapter" in module for module in load_methods()[name].modules) for name in CELLS}
    assert all(adapters[name] == [*prompt_cells.BASES].index(besides) for name, (_, besides) in CELLS.items())


def test_what_is_compared_with_what():
    assert prompt_cells.order_of_sources()[:3] == [
        ("mrg-llm-static", "mrg-llm-none"),
        ("mrg-llm-prompt-wise", "mrg-llm-static"),
        ("mrg-llm-promptbook-wise", "mrg-llm-static"),
    ]
    for first, second in prompt_cells.order_of_sources()[3:]:
        assert first.startswith("centralised-") and second.startswith("centralised-")
    pairs = prompt_cells.centralised_pairs()
    assert len(pairs) == 4 and all(first == f"centralised-{second}" for first, second in pairs)


def test_a_cell_holds_means_and_deviations_over_its_seeds(table, folders):
    assert table["method"].tolist() == list(CELLS)
    row = table.set_index("method").loc["mrg-llm-static"]
    stored = [pandas.read_csv(folders["mrg-llm-static", seed] / "metrics.csv") for seed in (0, 1)]
    values = [
        metrics.query(f"scope == 'home' and system == 'model' and metric == '{CLINICAL_F1}'").value.item()
        for metrics in stored
    ]
    assert row[f"home_{CLINICAL_F1}"] == pytest.approx(numpy.mean(values))
    assert row[f"home_{CLINICAL_F1}_sd"] == pytest.approx(numpy.std(values, ddof=1))
    assert (row.seeds, row.source, row.besides) == (2, "static", "nothing more")
    assert row[["bytes_up", "bytes_down", "parameters_shared"]].tolist() == [400_000, 800_000, 1000]


def test_what_is_not_there_stays_blank(table):
    rows = table.set_index("method")
    missing = rows.loc["mrg-llm-generator-dual"].drop(["setting", "source", "besides"])
    assert missing.seeds == 0 and missing.drop("seeds").isna().all()
    one = rows.loc["fed-lora"]
    assert one.seeds == 1 and one.home_bleu_4 > 0 and numpy.isnan(one.home_bleu_4_sd)
    assert numpy.isnan(one.seconds_a_step) and numpy.isnan(one.parameters_trained)


def test_seconds_are_a_step_s(folders, runs):
    alone = load_runs([folders["mrg-llm-none", 0]])
    rows = prompt_table.cell_table(alone, CELLS, ["bleu_4"]).set_index("method")
    updates = len(pandas.read_csv(folders["mrg-llm-none", 0] / "rounds.csv"))
    steps = updates * 2  # 20 studies in batches of 16
    assert rows.seconds_a_step["mrg-llm-none"] == pytest.approx(80 / steps)


def test_the_cells_are_written(table, runs, tmp_path):
    paths = prompt_table.write_cells(table, runs, prompt_cells.SHOWN, tmp_path, "cells")
    assert [path.name for path in paths] == ["cells.csv", "cells.md", "cells.tex"]
    assert len(pandas.read_csv(paths[0])) == 21
    page = paths[1].read_text()
    assert "| generator | FedMRG's two |" not in page and "- Synthetic phantom data." in page
    static = table.set_index("method").loc["mrg-llm-static"]
    shown = f"| static | nothing more | 2 | {static.home_bleu_4:.3f} <small>± {static.home_bleu_4_sd:.3f}</small> |"
    assert shown in page and "390.62 KiB" in page and page.count("**phantom, ") == 3
    assert r"\midrule" in paths[2].read_text()


def test_a_role_that_no_run_was_tested_in_has_no_page(table, runs, tmp_path):
    unseen = [name for name in table if name.startswith("unseen_")]
    paths = prompt_table.write_cells(table.assign(**dict.fromkeys(unseen)), runs, prompt_cells.SHOWN, tmp_path, "cells")
    assert paths[1].read_text().count("**phantom, ") == 2


def test_differences_are_paired_and_corrected_for_their_number(runs, table):
    pairs = [("mrg-llm-static", "mrg-llm-none"), ("mrg-llm-prompt-wise", "mrg-llm-static"), ("fedmrg", "mrg-llm-dual")]
    found = prompt_table.differences(runs, pairs).query("role == 'home' and metric == 'bleu_4'")
    assert found[["first", "second"]].apply(tuple, axis=1).tolist() == pairs
    both, one, none = (row for _, row in found.iterrows())
    means = table.set_index("method").home_bleu_4
    assert both.difference == pytest.approx(means["mrg-llm-static"] - means["mrg-llm-none"])
    assert (both.seeds_tested, one.seeds_tested) == (2, 1)  # seeds that both have
    expected = holm({"both": both.p_value, "one": one.p_value})
    assert (both.p_holm, one.p_holm) == (expected["both"], expected["one"])
    assert none[["difference", "p_value", "p_holm", "seeds_tested"]].isna().all()


def test_every_cell_against_one_row_is_the_usual_paired_test(runs):
    cells = prompt_table.of_rows(runs, CELLS)
    found = paired_differences(cells, [("fedmrg", name) for name in CELLS])
    usual = paired_tests(cells, "fedmrg")
    keys = ["role", "method", "metric"]
    pandas.testing.assert_frame_equal(
        found.rename(columns={"second": "method"}).sort_values(keys)[usual.columns].reset_index(drop=True),
        usual.sort_values(keys).reset_index(drop=True),
    )
    assert set(found["second"]) == {*QUALITIES} - {"fedmrg"} - {name for name in QUALITIES if "centralised" in name}


def test_differences_are_written(runs, tmp_path):
    pairs = [("mrg-llm-static", "mrg-llm-none"), ("fedmrg", "mrg-llm-generator-dual")]
    found = prompt_table.differences(runs, pairs)
    paths = prompt_table.write_differences(found, runs, prompt_cells.SHOWN, tmp_path, "order")
    page = paths[1].read_text()
    row = found.query(f"role == 'home' and metric == '{CLINICAL_F1}'").iloc[0]
    clear = "\\*" if row.p_holm < 0.05 else ""
    assert f"{row.difference:+.3f}{clear} <small>[{row.difference_low:+.3f}, {row.difference_high:+.3f}]" in page
    assert "mrg-llm-generator-dual" not in page and "CIDEr" not in page
    assert paths[0].name == "order.csv" and "\u2212" not in paths[2].read_text()
