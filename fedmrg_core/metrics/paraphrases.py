"""METEOR's table of paraphrases, cut to the words of the reports that are scored.

METEOR reads its table of five million pairs at each start, in 6 of its 7 CPU seconds. A pair can match only where all
words of both its phrases stand in the texts, so a table without the others gives the same scores. METEOR takes such a
table by its option ``-a``. Its own filter reads the whole one as slowly. So the table is brought once into a form that
is cut in a tenth of a second, and kept in Hugging Face's folder of assets. It says nothing of the reports.
"""

from __future__ import annotations

import array
import dataclasses
import gzip
import itertools
import logging
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator

import filelock
import huggingface_hub
import numpy
import safetensors
from pycocoevalcap.meteor import meteor
from safetensors.numpy import load_file, save_file

from fedmrg_core.files.whole_files import atomic_file

logger = logging.getLogger(__name__)

WHOLE_TABLE = pathlib.Path(meteor.__file__).parent / "data" / "paraphrase-en.gz"
_LINES_OF_A_PAIR = 3  # probability, phrase, phrase
_CHUNK = 1 << 24
_PHRASES_OF_A_BLOCK = 1 << 16  # even, for the two phrases of a pair follow each other
# METEOR's matcher does not look at the probability; the parity test holds it.
_PROBABILITY = b"0"

Phrases = tuple[bytes, bytes]


@dataclasses.dataclass(frozen=True)
class PhraseTable:
    """P pairs of phrases as numbers of words.

    Attributes:
        vocabulary: every word, in the order of its numbers.
        words: the words of all phrases, one after another; the two of a pair follow each other.
        lengths: (2 P,) how many words each phrase has, at least one.
    """

    vocabulary: list[bytes]
    words: numpy.ndarray
    lengths: numpy.ndarray

    def pairs_within(self, words: Iterable[bytes]) -> list[Phrases]:
        """The pairs all of whose words are among these, in the order of the table."""
        numbers = {word: number for number, word in enumerate(self.vocabulary)}
        among = numpy.zeros(len(self.vocabulary), dtype=bool)
        among[[numbers[word] for word in words if word in numbers]] = True
        return [pair for block in self._blocks() for pair in block._pairs_among(among)]

    def _blocks(self) -> Iterator[PhraseTable]:
        """The table in parts of whole pairs: arrays over all of it cost a second, for memory that is touched once."""
        start = 0
        for first in range(0, len(self.lengths), _PHRASES_OF_A_BLOCK):
            lengths = self.lengths[first : first + _PHRASES_OF_A_BLOCK]
            end = start + int(lengths.sum())
            yield PhraseTable(self.vocabulary, self.words[start:end], lengths)
            start = end

    def _pairs_among(self, among: numpy.ndarray) -> list[Phrases]:
        """The pairs of this part whose words are all marked in `among`, a boolean for each of the vocabulary."""
        starts = numpy.cumsum(self.lengths, dtype=numpy.int64) - self.lengths
        within = numpy.logical_and.reduceat(among[self.words], starts)
        found = numpy.flatnonzero(within[0::2] & within[1::2])
        ends = starts + self.lengths
        return [
            tuple(
                b" ".join(self.vocabulary[number] for number in self.words[starts[at] : ends[at]])
                for at in (2 * pair, 2 * pair + 1)
            )
            for pair in found
        ]  # fmt: skip


def can_be_cut(texts: Iterable[str]) -> bool:
    """Whether METEOR's words of normalised texts are surely those between blanks: it may split other scripts."""
    return all(text.isascii() for text in texts)


def write_cut_table(texts: Iterable[str], path: pathlib.Path) -> None:
    """Write METEOR's pairs whose words all occur in `texts`, as its option ``-a`` takes them.

    Args:
        texts: normalised (:func:`fedmrg_core.metrics.normalise.normalise`), see :func:`can_be_cut`.
        path: of the gzip file.

    Raises:
        OSError: METEOR's table cannot be read, or neither `path` nor the kept table can be written.
    """
    pairs = phrase_table().pairs_within({word.encode() for text in texts for word in text.split()})
    with gzip.open(path, "wb", compresslevel=1) as table:
        table.writelines(b"\n".join([_PROBABILITY, *pair]) + b"\n" for pair in pairs)


def phrase_table() -> PhraseTable:
    """The kept table; made where it is not there or damaged, which takes about fifteen seconds.

    Raises:
        OSError: see :func:`write_cut_table`.
    """
    path = kept_table()
    if (kept := _read_kept(path)) is not None:
        return kept
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} must not be written")  # else it would be made again for every start
    with filelock.FileLock(path.with_suffix(".lock")):
        if (kept := _read_kept(path)) is not None:  # another process has made it in the meantime
            return kept
        logger.info("METEOR's table of paraphrases is brought into another form, once: %s", path)
        table = read_phrase_table(WHOLE_TABLE)
        vocabulary = numpy.frombuffer(b"\n".join(table.vocabulary), dtype=numpy.uint8)
        with atomic_file(path) as temporary:
            save_file({"vocabulary": vocabulary, "words": table.words, "lengths": table.lengths}, temporary)
        return table


def _read_kept(path: pathlib.Path) -> PhraseTable | None:
    """None where it is not there or damaged."""
    try:
        kept = load_file(path)
        return PhraseTable(kept["vocabulary"].tobytes().split(b"\n"), kept["words"], kept["lengths"])
    except (FileNotFoundError, safetensors.SafetensorError, KeyError):
        return None


def kept_table() -> pathlib.Path:
    """Where the table is kept, by the size of METEOR's own: another release has another.

    Raises:
        OSError: the folder cannot be made, or METEOR has no table.
    """
    try:
        folder = huggingface_hub.cached_assets_path("fedmrg_core", "meteor")
    except ValueError as error:  # a file stands where a folder should be
        raise NotADirectoryError(str(error)) from error
    return folder / f"paraphrases-of-{WHOLE_TABLE.stat().st_size}.safetensors"


def read_phrase_table(path: pathlib.Path) -> PhraseTable:
    """METEOR's gzip file of paraphrases; pairs with an empty phrase, which match nothing, are left out.

    Raises:
        OSError: it cannot be read.
    """
    numbers: dict[bytes, int] = {}
    words, lengths = array.array("I"), array.array("B")
    for pair in _pairs_in(path):
        phrases = [phrase.split() for phrase in pair]
        if all(phrases):
            words.extend(numbers.setdefault(word, len(numbers)) for phrase in phrases for word in phrase)
            lengths.extend(map(len, phrases))
    smallest = numpy.min_scalar_type(len(numbers))
    return PhraseTable(
        list(numbers), numpy.array(words, dtype=smallest), numpy.array(lengths, dtype=numpy.uint8)
    )  # fmt: skip


def _pairs_in(path: pathlib.Path) -> Iterator[Phrases]:
    """Pair by pair; whole chunks are split at once, which takes half the time of reading line by line."""
    rest = b""
    try:
        with gzip.open(path) as table:
            while chunk := table.read(_CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                whole = len(lines) // _LINES_OF_A_PAIR * _LINES_OF_A_PAIR
                yield from zip(lines[1:whole:_LINES_OF_A_PAIR], lines[2:whole:_LINES_OF_A_PAIR], strict=True)
                rest = b"\n".join(itertools.chain(lines[whole:], [rest]))
    except (EOFError, zlib.error) as error:
        raise OSError(f"{path} is damaged: {error}") from error
