"""What updates give away, over seeds: tables of words, findings, images, pictures and longer searches, and a figure.

Embedded synthetic data. Runs that are missing are made first, one after another; a killed one goes on from its last
round, and a seed whose tables are there is not attacked again. From the repository, where `make figures` has prepared
reports and base models:

    python benchmarks/update_attacks.py
    python benchmarks/update_attacks.py --keep    tables and figure go to figures/reference/
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable

import pandas
import torch
from attack_tolerance import keep
from tqdm.auto import tqdm

from fedmrg_core.errors import InputError
from fedmrg_core.federation.curious.defences import DEFENCES
from fedmrg_core.federation.curious.inversion import Attack
from fedmrg_core.federation.run import run_federation
from fedmrg_core.files.stored_tables import table_text
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.paths import reference_folder, workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.tasks.reports.attacks.finding_table import attack_findings
from fedmrg_core.tasks.reports.attacks.image_table import attack_images
from fedmrg_core.tasks.reports.attacks.word_table import attack_words
from fedmrg_core.tasks.visual_prompts.attacks.attacking import attack_run
from fedmrg_core.tasks.visual_prompts.inputs import prepare_inputs
from figures import update_attacks

REPORTS = ("fedmrg", "fed-lora", "ffa-lora")
PICTURES = ("full", "head", "lora", "generator", "static")
ROUNDS = {"phantom": 2, "phantom_findings": 1}  # of training before the attack [ours]
BATCHES, STEPS, DRAWS = (1, 4, 16), (1, 8), 4
SEARCH = Attack(iterations=100, restarts=1)
# Of one picture: is it the budget that matching lacks, and what do more local steps change.
SEARCHES = {
    "ten times as long, four restarts": Attack(iterations=1000, restarts=4),
    "of four local steps": dataclasses.replace(SEARCH, steps=4),
}
CASE = ("defence", "batch", "steps", "rebuilt_by")
LIKENESS = ("psnr", "ssim", "perceptual")


def main() -> None:
    """Make runs and tables, print them, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--workspace", default="", help="where results are kept; the repository if empty")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", action="store_true", help="keep tables and figure below figures/reference/")
    given = parser.parse_args()
    torch.set_num_threads(1)  # of models this small, several take longer than one
    try:
        root = workspace_folder(given.workspace)
        out = root / "report" / f"update-attacks-{given.profile}"
        tables = {
            name: pandas.concat([_table(name, root, given.profile, seed) for seed in given.seeds], ignore_index=True)
            for name in TABLES
        }
        paths = [_written(name, table, out) for name, table in tables.items()]
        paths += update_attacks.draw(tables["words"], tables["findings"], tables["pictures"], out)
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    print(*paths, sep="\n")
    if given.keep:
        print(keep(paths, reference_folder(given.profile) / "update-attacks"))


def _written(name: str, table: pandas.DataFrame, out: pathlib.Path) -> pathlib.Path:
    _, keys, values = TABLES[name]
    found = update_attacks.summary(table, (*keys, *CASE), values)
    print(found.round(3).to_string(index=False))
    write_text(out / f"{name}.csv", table_text(found))
    return out / f"{name}.csv"


def _table(name: str, root: pathlib.Path, profile: str, seed: int) -> pandas.DataFrame:
    """One table of one seed, kept in the workspace."""
    path = root / "report" / f"update-attacks-{profile}" / "seeds" / f"{name}-{seed}.csv"
    if not path.is_file():
        started = time.perf_counter()
        write_text(path, table_text(TABLES[name][0](root, profile, seed).assign(seed=seed)))
        print(f"{name}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    return pandas.read_csv(path)


def _run(root: pathlib.Path, profile: str, data: str, method: str, seed: int) -> pathlib.Path:
    """A finished run of few rounds."""
    run = RunSettings(profile=profile, data=data, method=method, seed=seed, variant=f"federation.rounds={ROUNDS[data]}")
    if data == "phantom_findings":
        prepare_inputs(run, root)
    run_federation(run.folder(root), run.configuration(root), progress=False)
    return run.folder(root)


def _words(root: pathlib.Path, profile: str, seed: int) -> pandas.DataFrame:
    found = []
    for method in tqdm(REPORTS, desc=f"words, seed {seed}"):
        folder = _run(root, profile, "phantom", method, seed)
        found += [
            attack_words(folder, BATCHES, STEPS, DRAWS, seed),
            attack_words(folder, (1,), STEPS, DRAWS, seed, [name for name in DEFENCES if name != "none"]),
        ]
        if method != "ffa-lora":  # its A stays where it is, and is no server's to start
            found.append(attack_words(folder, BATCHES, (1,), DRAWS, seed, crafted=True))
    return pandas.concat(found, ignore_index=True)


def _findings(root: pathlib.Path, profile: str, seed: int) -> pandas.DataFrame:
    folder, others = _run(root, profile, "phantom", "fedmrg", seed), [name for name in DEFENCES if name != "none"]
    found = [
        attack_findings(folder, BATCHES, STEPS, DRAWS, seed),
        attack_findings(folder, (1,), STEPS, DRAWS, seed, others),
    ]
    return pandas.concat(found, ignore_index=True)


def _images(root: pathlib.Path, profile: str, seed: int) -> pandas.DataFrame:
    folders = [_run(root, profile, "phantom", method, seed) for method in REPORTS[:2]]
    return pandas.concat([attack_images(folder, SEARCH, (1, 4), seed) for folder in folders], ignore_index=True)


def _pictures(root: pathlib.Path, profile: str, seed: int) -> pandas.DataFrame:
    found = []
    for method in tqdm(PICTURES, desc=f"pictures, seed {seed}"):
        folder = _run(root, profile, "phantom_findings", method, seed)
        found.append(attack_run(folder, SEARCH, BATCHES, seed))
        if method == "full":  # the closed form; matching is not looked at here
            others = [name for name in DEFENCES if name != "none"]
            defended = attack_run(folder, Attack(iterations=1, restarts=1), (1,), seed, others)
            found.append(defended[defended["rebuilt_by"] == "closed form"])
    return pandas.concat(found, ignore_index=True)


def _searches(root: pathlib.Path, profile: str, seed: int) -> pandas.DataFrame:
    found = []
    for method in tqdm((*PICTURES, "fedmrg"), desc=f"searches, seed {seed}"):
        folder = _run(root, profile, "phantom" if method == "fedmrg" else "phantom_findings", method, seed)
        attacked = attack_images if method == "fedmrg" else attack_run
        found += [attacked(folder, attack, (1,), seed).assign(search=name) for name, attack in SEARCHES.items()]
    return pandas.concat(found, ignore_index=True)


# How a table is made, what tells its rows apart beside `CASE`, and its measures.
TABLES: dict[str, tuple[Callable[[pathlib.Path, str, int], pandas.DataFrame], tuple[str, ...], tuple[str, ...]]] = {
    "words": (_words, ("method", "server", "sent"), ("tokens", "findings")),
    "findings": (_findings, ("method",), ("occurring", "counted")),
    "images": (_images, ("method",), LIKENESS),
    "pictures": (_pictures, ("method",), LIKENESS),
    "searches": (_searches, ("method", "search"), (*LIKENESS, "distance")),
}


if __name__ == "__main__":
    main()
