"""Run folders of visual prompts with planted answers: how good each method is, of both kinds of pictures."""

from __future__ import annotations

import json
import pathlib

import numpy
import pandas

from fedmrg_core.files.whole_files import write_text
from fedmrg_core.metrics.segmentation import DICE, HAUSDORFF
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.metric_table import write_metrics
from fedmrg_core.runs.run_configuration import write_configuration
from fedmrg_core.tasks.visual_prompts.measures import DECLARED

PLACES = {"centre-a": "home", "centre-b": "home", "centre-f": "unseen"}
PICTURES = 40  # of each centre


def write_picture_run(
    root: pathlib.Path,
    method: str,
    quality: float,
    *,
    data: str = "phantom_findings",
    seed: int = 0,
    variant: str = "",
    sent: int = 1000,
    profile: str = "smoke",
    training_code: str = "code-1",
) -> pathlib.Path:
    """A finished run below root/results.

    Args:
        root: the workspace.
        method: a row of methods_visual_prompts.yaml.
        quality: of masks Dice; of classes how far apart the two outcomes' scores lie.
        data: phantom_findings or phantom_masks.
        seed: draws the answers; the truth is the same for every run.
        variant: of the run.
        sent: bytes up of a client and round.
        profile: of the run.
        training_code: as the manifest has it.
    """
    run = RunSettings(profile=profile, data=data, method=method, variant=variant, seed=seed)
    folder = run.folder(root)
    folder.mkdir(parents=True)
    write_configuration(folder, run.configuration(root))
    manifest = {
        "commit": "a" * 40, "uncommitted_changes": False, "training_code": training_code, "data_fingerprint": "data-1",
        "packages": {"torch": "2.0"}, "parameters": {"shared": sent // 4}, "rounds": 1, "selected_round": 1,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    draw, shown = numpy.random.default_rng([seed, *map(ord, method)]), numpy.random.default_rng(7)
    answers = pandas.concat([_answers(draw, shown, data, quality, site) for site in PLACES], ignore_index=True)
    if method == "local":  # shares nothing, so it answers at home alone
        answers = answers[answers["role"] == "home"].assign(adapter="own")
    write_text(folder / "predictions.csv", answers.to_csv(index=False, lineterminator="\n"))
    write_measures(folder, answers)
    clients = [site for site, role in PLACES.items() if role == "home"]
    rows = [f"1,train,{site},{way},message,{sent}" for site in clients for way in ("up", "down")]
    write_text(folder / "ledger.csv", "\n".join(["round,phase,client,direction,module,bytes", *rows]) + "\n")
    return folder


def write_measures(folder: pathlib.Path, answers: pandas.DataFrame) -> None:
    """metrics.csv of these answers."""
    write_metrics(folder / "metrics.csv", DECLARED.score(answers, 0, resamples=40))


def _answers(
    draw: numpy.random.Generator, shown: numpy.random.Generator, data: str, quality: float, site: str
) -> pandas.DataFrame:
    role = PLACES[site]
    rows = pandas.DataFrame({"study_id": [f"{site}-{number:03}" for number in range(PICTURES)]})
    rows = rows.assign(site=site, role=role, adapter="own" if role == "home" else "shared")
    blank = dict.fromkeys(("truth", "chosen", "probability"), "")
    if data == "phantom_masks":
        overlap = numpy.clip(quality + draw.normal(0, 0.05, PICTURES), 0, 1)
        return rows.assign(kind="masks", **blank, accuracy=numpy.nan, **{DICE: overlap, HAUSDORFF: 20 * (1 - overlap)})
    truth = shown.integers(0, 2, (PICTURES, 2))
    said = 1 / (1 + numpy.exp(-(quality * (2 * truth - 1) + draw.normal(0, 1, truth.shape))))
    chosen = (said > 0.5).astype(int)
    texts = {"truth": truth, "chosen": chosen, "probability": said.round(6)}
    told = {name: [" ".join(map(str, row)) for row in values.tolist()] for name, values in texts.items()}
    accuracy = (chosen == truth).mean(axis=1)
    return rows.assign(kind="several", **told, accuracy=accuracy, **{DICE: numpy.nan, HAUSDORFF: numpy.nan})
