"""Near-equal questions, and parts that share none."""

from __future__ import annotations

import collections
import dataclasses
import itertools

import numpy
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from fedmrg_core.data.questions import duplicates
from fedmrg_core.data.questions.duplicates import near_equal_groups, near_equal_pairs, normalised
from fedmrg_core.data.questions.question import Question
from fedmrg_core.data.questions.question_files import fingerprint
from fedmrg_core.data.questions.splitting import split_questions
from fedmrg_core.errors import InputError

SYLLABLES = "ka lo mi ne pu ra so ti vu ze".split()


def asked(text, options=(), client="north", split="", number=0):
    letters = dict(zip("ABCD", options, strict=False))
    kind, answer = ("choice", "A") if options else ("open", "yes")
    return Question(f"{client}-{number}", client, split, kind, text, answer, options=letters)


def many(count, client="north", seed=0, split=""):
    """Unlike questions of invented words."""
    rng = numpy.random.default_rng([seed, *client.encode()])
    texts = [" ".join("".join(rng.choice(SYLLABLES, 4)) for _ in range(5)) for _ in range(count)]
    return [asked(f"{text}?", client=client, split=split, number=number) for number, text in enumerate(texts)]


# ---- near-equal ----


def test_case_blanks_punctuation_and_the_order_of_options_make_no_difference():
    first = asked("What  helps, mostly?", ["Tea.", "rest"])
    second = asked("what helps mostly", ["REST", "tea"])
    assert normalised(first) == normalised(second) == "what helps mostly | rest | tea"
    assert normalised(asked("1.5 mg or 15 mg?")) != normalised(asked("15 mg or 15 mg?"))
    assert normalised(asked("a", ["b"])) != normalised(asked("a b"))


MANY_PEOPLE = "How many people are affected by tarvosis type"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (asked("Which one is the capital sign of tarvosis?"), asked("which one is a capital sign of tarvosis"), True),
        (asked("What causes tarvosis?"), asked("What causes merlitis?"), False),
        (asked("What is tarvosis melorantica?"), asked("Is tarvosis melorantica inherited?"), False),
        (asked(f"{MANY_PEOPLE} 2?"), asked(f"{MANY_PEOPLE} 3?"), False),
        (asked(f"{MANY_PEOPLE} II?"), asked(f"{MANY_PEOPLE} III?"), False),
        (asked("What helps?", ["tea", "rest"]), asked("What helps?", ["rest", "tea"]), True),
        (asked("What helps?", ["tea", "rest"]), asked("What helps", ["tea", "snow", "rain"]), True),
        (asked("What helps?", ["tea", "rest"]), asked("Who helps tarvosis?", ["tea", "rest"]), False),
    ],
)
def test_what_is_near_equal(first, second, same):
    groups = near_equal_groups([first, *many(30), second])
    assert (groups[0] == groups[-1]) == same and len(set(groups.tolist())) == 31 + (not same)


def test_a_general_stem_counts_with_its_right_answer():
    """ "A" is right in each; in the last two the first option is the same, so they are one question."""
    words = ["".join(syllables) for syllables in itertools.product(SYLLABLES[:4], SYLLABLES[:4], SYLLABLES[4:])]
    general = [asked("Which is true?", words[4 * n : 4 * n + 4]) for n in range(duplicates.GENERAL)]
    few = near_equal_groups(general)
    same = [asked("Which is true?", ["tarvosis", *words[60 + 3 * n : 63 + 3 * n]]) for n in range(2)]
    groups = near_equal_groups([*general, *same])
    assert set(few.tolist()) == {0}
    assert groups.tolist() == [*range(duplicates.GENERAL), duplicates.GENERAL, duplicates.GENERAL]


def test_groups_reach_over_clients_and_by_way_of_others():
    words = "kalomine purasoti vuzekalo nepurami tisovuze ramineka lopusora zevutiso"
    more = ["brigthwumf", "glanxdorf", "skyrpdwelch"]
    chain = [" ".join([words, *more[:count]]) for count in range(4)]
    questions = [asked(text, client=f"c{number}") for number, text in enumerate(chain)] + many(5)
    ends = near_equal_groups([questions[0], questions[3], *many(5)], 0.85)
    groups = near_equal_groups(questions, 0.85)
    assert ends[0] != ends[1] and groups[:4].tolist() == [0, 0, 0, 0] and groups[4:].tolist() == [1, 2, 3, 4, 5]


def test_a_threshold_out_of_range():
    for threshold in (0, 1.1, float("nan")):
        with pytest.raises(InputError, match="expected more than 0 and at most 1"):
            near_equal_groups(many(3), threshold)
    assert near_equal_groups([], 0.9).tolist() == [] and near_equal_groups(many(1), 0.9).tolist() == [0]
    assert near_equal_groups([asked("a"), asked("A"), asked("a b")], 1).tolist() == [0, 0, 1]


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9])
def test_pairs_are_those_of_all_comparisons(monkeypatch, threshold):
    """In blocks and with an upper bound, the same pairs come out as when everything is compared with everything."""
    monkeypatch.setattr(duplicates, "_CELLS", 600)
    monkeypatch.setattr(duplicates, "_CHECKED", 5)
    monkeypatch.setattr(duplicates, "_FREQUENT", 0.1)
    rng = numpy.random.default_rng(0)
    texts = ["what is " + " ".join(rng.choice(["kalo", "mine", "pura", "soti"], 3)) for _ in range(60)]
    texts = list(dict.fromkeys([*texts, *(normalised(question) for question in many(20)), "what is", "what is what"]))
    vectors = [
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), use_idf=weights).fit_transform(texts)
        for weights in (True, False)
    ]
    cosine = numpy.minimum(*((one @ one.T).toarray() for one in vectors))
    expected = {(i, j) for i, j in zip(*numpy.nonzero(cosine >= threshold - 1e-6), strict=True) if i < j}
    found = list(near_equal_pairs(texts, threshold))
    assert expected and set(found) == expected and len(found) == len(expected)


# ---- parts ----


def test_parts_are_drawn_by_shares_and_the_same_again():
    questions = many(100) + many(50, "south")
    split = split_questions(questions, 0, "set")
    assert [(row.client, row.split, row.kept) for row in split.parts] == [
        *(("north", "train", 70), ("north", "validation", 10), ("north", "test", 20)),
        *(("south", "train", 35), ("south", "validation", 5), ("south", "test", 10)),
    ]
    assert fingerprint(split.questions) == fingerprint(split_questions(questions, 0, "set").questions)
    assert fingerprint(split.questions) != fingerprint(split_questions(questions, 1, "set").questions)
    # A client's draw does not depend on who else is there.
    assert split.questions[:100] == split_questions(questions[:100], 0, "set").questions


@settings(max_examples=10, deadline=None)
@given(copies=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=12), seed=st.integers(0, 99))
def test_no_group_stands_in_two_parts(copies, seed):
    questions = many(20) + many(20, "south")
    for here, there in copies:
        questions[20 + there] = dataclasses.replace(questions[20 + there], text=questions[here].text.upper())
    try:
        split = split_questions(questions, seed, "set")
    except InputError as refused:
        assert "question, as near-equal ones do not" in str(refused)
        reject()  # a small client lost a whole part to near-equal questions; its own test is below
    parts = collections.defaultdict(set)
    for group, question in zip(near_equal_groups(questions), split.questions, strict=True):
        parts[group].add(question.split)
    assert all(len(found) == 1 for found in parts.values())
    assert sum(row.kept + row.moved for row in split.parts) == len(questions)
    assert [question.question_id for question in split.questions] == [question.question_id for question in questions]


def test_given_parts_are_cleaned_and_the_test_part_stays():
    train, validation, test = (
        many(20, seed=seed, split=split) for seed, split in enumerate(("train", "validation", "test"))
    )
    train[3] = dataclasses.replace(train[3], text=test[0].text)
    train[4] = dataclasses.replace(train[4], text=f"{validation[5].text}!")
    validation[6] = dataclasses.replace(validation[6], text=test[1].text.upper())
    train[7] = dataclasses.replace(train[7], text=train[8].text)  # within a part it may stand twice
    questions = [
        dataclasses.replace(question, question_id=f"q{number}")
        for number, question in enumerate([*train, *validation, *test])
    ]
    split = split_questions(questions, 0, "set")
    assert [(gone.question_id, gone.reason) for gone in split.left_out] == [
        ("q3", "it is near-equal to 'q40' of the test part; each stands in one part only."),
        ("q4", "it is near-equal to 'q25' of the validation part; each stands in one part only."),
        ("q26", "it is near-equal to 'q41' of the test part; each stands in one part only."),
    ]
    assert split.questions == [question for question in questions if question.question_id not in {"q3", "q4", "q26"}]
    assert [dataclasses.astuple(row)[1:] for row in split.parts] == [
        ("train", 18, 0, 2),
        ("validation", 19, 0, 1),
        ("test", 20, 0, 0),
    ]
    assert "4 of them near-equal to an earlier one; 0 were moved to be with those, 3 left out" in split.notes[0]


def test_a_validation_part_is_drawn_from_training_where_none_is_given():
    questions = many(40, split="train") + many(10, "north ", seed=1, split="test")
    questions = [dataclasses.replace(q, client="north", question_id=f"q{n}") for n, q in enumerate(questions)]
    split = split_questions(questions, 0, "set")
    assert collections.Counter(question.split for question in split.questions) == {
        "train": 35,
        "validation": 5,
        "test": 10,
    }
    assert all(question.split == "test" for question in split.questions[40:])


def test_clients_that_cannot_be_split_are_refused():
    with pytest.raises(InputError, match="set: client 'north' has 9 questions, too few for three parts; join it"):
        split_questions(many(9), 0, "set")
    same = [dataclasses.replace(question, text="Always the same?") for question in many(20)]
    with pytest.raises(InputError, match="set: client 'north' has no .* question, as near-equal ones do not stand in"):
        split_questions(same, 0, "set")
    with pytest.raises(InputError, match="set: row 1 has no split but others have"):
        split_questions([*many(10), *many(10, "south", split="test")], 0, "set")
