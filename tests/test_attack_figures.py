"""The figure of attack tolerance, from planted runs; and that an attack is told wherever its runs are shown."""

from __future__ import annotations

import pathlib
import re

import matplotlib.pyplot as plt
import pandas
import pytest
from picture_runs import PLACES, write_picture_run

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.files.digests import check_index
from fedmrg_core.files.stored_tables import read_table
from fedmrg_core.paths import REPOSITORY, reference_folder
from fedmrg_core.runs.attack import Attack, attackers
from fedmrg_core.runs.experiments import runs_of
from figures import attack_tolerance, common

HOME = [site for site, role in PLACES.items() if role == "home"]
STORED = reference_folder("smoke") / "attack-tolerance"
SIGN = "attack.kind=sign,attack.clients=1"


def planted(root: pathlib.Path, method: str, quality: float, variant: str = "", refused: bool = False) -> pathlib.Path:
    folder = write_picture_run(root, method, quality, variant=variant)
    (liar,) = attackers(HOME, Attack(kind="sign", clients=1), 0)
    rows = [f"1,{site},{'left_out' if refused and site == liar else 'ok'}" for site in HOME]
    (folder / "rounds.csv").write_text("\n".join(["round,client,status", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], pathlib.Path]:
    root = tmp_path_factory.mktemp("attacked")
    quality = {
        ("generator", ""): 1.5,
        ("generator", SIGN): 0.05,
        ("generator", f"{SIGN},attack.strength=1000"): 1.4,
        ("generator", "attack.kind=noise,attack.clients=1"): 0.3,
        ("median", ""): 1.5,
        ("median", SIGN): 1.4,
        ("median", "attack.kind=noise,attack.clients=1"): 1.4,
    }
    return {key: planted(root, key[0], value, key[1], "1000" in key[1]) for key, value in quality.items()}


def area(folder: pathlib.Path, site: str) -> float:
    table = pandas.read_csv(folder / "metrics.csv")
    return table[(table.metric == "auc") & (table.scope == site)].value.item()


def test_honest_clients_stand_over_dishonest_ones_and_beside_the_clean_average(folders, tmp_path):
    paths = attack_tolerance.draw(list(folders.values()), tmp_path)
    assert [path.name for path in paths] == [f"attack_tolerance.{kind}" for kind in ("pdf", "png", "csv")]
    table = read_table(paths[-1], attack_tolerance.POINT, "").set_index(["method", "attack", "strength"])
    (liar,) = attackers(HOME, Attack(kind="sign", clients=1), 0)
    (honest,) = set(HOME) - {liar}
    attacked, clean = folders["median", SIGN], folders["generator", ""]
    row = table.loc[("median", "sign", 30)]
    assert row.value == pytest.approx(area(attacked, honest))
    assert row.kept == pytest.approx(area(attacked, honest) / area(clean, honest))
    assert table.loc[("generator", "none", 30)].kept == 1 and table.loc[("generator", "sign", 30)].kept < row.kept
    assert table.loc[("generator", "sign", 1000)].refused == 1 and row.refused == 0
    assert table.attackers.groupby("attack").unique().map(list).to_dict() == {"noise": [1], "none": [0], "sign": [1]}


def test_the_figure_says_that_the_attack_was_made(folders, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(common, "save_figure", lambda figure, *_: drawn.append(figure) or [])
    attack_tolerance.draw([folders["generator", ""], folders["generator", SIGN]], tmp_path)
    (figure,) = drawn
    text = figure.get_supxlabel()
    plt.close(figure)
    sentence = "Synthetic attack: 1 of the clients sent sign-flipped updates, 30 times as long as an update."
    assert text.count(sentence) == 1 and text.startswith("Synthetic data: phantom findings")
    assert len(figure.axes) == 2


def test_every_table_and_every_figure_of_one_run_says_so(folders):
    attacked, clean = folders["generator", SIGN], folders["generator", ""]
    (note,) = (each for each in load_runs([attacked]).notes if "attack" in each)
    figure, _ = common.new_figure(1, 1, 2, 2)
    common.caption(figure, "Text.", [attacked])
    assert note in figure.get_supxlabel()
    common.caption(figure, "Text.", [clean])
    assert "attack" not in figure.get_supxlabel() + " ".join(load_runs([clean]).notes)
    plt.close(figure)
    with pytest.raises(InputError, match="different profiles: attack.kind"):
        load_runs([attacked, clean])


def test_runs_that_cannot_be_drawn(folders, tmp_path):
    with pytest.raises(InputError, match="None of these runs was attacked"):
        attack_tolerance.draw([folders["generator", ""]], tmp_path)
    with pytest.raises(InputError, match="no clean run of rule fedavg and seed 0"):
        attack_tolerance.draw([folders["median", ""], folders["median", SIGN]], tmp_path)


def test_rows_of_two_averages_have_no_common_clean_run(folders, tmp_path):
    other = planted(tmp_path, "static", 0.9)
    with pytest.raises(InputError, match="generator and static are rows of rule fedavg"):
        attack_tolerance.draw([other, folders["generator", ""], folders["generator", SIGN]], tmp_path)


def test_the_page_shows_the_stored_table():
    check_index(STORED, "")
    table = pandas.read_csv(STORED / "attack_tolerance.csv")
    table = table[table["strength"] < 100].set_index(["method", "attack", "attackers"])
    text = (REPOSITORY / "docs" / "attack_tolerance.md").read_text(encoding="utf-8")
    columns = [("none", 0), *((kind, count) for kind in ("sign", "noise", "scale") for count in (1, 2))]
    for part, heading, digits in (("value", "area, honest clients", 3), ("kept", "share of the clean average's", 2)):
        lines = re.search(rf"^\| {heading} \|.*?\n\n", text, re.MULTILINE | re.DOTALL).group().splitlines()[2:-1]
        rows = {
            cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
        }
        assert [name.strip("`") for name in rows] == ["generator", "krum", "multi-krum", "trimmed-mean", "median"]
        for name, cells in rows.items():
            for cell, column in zip(cells, columns, strict=True):
                place = (name.strip("`"), *column)
                assert (place in table.index) == bool(cell), place  # a run that was not made has an empty cell
                expected = table.loc[place, part].item() if cell else 0
                assert float(cell or 0) == pytest.approx(expected, abs=0.501 * 10**-digits), place


def test_the_experiment_is_each_rule_under_each_attack():
    runs = [run for run in runs_of(["attack-tolerance"], "smoke") if not run.seed]
    loaded = [(run.load()[1].server.rule, run.load()[0].attack) for run in runs]
    usual = {(rule, attack.kind, attack.clients) for rule, attack in loaded if attack.strength < 100}
    kinds = [("none", 0), *((kind, count) for kind in ("sign", "noise", "scale") for count in (1, 2))]
    assert usual == {
        (rule, *kind) for rule in ("fedavg", "krum", "multi-krum", "trimmed-mean", "median") for kind in kinds
    }
    assert {rule for rule, attack in loaded if attack.strength >= 100} == {"fedavg"}
