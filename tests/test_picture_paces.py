"""How paces of picture rows are compared: the same ones for every row, and validation pictures alone."""

import argparse

import pandas
import picture_paces  # pytest's pythonpath names its folder
import pytest

from fedmrg_core.runs.experiments import RunSettings


def test_every_row_has_the_same_paces_whatever_its_own_is():
    given = argparse.Namespace(profile="smoke", data=["phantom_masks"], rows=["generator", "full"], rounds=2)
    runs = picture_paces.runs_of_paces(given)
    assert [(run.method, pace) for run, pace in runs] == [
        (row, pace) for row in ("generator", "full") for pace in picture_paces.PACES
    ]
    loaded = [run.load() for run, _ in runs]
    rates = [profile.training.learning_rate * row.pace for profile, row in loaded]
    own = RunSettings(profile="smoke", data="phantom_masks", method="head").load()[0].training.learning_rate
    assert rates == pytest.approx([own * pace for _, pace in runs], rel=1e-5)
    assert {profile.federation.rounds for profile, _ in loaded} == {2}


def test_a_run_is_judged_in_the_round_of_the_lowest_validation_loss(tmp_path):
    run = RunSettings(profile="smoke", data="phantom_findings", method="head", variant="federation.rounds=3")
    folder = run.folder(tmp_path)
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "shared.safetensors").touch()  # it is finished, so nothing is trained
    rounds = [(1, "a", 0.9, 0.5), (1, "b", 0.7, 0.7), (2, "a", 0.2, 0.6), (2, "b", 0.4, 0.8), (3, "a", 0.9, 0.99)]
    table = pandas.DataFrame(rounds, columns=["round", "client", "validation_loss", "validation_auc"])
    table.to_csv(folder / "rounds.csv", index=False)
    found = picture_paces.judged(run, 3.0, tmp_path)
    assert found["round"] == 2 and found["validation"] == 0.7 and found["measure"] == "auc"
