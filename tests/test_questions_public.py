"""Public sets in the layouts of their authors; every text here is made up for these tests."""

from __future__ import annotations

import gzip
import json

import pytest

from fedmrg_core.data.questions import public_layouts as layouts
from fedmrg_core.data.questions.clients import dealt_at_random, joined_clients
from fedmrg_core.data.questions.loading import load_medmcqa, load_medqa, load_medquad, load_pubmedqa
from fedmrg_core.data.questions.question import LoadedQuestions, Question, counts_of
from fedmrg_core.data.questions.question_files import fingerprint
from fedmrg_core.errors import InputError

MEDQUAD = {
    "source": "one",
    "focus": "Cold feet",
    "qtype": "causes",
    "question": "What causes  cold feet ?",
    "answer": "Snow.\nMostly.",
}
MEDMCQA = {
    "id": "m1",
    "question": "Which is round?",
    "opa": "ball",
    "opb": "cube",
    "opc": "rod",
    "opd": "cone",
    "cop": 1,
    "subject_name": "Shapes",
    "exp": None,
}
PUBMEDQA = {"QUESTION": "Is snow cold?", "CONTEXTS": ["It was felt.", "It was."], "final_decision": "yes"}
MEDQA = {
    "question": "What is round?",
    "answer": "ball",
    "options": {"A": "cube", "B": "ball", "C": "rod", "D": "cone"},
    "meta_info": "step1",
    "answer_idx": "B",
}


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def without(row, key):
    return {name: value for name, value in row.items() if name != key}


def test_medquad(tmp_path):
    path = lines(tmp_path / "q.jsonl", MEDQUAD, MEDQUAD | {"source": "two", "answer": None})
    loaded = layouts.read_medquad(path, "test")
    assert loaded.questions == [
        Question(
            *("medquad-test-000001", "one", "test", "open", "What causes cold feet ?", "Snow. Mostly."),
            fact="cold feet: causes",
        )
    ]
    (gone,) = loaded.left_out
    assert (gone.question_id, gone.item) == ("medquad-test-000002", "q.jsonl: row 2")
    assert gone.reason == "the answer is empty; give it or remove the row."
    assert layouts.read_medquad(path).questions[0].question_id == "medquad-000001"


def test_medmcqa(tmp_path):
    path = tmp_path / "q.json.gz"
    rows = [MEDMCQA, MEDMCQA | {"id": "m2", "cop": 4}, MEDMCQA | {"id": "m3", "opd": "Cube "}]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    loaded = layouts.read_medmcqa(path)
    first, second = loaded.questions
    assert (first.client, first.kind, first.answer_text, second.answer) == ("Shapes", "choice", "ball", "D")
    assert list(first.options) == list("ABCD") and first.speciality == "Shapes"
    assert loaded.left_out[0].reason.startswith("options B and D are equal ('Cube')")


def test_pubmedqa(tmp_path):
    path = tmp_path / "q.json"
    path.write_text(json.dumps({"12": PUBMEDQA, "13": PUBMEDQA | {"final_decision": "maybe"}}))
    first, second = layouts.read_pubmedqa(path).questions
    assert (first.question_id, first.kind, first.answer) == ("pubmed-12", "yes-no-maybe", "yes")
    assert first.context == "It was felt. It was." and second.answer == "maybe"


def test_medqa(tmp_path):
    lower = {"options": {"d": "e", "a": "b", "c": "d", "b": "c"}, "answer_idx": "a", "meta_info": "step2&3"}
    first, second = layouts.read_medqa(lines(tmp_path / "q.jsonl", MEDQA, MEDQA | lower), "train").questions
    assert (first.client, first.answer, first.answer_text, first.split) == ("step1", "B", "ball", "train")
    assert second.options == dict(zip("ABCD", "bcde", strict=True)) and second.client == "step2&3"


def test_a_question_without_options_is_left_out_and_listed(tmp_path):
    loaded = layouts.read_medqa(lines(tmp_path / "q.jsonl", MEDQA, MEDQA | {"options": {}}))
    assert len(loaded.questions) == 1 and loaded.left_out[0].item == "q.jsonl: row 2"
    assert loaded.left_out[0].reason == "a choice has 0 options; give at least 2, by the letters A, B, ..."


@pytest.mark.parametrize(
    ("read", "row", "expected"),
    [
        (layouts.read_medquad, without(MEDQUAD, "focus"), "focus is missing; expected a text"),
        (layouts.read_medquad, MEDQUAD | {"answer": 3}, "answer is 3; expected a text"),
        (layouts.read_medmcqa, MEDMCQA | {"cop": 0}, "cop is 0; expected 1, 2, 3 or 4"),
        (layouts.read_medmcqa, MEDMCQA | {"cop": True}, "cop is True; expected 1, 2, 3 or 4"),
        (layouts.read_medmcqa, without(MEDMCQA, "cop"), "cop is None; expected 1, 2, 3 or 4"),
        (layouts.read_medmcqa, without(MEDMCQA, "opc"), "opc is missing; expected a text"),
        (layouts.read_medqa, MEDQA | {"answer_idx": "E"}, "answer_idx is 'E'; expected one of A, B, C, D"),
        (layouts.read_medqa, MEDQA | {"options": ["a", "b"]}, "options is ['a', 'b']; expected an object of texts"),
        (layouts.read_medqa, MEDQA | {"options": {"A": "x", "a": "y"}}, "options 'A' and 'a' are one letter"),
        (layouts.read_medqa, without(MEDQA, "meta_info"), "meta_info is missing"),
    ],
)
def test_a_row_that_breaks_the_layout_is_told_with_file_and_row(tmp_path, read, row, expected):
    good = {layouts.read_medquad: MEDQUAD, layouts.read_medmcqa: MEDMCQA, layouts.read_medqa: MEDQA}[read]
    with pytest.raises(InputError) as error:
        read(lines(tmp_path / "q.jsonl", good, row))
    assert str(error.value).startswith(f"{tmp_path / 'q.jsonl'}: row 2: {expected}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[]", "is no JSON object; expected one of articles by their id"),
        ("{", "is no JSON"),
        ("{}", "not one usable question; expected one a row"),
        ('{"1": 2}', "row 1, article '1' is no JSON object"),
        ('{"1": {}, "1": {}}', "the key '1' occurs twice"),
        (json.dumps({"1": PUBMEDQA | {"final_decision": "Yes"}}), "row 1: final_decision is 'Yes'; expected one of"),
        (json.dumps({"1": PUBMEDQA | {"CONTEXTS": "text"}}), "row 1: CONTEXTS is 'text'; expected a list of texts"),
        (json.dumps({"1": without(PUBMEDQA, "QUESTION")}), "row 1: QUESTION is missing; expected a text"),
    ],
)
def test_articles_that_break_the_layout(tmp_path, content, expected):
    path = tmp_path / "q.json"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        layouts.read_pubmedqa(path)
    assert str(error.value).startswith(str(path)) and expected in str(error.value)


def test_an_id_that_stands_twice_and_a_file_without_a_usable_row(tmp_path):
    with pytest.raises(InputError, match="row 2: question_id 'm1' stands in row 1 already"):
        layouts.read_medmcqa(lines(tmp_path / "q.jsonl", MEDMCQA, MEDMCQA))
    with pytest.raises(InputError, match="not one usable question .row 1: text has no word"):
        layouts.read_medmcqa(lines(tmp_path / "q.jsonl", MEDMCQA | {"question": "?"}))


# ---- clients ----


def held(**counts):
    rows = [(client, number) for client, count in counts.items() for number in range(count)]
    return [Question(f"{client}-{number}", client, "", "open", f"{client} {number}?", "yes") for client, number in rows]


def test_small_clients_are_joined_and_named_in_a_note():
    loaded = joined_clients(LoadedQuestions(held(large=9, small=3, tiny=2)), 5, "others")
    assert {client: sum(count.values()) for client, count in counts_of(loaded.questions).items()} == {
        "large": 9,
        "others": 5,
    }
    assert loaded.notes == ["Clients with fewer than 5 questions are joined as 'others': small (3), tiny (2)."]


def test_small_clients_that_stay_small_are_left_out_and_listed():
    loaded = joined_clients(LoadedQuestions(held(large=9, small=3)), 5, "others")
    assert len(loaded.questions) == 9 and [gone.question_id for gone in loaded.left_out] == [
        "small-0",
        "small-1",
        "small-2",
    ]
    assert loaded.notes == ["Clients with fewer than 5 questions, and together as well, are left out: small (3)."]
    same = LoadedQuestions(held(large=9))
    assert joined_clients(same, 5, "others") is same
    with pytest.raises(InputError, match=r"no client has 50 questions: large \(9\)"):
        joined_clients(same, 50, "others")


def test_questions_are_dealt_evenly_and_the_same_again():
    questions = held(all_of_them=10)
    dealt = dealt_at_random(questions, 3, 0)
    assert sorted(sum(count.values()) for count in counts_of(dealt).values()) == [3, 3, 4]
    assert dealt == dealt_at_random(questions, 3, 0) != dealt_at_random(questions, 3, 1)
    with pytest.raises(InputError, match="clients is 11; expected 1 to 10"):
        dealt_at_random(questions, 11, 0)


# ---- whole sets ----

WORDS = "amber bronze copper denim ebony flint garnet hazel indigo jasper kelp lemon".split()


def test_a_set_of_one_file_is_read_dealt_and_split(tmp_path):
    rows = [
        MEDQUAD | {"source": f"s{number % 2}", "focus": word, "question": f"Why is {word} so {other}like?"}
        for number, word in enumerate(WORDS)
        for other in WORDS[:4]
    ]
    lines(tmp_path / "medquad.jsonl", *rows)
    loaded = load_medquad(tmp_path, 0, smallest=10)
    assert {client: sum(count.values()) for client, count in counts_of(loaded.questions).items()} == {
        "s0": 24,
        "s1": 24,
    }
    assert all(len(count) == 3 for count in counts_of(loaded.questions).values())
    assert fingerprint(loaded.questions) == fingerprint(load_medquad(tmp_path, 0, smallest=10).questions)
    assert loaded.notes[0].startswith("MedQuAD: 48 questions, 0 of them near-equal")
    articles = {str(number): PUBMEDQA | {"QUESTION": row["question"]} for number, row in enumerate(rows)}
    (tmp_path / "ori_pqal.json.gz").write_bytes(gzip.compress(json.dumps(articles).encode()))
    assert list(counts_of(load_pubmedqa(tmp_path, 0, clients=3).questions)) == ["part-1", "part-2", "part-3"]


def test_a_set_of_several_files_keeps_its_parts(tmp_path):
    for part, words in {"train": WORDS[:9], "dev": WORDS[9:]}.items():
        lines(
            tmp_path / f"{part}.json",
            *(MEDMCQA | {"id": word, "question": f"Where is {word}?", "opa": word} for word in words),
        )
    loaded = load_medmcqa(tmp_path, 0, smallest=1)
    assert counts_of(loaded.questions) == {"Shapes": {"train": 8, "validation": 1, "test": 3}}
    assert {question.question_id for question in loaded.questions if question.split == "test"} == set(WORDS[9:])
    for part, word in {"train": "amber", "dev": "bronze", "test": "flint"}.items():
        lines(tmp_path / f"phrases_no_exclude_{part}.jsonl", MEDQA | {"question": f"Where is {word}?"})
    assert counts_of(load_medqa(tmp_path, 0, smallest=1).questions) == {
        "step1": {"train": 1, "validation": 1, "test": 1}
    }


def test_medquad_in_parts_has_ids_with_their_part_and_an_id_in_two_files_is_told(tmp_path):
    for part, words in {"train": WORDS[:9], "test": WORDS[9:]}.items():
        lines(tmp_path / f"{part}.jsonl", *(MEDQUAD | {"question": f"Where is {word}?"} for word in words))
    loaded = load_medquad(tmp_path, 0, {"train": "train.jsonl", "test": "test.jsonl"}, smallest=1)
    assert {"medquad-train-000001", "medquad-test-000001"} <= {question.question_id for question in loaded.questions}
    for part in ("train", "dev"):
        lines(tmp_path / f"{part}.json", MEDMCQA)
    with pytest.raises(InputError, match=r"dev\.json: question_id 'm1' stands in train\.json already; take the"):
        load_medmcqa(tmp_path, 0, smallest=1)


def test_files_and_parts_that_do_not_go_together(tmp_path):
    with pytest.raises(InputError, match="files has the parts train; expected all alone, or train and test"):
        load_medquad(tmp_path, 0, {"train": "a.jsonl"})
    with pytest.raises(InputError, match="medquad.jsonl is missing; give the file of questions"):
        load_medquad(tmp_path, 0)
    with pytest.raises(InputError, match="is not a folder; expected the one that holds medquad.jsonl"):
        load_medquad(tmp_path / "none", 0)
