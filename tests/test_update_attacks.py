"""The figure and the tables of what updates give away, from tables of attacks."""

from __future__ import annotations

import itertools

import pandas
import pytest

from figures import update_attacks


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
