"""Figures and tables of prompt sources as notebook 10 shows them, from planted run folders."""

from __future__ import annotations

import pandas
import pytest
from run_folders import write_run

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.tasks.reports.measures import CLINICAL_F1
from figures import prompt_curves, prompt_sources, prompt_tables, showing

CELLS = {"fedmrg": 0.8, "mrg-llm-static": 0.3, "mrg-llm-prompt-wise-lora": 0.5, "centralised-mrg-llm-static": 0.6}


def value(folder, metric, scope, adapter="generic"):
    table = pandas.read_csv(folder / "metrics.csv").query("system == 'model'")
    return table[(table.metric == metric) & (table.scope == scope) & (table.adapter == adapter)].value.item()


def drawn(module, folders, out):
    paths = module.draw(folders, out)
    assert [path.name for path in paths] == [f"{paths[0].stem}.{kind}" for kind in ("pdf", "png", "csv")]
    return pandas.read_csv(paths[-1])


def test_every_seed_of_a_cell_is_a_point(tmp_path):
    folders = [write_run(tmp_path, q, method=m, seed=s) for m, q in CELLS.items() for s in (0, 1)]
    other = write_run(tmp_path, method="mrg-llm-static", variant="prompt_settings.count=4", seed=0)
    no_cell = write_run(tmp_path, method="moon")
    data = drawn(prompt_sources, [*folders, no_cell, other], tmp_path / "out")
    assert set(data.method) == set(CELLS)  # another row, and another number of prompts, are no cell
    places = data.drop_duplicates("method").set_index("method")[["source", "besides"]].apply(tuple, axis=1)
    assert places["centralised-mrg-llm-static"] == ("static", "nothing more, centralised")
    assert places["fedmrg"] == ("diagnosis", "FedMRG's two")
    static = data[data.method == "mrg-llm-static"].set_index(["role", "metric", "seed"]).value
    for place, seed in ((2, 0), (3, 1)):
        assert static["unseen", CLINICAL_F1, seed] == pytest.approx(value(folders[place], CLINICAL_F1, "unseen"))
    assert len(static) == 4 * 2
    with pytest.raises(InputError, match="of a source of prompts"):
        prompt_sources.draw([no_cell], tmp_path / "none")


def test_curves_over_numbers_that_a_row_has(tmp_path):
    variants = ["", "prompt_settings.count=4", "training.study_share=0.25", "training.study_share=0.05"]
    folders = [write_run(tmp_path, 0.1 * k, method="mrg-llm-static", variant=v) for k, v in enumerate(variants)]
    wide = ["", "prompt_settings.width=8"]
    folders += [write_run(tmp_path, 0.7, method="mrg-llm-prompt-wise", variant=v) for v in wide]
    data = drawn(prompt_curves, folders, tmp_path / "out").query("role == 'home' and metric == 'bleu_4'")
    along = {key: rows.sort_values("x").x.tolist() for key, rows in data.groupby(["axis", "line"])}
    assert along == {
        ("Number of prompts N", "mrg-llm-static"): [4, 16],
        ("Share of the training studies", "mrg-llm-static"): [0.05, 0.25, 1],
        ("Width of an affine network", "mrg-llm-prompt-wise"): [8, 32],
    }
    part = data[(data.x == 0.05)].squeeze()
    assert part.value == pytest.approx(value(folders[3], "bleu_4", "home")) and part.low <= part.value <= part.high
    with pytest.raises(InputError, match="takes two values"):
        prompt_curves.draw(folders[:1], tmp_path / "none")


def test_tables_of_what_is_there(tmp_path):
    methods = ["fedmrg", "mrg-llm-none", "mrg-llm-static", "centralised-mrg-llm-static"]
    runs = load_runs([write_run(tmp_path, method=method) for method in methods])
    written = prompt_tables.write_tables(runs, tmp_path / "out", "mine")
    assert [paths[0].name for paths in written] == [
        "mine.csv", "mine-against-fedmrg.csv", "mine-order.csv", "mine-centralised.csv"
    ]  # fmt: skip
    aligned = ["mrg-llm-prompt-wise", "mrg-llm-prompt-wise-aligned"]
    runs = load_runs([write_run(tmp_path, method=method) for method in aligned])
    written = prompt_tables.write_tables(runs, tmp_path / "out", "mine")
    assert [paths[0].name for paths in written] == ["mine.csv", "mine-alignment.csv"]
    table = pandas.read_csv(written[1][0]).set_index(["method", "role", "metric"])
    assert table.difference["mrg-llm-prompt-wise-aligned", "home", "bleu_4"] == 0  # the same answers


def test_the_notebook_says_nothing_of_rows_that_were_not_run(tmp_path, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(showing, "display", lambda *parts: shown.extend(parts))
    monkeypatch.setattr(showing, "reference_folder", lambda profile: tmp_path / "reference" / profile)
    benchmark = showing.Benchmark("smoke", tmp_path)
    write_run(tmp_path, method="fedmrg", profile="smoke")
    for experiment in ("mrg-llm", "iu_xray-mrg-llm"):
        prompt_tables.show_sources(benchmark, experiment)
    prompt_tables.show_curves(benchmark, "mrg-llm-curves")
    assert capsys.readouterr().out == "" and not shown and not benchmark.out.exists()
    write_run(tmp_path, method="mrg-llm-static", profile="smoke")
    prompt_tables.show_sources(benchmark, "mrg-llm")
    assert "mrg-llm: 2 runs" in capsys.readouterr().out and len(shown) == 4  # two tables, and a picture with its name
    written = {path.name for path in benchmark.out.iterdir()}
    assert written >= {"mrg-llm.md", "mrg-llm-against-fedmrg.md", "prompt_sources.png"}
