"""Client distances: heat maps over clients' reports (TF-IDF) and over their image features."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy
import pandas
import seaborn
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_distances

from fedmrg_core.metrics.normalise import normalise
from figures import common
from figures.stored_features import read_features

CAPTION = "Cosine distance between the clients' mean vectors; test studies."
TO_SEE = (
    "Each square is one pair of hospitals; the brighter, the further apart. Left their wording, right their images as "
    "the trained encoder sees them. The scales differ: the numbers in the squares can be compared, the colours cannot."
)


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """One figure a run: cosine distance between clients' mean vectors, of reference reports and of image features.

    Raises:
        InputError: predictions.csv or the features are missing or damaged.
    """
    runs = common.check_runs(run_folders)
    return [path for run in runs for path in _draw_run(run, runs, out_folder)]


def _draw_run(run: pathlib.Path, runs: Sequence[pathlib.Path], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    studies = common.read_run_table(
        run, "predictions.csv", ("study_id", "site", "reference"), dtype=str, na_values=[]
    ).drop_duplicates("study_id")
    words = TfidfVectorizer(preprocessor=normalise, token_pattern=r"\S+").fit_transform(studies["reference"]).toarray()
    features, rows = read_features(run)
    distances = {
        "Reports (TF-IDF)": mean_distances(words, studies["site"]),
        "Image features": mean_distances(features.astype(numpy.float64), rows["site"]),
    }
    size = max(len(table) for table in distances.values())
    figure, axes = common.new_figure(1, 2, 1.1 * size + 3.0, 0.5 * size + 1.2)
    for axis, (kind, table) in zip(axes, distances.items(), strict=True):
        digits = ".2f" if table.max().max() > 0.1 else ".3f"
        shown = table.rename(index=common.plain, columns=common.plain)
        seaborn.heatmap(
            shown, ax=axis, cmap="cividis", vmin=0, square=True, annot=True, fmt=digits,
            annot_kws={"fontsize": 6}, linewidths=0.5, cbar_kws={"shrink": 0.8, "label": "Cosine distance"},
        )  # fmt: skip
        axis.set(title=kind, xlabel="", ylabel="")
        axis.tick_params(axis="x", rotation=40)
        axis.tick_params(axis="y", rotation=0)
    common.caption(figure, CAPTION, [run])
    long = [
        table.rename_axis("first").melt(var_name="second", value_name="distance", ignore_index=False).reset_index()
        for table in distances.values()
    ]
    data = pandas.concat(long, keys=distances, names=["kind", None]).reset_index(level="kind").reset_index(drop=True)
    return common.save_figure(figure, common.figure_name("client_distance", run, runs), data, out_folder)


def mean_distances(vectors: numpy.ndarray, sites: pandas.Series) -> pandas.DataFrame:
    """Cosine distances (K, K) between the mean vectors of K sites; `vectors` is (N, D)."""
    means = pandas.DataFrame(vectors).groupby(sites.to_numpy(), sort=True).mean()
    return pandas.DataFrame(cosine_distances(means).clip(min=0), index=means.index, columns=means.index)


if __name__ == "__main__":
    common.run_script(draw, __doc__)
