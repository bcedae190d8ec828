"""Feature map: t-SNE of image features, coloured by centre and by finding, from features.safetensors."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy
import pandas
import seaborn
from sklearn.manifold import TSNE

from fedmrg_core.data.findings import FINDINGS, POSITIVE
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream, stream_seed
from figures import common
from figures.stored_features import read_features

LARGEST = 3000  # points; more are drawn from at random
NAMED_FINDINGS = 6
CAPTION = "t-SNE of test images' features; distances between far groups mean nothing."
TO_SEE = (
    "Every point is a test image, the same points in both panels. Groups of one colour on the left: the encoder tells "
    "centres apart; on the right: it tells findings apart, which is what a report needs."
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """One figure a run, of the test studies' features.

    A study with several findings is coloured by the one that is rarest in the run, so that common ones do not hide it.

    Raises:
        InputError: features are missing or damaged, or there are fewer than five studies.
    """
    runs = common.check_runs(run_folders)
    return [path for run in runs for path in _draw_run(run, runs, out_folder)]


def _draw_run(run: pathlib.Path, runs: Sequence[pathlib.Path], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    features, rows = read_features(run)
    if len(rows) < 5:
        raise InputError(f"{run / 'features.csv'} has {len(rows)} test studies; a map needs at least 5.")
    if len(rows) > LARGEST:
        kept = numpy.sort(numpy_stream(0, "figures", "feature_map").choice(len(rows), LARGEST, replace=False))
        features, rows = features[kept], rows.iloc[kept].reset_index(drop=True)
    tsne = TSNE(
        perplexity=min(30.0, (len(rows) - 1) / 3),
        init="pca",
        random_state=stream_seed(0, "figures", "tsne") % 2**32,
    )
    places = tsne.fit_transform(features.astype(numpy.float64))
    data = rows.assign(x=places[:, 0], y=places[:, 1], finding=_finding_of(rows["states"]))
    figure, axes = common.new_figure(1, 2, 8.6, 3.3)
    unseen = set(data.loc[data["role"] == "unseen", "site"])
    centres = data["site"].map(lambda site: common.plain(site) + " (unseen)" * (site in unseen))
    by_count = data["finding"].value_counts()
    order = [name for name in by_count.index if name != "other"] + ["other"] * ("other" in by_count)
    for axis, colours, levels, title in (
        (axes[0], centres, sorted(set(centres)), "Centre"),
        (axes[1], data["finding"], order, "Finding"),
    ):
        seaborn.scatterplot(
            data, x="x", y="y", hue=colours, style=colours, hue_order=levels, style_order=levels, ax=axis,
            palette=seaborn.color_palette(common.PALETTE, len(levels)), s=14, linewidth=0.2, alpha=0.85,
            markers=[_MARKERS[number % len(_MARKERS)] for number in range(len(levels))],
        )  # fmt: skip
        axis.set(xlabel="", ylabel="", xticks=[], yticks=[], title=f"By {title.lower()}")
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title=title, markerscale=1.2, handletextpad=0.2)
    seaborn.despine(figure, left=True, bottom=True)
    common.caption(figure, CAPTION, [run])
    columns = ["study_id", "site", "role", "states", "finding", "x", "y"]
    return common.save_figure(figure, common.figure_name("feature_map", run, runs), data[columns], out_folder)


def _finding_of(states: pandas.Series) -> list[str]:
    """For each study its rarest positive finding among the most common ones, or "other"."""
    positive = numpy.array([[int(digit) == POSITIVE for digit in text] for text in states])
    counts = positive.sum(axis=0)
    named = [column for column in numpy.argsort(-counts, kind="stable")[:NAMED_FINDINGS] if counts[column]]
    rarest_first = sorted(named, key=lambda column: counts[column])
    return [next((FINDINGS[column] for column in rarest_first if row[column]), "other") for row in positive]


if __name__ == "__main__":
    common.run_script(draw, __doc__)
