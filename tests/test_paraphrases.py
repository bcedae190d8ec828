"""METEOR's table of paraphrases, cut to the words of the reports: same statistics, kept between starts."""

import gzip
import random

import pytest

from fedmrg_core.metrics import paraphrases
from fedmrg_core.metrics import text as text_metrics

TABLE = [
    (b"0.5", b"heart", b"cardiac silhouette"),
    (b"0.4", b"lungs", b"lung fields"),
    (b"0.3", b"lung fields", b"lungs"),
    (b"0.2", b"effusion", b"fluid"),
]


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    """Where the cut table of a test is kept: nowhere else."""
    path = tmp_path / "kept" / "paraphrases.gz"
    monkeypatch.setattr(paraphrases, "kept_table", lambda: path)
    return path


@pytest.fixture
def small_table(monkeypatch, tmp_path):
    """In place of METEOR's table one of four pairs."""
    path = tmp_path / "table.gz"
    path.write_bytes(gzip.compress(b"".join(b"\n".join(pair) + b"\n" for pair in TABLE)))
    monkeypatch.setattr(paraphrases, "WHOLE_TABLE", path)
    return path


def cut(texts, folder):
    """The pairs that METEOR would be given for the texts."""
    path = folder / "cut.gz"
    paraphrases.write_cut_table(texts, path)
    with gzip.open(path) as table:
        return list(paraphrases._pairs_in(table))


def test_a_pair_stays_where_all_its_words_occur(small_table, tmp_path):
    assert cut(["heart cardiac silhouette lungs lung"], tmp_path) == TABLE[:1]
    assert cut(["lungs", "lung fields"], tmp_path) == TABLE[1:3]
    assert cut(["nothing of it"], tmp_path) == []


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 24])
def test_pairs_are_whole_however_the_table_is_read(small_table, monkeypatch, chunk):
    monkeypatch.setattr(paraphrases, "_CHUNK", chunk)
    with gzip.open(small_table) as table:
        assert list(paraphrases._pairs_in(table)) == TABLE


def test_the_kept_table_serves_fewer_words_and_is_widened_for_others(small_table, tmp_path):
    cut(["lungs lung fields effusion"], tmp_path)
    small_table.write_bytes(b"no table: reading it fails")
    assert cut(["effusion lung lungs fields"], tmp_path) == TABLE[1:3]
    assert cut(["lungs"], tmp_path) == []
    with pytest.raises(OSError, match="gzip"):
        cut(["fluid"], tmp_path)
    small_table.write_bytes(gzip.compress(b"".join(b"\n".join(pair) + b"\n" for pair in TABLE)))
    assert cut(["fluid"], tmp_path) == []
    small_table.write_bytes(b"no table: reading it fails")
    assert cut(["lungs lung fields effusion fluid"], tmp_path) == TABLE[1:]


def test_a_table_of_very_many_words_is_cut_anew(small_table, tmp_path, monkeypatch, kept):
    monkeypatch.setattr(paraphrases, "_MOST_WORDS", 3)
    cut(["lungs lung fields"], tmp_path)
    cut(["effusion fluid"], tmp_path)
    with gzip.open(kept) as table:
        assert [table.readline().split() for _ in range(2)][1] == [b"effusion", b"fluid"]


def test_no_word_is_kept_that_the_table_has_not(small_table, tmp_path, kept):
    cut(["mrs smith 1957 lungs lung fields"], tmp_path)
    text = gzip.decompress(kept.read_bytes())
    assert b"lung fields" in text and not any(word in text for word in (b"mrs", b"smith", b"1957"))
    small_table.write_bytes(b"no table: reading it fails")
    assert cut(["mr jones 1960 lungs lung fields"], tmp_path) == TABLE[1:3]  # unknown words ask for no other table


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"lungs lung fields\n0.4\nlun" * 99)[:60]])
def test_a_broken_kept_table_is_made_anew(small_table, tmp_path, kept, content):
    kept.parent.mkdir()
    kept.write_bytes(content)
    assert cut(["lungs lung fields"], tmp_path) == TABLE[1:3]
    small_table.write_bytes(b"no table: reading it fails")
    assert cut(["lungs lung fields"], tmp_path) == TABLE[1:3]


def test_where_nothing_can_be_kept_the_table_is_cut_all_the_same(small_table, tmp_path, kept):
    kept.parent.write_text("a file where the folder should be")
    assert cut(["lungs lung fields"], tmp_path) == TABLE[1:3]


def test_meteor_says_the_same_with_the_whole_table(monkeypatch):
    """Sentences of both sides of pairs of METEOR's table, so that the paraphrases decide; 600 of them, seeded."""
    draw = random.Random(0)
    with gzip.open(paraphrases.WHOLE_TABLE) as table:
        pairs = [pair for pair, _ in zip(paraphrases._pairs_in(table), range(200_000), strict=False)]
    found = [draw.sample(pairs, 3) for _ in range(2000)]
    sides = [[b" ".join(pair[side] for pair in three).decode() for three in found] for side in (1, 2)]
    plain = [pair for pair in zip(*sides, strict=True) if all(text.isascii() for text in pair)][:600]
    references, generated = map(list, zip(*plain, strict=True))
    short = text_metrics._meteor(*text_metrics._normalise_pairs(references, generated))
    monkeypatch.setattr(text_metrics, "can_be_cut", lambda lines: False)
    whole = text_metrics._meteor(*text_metrics._normalise_pairs(references, generated))
    assert (short.summands == whole.summands).all()
    assert short.summands[:, 16:20].sum() > 600  # matched as paraphrases


def test_other_scripts_are_left_to_the_whole_table():
    assert paraphrases.can_be_cut(["no pneumothorax"]) and not paraphrases.can_be_cut(["kein erguß"])
