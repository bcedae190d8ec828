"""One client's round for any task: what comes is loaded, trained under the method's rules, and told apart again.

The task brings its model (`trained_model`), its batches and its loss (`training_steps`). What the reports add to this
stands in `local_training`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy
import torch
from torch import Tensor
from tqdm.auto import tqdm

from fedmrg_core.runs.configuration import Profile
from fedmrg_core.runs.methods import Method, Ownership
from fedmrg_core.seeds import numpy_stream
from fedmrg_core.training.client_rules import UpdateRule, update_rules
from fedmrg_core.training.client_state import HospitalState, LocalUpdate, without_controls
from fedmrg_core.training.optimisation import build_optimiser, moments_of, scheduled_factor, set_learning_rate
from fedmrg_core.training.trained_model import TrainedModel
from fedmrg_core.training.training_steps import Batches, Loss, TrainingSteps, learning, torch_seeded

# Of each module's pace, held constant: the model is good already [ours].
FINE_TUNING_RATE = 0.1


@dataclasses.dataclass(frozen=True)
class Turn:
    """Whose round it is, and by which numbers."""

    client: str
    round_number: int  # from 1
    profile: Profile
    method: Method
    seed: int  # the root seed
    progress: bool = True  # show a bar over the batches


@dataclasses.dataclass(frozen=True)
class Pass:
    """One pass over the client's examples."""

    modules: frozenset[str]  # those that learn in it
    batches: list[list[int]]  # indices of examples
    stream: numpy.random.Generator


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long and how fast training goes on alone; set before anything is run, nothing is chosen on the way."""

    modules: frozenset[str]  # that learn
    epochs: int
    rate: float  # of each module's pace
    least_steps: int = 0  # more epochs than said if these are fewer steps
    chosen: Sequence[int] | None = None  # indices of the examples to use; all if None


def first_state(model: TrainedModel, kept: dict[str, Tensor] | None = None) -> HospitalState:
    """A hospital's state before its first round: the initial personal modules, and what its task keeps there."""
    personal = {f"personal/{name}": tensor for name, tensor in model.initial_personal.items()}
    return HospitalState({**personal, **(kept or {})})


def receive(model: TrainedModel, shared: dict[str, Tensor], state: HospitalState) -> None:
    """Load the server's tensors, and the hospital's own over them."""
    model.load_state({**without_controls(shared), **state.part("personal")})


def train_round(
    model: TrainedModel,
    batches: Batches,
    loss: Loss,
    shared: dict[str, Tensor],
    state: HospitalState,
    turn: Turn,
    features: Tensor | None = None,
) -> LocalUpdate:
    """Train one client for one round: the same arguments give the same update, whatever was done before.

    Args:
        model: with the server's and the hospital's tensors loaded, see `receive`, and told of it (`remember_shared`).
        batches: the client's training examples.
        loss: the task's loss terms of a batch.
        shared: the server's tensors, ``module/name``, and SCAFFOLD's ``control/module/name``.
        state: what the hospital kept.
        turn: whose round it is.
        features: (N, D) of the examples under the model as it came, where the task has computed them.

    Returns:
        The update, without a prototype. Metrics: each term's mean over the steps as ``train_<term>``, and
        ``train_loss``.
    """
    profile, method = turn.profile, turn.method
    rules = update_rules(model, batches, state, shared, features, method.client)
    optimiser = build_optimiser(model.trainable(), profile.training, method, state.part("optimiser"))
    clip = profile.training.gradient_clip
    steps = TrainingSteps(model, batches, optimiser, loss, method.losses, clip, rules)
    passes = _passes(model, batches, turn)
    with torch_seeded(turn.seed, "dropout", turn.round_number, turn.client):
        _train(steps, passes, turn)
    sent = {name: tensor.cpu().clone() for name, tensor in model.state(Ownership.SHARED).items()}
    return LocalUpdate(
        shared=sent | {name: tensor for rule in rules for name, tensor in rule.sent().items()},
        prototype=None,
        state=_leaving_state(model, optimiser, rules, state, profile.training.own_statistics),
        examples=len(batches),
        metrics=steps.means(),
    )


def _passes(model: TrainedModel, batches: Batches, turn: Turn) -> list[Pass]:
    """The passes of a round: one a local epoch, in which everything learns.

    With `client.alternating`, FedRep [related]: the local epochs with only the personal modules learning, then as many
    with only the shared ones. The round then takes twice the steps, as in that paper.
    """
    owned = {owner: frozenset(m for m, o in model.ownership.items() if o is owner) for owner in Ownership}
    personal, shared = owned[Ownership.PERSONAL], owned[Ownership.SHARED]
    alternate = [modules for modules in (personal, shared) if modules]
    learners = alternate if turn.method.client.alternating else [personal | shared]
    passes = []
    for modules in learners:
        for _ in range(turn.profile.training.local_epochs):
            stream = numpy_stream(turn.seed, "batches", turn.round_number, turn.client, len(passes))
            passes.append(Pass(modules, batches.shuffled(stream), stream))
    return passes


def _train(steps: TrainingSteps, passes: list[Pass], turn: Turn) -> None:
    """Every step of a round, the learning rate following the rounds of the whole run."""
    total = sum(len(one.batches) for one in passes)
    rounds, before = turn.profile.federation.rounds, turn.round_number - 1
    name = f"round {turn.round_number} {turn.client}"
    with tqdm(total=total, desc=name, leave=False, disable=not turn.progress) as bar:
        for one in passes:
            with learning(steps.model, one.modules):
                for indices in one.batches:
                    set_learning_rate(steps.optimiser, scheduled_factor(before + steps.count / total, turn.profile))
                    loss = steps.step(indices, one.stream)
                    steps.model.after_step((before + steps.count / total) / rounds)
                    bar.update()
                    bar.set_postfix(loss=f"{loss:.3f}")


def _leaving_state(
    model: TrainedModel,
    optimiser: torch.optim.AdamW,
    rules: Sequence[UpdateRule],
    before: HospitalState,
    own_statistics: bool,
) -> HospitalState:
    tensors = {f"personal/{name}": t.cpu().clone() for name, t in model.own(own_statistics).items()}
    tensors |= {f"optimiser/{key}": tensor for key, tensor in moments_of(optimiser, model.trainable()).items()}
    for rule in rules:
        tensors |= rule.kept()
    return HospitalState({**tensors, **before.of_the_task()})


def train_alone(
    model: TrainedModel,
    batches: Batches,
    loss: Loss,
    plan: Plan,
    *,
    stream: tuple[str | int, ...],
    profile: Profile,
    method: Method,
    seed: int,
    progress: bool = False,
) -> None:
    """Train the model in place, with a fresh optimiser and without client rules: there is nobody else.

    Args:
        model: with the tensors to start from loaded, and told of it (`remember_shared`).
        batches: of one client or centre.
        loss: the task's loss terms of a batch.
        plan: what learns, how long, how fast.
        stream: names of the stream of random numbers; epochs are told apart by their number.
        profile: numbers of the run.
        method: its losses.
        seed: root seed.
        progress: show a bar over the steps.
    """
    learners = {key: p for key, p in model.trainable().items() if key.partition("/")[0] in plan.modules}
    optimiser = build_optimiser(learners, profile.training, method)
    set_learning_rate(optimiser, plan.rate)
    steps = TrainingSteps(model, batches, optimiser, loss, method.losses, profile.training.gradient_clip)
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


def fine_tuned(
    model: TrainedModel, start: dict[str, Tensor], epochs: int, train: Callable[[Plan], None]
) -> dict[str, Tensor]:
    """One client's own model after `client.fine_tuning_epochs` from the selected one [related; rate and form ours].

    Args:
        model: the model in memory.
        start: the selected shared tensors and the client's personal ones, ``module/name``.
        epochs: over its training examples.
        train: trains the model in place by a plan, on the client's own examples; see `train_alone`.

    Returns:
        Every tensor that is not frozen, ``module/name``, on the CPU.
    """
    model.load_state(start)
    owned = frozenset(name for name, owner in model.ownership.items() if owner is not Ownership.FROZEN)
    train(Plan(owned, epochs, FINE_TUNING_RATE))
    tuned = {**model.state(Ownership.SHARED), **model.state(Ownership.PERSONAL)}
    return {name: tensor.cpu().clone() for name, tensor in tuned.items()}


def _epochs(plan: Plan, batches: Batches) -> int:
    a_epoch = len(batches.shuffled(numpy_stream(0, "length")))  # every shuffle has as many batches
    return max(plan.epochs, math.ceil(plan.least_steps / a_epoch))
