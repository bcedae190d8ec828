"""How a question is laid out for a language model: the text before the answer, and the answer."""

from __future__ import annotations

from fedmrg_core.data.questions.question import Question


def prompt_text(question: Question) -> str:
    """Context if there is one, question, options, and the word that asks for the answer; ends without a blank."""
    context = [f"Context: {question.context}"] if question.context else []
    options = [option_text(question, letter) for letter in question.options]
    return "\n".join([*context, f"Question: {question.text}", *options, "Answer:"])


def answer_text(question: Question) -> str:
    """What follows the prompt, with the blank before it: the whole option of a choice, such as `` B) 20 mg``."""
    return " " + (option_text(question, question.answer) if question.kind == "choice" else question.answer)


def option_text(question: Question, letter: str) -> str:
    """One option as a line of the prompt."""
    return f"{letter}) {question.options[letter]}"
