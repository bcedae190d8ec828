"""Floors: training reports given again as answers. No test reference is read.

The constant and the random report need no model. The nearest image is found among features of the run's own trained
encoder, so that this floor is a trained model as well, one that copies a report instead of writing it. A model that
does not beat all three writes nothing that copying would not have brought.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy
import pandas
from numpy.typing import ArrayLike

from fedmrg_core.data.labeller import label_report
from fedmrg_core.errors import InputError
from fedmrg_core.metrics.normalise import normalise
from fedmrg_core.seeds import numpy_stream

FLOORS: tuple[str, ...] = ("floor_constant", "floor_random", "floor_nearest")


def constant_report(training_reports: Sequence[str], test_studies: int) -> list[str]:
    """The most frequent training report (after `normalise`) for every test study; of equals, the first met [ours].

    Args:
        training_reports: reports of the training studies.
        test_studies: number of test studies T.

    Returns:
        T times the same text, spelled as at its first occurrence.

    Raises:
        InputError: no training report, or an empty one.
    """
    texts = _check_training(training_reports)
    most_frequent, _ = collections.Counter(texts).most_common(1)[0]
    return [training_reports[texts.index(most_frequent)]] * test_studies


def random_report(training_reports: Sequence[str], test_studies: int, root_seed: int, *names: str | int) -> list[str]:
    """A training report drawn uniformly, with replacement, for each of T test studies.

    Args:
        training_reports: reports of the training studies.
        test_studies: number of test studies T.
        root_seed: the run's root seed.
        names: what else names the stream, e.g. the client.

    Raises:
        InputError: no training report, or an empty one.
    """
    _check_training(training_reports)
    drawn = numpy_stream(root_seed, "floor_random", *names).integers(len(training_reports), size=test_studies)
    return [training_reports[row] for row in drawn]


def nearest_image(training_reports: Sequence[str], training_features: ArrayLike, test_features: ArrayLike) -> list[str]:
    """The report of the training image whose features have the highest cosine similarity; of equals, the first.

    Args:
        training_reports: reports of N training studies.
        training_features: (N, D) their image features.
        test_features: (T, D) image features of the test studies, by the same encoder.

    Returns:
        T reports.

    Raises:
        InputError: no training report, shapes that do not fit, or features that are zero or not finite.
    """
    _check_training(training_reports)
    training = _unit_rows(training_features, "training_features")
    test = _unit_rows(test_features, "test_features")
    if len(training) != len(training_reports):
        raise InputError(
            f"training_features has {len(training)} rows for {len(training_reports)} reports; give one row a study."
        )
    if training.shape[1] != test.shape[1]:
        raise InputError(f"test_features has width {test.shape[1]}; expected {training.shape[1]} as in training.")
    return [training_reports[row] for row in (test @ training.T).argmax(axis=1)]


def floor_predictions(
    test: pandas.DataFrame,
    training: pandas.DataFrame,
    root_seed: int,
    features: Mapping[str, ArrayLike] | None = None,
) -> pandas.DataFrame:
    """The floors' answers to the test studies, in the layout of predictions.csv with a column ``system``.

    A study at home draws on its own client's training reports, a study of the unseen centre on all of them [ours].

    Args:
        test: predictions of a model (see `predictions.COLUMNS`); of several adapters' rows the first is taken.
        training: training studies with the columns study_id, site and reference (the report).
        root_seed: the run's root seed.
        features: image features (D,) by study_id, for training and test studies; None leaves out ``floor_nearest``.

    Returns:
        One row for each test study and floor; adapter is "none".

    Raises:
        InputError: a client without training studies, a study without features, or an empty training report.
    """
    answers = []
    for (site, role), studies in test.drop_duplicates("study_id").groupby(["site", "role"], sort=True):
        source = training[training["site"] == site] if role == "home" else training
        if not len(source):
            raise InputError(f"Site {site!r} has no training study to make a floor from; check the split.")
        reports = source["reference"].tolist()
        texts = {
            "floor_constant": constant_report(reports, len(studies)),
            "floor_random": random_report(reports, len(studies), root_seed, str(site)),
        }
        if features is not None:
            known, asked = (_rows_of(features, frame["study_id"]) for frame in (source, studies))
            texts["floor_nearest"] = nearest_image(reports, known, asked)
        answers += [studies.assign(system=system, generated=generated) for system, generated in texts.items()]
    states = [label_report(text) for frame in answers for text in frame["generated"]]
    digits = ["".join(map(str, row)) for row in states]
    return pandas.concat(answers, ignore_index=True).assign(adapter="none", states_generated=digits, states_head="")


def _rows_of(features: Mapping[str, ArrayLike], study_ids: pandas.Series) -> numpy.ndarray:
    missing = [study_id for study_id in study_ids if study_id not in features]
    if missing:
        raise InputError(f"Study {missing[0]!r} has no image features; the nearest-image floor needs them all.")
    return numpy.stack([numpy.asarray(features[study_id], dtype=float) for study_id in study_ids])


def _check_training(reports: Sequence[str]) -> list[str]:
    if not reports:
        raise InputError("There are no training reports to make a floor from; give at least one.")
    texts = [normalise(report) for report in reports]
    if "" in texts:
        raise InputError(f"The training report in row {texts.index('')} is empty; leave the study out.")
    return texts


def _unit_rows(features: ArrayLike, name: str) -> numpy.ndarray:
    rows = numpy.asarray(features, dtype=float)
    if rows.ndim != 2:
        raise InputError(f"{name} has shape {rows.shape}; expected (studies, width).")
    lengths = numpy.linalg.norm(rows, axis=1, keepdims=True)
    bad = numpy.flatnonzero(~numpy.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))
    if len(bad):
        raise InputError(f"{name} row {bad[0]} is zero or not finite; a direction needs finite features.")
    return rows / lengths
