"""The synthetic world: what tests ask was not shown so in training, and wording alone tells nothing."""

from __future__ import annotations

import collections
import dataclasses
import math
import re

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from fedmrg_core.data.questions.names import ENDINGS, SIGN_NOUNS
from fedmrg_core.data.questions.pretraining import pretraining_corpus
from fedmrg_core.data.questions.question import SPLITS, counts_of
from fedmrg_core.data.questions.question_files import fingerprint
from fedmrg_core.data.questions.wording import ASKED, REGISTERS, RELATIONS, STATED
from fedmrg_core.data.questions.world import SMOKE, WorldSettings, check_settings, draw_names, draw_world
from fedmrg_core.data.questions.world_questions import load_world, world_questions
from fedmrg_core.errors import InputError

STANDARD = WorldSettings()


@pytest.fixture(scope="module")
def questions():
    return world_questions(STANDARD, 0)


def by_fact(questions, *splits):
    found = collections.defaultdict(list)
    for question in questions:
        if question.split in splits:
            found[question.fact].append(question)
    return found


def within_chance(right: int, count: int, chance: float) -> bool:
    return abs(right - count * chance) <= 3 * math.sqrt(count * chance * (1 - chance))


# ---- what is in it ----


def test_every_client_has_every_part_and_every_fact_is_asked_and_stated(questions):
    counts = counts_of(questions)
    assert len(counts) == STANDARD.hospitals and all(set(SPLITS) == set(count) for count in counts.values())
    trained = by_fact(questions, "train")
    assert len(trained) == STANDARD.facts == 480
    for asked in trained.values():
        own = [question for question in asked if question.client == asked[0].client]
        assert len({question.text for question in own}) == len(own) >= STANDARD.train_choice + STANDARD.train_statements
        assert {question.language for question in own} == set(REGISTERS)
    assert {question.kind for question in questions if question.split == "test"} == {"choice", "yes-no-maybe", "open"}


def test_a_fact_has_one_truth(questions):
    truths = collections.defaultdict(set)
    for question in questions:
        truths[question.fact].add(question.answer_text)
    assert all(len(found) == 1 for found in truths.values())
    world = draw_world(STANDARD, 0)
    assert {fact.fact_id: {fact.answer} for pool in world.pools for fact in pool} == truths


def test_who_holds_a_fact_is_who_trains_on_it(questions):
    trained = by_fact(questions, "train")
    for question in questions:
        assert set(question.held_by) == {other.client for other in trained[question.fact]}
    for client in counts_of(questions):
        tests = [question for question in questions if (question.client, question.split) == (client, "test")]
        own = sum(client in question.held_by for question in tests)
        facts = {question.fact for question in questions if client in question.held_by}
        assert len(tests) - own == round(STANDARD.foreign_share * len(facts)) and own > len(tests) - own
    assert {len(question.held_by) for question in questions} == {1, 2}


def test_a_test_question_has_words_and_options_that_training_did_not_show(questions):
    trained, validated, tested = (by_fact(questions, split) for split in SPLITS)
    for fact, asked in tested.items():
        before = [*trained[fact], *validated[fact]]
        assert not {question.text for question in asked} & {question.text for question in before}
        shown = {frozenset(question.options.values()) for question in before if question.options}
        assert not shown & {frozenset(question.options.values()) for question in asked if question.options}
        assert not {question.text for question in validated[fact]} & {question.text for question in trained[fact]}


def test_names_tell_nothing_of_each_other():
    names, _ = draw_names(STANDARD, 0)
    every = [name for field in dataclasses.fields(names) for name in getattr(names, field.name)]
    ends = "|".join(end for kind in ENDINGS.values() for end in kind)
    stems = [re.sub(rf"({ends})$", "", name.split()[0]) for name in every]
    assert len(set(every)) == len(every)
    assert len(set(stems)) >= len(stems) - 2  # an ending may be a longer one's end


def test_the_same_seed_gives_the_same_questions():
    first = world_questions(SMOKE, 0)
    assert fingerprint(first) == fingerprint(load_world(0, "smoke").questions) != fingerprint(world_questions(SMOKE, 1))
    # Other bytes need another WORLD_VERSION.
    assert fingerprint(first)[:16] == "9c019154cde796e6"


def test_templates_come_in_equal_numbers():
    for relation in RELATIONS:
        for templates, count in ((relation.ask, ASKED), (relation.state, STATED)):
            texts = [text for register in REGISTERS for text in templates[register]]
            assert len(set(texts)) == count and {len(templates[register]) for register in REGISTERS} == {count // 2}
            assert all("{subject}" in text and ("{other}" in text) == (relation.answer == "verdict") for text in texts)


# ---- wording alone tells nothing ----


def test_letters_are_balanced(questions):
    letters = collections.defaultdict(collections.Counter)
    for question in questions:
        if question.kind == "choice":
            assert list(question.options) == list("ABCD")
            letters[question.client, question.split][question.answer] += 1
    assert all(max(count.values()) - min(count.values()) <= 1 and len(count) == 4 for count in letters.values())


def test_every_option_is_right_in_a_quarter_of_its_showings(questions):
    """Neither in training nor in the tests on own facts does an option's name tell whether it is right."""
    shown, right = collections.Counter(), collections.Counter()
    for question in questions:
        if question.kind == "choice" and question.client in question.held_by:
            place = question.client, question.split, question.fact.split(":")[0]
            shown.update((*place, text) for text in question.options.values())
            right[(*place, question.answer_text)] += 1
    assert shown and all(4 * right[key] == count for key, count in shown.items())


@pytest.mark.parametrize("grams", [{"analyzer": "word"}, {"analyzer": "char_wb", "ngram_range": (2, 4)}])
@pytest.mark.parametrize("strangers", [True, False])
def test_a_bag_of_words_is_at_chance(questions, grams, strangers):
    """A classifier of question and option learns nothing, for facts of other hospitals nor for those it was shown."""
    choices = [question for question in questions if question.kind == "choice"]
    near, far = {"hospital-1", "hospital-2"}, {"hospital-4", "hospital-5"}
    learnt = [question for question in choices if question.split == "train" and set(question.held_by) <= near]
    homes = far if strangers else near
    asked = [question for question in choices if question.split == "test" and set(question.held_by) <= homes]
    texts = [f"{question.text} {text}" for question in learnt for text in question.options.values()]
    truth = [letter == question.answer for question in learnt for letter in question.options]
    vectors = CountVectorizer(**grams)
    model = MultinomialNB().fit(vectors.fit_transform(texts), truth)
    rows = vectors.transform([f"{question.text} {text}" for question in asked for text in question.options.values()])
    scores = model.predict_log_proba(rows)
    best = (scores[:, 1] - scores[:, 0]).round(6).reshape(len(asked), 4).argmax(axis=1)
    right = sum("ABCD"[place] == question.answer for place, question in zip(best, asked, strict=True))
    assert len(asked) > 300 and within_chance(right, len(asked), 0.25), right / len(asked)


def test_the_option_most_like_the_question_is_right_by_chance(questions):
    choices = {question.fact: question for question in questions if question.kind == "choice"}.values()

    def likeness(text, option):
        grams = [{part[i : i + 2] for i in range(len(part) - 1)} for part in (text, option)]
        return len(grams[0] & grams[1]) / len(grams[1])

    right = sum(
        max(question.options, key=lambda letter, q=question: likeness(q.text, q.options[letter])) == question.answer
        for question in choices
    )
    assert within_chance(right, len(choices), 0.25)


def test_yes_no_and_maybe_are_balanced_and_words_do_not_tell_them(questions):
    verdicts = [question for question in questions if question.kind == "yes-no-maybe"]
    truths = {question.fact: question.answer for question in verdicts}
    counts = collections.Counter(truths.values())
    assert len(counts) == 3 and all(within_chance(count, len(truths), 1 / 3) for count in counts.values())
    seen = set(sorted(truths)[::2])
    vectors = CountVectorizer()
    learnt = [question for question in verdicts if question.fact in seen]
    model = MultinomialNB().fit(
        vectors.fit_transform(question.text for question in learnt), [question.answer for question in learnt]
    )
    asked = list({question.fact: question for question in verdicts if question.fact not in seen}.values())
    guesses = model.predict(vectors.transform(question.text for question in asked))
    right = sum(guess == question.answer for guess, question in zip(guesses, asked, strict=True))
    assert within_chance(right, len(asked), 1 / 3)


# ---- settings ----


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hospitals": 1}, "hospitals is 1; expected at least 2"),
        ({"test": 0}, "test is 0; expected at least 1"),
        ({"foreign_share": 1.5}, "foreign_share is 1.5; expected 0 to 1"),
        ({"train_choice": 7}, "sum up to 11; a fact can be asked in 10 ways"),
        ({"train_statements": 5}, "train_statements is 5; a fact has 4 statements"),
        ({"shared_conditions": 9}, "shared_conditions is 9 of 8"),
        ({"shared_conditions": 1}, "a hospital has 2 shared conditions; expected none, or 5 to 199"),
        ({"shared_conditions": 7}, "a hospital has 2 unshared conditions"),
        ({"conditions_per_speciality": 200}, "a hospital has 394 unshared conditions"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, expected):
    with pytest.raises(InputError, match=expected):
        check_settings(dataclasses.replace(STANDARD, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"hospitals": 2, "shared_conditions": 8},
        {"shared_conditions": 0, "specialities_per_hospital": 1, "conditions_per_speciality": 5},
        {"test": 3, "train_choice": 5, "train_statements": 0, "foreign_share": 0, "test_open_share": 0},
    ],
)
def test_other_sizes_are_worlds_too(changes):
    sizes = dataclasses.replace(STANDARD, **changes)
    questions = world_questions(sizes, 3)
    assert len(by_fact(questions, "train")) == sizes.facts
    test_a_test_question_has_words_and_options_that_training_did_not_show(questions)
    test_every_option_is_right_in_a_quarter_of_its_showings(questions)


def test_a_size_that_is_none():
    with pytest.raises(InputError, match="size is 'huge'; expected one of smoke, standard"):
        load_world(0, "huge")


# ---- the corpus for pretraining ----


@pytest.fixture(scope="module")
def corpus():
    return pretraining_corpus(3000, 0, SMOKE)


def test_the_corpus_is_the_same_again_and_longer_ones_begin_with_it(corpus):
    assert pretraining_corpus(20, 0, SMOKE) == corpus[:20] != pretraining_corpus(20, 1, SMOKE)
    with pytest.raises(InputError, match="count is 0; expected at least 1"):
        pretraining_corpus(0, 0, SMOKE)


def test_the_corpus_has_the_layouts_and_the_names_of_the_world(corpus):
    joined = "\n".join(corpus)
    names, _ = draw_names(SMOKE, 0)
    for name in (*names.conditions, *names.drugs, *names.leading_signs, *names.late_signs):
        assert name in joined
    for form in ("\nA) ", "\nD) ", "\nAnswer: C) ", "Context: ", "\nAnswer: maybe"):
        assert form in joined


def test_an_answer_with_a_context_stands_in_it(corpus):
    answered = [text for text in corpus if text.startswith("Context: ")]
    assert 0.5 < len(answered) / len(corpus) < 0.8
    for text in answered:
        answer = re.sub(r"^[A-D]\) ", "", text.rpartition("Answer: ")[2])
        assert f" {answer}." in text.partition("\n")[0]


def test_the_corpus_states_facts_of_the_world_as_often_as_their_opposite(corpus):
    """Counted for the true pairs and for all other pairings of the same names: no more than chance."""
    sentences = [
        sentence
        for text in corpus
        for sentence in re.split(r"\.\s", text.partition("\nQuestion: ")[0].removeprefix("Context: ") + " ")
        if not text.startswith("Question: ")
    ]
    stated = collections.Counter()
    for sentence in sentences:
        found = re.findall(rf"\w+(?: (?:{'|'.join(SIGN_NOUNS)}))?", sentence)
        stated.update((one, found[-1]) for one in found[:-1])
    pools = [
        pool for pool in draw_world(SMOKE, 0).pools if RELATIONS[pool[0].relation].answer not in ("dose", "verdict")
    ]
    true = sum(stated[fact.subject, fact.answer] for pool in pools for fact in pool)
    pairs = [stated[one.subject, other.answer] for pool in pools for one in pool for other in pool if one != other]
    expected = sum(pairs) / len(pairs) * sum(map(len, pools))
    assert expected > 15 and abs(true - expected) < 3 * math.sqrt(expected)
