"""Training of a report model that goes on alone: a client after the federation, or a centre that joins later."""

from __future__ import annotations

from torch import Tensor

from fedmrg_core.prompts import initial_disease_weights
from fedmrg_core.runs.configuration import Profile
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.tasks.reports.client_batches import ClientBatches, Studies
from fedmrg_core.tasks.reports.methods import ReportMethod
from fedmrg_core.tasks.reports.report_model import ReportModel
from fedmrg_core.training import client_update
from fedmrg_core.training.client_update import Plan

# Of each module's pace, held constant: the model is good already [ours].
FINE_TUNING_RATE = 0.1


def train_alone(
    model: ReportModel,
    studies: Studies,
    plan: Plan,
    *,
    stream: tuple[str | int, ...],
    profile: Profile,
    method: ReportMethod,
    seed: int,
    progress: bool = False,
) -> None:
    """Train the model in place, without contrast: there is nobody else. See :func:`client_update.train_alone`.

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
    batches = ClientBatches(model, studies, profile, plan.chosen)
    weights = initial_disease_weights(studies.states[batches.chosen]).to(batches.device)
    client_update.train_alone(
        model,
        batches,
        lambda batch, indices: model.loss_terms(batch, method.losses_in(), weights, None),
        plan,
        stream=stream,
        profile=profile,
        method=method,
        seed=seed,
        progress=progress,
    )


def fine_tuned(
    model: ReportModel,
    studies: Studies,
    start: dict[str, Tensor],
    *,
    client: str,
    profile: Profile,
    method: ReportMethod,
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
