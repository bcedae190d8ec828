"""A very small world of questions and an untrained LLM 32 wide: a whole federation of answers in seconds."""

from __future__ import annotations

import pathlib

from fedmrg_core.data.questions.pretraining import pretraining_corpus
from fedmrg_core.data.questions.question_files import write_questions
from fedmrg_core.data.questions.world import WorldSettings
from fedmrg_core.data.questions.world_questions import world_questions
from fedmrg_core.federation.run import configure_run
from fedmrg_core.runs.configuration import Profile, Questions
from fedmrg_core.runs.methods import load_method
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.tasks.medical_qa.base_model import save_base_model
from fedmrg_core.tasks.medical_qa.question_folders import PREPARED
from fedmrg_core.training.small_llm import byte_level_tokenizer, new_llm

WORLD = WorldSettings(
    hospitals=3, specialities_per_hospital=1, conditions_per_speciality=5, shared_conditions=0, train_choice=1,
    train_open=0, train_statements=1, test=1,
)  # fmt: skip
PROFILE = Profile.model_validate(
    {
        "name": "tiny",
        "phantom": {"train": 1, "validation": 1, "test": 1},
        "base_models": {"llm_width": 32, "llm_layers": 2, "vocabulary": 400},
        "adapter": {"rank": 4, "alpha": 4},
        "training": {"batch_size": 16, "learning_rate": 1e-2, "adapter_learning_rate": 1e-2},
        "federation": {"rounds": 2},
        "bootstrap_samples": 50,
        "questions": {"layout": "cloze", "longest": 128, "new_tokens": 4, "kept_rounds": [1, 2]},
    }
)


def small_inputs(root: pathlib.Path) -> pathlib.Path:
    """prepared/ and base/ below a folder."""
    write_questions(root / "prepared" / PREPARED, world_questions(WORLD, 0))
    tokenizer = byte_level_tokenizer(pretraining_corpus(40, 0, WORLD), PROFILE.base_models.vocabulary)
    save_base_model(root / "base", new_llm(PROFILE.base_models, tokenizer, 0), tokenizer, {})
    return root


def small_run(root: pathlib.Path, folder: pathlib.Path, method: str, **changes: object) -> RunConfiguration:
    """The configuration of a run on them."""
    numbers = PROFILE.model_copy(update={"questions": Questions(**{**PROFILE.questions.model_dump(), **changes})})
    return configure_run(
        folder, profile=numbers, method=load_method(method, task="medical_qa"), data="medical_world", task="medical_qa",
        prepared=root / "prepared", base_models=root / "base", seed=0, threads=1,
    )  # fmt: skip
