"""A page of X-rays with reference and generated report, findings marked right, wrong and missed."""

from __future__ import annotations

import argparse
import pathlib
import textwrap
from collections.abc import Sequence

import pandas
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fedmrg_core.data.findings import NEGATIVE, POSITIVE, UNCERTAIN, states_to_names
from fedmrg_core.data.labeller import find_mentions, label_report
from fedmrg_core.data.prepared import load_prepared
from fedmrg_core.data.publishing import shows_studies
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.equal_data import current_fingerprint
from fedmrg_core.evaluation.stored_runs import Run, load_run
from fedmrg_core.seeds import numpy_stream
from fedmrg_core.tasks.reports.answers import ANSWERS
from fedmrg_core.tasks.reports.predictions import ADAPTER_NAMES
from figures import common

RIGHT, WRONG, MISSED, PLAIN = "right", "wrong", "missed", ""
_SIGNS = {RIGHT: "✓", WRONG: "✗", MISSED: "○"}
_MEANINGS = {RIGHT: "right", WRONG: "wrong: denied or invented", MISSED: "missed"}
_COLOURS = dict(zip(_SIGNS, ("#0072B2", "#D55E00", "#9A6A00"), strict=True))  # Okabe and Ito's, darker where pale
_FONT_SIZE = 6.0  # points
_CHARACTER = 0.602 * _FONT_SIZE  # width of a character of DejaVu Sans Mono in points
_LINE = 1.4 * _FONT_SIZE  # points
_LINE_WIDTH = 58  # characters
_SHOWN = ("study_id", "site", "adapter", "reference", "generated")  # columns of predictions.csv
CAPTION = (
    "Test studies drawn at random; findings read by the labeller.\n"
    "An uncertain statement is marked like a sure one; the clinical F1 of the tables counts it as negative."
)
TO_SEE = (
    "Each row is one study: its image, the reference report, what the model wrote. Marks tell which findings the "
    "model got right, which it missed and which it made up."
)
_LONGEST = 12  # lines of a report that fit beside its image


def draw(
    run_folders: Sequence[pathlib.Path | str],
    out_folder: pathlib.Path | str,
    prepared: pathlib.Path | str,
    private: bool = False,
    studies: int = 6,
) -> list[pathlib.Path]:
    """One page a run. Studies are drawn at random from the test set, one site after the other, never by their score.

    Args:
        run_folders: runs with predictions.csv.
        out_folder: where the files go.
        prepared: the folder of the prepared data set that the runs were made with.
        private: draw data whose images must not be published; the page then says so.
        studies: how many.

    Raises:
        InputError: the data's images must not be published and `private` is not given; the prepared data are others
            than a run's; or a file, study or column is missing.
    """
    runs = common.check_runs(run_folders)
    if studies < 1:
        raise InputError(f"Parameter studies is {studies}; expected at least 1.")
    for run in runs:
        if not (shows_studies(common.data_name(run)) or private):
            raise InputError(
                f"{run}: images and reports of the data set {common.data_name(run)!r} must not be published; "
                "give --private for a page that stays with you."
            )
    return [path for run in runs for path in _draw_run(run, runs, out_folder, pathlib.Path(prepared), studies)]


def _draw_run(
    run: pathlib.Path,
    runs: Sequence[pathlib.Path],
    out_folder: pathlib.Path | str,
    prepared: pathlib.Path,
    count: int,
) -> list[pathlib.Path]:
    finished = load_run(run)
    data = _choose(finished, count)
    images = _images(finished, prepared, data["study_id"].tolist())
    height = 1.6
    figure, axes = common.new_figure(
        len(data), 3, 8.2, height * len(data) + 0.7, gridspec_kw={"width_ratios": [1.0, 2.0, 2.0]}
    )
    for number, row in enumerate(data.itertuples()):
        picture, reference, generated = axes[3 * number : 3 * number + 3]
        picture.imshow(images[row.study_id], cmap="gray", vmin=0, vmax=255)
        picture.set_title(f"{common.plain(row.site)}, {ADAPTER_NAMES.get(row.adapter, row.adapter)}", fontsize=7)
        picture.axis("off")
        _write(reference, row.reference, mark(row.reference, row.generated, is_reference=True))
        _write(generated, row.generated or "(empty)", mark(row.generated, row.reference, is_reference=False))
    axes[1].set_title("Reference", loc="left")
    axes[2].set_title("Generated", loc="left")
    handles = [
        Line2D([], [], color=_COLOURS[kind], marker=f"${sign}$", ls="", label=_MEANINGS[kind])
        for kind, sign in _SIGNS.items()
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=3)
    note = "" if shows_studies(common.data_name(run)) else " PRIVATE: not to be published."
    common.caption(figure, f"{CAPTION}{note}", [run])
    return common.save_figure(figure, common.figure_name("report_page", run, runs), data, out_folder)


def _choose(run: Run, count: int) -> pandas.DataFrame:
    """Random test studies, sites in turn; the reports that count in the tables."""
    if run.predictions is None:
        raise InputError(f"{run.folder} has no predictions.csv; write its predictions with notebook 07.")
    answers = {role: run.answer(role) for role in ANSWERS}
    rows = run.predictions[run.predictions["adapter"] == run.predictions["role"].map(answers)]
    order = numpy_stream(0, "figures", "report_page").permutation(len(rows))
    shuffled = rows.sort_values("study_id").iloc[order]
    turn = shuffled.groupby("site").cumcount()
    chosen = shuffled.assign(turn=turn).sort_values(["turn", "site"]).head(count).reset_index(drop=True)
    marks = [
        {f"{kind}_findings": "; ".join(sorted(names)) for kind, names in compare(row.reference, row.generated).items()}
        for row in chosen.itertuples()
    ]
    return pandas.concat([chosen[list(_SHOWN)], pandas.DataFrame(marks)], axis=1)


def _images(run: Run, folder: pathlib.Path, study_ids: list[str]) -> dict[str, object]:
    """The studies' images; other data may have the same names of studies, so the fingerprints have to agree."""
    prepared = load_prepared(folder)
    if current_fingerprint(str(prepared.summary.get("fingerprint"))) != run.fingerprint:
        raise InputError(
            f"{folder} holds other data than {run.folder} was made with (fingerprint in summary.json, data_fingerprint "
            "in manifest.json); prepare the run's data again with notebook 01, or give their folder with --prepared."
        )
    places = {study_id: number for number, study_id in enumerate(prepared.studies["study_id"])}
    missing = [study_id for study_id in study_ids if study_id not in places]
    if missing:
        raise InputError(f"{folder} has no study {missing[0]!r} of {run.folder}; write the run's predictions again.")
    return {study_id: prepared.studies[places[study_id]]["image"] for study_id in study_ids}


def compare(reference: str, generated: str) -> dict[str, set[str]]:
    """Findings that both assert (right), only the generated report does (wrong), only the reference does (missed).

    An uncertain statement counts as asserted; "no finding" follows from the others and is left out.
    """
    true, written = (_asserted(text) for text in (reference, generated))
    return {RIGHT: true & written, WRONG: written - true, MISSED: true - written}


def _asserted(text: str) -> set[str]:
    names = states_to_names(label_report(text))
    return {finding for finding, state in names.items() if state in ("positive", "uncertain")} - {"no finding"}


def mark(text: str, other: str, is_reference: bool) -> list[tuple[int, int, str]]:
    """Phrases to mark in `text`, as (start, end, kind), in reading order and without overlap.

    In the reference, asserted findings are right or missed. In the generated report asserted findings are right or
    wrong, and a denial of what the reference asserts is wrong; a denial of something else stays plain.
    """
    asserted = _asserted(other)
    found: list[tuple[int, int, str]] = []
    for mention in find_mentions(text):
        if found and mention.start < found[-1][1]:
            continue
        kind = PLAIN
        if mention.state in (POSITIVE, UNCERTAIN):
            kind = RIGHT if mention.finding in asserted else (MISSED if is_reference else WRONG)
        elif mention.state == NEGATIVE and not is_reference and mention.finding in asserted:
            kind = WRONG
        if kind:
            found.append((mention.start, mention.end, kind))
    return found


def _write(axis: Axes, text: str, marks: list[tuple[int, int, str]]) -> None:
    """Write a report word by word in a fixed-width font, so that places follow from the number of characters."""
    axis.axis("off")
    kinds = [""] * len(text)
    signed: list[str] = list(text)
    for start, end, kind in marks:
        kinds[start:end] = [kind] * (end - start)
        signed[start] = _SIGNS[kind] + signed[start]
    words, position = [], 0
    for word in text.split():
        position = text.index(word, position)
        shown = "".join(signed[position : position + len(word)])
        kind = next((kind for kind in kinds[position : position + len(word)] if kind), PLAIN)
        words.append((shown, kind))
        position += len(word)
    lines = textwrap.wrap(
        " ".join(word for word, _ in words), _LINE_WIDTH, break_on_hyphens=False, break_long_words=False
    )
    remaining = iter(words)
    for number, line in enumerate(lines[:_LONGEST]):
        column = 0
        for _ in line.split():
            word, kind = next(remaining)
            _place(axis, word, column, number, color=_COLOURS.get(kind, "0.15"), weight="bold" if kind else "normal")
            column += len(word) + 1
    if len(lines) > _LONGEST:
        _place(axis, "[...]", 0, _LONGEST, color="0.5")


def _place(axis: Axes, word: str, column: int, line: int, **style) -> None:
    """A word at a column and line, counted in characters from the upper left corner of `axis`."""
    text = axis.annotate(
        word, (0, 1), (column * _CHARACTER, -line * _LINE), xycoords="axes fraction", textcoords="offset points",
        va="top", fontsize=_FONT_SIZE, family="DejaVu Sans Mono", **style,
    )  # fmt: skip
    text.set_in_layout(False)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prepared", required=True, metavar="FOLDER", help="the prepared data set's folder")
    parser.add_argument("--private", action="store_true", help="draw data that must not be published; the page says so")
    parser.add_argument("--studies", type=int, default=6, help="how many studies (default 6)")


if __name__ == "__main__":
    common.run_script(draw, __doc__, _arguments)
