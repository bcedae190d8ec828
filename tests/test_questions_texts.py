"""Texts of the other public sets in a folder; every text here is made up for these tests."""

from __future__ import annotations

import gzip
import json

import pytest

from fedmrg_core.data.questions.clients import limited_clients
from fedmrg_core.data.questions.duplicates import near_equal_to
from fedmrg_core.data.questions.loading import load_medquad
from fedmrg_core.data.questions.public_texts import PIECE, kind_of, pieces_of, public_sets, public_texts
from fedmrg_core.data.questions.question import LoadedQuestions, Question, counts_of
from fedmrg_core.errors import InputError

QUAD = {
    "source": "one",
    "focus": "Cold feet",
    "qtype": "causes",
    "question": "What causes cold feet?",
    "answer": "Long walks through the snow do, mostly in winter.",
}
MCQA = {
    "id": "m1", "question": "Which of these things is round?", "opa": "ball", "opb": "cube", "opc": "rod",
    "opd": "cone", "cop": 1, "subject_name": "Shapes", "exp": "A ball has the same width from all sides.",
}  # fmt: skip
PUBMED = {
    "QUESTION": "Is the snow cold?", "CONTEXTS": ["It was felt by hand.", "It was cold."],
    "LONG_ANSWER": "The snow was cold to all that felt it.", "final_decision": "yes",
}  # fmt: skip
MEDQA = {"question": "A man is round.", "options": {"A": "rest", "B": "tea"}, "answer_idx": "B", "meta_info": "step1"}
CLIENT = Question("q1", "one", "test", "open", "Why do feet turn blue?", "Nobody has found out so far.")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "anything.jsonl").write_text(json.dumps(QUAD) + "\n")
    (tmp_path / "mine.json.gz").write_bytes(gzip.compress((json.dumps(MCQA) + "\n").encode()))
    (tmp_path / "articles.json").write_text(json.dumps({"12": PUBMED}, indent=1))
    (tmp_path / "steps.jsonl").write_text(json.dumps(MEDQA) + "\n")
    (tmp_path / "other.json").write_text('{"question": "no set"}')
    (tmp_path / "notes.txt").write_text("nothing")
    return tmp_path


def test_sets_are_told_by_their_keys_and_the_clients_own_does_not_count(root):
    kinds = {"anything.jsonl": "medquad", "mine.json.gz": "medmcqa", "articles.json": "pubmedqa"}
    kinds["steps.jsonl"] = "medqa"
    for name, kind in kinds.items():
        assert kind_of(root / name) == kind
        assert {path.name for path in public_sets(root, kind)} == kinds.keys() - {name}
    assert kind_of(root / "other.json") == ""


def test_questions_with_answers_and_texts_of_the_other_sets(root):
    found = public_texts(20, 0, root, "medquad", [CLIENT])
    assert sorted(found.texts) == [
        "A ball has the same width from all sides.",
        "It was felt by hand. It was cold.",
        "Question: A man is round.\nAnswer: tea",
        "Question: Is the snow cold?\nAnswer: The snow was cold to all that felt it.",
        "Question: Which of these things is round?\nAnswer: ball",
    ]
    assert found.left_out == 0 and found.sources["mine.json.gz"]["set"] == "medmcqa"
    assert {name: source["texts"] for name, source in found.sources.items()} == {
        "articles.json": 2, "mine.json.gz": 2, "steps.jsonl": 1,
    }  # fmt: skip
    assert public_texts(20, 0, root, "medquad", [CLIENT]) == found
    assert set(public_texts(2, 0, root, "medquad", [CLIENT]).texts) < set(found.texts)


def test_what_is_near_equal_to_something_of_the_clients_is_left_out(root):
    asked = Question("q1", "one", "test", "open", "which of these things is ROUND", "A circle is.")
    answered = Question("q2", "one", "train", "open", "Why?", "The snow was cold to all that felt it!")
    read = Question("q3", "one", "train", "yes-no-maybe", "Why?", "no", context="It was felt by hand. It was cold")
    found = public_texts(20, 0, root, "medquad", [asked, answered, read])
    assert sorted(found.texts) == [
        "A ball has the same width from all sides.",
        "Question: A man is round.\nAnswer: tea",
    ]
    assert found.left_out == 3


def test_a_folder_without_another_set_and_a_row_of_another_layout(root):
    for name in ("mine.json.gz", "articles.json", "steps.jsonl"):
        (root / name).unlink()
    with pytest.raises(InputError, match=r"holds no other public set \(medmcqa, medqa, pubmedqa\) to pretrain a small"):
        public_texts(20, 0, root, "medquad", [CLIENT])
    (root / "anything.jsonl").write_text(json.dumps(QUAD) + "\n" + json.dumps({"question": "?"}) + "\n")
    with pytest.raises(InputError, match=r"anything.jsonl: row 2 has another layout than row 1"):
        public_texts(20, 0, root, "medmcqa", [CLIENT])


def test_long_texts_are_cut_at_blanks_and_nothing_is_lost():
    text = " ".join(f"word{number}" for number in range(200))
    pieces = pieces_of("Why so?", text)
    assert pieces[0].startswith("Question: Why so?\nAnswer: word0 ") and max(map(len, pieces)) <= PIECE
    assert " ".join(pieces).split("Answer: ")[1] == text
    assert "".join(pieces_of("", "x" * 600)) == "x" * 600 and pieces_of("", "short") == ["short"]


def test_near_equal_texts():
    texts = ["What causes cold feet in the winter?", "What causes cold hands?", ""]
    assert near_equal_to(texts, ["what causes cold feet in the winter", "Something else"]).tolist() == [
        True,
        False,
        False,
    ]
    assert near_equal_to(texts, []).tolist() == [False] * 3 and near_equal_to([], texts).tolist() == []


def held(split: str, **counts: int) -> list[Question]:
    return [
        Question(f"{client}-{split}-{number}", client, split, "open", f"{client} {number}?", "yes")
        for client, count in counts.items()
        for number in range(count)
    ]


def test_large_clients_are_limited_and_named_in_a_note():
    loaded = limited_clients(LoadedQuestions(held("", large=9, small=3)), 4, 0)
    counts = {client: sum(count.values()) for client, count in counts_of(loaded.questions).items()}
    assert counts == {"large": 4, "small": 3}
    assert loaded.notes == ["Of each of these clients 4 questions were drawn at random: large (9)."]
    assert loaded == limited_clients(LoadedQuestions(held("", large=9, small=3)), 4, 0)
    assert loaded != limited_clients(LoadedQuestions(held("", large=9, small=3)), 4, 1)
    for same in (None, 9):
        assert len(limited_clients(LoadedQuestions(held("", large=9)), same, 0).questions) == 9
    with pytest.raises(InputError, match="largest is 0; expected at least 1 question"):
        limited_clients(loaded, 0, 0)


def test_given_test_questions_all_stay():
    loaded = limited_clients(LoadedQuestions(held("train", north=9) + held("test", north=6)), 4, 0)
    assert counts_of(loaded.questions) == {"north": {"train": 4, "test": 6}}


def test_a_set_is_read_with_fewer_questions(tmp_path):
    words = "amber bronze copper denim ebony flint garnet hazel indigo jasper kelp lemon".split()
    rows = [QUAD | {"focus": word, "question": f"Why is {word} so {o}like?"} for word in words for o in words[:4]]
    (tmp_path / "medquad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_medquad(tmp_path, 0, smallest=10, largest=20)
    assert len(loaded.questions) == 20 and "20 questions were drawn at random: one (48)" in loaded.notes[0]
