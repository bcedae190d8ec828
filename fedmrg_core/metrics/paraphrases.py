"""METEOR's table of paraphrases, cut to the words of the reports that are scored.

METEOR reads its table of five million pairs at each start, in 6 of its 7 CPU seconds. A pair can match only where all
words of both its phrases stand in the texts, so a table without the others gives the same scores. METEOR takes such a
table by its option ``-a``. Its own filter reads the whole one as slowly; here the cut one is kept in Hugging Face's
folder of assets, with the words it was cut to, and serves every set of texts that has no others. Of the texts' words
only those are kept that METEOR's table has itself: no name or number beyond them.
"""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import logging
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Set

import huggingface_hub
from pycocoevalcap.meteor import meteor

from fedmrg_core.files.whole_files import atomic_file

logger = logging.getLogger(__name__)

WHOLE_TABLE = pathlib.Path(meteor.__file__).parent / "data" / "paraphrase-en.gz"
_LINES_OF_A_PAIR = 3  # probability, phrase, phrase
_CHUNK = 1 << 24
# Above so many words the kept table is not widened any more, but cut anew: it would grow to the whole one.
_MOST_WORDS = 20_000

Pair = tuple[bytes, bytes, bytes]


@dataclasses.dataclass(frozen=True)
class CutTable:
    """What is kept: the words of METEOR's whole table, those it was cut to, and the pairs that have no others."""

    vocabulary: frozenset[bytes]
    words: frozenset[bytes]
    pairs: list[Pair]


def can_be_cut(texts: Iterable[str]) -> bool:
    """Whether METEOR's words of normalised texts are surely those between blanks: it may split other scripts."""
    return all(text.isascii() for text in texts)


def write_cut_table(texts: Iterable[str], path: pathlib.Path) -> None:
    """Write METEOR's pairs whose words all occur in `texts`, as its option ``-a`` takes them.

    Args:
        texts: normalised (:func:`fedmrg_core.metrics.normalise.normalise`), see :func:`can_be_cut`.
        path: of the gzip file.
    """
    words = {word.encode() for text in texts for word in text.split()}
    pairs = _pairs_of(words)
    with gzip.open(path, "wb", compresslevel=1) as table:
        table.writelines(b"\n".join(pair) + b"\n" for pair in pairs)


def _pairs_of(words: set[bytes]) -> list[Pair]:
    """From the kept table where it was cut to all of the words, else from METEOR's, and then it is kept."""
    kept = _read_kept()
    if kept is None or not words & kept.vocabulary <= kept.words:
        kept = _cut(words, kept)
        _keep(kept)
    return list(_with_words(kept.pairs, words))


def _cut(words: set[bytes], kept: CutTable | None) -> CutTable:
    """METEOR's table cut to `words`, and to those that it was cut to before unless they become very many."""
    with gzip.open(WHOLE_TABLE) as table:
        vocabulary = kept.vocabulary if kept else frozenset(_words_in(_pairs_in(table)))
        before = kept.words if kept else frozenset()
        words = frozenset(words & vocabulary)
        together = words | before if len(words | before) <= _MOST_WORDS else words
        table.seek(0)
        return CutTable(vocabulary, together, list(_with_words(_pairs_in(table), together)))


def _words_in(pairs: Iterable[Pair]) -> Iterator[bytes]:
    return itertools.chain.from_iterable(phrase.split() for pair in pairs for phrase in pair[1:])


def _pairs_in(table: gzip.GzipFile) -> Iterator[Pair]:
    """Pair by pair; whole chunks are split at once, which takes half the time of reading line by line."""
    rest = b""
    while chunk := table.read(_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        whole = len(lines) // _LINES_OF_A_PAIR * _LINES_OF_A_PAIR
        yield from zip(*(lines[line:whole:_LINES_OF_A_PAIR] for line in range(_LINES_OF_A_PAIR)), strict=True)
        rest = b"\n".join([*lines[whole:], rest])


def _with_words(pairs: Iterable[Pair], words: Set[bytes]) -> Iterator[Pair]:
    return (pair for pair in pairs if words.issuperset(pair[1].split()) and words.issuperset(pair[2].split()))


def kept_table() -> pathlib.Path:
    """Where the cut table is kept, by the size of METEOR's own: another release has another.

    Raises:
        OSError: the folder cannot be made.
    """
    folder = huggingface_hub.cached_assets_path("fedmrg_core", "meteor")
    return folder / f"cut-paraphrases-of-{WHOLE_TABLE.stat().st_size}.gz"


def _read_kept() -> CutTable | None:
    """None where nothing is kept or it cannot be read."""
    try:
        with gzip.open(kept_table()) as table:
            vocabulary, words = (frozenset(table.readline().split()) for _ in range(2))
            return CutTable(vocabulary, words, list(_pairs_in(table))) if vocabulary else None
    except FileNotFoundError:
        return None
    except (OSError, EOFError, zlib.error) as error:
        logger.info("METEOR's cut table is made anew: %s", error)
        return None


def _keep(cut: CutTable) -> None:
    """Two lines of words, then the pairs. Where nothing can be kept, the next start is as slow as this one."""
    try:
        with atomic_file(kept_table()) as temporary, gzip.open(temporary, "wb") as table:
            table.writelines(b" ".join(sorted(words)) + b"\n" for words in (cut.vocabulary, cut.words))
            table.writelines(b"\n".join(pair) + b"\n" for pair in cut.pairs)
    except OSError as error:
        logger.info("METEOR's cut table is not kept: %s", error)
