"""Questions that are equal, or near to it, in whatever client they stand.

Two questions are compared by their text, and choices by their options as well, in any order. Near-equal are those whose
TF-IDF vectors of character n-grams have a cosine of at least a threshold. All pairs are compared exactly, but most are
never computed: frequent n-grams are left to an upper bound.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy
import scipy.sparse
import scipy.sparse.csgraph
from sklearn.feature_extraction.text import TfidfVectorizer

from fedmrg_core.data.questions.question import Question
from fedmrg_core.errors import InputError

THRESHOLD = 0.9  # of the cosine
_SIZES = (3, 4)  # of n-grams, within words
_BLOCK = 512  # rows compared at once
_FREQUENT = 0.005  # n-grams in more than this share of questions are bounded first and computed only where it matters
_SLACK = 1e-6  # of sums of products


def normalised(question: Question) -> str:
    """A question as it is compared: case, punctuation and blanks make no difference, nor does the order of options."""
    options = sorted(_words(text) for text in question.options.values())
    return " | ".join([_words(question.text), *options])


def near_equal_groups(questions: Sequence[Question], threshold: float = THRESHOLD) -> numpy.ndarray:
    """A group number for each question: equal or near-equal ones, also by way of others, have the same.

    Args:
        questions: of all clients.
        threshold: least cosine of near-equal ones, above 0; 1 finds equal ones only.

    Returns:
        Shape (questions,); groups are numbered in the order of their first question.

    Raises:
        InputError: `threshold` is out of its range.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold is {threshold}; expected more than 0 and at most 1.")
    texts = [normalised(question) for question in questions]
    distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    links = numpy.array(list(near_equal_pairs(list(distinct), threshold)) if threshold < 1 else [], dtype=int)
    links = links.reshape(-1, 2)
    graph = scipy.sparse.coo_matrix((numpy.ones(len(links)), links.T), shape=(len(distinct), len(distinct)))
    _, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    numbers: dict[int, int] = {}
    return numpy.array([numbers.setdefault(int(labels[distinct[text]]), len(numbers)) for text in texts], dtype=int)


def near_equal_pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, of texts whose cosine is at least `threshold`, in no particular order."""
    if len(texts) < 2:
        return
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=_SIZES, lowercase=False).fit_transform(texts)
    frequent = numpy.diff(vectors.tocsc().indptr) > max(_FREQUENT * len(texts), 10)
    rare = vectors[:, ~frequent].tocsr()
    length = numpy.sqrt(numpy.asarray(vectors[:, frequent].multiply(vectors[:, frequent]).sum(axis=1)).ravel())
    # Texts of frequent n-grams alone have no product of rare ones that would point at them.
    common = numpy.flatnonzero(length * length.max() >= threshold - _SLACK)
    for start in range(0, len(common), _BLOCK):
        rows = common[start : start + _BLOCK]
        found = (vectors[rows] @ vectors[common].T).tocoo()
        yield from _kept(rows[found.row], common[found.col], found.data >= threshold - _SLACK)
    transposed = rare.T.tocsr()
    for start in range(0, len(texts), _BLOCK):
        found = (rare[start : start + _BLOCK] @ transposed).tocoo()
        row = found.row + start
        possible = (found.data + length[row] * length[found.col] >= threshold - _SLACK) & (row < found.col)
        row, column = row[possible], found.col[possible]
        for part in range(0, len(row), 16 * _BLOCK):
            first, second = row[part : part + 16 * _BLOCK], column[part : part + 16 * _BLOCK]
            cosine = numpy.asarray(vectors[first].multiply(vectors[second]).sum(axis=1)).ravel()
            yield from _kept(first, second, cosine >= threshold - _SLACK)


def _kept(first: numpy.ndarray, second: numpy.ndarray, keep: numpy.ndarray) -> Iterator[tuple[int, int]]:
    keep = keep & (first < second)
    return zip(first[keep].tolist(), second[keep].tolist(), strict=True)


def _words(text: str) -> str:
    """Lower case, no punctuation, single blanks; a sign between digits stays, as in 1.5 or 5-10."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"(?<!\d)[^\w\s]|[^\w\s](?!\d)", " ", folded).replace("_", " ").split())
