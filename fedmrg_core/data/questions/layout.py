"""How a question is laid out for a language model: the text before the answer, and the answer."""

from __future__ import annotations

from typing import Literal

from fedmrg_core.data.questions.question import Question

# listed: the options stand in the question, and the answer is one of them as it stands there; letter: the same, and the
# answer is its letter; cloze: the question has no options, and the answer is an option's text.
Layout = Literal["listed", "letter", "cloze"]


def prompt_text(question: Question, layout: Layout = "listed") -> str:
    """Context if there is one, question, options, and the word that asks for the answer; ends without a blank."""
    context = [f"Context: {question.context}"] if question.context else []
    options = [] if layout == "cloze" else [option_text(question, letter) for letter in question.options]
    return "\n".join([*context, f"Question: {question.text}", *options, "Answer:"])


def answer_text(question: Question, answer: str | None = None, layout: Layout = "listed") -> str:
    """What follows the prompt, with the blank before it, such as `` B) 20 mg``, `` B`` or `` 20 mg``.

    Args:
        question: whose.
        answer: a letter of a choice, or other words; the right one if None.
        layout: as of the prompt.
    """
    answer = question.answer if answer is None else answer
    if question.kind != "choice" or layout == "letter":
        return f" {answer}"
    return " " + (question.options[answer] if layout == "cloze" else option_text(question, answer))


def option_text(question: Question, letter: str) -> str:
    """One option as a line of the prompt."""
    return f"{letter}) {question.options[letter]}"
