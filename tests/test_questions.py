"""Questions as rows: what is refused, and files that give back what was written."""

from __future__ import annotations

import dataclasses
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmrg_core.data.questions.layout import answer_text, prompt_text
from fedmrg_core.data.questions.question import Question, check_question, check_questions, counts_of
from fedmrg_core.data.questions.question_files import fingerprint, line_of, read_questions, write_questions
from fedmrg_core.errors import InputError

CHOICE = Question("q1", "north", "test", "choice", "Which one helps?", "B", options={"A": "tea", "B": "rest"})
OPEN = Question("q2", "north", "train", "open", "What helps?", "rest", context="Rest helps.", held_by=("north",))
VERDICT = Question("q3", "south", "test", "yes-no-maybe", "Does tea help?", "maybe", language="plain", fact="tea")
SET = [CHOICE, OPEN, VERDICT]


@pytest.mark.parametrize(
    ("question", "changes", "expected"),
    [
        (CHOICE, {"options": {}}, "a choice has 0 options; give at least 2"),
        (CHOICE, {"options": {"A": "tea"}, "answer": "A"}, "a choice has 1 options; give at least 2"),
        (CHOICE, {"answer": "C"}, "the answer 'C' is none of its options, expected one of A, B"),
        (CHOICE, {"answer": "b"}, "the answer 'b' is none of its options; write 'B'"),
        (CHOICE, {"options": {"a": "tea", "B": "rest"}}, "option letter 'a' is not in upper case; write 'A'"),
        (CHOICE, {"options": {"B": "tea", "A": "rest"}}, "options have the letters B, A; expected A, B in this order"),
        (CHOICE, {"options": {"A": "tea", "C": "rest"}}, "options have the letters A, C; expected A, B in this order"),
        (CHOICE, {"options": {"A": "Green  tea", "B": "green tea "}}, "options A and B are equal"),
        (CHOICE, {"options": {"A": " ", "B": "tea"}}, "option A is empty; give its text"),
        (CHOICE, {"text": " ?! "}, "text has no word; give the question or remove the row"),
        (CHOICE, {"question_id": ""}, "question_id is empty"),
        (CHOICE, {"client": ""}, "client is empty"),
        (CHOICE, {"client": "home"}, "has the site 'home', which tables use themselves"),
        (CHOICE, {"split": "dev"}, "split is 'dev'; expected one of train, validation, test"),
        (CHOICE, {"kind": "essay"}, "kind is 'essay'; expected one of choice, yes-no-maybe, open"),
        (CHOICE, {"text": "Why \ud800?"}, "text holds half a character"),
        (OPEN, {"options": {"A": "tea", "B": "rest"}}, "options are given but the kind is open; leave them out"),
        (OPEN, {"answer": " "}, "the answer is empty; give it or remove the row"),
        (VERDICT, {"answer": "Yes"}, "the answer is 'Yes'; expected one of yes, no, maybe"),
    ],
)
def test_a_question_that_is_none_is_refused_with_its_place(question, changes, expected):
    with pytest.raises(InputError) as error:
        check_question(dataclasses.replace(question, **changes), "file.jsonl: row 7")
    assert str(error.value).startswith("file.jsonl: row 7") and expected in str(error.value)


@pytest.mark.parametrize(
    ("questions", "expected"),
    [
        ([], "file: not one question"),
        ([*SET, CHOICE], "file: row 4: question_id 'q1' stands in row 1 already"),
        ([CHOICE, dataclasses.replace(VERDICT, split="")], "file: row 2 has no split but others have"),
        (
            [CHOICE, dataclasses.replace(VERDICT, split="train")],
            "file: client 'south' has no test question; give it one, or join it with another client .option smallest",
        ),
    ],
)
def test_a_set_that_is_none_is_refused(questions, expected):
    with pytest.raises(InputError, match=f"^{expected}"):
        check_questions(questions, "file")


def test_a_set_without_parts_is_one():
    check_questions([dataclasses.replace(question, split="") for question in SET], "file")
    assert counts_of(SET) == {"north": {"test": 1, "train": 1}, "south": {"test": 1}}


@pytest.mark.parametrize("name", ["set.jsonl", "set.jsonl.gz"])
def test_what_is_written_is_read_again_and_the_same_bytes(tmp_path, name):
    path = tmp_path / name
    write_questions(path, SET)
    first = path.read_bytes()
    assert read_questions(path) == SET
    assert list(read_questions(path)[0].options) == ["A", "B"]
    write_questions(path, SET)
    assert path.read_bytes() == first and [one.name for one in tmp_path.iterdir()] == [name]


def test_a_set_that_is_refused_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "set.jsonl"
    write_questions(path, SET)
    before = path.read_bytes()
    with pytest.raises(InputError, match="stands in row 1 already"):
        write_questions(path, [*SET, CHOICE])
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match=r"expected an ending of \.jsonl or \.jsonl\.gz"):
        write_questions(tmp_path / "set.json", SET)


def test_letters_in_lower_case_are_read_where_they_are_clear(tmp_path):
    path, content = tmp_path / "set.jsonl", json.loads(line_of(CHOICE))
    path.write_text(json.dumps(content | {"options": {"a": "tea", "b": "rest"}, "answer": "B"}) + "\n")
    assert read_questions(path) == [CHOICE]
    path.write_text(json.dumps(content | {"options": {"A": "tea", "a": "rest"}, "answer": "a"}) + "\n")
    with pytest.raises(InputError, match=r"set.jsonl: row 1: options 'A' and 'a' are one letter in two cases; give"):
        read_questions(path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "row 2 is no JSON"),
        ("[1]", "row 2 is no JSON object"),
        ('{"text": "a", "text": "b"}', "row 2: the key 'text' occurs twice"),
        ('{"question_id": "x"}', "row 2: key 'client' is missing; a question needs question_id, client"),
        (line_of(OPEN).replace('"context"', '"contxt"'), "row 2: key 'contxt' is unknown; a question has"),
        (line_of(OPEN).replace('"rest"', "5"), "row 2: answer is 5; expected a text"),
        (line_of(OPEN).replace('"options": {}', '"options": ["tea"]'), "row 2: options is ['tea']; expected an object"),
        (line_of(OPEN).replace('["north"]', '"north"'), "row 2: held_by is 'north'; expected a list of clients"),
        (line_of(CHOICE), "row 2: question_id 'q1' stands in row 1 already"),
    ],
)
def test_a_line_of_another_layout_is_told_with_its_row(tmp_path, line, expected):
    path = tmp_path / "set.jsonl"
    path.write_text(line_of(CHOICE) + line)
    with pytest.raises(InputError) as error:
        read_questions(path)
    assert str(error.value).startswith(str(path)) and expected in str(error.value)


def test_rows_are_counted_with_the_blank_lines(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text(line_of(CHOICE) + "\n\n" + line_of(CHOICE))
    with pytest.raises(InputError, match="row 4: question_id 'q1' stands in row 1"):
        read_questions(path)


def test_a_file_that_is_none(tmp_path):
    for name, content, expected in (
        ("a.jsonl", None, "is missing"),
        ("b.jsonl", b"", "not one question"),
        ("c.jsonl", b'{"text": "\xff"}', "line 1, byte 10 .* is not UTF-8"),
        ("d.jsonl.gz", gzip.compress(line_of(CHOICE).encode(), mtime=0)[:-9], "is not a whole gzip file"),
        ("e.jsonl.gz", b"text", "is not a whole gzip file"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}.*{expected}"):
            read_questions(tmp_path / name)


def test_a_fingerprint_is_of_all_that_a_question_holds():
    prints = {fingerprint(SET)}
    for field in ("client", "split", "context", "speciality", "language", "fact"):
        prints.add(fingerprint([dataclasses.replace(CHOICE, **{field: "other"}), *SET[1:]]))
    prints.add(fingerprint([dataclasses.replace(CHOICE, options={"A": "rest", "B": "tea"}), *SET[1:]]))
    prints.add(fingerprint(SET[::-1]))
    assert len(prints) == 9 and fingerprint(list(SET)) == fingerprint(SET)


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(TEXT, min_size=2, max_size=5, unique_by=lambda text: " ".join(text.casefold().split())), more=TEXT
)
def test_any_texts_survive_a_file(tmp_path_factory, texts, more):
    options = dict(zip("ABCDE", [f"{text}." for text in texts], strict=False))
    question = dataclasses.replace(CHOICE, text=f"Why {more}?", context=more, options=options, speciality=more)
    path = tmp_path_factory.mktemp("any") / "set.jsonl.gz"
    write_questions(path, [question])
    assert read_questions(path) == [question]


def test_the_layout_for_a_language_model():
    assert prompt_text(CHOICE) + answer_text(CHOICE) == ("Question: Which one helps?\nA) tea\nB) rest\nAnswer: B) rest")
    assert prompt_text(OPEN) + answer_text(OPEN) == "Context: Rest helps.\nQuestion: What helps?\nAnswer: rest"
    assert (CHOICE.answer_text, VERDICT.answer_text) == ("rest", "maybe")
