"""A causal LM that answers medical questions under LoRA adapters, and its loss.

    L = L_LM(generic) + L_LM(specialised) + lambda_kd (L_g2l + L_l2g)

on the tokens of the right answer. One adapter is the method of Flow of Knowledge [paper]; two that teach
each other are FedMRG's, here on text [ours].
"""

from __future__ import annotations

import pathlib

import torch
import transformers
from torch import Tensor, nn

from fedmrg_core.adapters import AdaptedLLM, mutual_boosting
from fedmrg_core.errors import InputError
from fedmrg_core.runs.configuration import Profile, Questions
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.seeds import stream_seed
from fedmrg_core.tasks.medical_qa.methods import QuestionMethod
from fedmrg_core.tasks.medical_qa.scoring import Padded, answer_logits, answer_loss
from fedmrg_core.training.adapter_names import adapter_owner, adapters_made_of
from fedmrg_core.training.language_models import free_positions, load_language_model
from fedmrg_core.training.trained_model import TrainedModel


class QuestionModel(TrainedModel):
    """A frozen causal LM with the adapters of a row.

    Args:
        llm: before any adapter is added.
        tokenizer: the LLM's.
        method: which adapters exist and who owns them.
        profile: rank and layers of the adapters, temperature of the boosting.
    """

    method: QuestionMethod

    def __init__(
        self,
        llm: transformers.PreTrainedModel,
        tokenizer: transformers.PreTrainedTokenizerBase,
        method: QuestionMethod,
        profile: Profile,
    ) -> None:
        super().__init__(method)
        self.tokenizer, self.temperature = tokenizer, profile.training.distillation_temperature
        adapter = profile.adapter
        names = adapters_made_of(method.modules)
        self.llm = AdaptedLLM(llm, names, adapter.rank, adapter.alpha, adapter.target_modules)
        self.settle_ownership()

    @property
    def adapters(self) -> tuple[str, ...]:
        """The adapters this method trains, generic first."""
        return self.llm.names

    @property
    def answers(self) -> tuple[str, ...]:
        """The ways to answer, see :attr:`AdaptedLLM.answers`."""
        return self.llm.answers

    def tensors_of(self, module: str) -> dict[str, nn.Parameter]:
        """See :meth:`AdaptedLLM.tensors_of`."""
        return self.llm.tensors_of(module)

    def adapter_owner(self, name: str) -> Ownership | None:
        """See :func:`fedmrg_core.training.adapter_names.adapter_owner`."""
        return adapter_owner(name, self.ownership)

    def save_adapter(self, name: str, folder: pathlib.Path) -> None:
        """Save one adapter as a PEFT folder that opens without this package."""
        folder.mkdir(parents=True, exist_ok=True)
        self.llm.save(name, folder)

    def loss_terms(self, batch: Padded) -> dict[str, Tensor]:
        """The unweighted loss terms of a batch of right answers."""
        logits, weights = answer_logits(self.llm, batch, self.adapters), self.method.losses
        terms = {"language": sum(answer_loss(each, batch) for each in logits)}
        if weights.generic_to_specialised or weights.specialised_to_generic:
            boosting = mutual_boosting(*logits, batch.answer_mask, self.temperature)
            terms["generic_to_specialised"], terms["specialised_to_generic"] = boosting
        return terms


def build_question_model(
    profile: Profile, method: QuestionMethod, base_model: str | pathlib.Path, seed: int
) -> QuestionModel:
    """Load the LLM and give it the row's adapters; the seed's "initialisation" stream sets every new parameter.

    Args:
        profile: numbers of the run.
        method: a row.
        base_model: folder, or name of a hub model in the local cache.
        seed: root seed.

    Raises:
        InputError: the row does not fit the profile, or the LLM cannot be used or has too few positions.
    """
    method.check(profile)
    llm, tokenizer = load_language_model(base_model, getattr(torch, profile.base_models.precision))
    _check_positions(llm.config, profile.questions or Questions())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "initialisation"))
        return QuestionModel(llm, tokenizer, method, profile)


def _check_positions(llm: transformers.PretrainedConfig, numbers: Questions) -> None:
    """Whether the LLM has a position for every token of a question with its answer, given or written."""
    wanted = max(numbers.longest, numbers.new_tokens + 1)
    if (free := free_positions(llm, 1, wanted)) < 0:
        raise InputError(
            f"LLM: it has {wanted + free:.0f} positions (max_position_embeddings) and this profile reads {wanted} "
            f"tokens of a question with its answer; make questions.longest ({numbers.longest}) or questions.new_tokens "
            f"({numbers.new_tokens}) smaller, or name another LLM."
        )
