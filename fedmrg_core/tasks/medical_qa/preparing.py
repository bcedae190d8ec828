"""Before a run: the questions of a data set with their splits, and the base model, each made once."""

from __future__ import annotations

import json
import pathlib

import pandas

from fedmrg_core.data.questions.pretraining import pretraining_corpus
from fedmrg_core.data.questions.question_files import fingerprint, write_questions
from fedmrg_core.data.questions.world import SIZES, WORLD_VERSION
from fedmrg_core.data.questions.world_questions import world_questions
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.runs.configuration import Profile, Questions
from fedmrg_core.tasks.medical_qa.base_model import pretrain, save_base_model, saved_description
from fedmrg_core.tasks.medical_qa.question_folders import PREPARED

WORLD_SEED = 0  # one world for all seeds of a run: they differ in training alone


def prepare_world(folder: pathlib.Path, numbers: Questions) -> dict[str, object]:
    """Write the embedded world's questions.

    Args:
        folder: becomes the prepared folder.
        numbers: of the profile; its world's size.

    Returns:
        What summary.json holds: counts by client and split, fingerprint.
    """
    questions = world_questions(SIZES[numbers.world], WORLD_SEED)
    write_questions(folder / PREPARED, questions)
    frame = pandas.DataFrame({"client": [q.client for q in questions], "split": [q.split for q in questions]})
    counts = frame.value_counts(["client", "split"]).unstack(fill_value=0)
    summary = {
        "data": "medical_world",
        "version": WORLD_VERSION,
        "synthetic": True,
        "fingerprint": fingerprint(questions),
        "questions": {client: {k: int(v) for k, v in row.items()} for client, row in counts.iterrows()},
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def prepare_base_model(folder: pathlib.Path, profile: Profile, progress: bool = True) -> dict[str, object]:
    """Pretrain the small LLM of the world unless the folder holds it.

    Args:
        folder: of the base models.
        profile: its sizes.
        progress: show a bar.

    Returns:
        Its description, with the training loss of the last steps.
    """
    sizes, numbers = profile.base_models, profile.questions or Questions()
    wanted = {"sizes": sizes.model_dump(mode="json"), "world": numbers.world, "version": WORLD_VERSION}
    there = saved_description(folder)
    if there is not None and {key: there.get(key) for key in wanted} == wanted:
        return there
    texts = pretraining_corpus(sizes.public_studies, WORLD_SEED, SIZES[numbers.world])
    llm, tokenizer, losses = pretrain(texts, sizes, WORLD_SEED, progress)
    description = {**wanted, "texts": len(texts), "loss": round(sum(losses[-50:]) / len(losses[-50:]), 4)}
    save_base_model(folder, llm, tokenizer, description)
    return description
