"""[ours] Evidence of heterogeneity between sites, for any data set of the Study schema.

Image features are a fixed bank of filters, rectified and pooled (nothing is learnt in them), text features are TF-IDF
of words and word pairs; every probe on top is linear. What such a probe can tell apart is surely in the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import threadpoolctl
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from fedmrg_core.errors import InputError

WORKING_SIZE = 128  # images are reduced to this many pixels before they are filtered
POOLS = 8  # responses are pooled over a POOLS x POOLS raster
SCALES = (1.0, 1.8, 3.2, 5.6)  # standard deviations of the filters in pixels at the working size
# Of matrices this small several threads take three times as much processor time as one.
_ONE_THREAD = threadpoolctl.threadpool_limits.wrap(limits=1)


def _blur_matrix(sigma: float) -> numpy.ndarray:
    offsets = numpy.arange(WORKING_SIZE)[:, None] - numpy.arange(WORKING_SIZE)[None, :]
    weights = numpy.exp(-0.5 * numpy.square(offsets / sigma))
    weights[weights < 1e-6] = 0  # denormal numbers make matrix products many times slower
    return (weights / weights.sum(axis=1, keepdims=True)).astype(numpy.float32)


@_ONE_THREAD
def image_features(images: Sequence, progress: bool = False) -> numpy.ndarray:
    """Fixed features of grey images: a coarse copy, and pooled differences of Gaussians and gradients at four scales.

    Args:
        images: PIL images or uint8 arrays (H, W), e.g. the `image` column.
        progress: show a progress bar.

    Returns:
        Features, float32 (N, F).
    """
    blurs = [_blur_matrix(sigma) for sigma in (*SCALES, SCALES[-1] * 1.8)]
    rows = [_features_of(_as_array(image), blurs) for image in tqdm(images, desc="features", disable=not progress)]
    return numpy.stack(rows)


def _as_array(image: object) -> numpy.ndarray:
    from PIL import Image

    picture = image if isinstance(image, Image.Image) else Image.fromarray(numpy.asarray(image))
    if picture.size != (WORKING_SIZE, WORKING_SIZE):
        picture = picture.convert("L").resize((WORKING_SIZE, WORKING_SIZE), Image.Resampling.BILINEAR)
    return numpy.asarray(picture, dtype=numpy.float32) / 255


def _features_of(image: numpy.ndarray, blurs: list[numpy.ndarray]) -> numpy.ndarray:
    smooth = [matrix @ image @ matrix.T for matrix in blurs]
    parts = [_pool(smooth[2], 16, "mean")]
    for fine, coarse in zip(smooth[:-1], smooth[1:], strict=True):
        band = fine - coarse
        parts += [_pool(band, POOLS, "max"), _pool(-band, POOLS, "max"), _pool(numpy.abs(band), POOLS, "mean")]
    for level in smooth[:2]:
        down, across = numpy.gradient(level)
        parts += [
            _pool(numpy.abs(down), POOLS, "mean"),
            _pool(numpy.abs(across), POOLS, "mean"),
            _pool(down, POOLS, "max"),
        ]
    return numpy.concatenate([part.ravel() for part in parts])


def _pool(image: numpy.ndarray, cells: int, how: str) -> numpy.ndarray:
    blocks = image.reshape(cells, WORKING_SIZE // cells, cells, WORKING_SIZE // cells)
    return blocks.max(axis=(1, 3)) if how == "max" else blocks.mean(axis=(1, 3))


def _linear_probe(strength: float = 0.003) -> object:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=400, class_weight="balanced"))


@_ONE_THREAD
def site_from_image(
    train_features: numpy.ndarray, train_sites: Sequence[str], test_features: numpy.ndarray, test_sites: Sequence[str]
) -> float:
    """Balanced accuracy with which a linear probe names the site of held-out images.

    Raises:
        InputError: fewer than two sites.
    """
    _check_sites(train_sites)
    probe = _linear_probe().fit(train_features, list(train_sites))
    return float(balanced_accuracy_score(list(test_sites), probe.predict(test_features)))


@_ONE_THREAD
def site_from_text(
    train_texts: Sequence[str], train_sites: Sequence[str], test_texts: Sequence[str], test_sites: Sequence[str]
) -> float:
    """Balanced accuracy with which a linear probe on TF-IDF of words and word pairs names the site of held-out reports.

    Raises:
        InputError: fewer than two sites.
    """
    _check_sites(train_sites)
    probe = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=400, class_weight="balanced"),
    ).fit(list(train_texts), list(train_sites))
    return float(balanced_accuracy_score(list(test_sites), probe.predict(list(test_texts))))


def _check_sites(sites: Sequence[str]) -> None:
    if len(set(sites)) < 2:
        raise InputError(f"heterogeneity: the studies come from {len(set(sites))} site; a probe needs two or more.")


@_ONE_THREAD
def finding_scores(
    train_features: numpy.ndarray, train_labels: numpy.ndarray, test_features: numpy.ndarray
) -> numpy.ndarray:
    """Log-odds (N, K) of a linear probe for each of K binary labels; not-a-number where training has one class only."""
    scores = numpy.full((len(test_features), train_labels.shape[1]), numpy.nan)
    for column in range(train_labels.shape[1]):
        if 0 < train_labels[:, column].sum() < len(train_labels):
            probe = _linear_probe().fit(train_features, train_labels[:, column])
            scores[:, column] = probe.decision_function(test_features)
    return scores


def area_under_curve(labels: numpy.ndarray, scores: numpy.ndarray) -> numpy.ndarray:
    """AUROC (K,) of each column; not-a-number where only one class occurs or no score exists."""
    areas = numpy.full(labels.shape[1], numpy.nan)
    for column in range(labels.shape[1]):
        usable = 0 < labels[:, column].sum() < len(labels) and not numpy.isnan(scores[:, column]).any()
        if usable:
            areas[column] = roc_auc_score(labels[:, column], scores[:, column])
    return areas


def transfer_matrix(
    train: dict[str, tuple[numpy.ndarray, numpy.ndarray]], test: dict[str, tuple[numpy.ndarray, numpy.ndarray]]
) -> numpy.ndarray:
    """AUROC of probes trained at one site and tested at another.

    Args:
        train: site -> features (N, F) and binary labels (N, K).
        test: the same for held-out studies, possibly with more sites.

    Returns:
        AUROC (training sites, testing sites, K).
    """
    matrix = numpy.empty((len(train), len(test), next(iter(train.values()))[1].shape[1]))
    joined = numpy.concatenate([features for features, _ in test.values()])
    bounds = numpy.cumsum([0, *(len(features) for features, _ in test.values())])
    for row, (features, labels) in enumerate(train.values()):
        scores = finding_scores(features, labels, joined)
        for column, (_, test_labels) in enumerate(test.values()):
            matrix[row, column] = area_under_curve(test_labels, scores[bounds[column] : bounds[column + 1]])
    return matrix
