"""Training of a report model that goes on alone: a client after the federation, or a centre that joins later."""

from __future__ import annotations

from fedmrg_core.prompts import initial_disease_weights
from fedmrg_core.runs.configuration import Profile
from fedmrg_core.tasks.reports.client_batches import ClientBatches, Studies
from fedmrg_core.tasks.reports.methods import ReportMethod
from fedmrg_core.tasks.reports.report_model import ReportModel
from fedmrg_core.training import client_update
from fedmrg_core.training.client_update import Plan


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
