"""Medical question answering as a federation trains it: the server's half and a hospital's."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Collection

import pandas
import torch
from torch import Tensor

from fedmrg_core.data.questions.question import Question
from fedmrg_core.federation.declaration import Declaration
from fedmrg_core.federation.model_task import ModelHospital, ModelTask
from fedmrg_core.federation.roster import Client, Roster
from fedmrg_core.runs.configuration import Questions
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.tasks.medical_qa.answering import OPEN, RIGHT, answers_to
from fedmrg_core.tasks.medical_qa.kept_adapters import keep_adapters
from fedmrg_core.tasks.medical_qa.question_folders import deal_questions, used_questions
from fedmrg_core.tasks.medical_qa.question_model import QuestionModel, build_question_model
from fedmrg_core.tasks.medical_qa.readings import QuestionBatches, Reader, possible_answers
from fedmrg_core.training.adapter_folders import AdapterSaver
from fedmrg_core.training.adapter_names import answer_label
from fedmrg_core.training.checkpoint_folders import hash_of_checkpoints
from fedmrg_core.training.client_state import HospitalState, LocalUpdate, without_controls
from fedmrg_core.training.pretrained import compute_device


class QuestionTask(ModelTask):
    """One causal LM with its adapters in memory. It opens no question.

    Attributes:
        reader: reads questions with the model's tokenizer; there is one as soon as there is the model.
    """

    reader: Reader

    tested = (*RIGHT, *OPEN)

    @classmethod
    def deal(cls, run_folder: pathlib.Path, configuration: RunConfiguration) -> Roster:
        """See :func:`fedmrg_core.tasks.medical_qa.question_folders.deal_questions`."""
        return deal_questions(run_folder, configuration)

    @property
    def numbers(self) -> Questions:
        """The profile's numbers of questions."""
        return self.configuration.profile.questions or Questions()

    @property
    def base_model(self) -> str | pathlib.Path:
        """The profile's LLM, or the folder of the one that was built for these data."""
        built = (self.run_folder / self.configuration.base_models).resolve()
        return self.configuration.profile.base_models.llm or built / "llm"

    def build_model(self) -> QuestionModel:
        """The LLM with the adapters of the run's row."""
        settings = self.configuration
        model = build_question_model(settings.profile, settings.method, self.base_model, settings.seed)
        self.reader = self._reader(model)  # here, so that what it refuses is refused before any hospital is asked
        return model.to(compute_device())

    def _reader(self, model: QuestionModel) -> Reader:
        numbers = self.numbers
        return Reader(model.tokenizer, numbers.layout, numbers.chat, numbers.longest)

    def make_hospital(self, client: Client, folders: Collection[pathlib.Path]) -> QuestionHospital:
        """The half of one client."""
        return QuestionHospital(self, client, folders)

    def fingerprints(self) -> dict[str, str]:
        """A hash of the LLM."""
        return {"base_models": hash_of_checkpoints([self.base_model])}

    def leaving(self) -> Declaration:
        """The shared adapters, the losses, and how many validation and test questions were answered rightly."""
        declared = super().leaving()
        accuracies = tuple(f"validation_accuracy_{answer_label(name)}" for name in self.model.adapters)
        return dataclasses.replace(declared, validation=(*declared.validation, *accuracies))

    @property
    def saver(self) -> AdapterSaver:
        """Writes the adapters of the model in memory."""
        return AdapterSaver(self.model, (self.run_folder / self.configuration.base_models).resolve())

    def save_shared(self, folder: pathlib.Path, shared: dict[str, Tensor]) -> None:
        """Write shared.safetensors, the shared adapters as PEFT folders, and the tokenizer."""
        super().save_shared(folder, shared)
        self.model.load_state(without_controls(shared))
        self.saver.save_shared(folder)


class QuestionHospital(ModelHospital):
    """A hospital's half: its own questions, and nobody else's."""

    task: QuestionTask

    def __init__(self, task: QuestionTask, client: Client, folders: Collection[pathlib.Path]) -> None:
        super().__init__(task, client, folders)
        self._questions: dict[str, list[Question]] = {}
        self._batches: dict[str, QuestionBatches] = {}

    def questions(self, split: str) -> list[Question]:
        """The client's questions of one split that the run uses: "train", "validation" or "test"."""
        if split not in self._questions:
            settings = self.task.configuration
            share = settings.profile.training.study_share
            parts = [used_questions(folder, split, share, settings.seed) for folder in self.paths]
            self._questions[split] = [question for part in parts for question in part]
        return self._questions[split]

    def batches(self, split: str) -> QuestionBatches:
        """The questions of one split with their right answers."""
        if split not in self._batches:
            profile, device = self.task.configuration.profile, next(self.task.model.parameters()).device
            self._batches[split] = QuestionBatches(self.task.reader, self.questions(split), profile, device)
        return self._batches[split]

    def train(
        self,
        round_number: int,
        shared: dict[str, Tensor],
        state: HospitalState | None,
        prototypes: dict[str, Tensor],
        progress: bool,
    ) -> LocalUpdate:
        """One round's update; what earlier rounds have left is kept where the profile asks for it."""
        own = state.part("personal") if state else self.task.model.initial_personal
        kept = self.task.numbers.kept_rounds
        keep_adapters(self.task.run_folder, kept, round_number, self.client.name, shared, own)
        return super().train(round_number, shared, state, prototypes, progress)

    @torch.no_grad()
    def validate(
        self, shared: dict[str, Tensor], state: HospitalState | None
    ) -> tuple[dict[str, float], HospitalState, int]:
        """The loss over the validation questions, and the share answered rightly under each adapter."""
        measures, state, count = super().validate(shared, state)
        closed = [question for question in self.questions("validation") if possible_answers(question)]
        for adapter in self.task.model.adapters if closed else ():
            right = self.answers_under(adapter, closed)[self.task.numbers.accuracy].mean()
            measures[f"validation_accuracy_{answer_label(adapter)}"] = float(right)
        return measures, state, count

    def answers_under(self, adapter: str, questions: Collection[Question]) -> pandas.DataFrame:
        """See :func:`fedmrg_core.tasks.medical_qa.answering.answers_to`."""
        numbers, model = self.task.numbers, self.task.model
        return answers_to(model, self.task.reader, list(questions), adapter, numbers.batch_size, numbers.new_tokens)

    def answers(self) -> pandas.DataFrame:
        """What the model says of the test questions under the adapter that counts, see `QuestionMeasures.answers`."""
        return self.answers_under(self.task.model.adapters[0], self.questions("test"))

    def test(self, run_folder: pathlib.Path) -> tuple[dict[str, float], int]:
        """The means over the test questions that a measure applies to."""
        measures, count = super().test(run_folder)
        return {name: value for name, value in measures.items() if not math.isnan(value)}, count

    def save_own(self, folder: pathlib.Path, tensors: dict[str, Tensor]) -> None:
        """Its tensors, and its own adapters as PEFT folders."""
        super().save_own(folder, tensors)
        self.task.saver.save_own(folder, self.client.name)
