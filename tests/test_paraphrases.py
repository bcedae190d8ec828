"""METEOR's table of paraphrases, cut to the words of the reports: same statistics, and made once."""

import gzip
import random
from unittest import mock

import huggingface_hub
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmrg_core.metrics import meteor, paraphrases

PAIRS = [
    (b"heart", b"cardiac silhouette"),
    (b"lungs", b"lung fields"),
    (b"lung fields", b"lungs"),
    (b"effusion", b"fluid"),
]


def gzipped(pairs):
    return gzip.compress(b"".join(b"\n".join([b"0.5", *pair]) + b"\n" for pair in pairs), mtime=0)


@pytest.fixture
def small_table(monkeypatch, tmp_path):
    """In place of METEOR's table one of four pairs, and nothing kept of it yet."""
    path = tmp_path / "table.gz"
    path.write_bytes(gzipped(PAIRS))
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(paraphrases, "WHOLE_TABLE", path)
    monkeypatch.setattr(paraphrases, "kept_table", lambda: tmp_path / "kept" / "paraphrases.safetensors")
    return path


def cut(text, folder):
    """The pairs that METEOR would be given for a text."""
    path = folder / "cut.gz"
    paraphrases.write_cut_table([text], path)
    return list(paraphrases._pairs_in(path))


def test_a_pair_stays_where_all_its_words_occur(small_table, tmp_path):
    assert cut("heart cardiac silhouette lungs lung", tmp_path) == PAIRS[:1]
    assert cut("lungs lung fields smith 1957", tmp_path) == PAIRS[1:3]
    assert cut("nothing of it", tmp_path) == []


WORD = st.sampled_from([b"a", b"b", b"c", b"d"])
PHRASE = st.lists(WORD, min_size=1, max_size=3).map(b" ".join)


@given(
    pairs=st.lists(st.tuples(PHRASE, PHRASE), max_size=12),
    words=st.sets(WORD | st.just(b"e")),
    block=st.sampled_from([2, 6, paraphrases._PHRASES_OF_A_BLOCK]),
)
def test_it_keeps_what_a_look_at_every_pair_keeps(pairs, words, block, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.gz"
    path.write_bytes(gzipped(pairs))
    expected = [pair for pair in pairs if words.issuperset(b" ".join(pair).split())]
    with mock.patch.object(paraphrases, "_PHRASES_OF_A_BLOCK", block):
        assert paraphrases.read_phrase_table(path).pairs_within(words) == expected


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 24])
def test_pairs_are_whole_however_the_table_is_read(small_table, monkeypatch, chunk):
    monkeypatch.setattr(paraphrases, "_CHUNK", chunk)
    assert list(paraphrases._pairs_in(small_table)) == PAIRS


def test_the_table_is_read_once_and_nothing_of_the_reports_is_kept(small_table, tmp_path):
    cut("mrs smith 1957 lungs lung fields", tmp_path)
    (kept,) = (path for path in (tmp_path / "kept").iterdir() if path.suffix != ".lock")
    assert b"silhouette" in kept.read_bytes() and b"smith" not in kept.read_bytes()
    small_table.write_bytes(b"no table: reading it fails")
    assert cut("effusion fluid", tmp_path) == PAIRS[3:]


@pytest.mark.parametrize("content", [b"", b"no tensors"])
def test_a_broken_kept_table_is_made_anew(small_table, tmp_path, content):
    paraphrases.kept_table().write_bytes(content)
    assert cut("lungs lung fields", tmp_path) == PAIRS[1:3]
    small_table.write_bytes(b"no table: reading it fails")
    assert cut("lungs lung fields", tmp_path) == PAIRS[1:3]


def test_pairs_with_an_empty_phrase_are_left_out(tmp_path):
    (tmp_path / "table.gz").write_bytes(gzipped([(b"a", b""), (b"a", b"b")]))
    assert paraphrases.read_phrase_table(tmp_path / "table.gz").pairs_within([b"a", b"b"]) == [(b"a", b"b")]


def command_of(lines, folder):
    return meteor._command(lines, folder)


def test_where_nothing_can_be_kept_meteor_reads_its_own(tmp_path, monkeypatch, caplog):
    """A file where the folder of assets should be; then a folder that must not be written."""
    assert "-a" in command_of(["SCORE ||| lungs ||| lungs\n"], tmp_path)
    (tmp_path / "assets").write_text("no folder")
    real = huggingface_hub.cached_assets_path
    monkeypatch.setattr(
        huggingface_hub, "cached_assets_path", lambda *names: real(*names, assets_dir=tmp_path / "assets")
    )  # fmt: skip
    caplog.set_level("INFO")
    assert "-a" not in command_of(["SCORE ||| lungs ||| lungs\n"], tmp_path)
    assert "METEOR reads its whole table" in caplog.text
    (tmp_path / "assets").unlink()
    monkeypatch.setattr(paraphrases.os, "access", lambda *_: False)
    assert "-a" not in command_of(["SCORE ||| lungs ||| lungs\n"], tmp_path)


@pytest.mark.parametrize("content", [None, b"no gzip", gzipped(PAIRS)[:-12]], ids=["none", "no gzip", "cut off"])
def test_a_damaged_table_is_left_to_meteor(small_table, tmp_path, content):
    small_table.unlink() if content is None else small_table.write_bytes(content)
    assert "-a" not in command_of(["SCORE ||| lungs ||| lungs\n"], tmp_path)


def test_other_scripts_are_left_to_the_whole_table(tmp_path):
    assert paraphrases.can_be_cut(["no pneumothorax"]) and not paraphrases.can_be_cut(["kein erguß"])
    assert "-a" not in command_of(["SCORE ||| kein erguß ||| kein erguß\n"], tmp_path)


def test_meteor_says_the_same_with_the_whole_table(monkeypatch):
    """Sentences of both sides of pairs of METEOR's table, so that the paraphrases decide; 600 of them, seeded."""
    table, draw = paraphrases.phrase_table(), random.Random(0)
    words = [word for word in table.vocabulary if word.isascii() and word.isalnum()]
    pairs = table.pairs_within(draw.sample(words, 8000))
    found = [draw.sample(pairs, 3) for _ in range(600)]
    references, generated = ([b" ".join(pair[side] for pair in three).decode() for three in found] for side in (0, 1))
    sides = list(references), list(generated)
    with meteor.meteor_beside(*sides) as answer:
        short = answer().summands
    monkeypatch.setattr(meteor, "can_be_cut", lambda lines: False)
    with meteor.meteor_beside(*sides) as answer:
        whole = answer().summands
    numpy.testing.assert_array_equal(short, whole)
    assert whole[:, 16:20].sum() > 600  # matched as paraphrases
