"""Questions that are equal, or near to it, in whatever client they stand.

Two questions are compared by their text, and choices in two ways: with their options, in any order, and by their stem
alone, so that one other wrong option does not part them. A stem that more than `GENERAL` choices share, such as "Which
of the following is true?", says nothing by itself; it is compared with its right answer [ours].

They are near-equal if the cosine of their character n-grams is at least a threshold, both with and without TF-IDF
weights, and their numbers are the same, Roman ones as well. Weights tell one disease from another, and without them
"What causes it?" differs from "Is it inherited?". All pairs are compared exactly, but most are never computed: frequent
n-grams are left to an upper bound.
"""

from __future__ import annotations

import collections
import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy
import scipy.sparse
import scipy.sparse.csgraph
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.preprocessing import normalize

from fedmrg_core.data.questions.question import Question
from fedmrg_core.errors import InputError

THRESHOLD = 0.9  # of the cosine
GENERAL = 10  # choices with one stem; in MedMCQA's development file no stem stands more than twice
_SIZES = (3, 4)  # of n-grams, within words
_CELLS = 8_000_000  # products of two questions held at once: about 100 MB
_CHECKED = 8192  # pairs computed in full at once
_FREQUENT = 0.005  # n-grams in more than this share of questions are bounded first and computed only where it matters
_FEW = 10  # questions; no n-gram of so few is frequent
_NUMBER = re.compile(r"\d|^[ivx]+$")  # type 2 is not type 3, nor is type II type III
_SLACK = 1e-6  # of sums of products


def normalised(question: Question) -> str:
    """A question with its options as it is compared: case, punctuation, blanks and their order make no difference."""
    options = sorted(_words(text) for text in question.options.values())
    return " | ".join([_words(question.text), *options])


def near_equal_groups(questions: Sequence[Question], threshold: float = THRESHOLD) -> numpy.ndarray:
    """A group number for each question: equal or near-equal ones, also by way of others, have the same.

    Args:
        questions: of all clients.
        threshold: least cosines of near-equal ones, above 0; 1 finds equal ones only.

    Returns:
        Shape (questions,); groups are numbered in the order of their first question.

    Raises:
        InputError: `threshold` is out of its range.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold is {threshold}; expected more than 0 and at most 1.")
    links = _links([normalised(question) for question in questions], range(len(questions)), threshold)
    choices = [place for place, question in enumerate(questions) if question.options]
    links += _links(_stems([questions[place] for place in choices]), choices, threshold)
    pairs = numpy.array(links, dtype=int).reshape(-1, 2)
    graph = scipy.sparse.coo_matrix((numpy.ones(len(pairs)), pairs.T), shape=(len(questions), len(questions)))
    labels = scipy.sparse.csgraph.connected_components(graph, directed=False)[1] if len(questions) else []
    numbers: dict[int, int] = {}
    return numpy.array([numbers.setdefault(int(label), len(numbers)) for label in labels], dtype=int)


def _links(texts: Sequence[str], places: Sequence[int], threshold: float) -> list[tuple[int, int]]:
    """Pairs of places that reach from each text to every equal or near-equal one, if by way of others."""
    first: dict[str, int] = {}
    links = [(first.setdefault(text, place), place) for text, place in zip(texts, places, strict=True)]
    if threshold < 1:
        where = list(first.values())
        links += [(where[i], where[j]) for i, j in near_equal_pairs(list(first), threshold)]
    return links


def _stems(choices: Sequence[Question]) -> list[str]:
    """The text of each without options, a general one with its right answer."""
    stems = [_words(question.text) for question in choices]
    counts = collections.Counter(stems)
    return [
        f"{stem} | {_words(question.answer_text)}" if counts[stem] > GENERAL else stem
        for question, stem in zip(choices, stems, strict=True)
    ]


def near_equal_pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, of normalised texts that are near-equal, in no particular order."""
    if len(texts) < 2:
        return
    counts = CountVectorizer(analyzer="char_wb", ngram_range=_SIZES, lowercase=False).fit_transform(texts)
    weighted, plain = TfidfTransformer().fit_transform(counts), normalize(counts.astype(float))
    numbers = [frozenset(word for word in text.split() if _NUMBER.search(word)) for text in texts]
    least = threshold - _SLACK
    for first, second in _weighted_pairs(weighted, least):
        near = numpy.asarray(plain[first].multiply(plain[second]).sum(axis=1)).ravel() >= least
        for i, j in zip(first[near].tolist(), second[near].tolist(), strict=True):
            if numbers[i] == numbers[j]:
                yield i, j


def near_equal_to(texts: Sequence[str], others: Sequence[str], threshold: float = THRESHOLD) -> numpy.ndarray:
    """Whether each text is near-equal to one of `others`; by the cosines alone, whatever numbers stand in them.

    Args:
        texts: N of them.
        others: what they are held against.
        threshold: least cosine of near-equal ones, with and without weights.

    Returns:
        Shape (N,), true where one is.
    """
    if not len(texts) or not len(others):
        return numpy.zeros(len(texts), dtype=bool)
    words = [_words(text) for text in (*texts, *others)]
    counts = CountVectorizer(analyzer="char_wb", ngram_range=_SIZES, lowercase=False).fit_transform(words)
    weighted, plain = TfidfTransformer().fit_transform(counts), normalize(counts.astype(float))
    transposed = weighted[len(texts) :].T.tocsr()
    near = numpy.zeros(len(texts), dtype=bool)
    block = max(1, _CELLS // len(others))
    for start in range(0, len(texts), block):
        found = (weighted[start : min(start + block, len(texts))] @ transposed).tocoo()
        keep = found.data >= threshold - _SLACK
        first, second = found.row[keep] + start, found.col[keep] + len(texts)
        same = numpy.asarray(plain[first].multiply(plain[second]).sum(axis=1)).ravel() >= threshold - _SLACK
        near[first[same]] = True
    return near


def _weighted_pairs(vectors: scipy.sparse.csr_matrix, least: float) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
    """Pairs of rows, the first before the second, whose product is at least `least`; rows have length 1."""
    count = vectors.shape[0]
    frequent = numpy.diff(vectors.tocsc().indptr) > max(_FREQUENT * count, _FEW)
    rare = vectors[:, ~frequent].tocsr()
    length = numpy.sqrt(numpy.asarray(vectors[:, frequent].power(2).sum(axis=1)).ravel())
    # Rows of frequent n-grams alone have no product of rare ones that would point at them.
    common = numpy.flatnonzero(length * length.max() >= least)
    block = max(1, _CELLS // count)
    for start in range(0, len(common), block):
        rows = common[start : start + block]
        found = (vectors[rows] @ vectors[common].T).tocoo()
        first, second = rows[found.row], common[found.col]
        keep = (found.data >= least) & (first < second)
        yield first[keep], second[keep]
    transposed = rare.T.tocsr()
    for start in range(0, count, block):
        found = (rare[start : start + block] @ transposed).tocoo()
        first, second = found.row + start, found.col
        bound = length[first] * length[second]
        possible = (found.data + bound >= least) & (bound < least) & (first < second)
        first, second = first[possible], second[possible]
        for part in range(0, len(first), _CHECKED):
            one, other = first[part : part + _CHECKED], second[part : part + _CHECKED]
            keep = numpy.asarray(vectors[one].multiply(vectors[other]).sum(axis=1)).ravel() >= least
            yield one[keep], other[keep]


def _words(text: str) -> str:
    """Lower case, no punctuation, single blanks; a sign between digits stays, as in 1.5 or 5-10."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"(?<!\d)[^\w\s]|[^\w\s](?!\d)", " ", folded).replace("_", " ").split())
