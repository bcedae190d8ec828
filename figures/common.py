"""What all figures share: style, reading run folders, saving, the command line."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence

import matplotlib
import matplotlib.pyplot as plt
import pandas
import seaborn
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedmrg_core.data.site_names import shortened, with_digest
from fedmrg_core.data.sources import corpus_name
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.stored_runs import is_synthetic, synthetic_note
from fedmrg_core.files.stored_tables import read_table, table_text
from fedmrg_core.files.strict_yaml import validated
from fedmrg_core.files.whole_files import atomic_file, write_text
from fedmrg_core.runs.attack import Attack, attack_notes

PALETTE = "colorblind"
LONGEST_NAME = 200  # bytes of a figure's file name; file systems allow 255, and endings have room
LONGEST_LABEL, CUT_LABEL = 40, 28  # letters of a site's name
_STYLE = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "legend.title_fontsize": 8,
    "axes.linewidth": 0.8,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
}


def new_figure(rows: int, columns: int, width: float, height: float, **settings) -> tuple[Figure, list[Axes]]:
    """A styled figure of `width` x `height` inches with its axes in reading order."""
    seaborn.set_theme(style="ticks", palette=PALETTE, rc=_STYLE)
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **settings)
    return figure, list(axes.flat)


def read_run_table(run: pathlib.Path | str, name: str, columns: Sequence[str], **settings) -> pandas.DataFrame:
    """Read a CSV of a run folder.

    Raises:
        InputError: the file is missing, no CSV file, has no rows, or lacks a column.
    """
    path = pathlib.Path(run) / name
    table = read_table(path, columns, "give a finished run's folder", **settings)
    if table.empty:
        raise InputError(f"{path} has no rows; finish the run first.")
    return table


def data_name(run: pathlib.Path | str) -> str:
    """The name of a run's data, from its config.yaml.

    Raises:
        InputError: config.yaml is missing or names no data.
    """
    return _configuration(run)["data"]


def attack_of(run: pathlib.Path | str) -> Attack:
    """The synthetic attack on a run, from its config.yaml.

    Raises:
        InputError: config.yaml is missing or names no data, or its attack is none.
    """
    profile = _configuration(run).get("profile")
    given = profile.get("attack", {}) if isinstance(profile, dict) else {}
    return validated(Attack, given, f"{run}: config.yaml: profile.attack")


def _configuration(run: pathlib.Path | str) -> dict:
    path = pathlib.Path(run) / "config.yaml"
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a finished run's folder.")
    configuration = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(configuration, dict) or not isinstance(configuration.get("data"), str):
        raise InputError(f"{path} has no entry 'data' with the data set's name; give a finished run's folder.")
    return configuration


def is_phantom(run: pathlib.Path | str) -> bool:
    """Whether the run used phantom data, with whatever options its name sets."""
    return is_synthetic(data_name(run))


def plain(name: str) -> str:
    """A site's name as text in a figure: dollars begin no formula, no legend drops it, a long one is cut."""
    short = name if len(name) <= LONGEST_LABEL else with_digest(name[:CUT_LABEL], name)
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")


def run_label(run: pathlib.Path | str) -> str:
    """Data, method and seed of a run, from its path."""
    return "/".join(pathlib.Path(run).resolve().parts[-3:])


def figure_name(base: str, run: pathlib.Path | str, runs: Sequence[pathlib.Path | str]) -> str:
    """File name of one run's figure: `base` alone for a single run, with the run's label among several."""
    return base if len(runs) == 1 else shortened(f"{base}-{run_label(run).replace('/', '-')}", LONGEST_NAME)


def check_runs(runs: Sequence[pathlib.Path | str]) -> list[pathlib.Path]:
    """The run folders as paths.

    Raises:
        InputError: there is none, or one is no folder.
    """
    if not runs:
        raise InputError("There is no run folder to draw; give at least one with --run.")
    folders = [pathlib.Path(run) for run in runs]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; give a finished run's folder.")
    return folders


def caption(figure: Figure, text: str, runs: Sequence[pathlib.Path | str]) -> None:
    """Lines below the figure that say which data it shows, and that a run was attacked on purpose."""
    names = sorted({data_name(run) for run in runs})
    made = [name for name in names if is_synthetic(name)]
    source = ". ".join(dict.fromkeys(map(synthetic_note, made))) if made == names else ", ".join(names)
    if made and made != names:
        source += f" ({', '.join(dict.fromkeys(map(corpus_name, made)))}: synthetic data)"
    attacks = [note for note in attack_notes(map(attack_of, runs)) if note not in text]
    figure.supxlabel("\n".join([f"{source}. {text}", *attacks]), fontsize=7, color="0.35")


def mark_synthetic(figure: Figure, data: str = "phantom") -> None:
    """A line below a notebook's own picture that its data are synthetic, if they are.

    Args:
        figure: finished; what it shows stays where it is.
        data: name of the data set.
    """
    if not is_synthetic(data):
        return
    figure.draw_without_rendering()  # layouts are made on drawing
    bottom = figure.get_tightbbox().y0 / figure.get_figheight()
    figure.text(
        0.5,
        bottom - 0.05 / figure.get_figheight(),
        synthetic_note(data),
        ha="center",
        va="top",
        fontsize=8,
        color="0.35",
    )


def save_figure(
    figure: Figure, name: str, data: pandas.DataFrame, out_folder: pathlib.Path | str
) -> list[pathlib.Path]:
    """Write NAME.pdf, NAME.png and NAME.csv (what the figure shows), each atomically, and close the figure.

    Returns:
        The three paths. Files carry no date, so that equal results give equal files.
    """
    folder = pathlib.Path(out_folder)
    metadata = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
    paths = []
    for kind, entries in metadata.items():
        path = folder / f"{name}.{kind}"
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=entries, dpi=200)
        paths.append(path)
    write_text(folder / f"{name}.csv", table_text(data))
    plt.close(figure)
    return [*paths, folder / f"{name}.csv"]


def run_script(
    draw: Callable[..., list[pathlib.Path]],
    description: str,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """The command line of a figure script: ``--run FOLDER [--run ...] --out FOLDER`` and what the script adds.

    Bad input is told in one sentence on standard error, with exit code 2.
    """
    matplotlib.use("Agg")
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--run", action="append", required=True, metavar="FOLDER", help="a run folder; may be repeated")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where PDF, PNG and CSV are written")
    if add_arguments:
        add_arguments(parser)
    given = vars(parser.parse_args())
    try:
        for path in draw(given.pop("run"), given.pop("out"), **given):
            print(path)
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
