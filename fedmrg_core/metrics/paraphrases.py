"""METEOR's table of paraphrases, cut to the words of the reports that are scored.

METEOR reads its table of five million pairs at each start, in 6 of its 7 CPU seconds. A pair can match only where all
words of both its phrases stand in the texts, so a table without the others gives the same scores. METEOR takes such a
table by its option ``-a``. Its own filter reads the whole one as slowly; here the cut one is kept in Hugging Face's
folder of assets, with the words it was cut to, and serves every set of texts that has no others.
"""

from __future__ import annotations

import gzip
import logging
import pathlib
import zlib
from collections.abc import Iterable, Iterator

import huggingface_hub
from pycocoevalcap.meteor import meteor

from fedmrg_core.files.whole_files import atomic_file

logger = logging.getLogger(__name__)

WHOLE_TABLE = pathlib.Path(meteor.__file__).parent / "data" / "paraphrase-en.gz"
_LINES_OF_A_PAIR = 3  # probability, phrase, phrase
_CHUNK = 1 << 24
# Above so many words the kept table is not widened any more, but cut anew: it would grow to the whole one.
_MOST_WORDS = 50_000

Pair = tuple[bytes, bytes, bytes]


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
    """From the kept table where it has all the words, else from METEOR's, and then they are kept."""
    kept_words, kept_pairs = _read_kept()
    if not words <= kept_words:
        together = words | kept_words
        kept_words = together if len(together) <= _MOST_WORDS else words
        with gzip.open(WHOLE_TABLE) as table:
            kept_pairs = list(_with_words(_pairs_in(table), kept_words))
        _keep(kept_words, kept_pairs)
    return list(_with_words(kept_pairs, words))


def _pairs_in(table: gzip.GzipFile) -> Iterator[Pair]:
    """Pair by pair; whole chunks are split at once, which takes half the time of reading line by line."""
    rest = b""
    while chunk := table.read(_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        whole = len(lines) // _LINES_OF_A_PAIR * _LINES_OF_A_PAIR
        yield from zip(*(lines[line:whole:_LINES_OF_A_PAIR] for line in range(_LINES_OF_A_PAIR)), strict=True)
        rest = b"\n".join([*lines[whole:], rest])


def _with_words(pairs: Iterable[Pair], words: set[bytes]) -> Iterator[Pair]:
    return (pair for pair in pairs if words.issuperset(pair[1].split()) and words.issuperset(pair[2].split()))


def kept_table() -> pathlib.Path:
    """Where the cut table is kept, by the size of METEOR's own: another release has another.

    Raises:
        OSError: the folder cannot be made.
    """
    folder = huggingface_hub.cached_assets_path("fedmrg_core", "meteor")
    return folder / f"paraphrases-of-{WHOLE_TABLE.stat().st_size}.gz"


def _read_kept() -> tuple[set[bytes], list[Pair]]:
    """Words and pairs; none where nothing is kept or it cannot be read."""
    try:
        with gzip.open(kept_table()) as table:
            words = set(table.readline().split())
            return words, list(_pairs_in(table))
    except FileNotFoundError:
        return set(), []
    except (OSError, EOFError, zlib.error) as error:
        logger.info("METEOR's cut table is made anew: %s", error)
        return set(), []


def _keep(words: set[bytes], pairs: list[Pair]) -> None:
    """The words in the first line, then the pairs. Where nothing can be kept, the next start is as slow as this one."""
    try:
        with atomic_file(kept_table()) as temporary, gzip.open(temporary, "wb") as table:
            table.write(b" ".join(sorted(words)) + b"\n")
            table.writelines(b"\n".join(pair) + b"\n" for pair in pairs)
    except OSError as error:
        logger.info("METEOR's cut table is not kept: %s", error)
