"""The figure and the tables of what updates give away, from tables of attacks."""

from __future__ import annotations

import itertools
import math

import pandas
import pytest
import scipy.stats

from fedmrg_core.federation.curious.defences import DEFENCES, Defence
from fedmrg_core.files.digests import check_index
from fedmrg_core.paths import REPOSITORY, reference_folder
from figures import update_attacks

STORED = reference_folder("smoke") / "update-attacks"
ADAPTER = {"server": "curious", "sent": "adapter", "rebuilt_by": "attack"}
CRAFTED = ADAPTER | {"server": "crafts what it sends"}
WHOLE = ADAPTER | {"sent": "whole LLM", "method": "fedmrg"}
FREQUENT = {"server": "curious", "rebuilt_by": "frequent tokens", "method": "fedmrg"}
TABLE, HEAD, MEAN = (
    {"rebuilt_by": name} for name in ("table of prompts", "bias of the head", "mean of another hospital")
)
# Rows of the page's tables: which rows of which stored table, and which of its columns.
BY_BATCH = {
    "the LLM's matrices, of `fedmrg`": ("words", WHOLE, "tokens"),
    "the adapter of `fedmrg`": ("words", ADAPTER | {"method": "fedmrg"}, "tokens"),
    "the adapter of `fedmrg`, crafted start": ("words", CRAFTED | {"method": "fedmrg"}, "tokens"),
    "the adapter of `fed-lora`": ("words", ADAPTER | {"method": "fed-lora"}, "tokens"),
    "the adapter of `fed-lora`, crafted start": ("words", CRAFTED | {"method": "fed-lora"}, "tokens"),
    "the adapter of `ffa-lora`, whose B alone travels": ("words", ADAPTER | {"method": "ffa-lora"}, "tokens"),
    "floor: frequent tokens of another hospital": ("words", FREQUENT, "tokens"),
    "floor: a random report of another hospital": ("words", FREQUENT | {"rebuilt_by": "random report"}, "tokens"),
    "occurring: table of prompts": ("findings", TABLE, "occurring"),
    "occurring: bias of the head": ("findings", HEAD, "occurring"),
    "occurring, floor: mean of another hospital": ("findings", MEAN, "occurring"),
    "occurring, floor: random studies of it": ("findings", {"rebuilt_by": "random studies"}, "occurring"),
    "counted: bias of the head": ("findings", HEAD, "counted"),
    "counted, floor: mean of another hospital": ("findings", MEAN, "counted"),
}
OF_FEDMRG = ADAPTER | {"method": "fedmrg"}
BY_DEFENCE = {  # with the local steps, and the rows of the floor
    "tokens, the LLM's matrices": ("words", WHOLE, "tokens", 1, FREQUENT),
    "tokens, adapter": ("words", OF_FEDMRG, "tokens", 1, FREQUENT),
    "tokens, adapter, eight local steps": ("words", OF_FEDMRG, "tokens", 8, FREQUENT),
    "findings, table of prompts": ("findings", TABLE, "occurring", 1, MEAN),
    "findings, bias of the head": ("findings", HEAD, "occurring", 1, MEAN),
}


def words() -> pandas.DataFrame:
    """Two rows of methods, two servers, three seeds; the found share is .1 per batch and seed."""
    rows = [
        {"method": method, "server": server, "sent": sent, "defence": defence, "batch": batch, "steps": steps,
         "rebuilt_by": rebuilt_by, "tokens": 0.1 * (batch + seed), "findings": 0.5, "seed": seed}
        for method, server, (sent, rebuilt_by), defence, batch, steps, seed in itertools.product(
            ("fedmrg", "ffa-lora"), ("curious", "crafts what it sends"),
            (("adapter", "attack"), ("nothing", "frequent tokens")), ("none", "8 bits"), (1, 4), (1, 8), (0, 1, 2),
        )
    ]  # fmt: skip
    return pandas.DataFrame(rows)


def findings() -> pandas.DataFrame:
    rows = [
        {"method": "fedmrg", "defence": "none", "batch": 1, "steps": steps, "rebuilt_by": name, "occurring": value,
         "counted": value, "seed": seed}
        for name, value in (("table of prompts", 1.0), ("random studies", 0.2)) for steps in (1, 8) for seed in (0, 1)
    ]  # fmt: skip
    return pandas.DataFrame(rows)


def pictures() -> pandas.DataFrame:
    rows = [
        {"method": "full", "defence": "none", "batch": 1, "steps": 1, "rebuilt_by": name, "psnr": 10.0 + seed,
         "ssim": 0.5, "perceptual": 0.1, "seed": seed}
        for name in ("closed form", "matching", "mean image") for seed in (0, 1, 2)
    ]  # fmt: skip
    return pandas.DataFrame(rows)


def test_every_case_is_a_line_with_its_seeds(tmp_path):
    paths = update_attacks.draw(words(), findings(), pictures(), tmp_path)
    assert [path.name for path in paths] == [f"update_attacks.{kind}" for kind in ("pdf", "png", "csv")]
    table = pandas.read_csv(paths[-1]).set_index(update_attacks.KEYS)
    assert set(table["seeds"]) == {2, 3}
    told = table.loc[update_attacks.FINDINGS]["mean"]
    assert told.to_dict() == {("fedmrg, table of prompts", 1): 1.0, ("floor: random studies", 1): 0.2}
    curious = table.loc[update_attacks.WORDS]
    assert set(curious.index.get_level_values("what")) == {
        "fedmrg, adapter", "ffa-lora, adapter", "floor: frequent tokens",
    }  # fmt: skip
    assert curious.loc[("fedmrg, adapter", 4), ["mean", "min", "max"]].tolist() == pytest.approx([0.5, 0.4, 0.6])
    assert set(table.loc[update_attacks.PICTURES].index.get_level_values("what")) == {
        "full, closed form", "full", "floor: mean image",
    }  # fmt: skip


def test_a_summary_has_means_and_their_spread():
    found = update_attacks.summary(words(), ["method", "batch", "steps"], ["tokens"]).set_index(["batch", "steps"])
    assert found.loc[(1, 1), "tokens"].tolist() == pytest.approx([0.2, 0.2])
    assert set(found["seeds"]) == {3} and (found["tokens_sd_of_seeds"] > 0).all()


def stored(name: str, wanted: dict[str, object], column: str, **case: object) -> float:
    table = pandas.read_csv(STORED / f"{name}.csv")
    for key, value in (wanted | case).items():
        table = table[table[key] == value]
    return table[column].item()


def cells_of_the_page(row: str, page: str = "what_updates_give_away.md") -> list[str]:
    lines = (REPOSITORY / "docs" / page).read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"| {row} |"))
    return [cell.strip(" *") for cell in line.strip("|").split("|")[1:]]


@pytest.mark.parametrize("row", BY_BATCH)
def test_the_page_shows_the_stored_table_of_batches(row):
    check_index(STORED, "")
    name, wanted, column = BY_BATCH[row]
    for cell, batch in zip(cells_of_the_page(row), (1, 4, 16), strict=True):
        found = stored(name, wanted, column, batch=batch, steps=1, defence="none")
        assert float(cell) == pytest.approx(found, abs=0.00501)


@pytest.mark.parametrize("row", BY_DEFENCE)
def test_the_page_shows_the_stored_table_of_defences(row):
    name, wanted, column, steps, floor = BY_DEFENCE[row]
    defences = ("none", "8 bits", "rank 8, 8 bits", "noise .0001", "noise .001", "noise .01")
    expected = [stored(name, wanted, column, batch=1, steps=steps, defence=defence) for defence in defences]
    expected.append(stored(name, floor, column, batch=1, steps=1, defence="none"))
    assert [float(cell) for cell in cells_of_the_page(row)] == pytest.approx(expected, abs=0.00501)


PICTURES = "visual_prompts.md"
LIKENESS = {"PSNR": ("psnr", 0.0501), "SSIM": ("ssim", 0.00501), "perceptual": ("perceptual", 0.000501)}
FLOORS = ("mean image", "random training image")


@pytest.mark.parametrize("measure", LIKENESS)
@pytest.mark.parametrize(("attack", "batch"), [("closed form", 1), ("matching", 1), ("matching", 4), ("matching", 16)])
def test_the_page_shows_the_stored_table_of_pictures(measure, attack, batch):
    column, near = LIKENESS[measure]
    count = "one picture" if batch == 1 else f"{batch} pictures"
    found = cells_of_the_page(f"{measure}: {attack}, {count}", PICTURES)
    methods = ("full", "generator", "static", "head", "lora")
    wanted = [{"method": name, "rebuilt_by": attack} for name in methods]
    wanted += [{"method": "full", "rebuilt_by": name} for name in FLOORS]
    shown = [(float(cell), each) for cell, each in zip(found, wanted, strict=True) if cell]
    assert len(shown) == (3 if attack == "closed form" else 7)
    for value, each in shown:
        assert value == pytest.approx(stored("pictures", each, column, batch=batch, defence="none"), abs=near)


@pytest.mark.parametrize("measure", LIKENESS)
def test_the_page_shows_the_stored_table_of_defended_pictures(measure):
    column, near = LIKENESS[measure]
    solved, mean = ({"method": "full", "rebuilt_by": name} for name in ("closed form", "mean image"))
    defences = ("none", "8 bits", "rank 8, 8 bits", "noise .0001", "noise .001", "noise .01")
    expected = [stored("pictures", solved, column, batch=1, defence=defence) for defence in defences]
    expected.append(stored("pictures", mean, column, batch=1, defence="none"))
    found = cells_of_the_page(f"{measure} of `full`", PICTURES)
    assert [float(cell) for cell in found] == pytest.approx(expected, abs=near)


@pytest.mark.parametrize("page", ["what_updates_give_away.md", PICTURES])
def test_the_page_says_what_each_defence_promises(page):
    found = cells_of_the_page("epsilon of one update, delta .01", page)
    promised = {name: each.epsilon(0.01) for name, each in DEFENCES.items()}
    assert [float(cell) if cell != "none" else math.inf for cell in found[:-1]] == pytest.approx(
        list(promised.values()), rel=0.05
    )


@pytest.mark.parametrize("noise", [0.5, 2.0, 10.0])
def test_epsilon_is_above_the_exact_curve_of_gaussian_noise(noise):
    """delta of epsilon, two lengths apart [related: Balle and Wang 2018]; it is no more than what was asked."""
    epsilon, apart = Defence(noise=noise).epsilon(0.01), 2 / noise
    below = scipy.stats.norm.cdf(apart / 2 - epsilon / apart)
    assert below - math.exp(epsilon) * scipy.stats.norm.cdf(-apart / 2 - epsilon / apart) <= 0.01
