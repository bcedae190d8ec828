"""Answers without a model, and how open answers are scored."""

from __future__ import annotations

import math

import pytest
import torch
import transformers
from small_questions import WORLD

from fedmrg_core.adapters import AdaptedLLM
from fedmrg_core.data.questions.pretraining import pretraining_corpus
from fedmrg_core.data.questions.question import Question
from fedmrg_core.tasks.medical_qa.answering import PROBABILITY, answers_to
from fedmrg_core.tasks.medical_qa.floors import CHANCE, LETTER, LONGEST, NEAREST, floor_answers
from fedmrg_core.tasks.medical_qa.readings import Reader
from fedmrg_core.training.adapter_names import BASE, GENERIC
from fedmrg_core.training.small_llm import byte_level_tokenizer


def choice(number: int, answer: str, options: tuple[str, ...] = ("tea", "long walks", "rest")) -> Question:
    texts = dict(zip("ABC", options, strict=False))
    return Question(f"c{number}", "north", "test", "choice", f"What helps {number}?", answer, options=texts)


def opened(number: int, text: str, answer: str) -> Question:
    return Question(f"o{number}", "north", "test", "open", text, answer)


def verdict(number: int, answer: str) -> Question:
    return Question(f"v{number}", "north", "test", "yes-no-maybe", f"Does it help {number}?", answer)


def test_floors_are_right_as_often_as_they_say():
    trained = [
        choice(1, "C"),
        choice(2, "C"),
        choice(3, "A"),
        verdict(4, "no"),
        opened(5, "Why do feet hurt?", "Snow."),
    ]
    trained += [opened(6, "Who brings the tea?", "Nobody does.")]
    asked = [
        choice(7, "C"),
        choice(8, "B", ("rest", "long walks")),
        verdict(9, "no"),
        opened(10, "Why do my feet hurt?", "Snow does."),
    ]
    found = {name: table.set_index("study_id") for name, table in floor_answers(asked, trained, str)}
    assert list(found) == [CHANCE, LETTER, LONGEST, NEAREST]
    assert found[CHANCE]["accuracy_sum"].tolist() == [1 / 3, 1 / 2, 1 / 3]
    assert found[LETTER]["accuracy_per_character"].to_dict() == {"c7": 1.0, "c8": 0.0, "v9": 1.0}
    assert found[LONGEST]["accuracy_per_token"].to_dict() == {"c7": 0.0, "c8": 1.0}
    assert found[NEAREST].loc["o10", "written"] == "Snow."
    assert found[NEAREST].loc["o10", "token_f1"] == pytest.approx(2 / 3) and math.isnan(
        found[NEAREST].loc["o10", PROBABILITY]
    )


def test_a_floor_that_is_for_no_question_is_not_there():
    assert [name for name, _ in floor_answers([verdict(1, "yes")], [verdict(2, "no")], str)] == [CHANCE, LETTER]
    assert [name for name, _ in floor_answers([opened(1, "Why?", "So.")], [opened(2, "Why?", "So.")], str)] == [NEAREST]
    assert [name for name, _ in floor_answers([opened(1, "Why?", "So.")], [verdict(2, "no")], str)] == []


def test_a_copied_answer_is_cut_as_a_model_s_is():
    tokenizer = byte_level_tokenizer(pretraining_corpus(40, 0, WORLD), 400)
    reader, long = Reader(tokenizer, "cloze"), "The daily dose of it is 20 mg. " * 4
    ((_, table),) = floor_answers(
        [opened(1, "Why?", "So.")], [opened(2, "Why?", long)], lambda text: reader.cut(text, 5)
    )
    written = table.loc[0, "written"]
    assert written and long.startswith(written) and reader.answer(f" {written}") == reader.answer(f" {long}")[:5]
    assert reader.cut("20 mg", 5) == "20 mg"


def test_a_long_option_leaves_the_question_and_short_ones_stay_whole():
    tokenizer = byte_level_tokenizer(pretraining_corpus(40, 0, WORLD), 400)
    reader = Reader(tokenizer, "cloze", longest=24)
    asked = Question("q", "north", "test", "choice", "Why?", "A", options={"A": "tea " * 40, "B": "rest"})
    long, short = reader.options(asked).values()
    assert long.question == short.question == reader.question(asked)
    assert len(long.answer) == 12 and long.answer == reader.right(asked).answer
    assert tokenizer.decode(short.answer) == " rest"


def test_an_open_answer_has_the_probability_of_its_first_tokens():
    tokenizer = byte_level_tokenizer(pretraining_corpus(40, 0, WORLD), 400)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    llm = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=len(tokenizer), **sizes)).eval()
    reader, question = Reader(tokenizer, "cloze", longest=24), opened(1, "Why?", "The daily dose of it is 20 mg. " * 4)
    model = torch.nn.Module()
    model.llm, model.tokenizer = AdaptedLLM(llm, [GENERIC], 4, 4, ["q_proj"]), tokenizer
    table = answers_to(model, reader, [question], BASE, 8, 0)
    reading = reader.right(question, ended=False)
    assert len(reading.answer) == 12 and table.loc[0, "written"] == "" and math.isnan(table.loc[0, "rouge_l"])
    ids = torch.tensor([[*reading.question, *reading.answer]])
    loss = torch.nn.functional.cross_entropy(
        llm(input_ids=ids).logits[0, len(reading.question) - 1 : -1], torch.tensor(reading.answer)
    )
    assert table.loc[0, PROBABILITY] == pytest.approx(math.exp(-loss.item()), rel=1e-4)
    assert answers_to(model, reader, [question], BASE, 8, 3).loc[0, PROBABILITY] == table.loc[0, PROBABILITY]
