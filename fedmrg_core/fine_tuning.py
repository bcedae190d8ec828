"""Training that goes on alone from a trained model: a client after the federation, or a centre that joins later."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from torch import Tensor
from tqdm.auto import tqdm

from fedmrg_core.client_batches import ClientBatches, Studies
from fedmrg_core.configuration import Profile
from fedmrg_core.methods import Method, Ownership
from fedmrg_core.optimisation import build_optimiser, set_learning_rate
from fedmrg_core.prompts import initial_disease_weights
from fedmrg_core.seeds import numpy_stream
from fedmrg_core.trained_model import TrainedModel
from fedmrg_core.training_steps import TrainingSteps, learning, torch_seeded

# Of each module's pace, held constant: the model is good already [ours].
FINE_TUNING_RATE = 0.1


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long and how fast; set before anything is run, nothing is chosen on the way."""

    modules: frozenset[str]  # that learn
    epochs: int
    rate: float  # of each module's pace
    least_steps: int = 0  # more epochs than said if these are fewer steps
    studies: Sequence[int] | None = None  # indices of the studies to use; all if None


def train_alone(
    model: TrainedModel,
    studies: Studies,
    plan: Plan,
    *,
    stream: tuple[str | int, ...],
    profile: Profile,
    method: Method,
    seed: int,
    progress: bool = False,
) -> None:
    """Train the model in place, with a fresh optimiser and without client rules or contrast: there is nobody else.

    Args:
        model: with the tensors to start from loaded.
        studies: of one client or centre.
        plan: what learns, how long, how fast.
        stream: names of the stream of random numbers; epochs are told apart by their number.
        profile: numbers of the run.
        method: its losses.
        seed: root seed.
        progress: show a bar over the steps.
    """
    model.remember_shared()
    batches = ClientBatches(model, studies, profile, plan.studies)
    learners = {key: p for key, p in model.trainable().items() if key.partition("/")[0] in plan.modules}
    optimiser = build_optimiser(learners, profile.training, method)
    set_learning_rate(optimiser, plan.rate)
    steps = TrainingSteps(model, batches, optimiser, method, profile, initial_disease_weights(_states(batches)))
    streams = (numpy_stream(seed, *stream, epoch) for epoch in range(_epochs(plan, batches)))
    with (
        torch_seeded(seed, *stream, "dropout"),
        learning(model, plan.modules),
        tqdm(desc=" ".join(map(str, stream)), leave=False, disable=not progress) as bar,
    ):
        for generator in streams:
            for indices in batches.shuffled(generator):
                steps.step(indices, generator)
                bar.update()


def _states(batches: ClientBatches) -> Tensor:
    return batches.studies.states[batches.chosen]


def _epochs(plan: Plan, batches: ClientBatches) -> int:
    a_epoch = len(batches.shuffled(numpy_stream(0, "length")))  # every shuffle has as many batches
    return max(plan.epochs, math.ceil(plan.least_steps / a_epoch))


def fine_tuned(
    model: TrainedModel,
    studies: Studies,
    start: dict[str, Tensor],
    *,
    client: str,
    profile: Profile,
    method: Method,
    seed: int,
) -> dict[str, Tensor]:
    """One client's own model after `client.fine_tuning_epochs` from the selected one [related; rate and form ours].

    Args:
        model: the model in memory.
        studies: the client's training studies.
        start: the selected shared tensors and the client's personal ones, ``module/name``.
        client: its name.
        profile: numbers of the run.
        method: its row of methods.yaml.
        seed: root seed.

    Returns:
        Every tensor that is not frozen, ``module/name``, on the CPU.
    """
    model.load_state(start)
    owned = frozenset(name for name, owner in model.ownership.items() if owner is not Ownership.FROZEN)
    plan = Plan(owned, method.client.fine_tuning_epochs, FINE_TUNING_RATE)
    train_alone(model, studies, plan, stream=("fine-tuning", client), profile=profile, method=method, seed=seed)
    tuned = {**model.state(Ownership.SHARED), **model.state(Ownership.PERSONAL)}
    return {name: tensor.cpu().clone() for name, tensor in tuned.items()}
