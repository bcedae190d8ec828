"""One client's update of a report model: the algorithm box of the paper in code, free of Flower.

receive the shared modules; lay the hospital's personal ones over them, and its own BatchNorm statistics if it keeps any
h_global <- P(E(x)) with the shared encoder as it came; mu_k <- mean h_global          [ours, after MOON]
for every local epoch and batch: one AdamW step on L, and on what the method's client rule adds (`client_rules`)
send the shared modules and mu_k; keep specialised adapter, statistics, optimiser moments, disease weights

The steps themselves are every task's: `client_update`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy
import torch
from torch import Tensor

from fedmrg_core.metrics.clinical import head_auroc, states_f1_micro
from fedmrg_core.prompts import classification_loss, initial_disease_weights, updated_disease_weights
from fedmrg_core.runs.configuration import Profile
from fedmrg_core.tasks.reports.batch import Batch, Contrast, language_loss
from fedmrg_core.tasks.reports.client_batches import ClientBatches, Studies
from fedmrg_core.tasks.reports.methods import ReportMethod
from fedmrg_core.tasks.reports.report_model import ReportModel
from fedmrg_core.training import client_update
from fedmrg_core.training.client_state import HospitalState, LocalUpdate
from fedmrg_core.training.client_update import Turn, receive, train_round

__all__ = ["ClientBatches", "HospitalState", "LocalUpdate", "first_state", "train_client", "validate_client"]


def train_client(
    model: ReportModel,
    studies: Studies,
    shared: dict[str, Tensor],
    state: HospitalState | None,
    prototypes: dict[str, Tensor],
    *,
    client: str,
    round_number: int,
    profile: Profile,
    method: ReportMethod,
    seed: int,
    progress: bool = True,
) -> LocalUpdate:
    """Train one client for one round: the same arguments give the same update, whatever was done before.

    Args:
        model: the model in memory, whichever client used it last: every trainable tensor is loaded here.
        studies: the client's training studies.
        shared: the server's tensors, ``module/name``, and SCAFFOLD's ``control/module/name``.
        state: what the hospital kept from its last round; None in its first.
        prototypes: (D,) mean feature of each client that has sent one.
        client: this client's name.
        round_number: from 1.
        profile: numbers of the run.
        method: its row of methods.yaml.
        seed: root seed.
        progress: show a bar over the batches.

    Returns:
        The update. Metrics: each loss term's mean over the steps as ``train_<term>``, and ``train_loss``.
    """
    state = state or first_state(model, studies)
    receive(model, shared, state)
    model.remember_shared()
    batches = ClientBatches(model, studies, profile)
    contrasting = bool(method.losses.contrast_inter or method.losses.contrast_intra)
    h_global = batches.features(model) if contrasting else None  # (N, D)
    compared = _contrast_of(h_global, prototypes, client) if contrasting else None
    weights = state.tensors["disease_weights"].to(batches.device)
    losses = method.losses_in(round_number)

    def loss(batch: Batch, indices: Sequence[int]) -> dict[str, Tensor]:
        return model.loss_terms(batch, losses, weights, compared(indices) if compared else None)

    turn = Turn(client, round_number, profile, method, seed, progress)
    update = train_round(model, batches, loss, shared, state, turn, h_global)
    return dataclasses.replace(update, prototype=h_global.mean(dim=0).cpu() if contrasting else None)


def _contrast_of(h_global: Tensor, prototypes: dict[str, Tensor], client: str) -> Callable[[Sequence[int]], Contrast]:
    """What the client-aware contrast compares the studies at some indices with."""
    names = sorted(prototypes)
    rows = torch.stack([prototypes[name] for name in names]).to(h_global.device) if names else torch.zeros(0, 0)
    own = names.index(client) if client in names else -1
    return lambda indices: Contrast(h_global[indices], rows, own)


def first_state(model: ReportModel, studies: Studies) -> HospitalState:
    """A hospital's state before its first round: initial personal modules, weights from its base rates."""
    return client_update.first_state(model, {"disease_weights": initial_disease_weights(studies.states)})


@torch.no_grad()
def validate_client(
    model: ReportModel,
    studies: Studies,
    shared: dict[str, Tensor],
    state: HospitalState,
    *,
    client: str,
    profile: Profile,
    method: ReportMethod,
) -> tuple[dict[str, float], HospitalState]:
    """Measure the shared model, with the client's own personal modules, on the client's validation studies.

    The prompts come from predicted states, as at inference.

    Returns:
        Measures, and the state with its disease weights re-estimated. ``validation_loss`` weighs the language and
        classification terms as training does, with the disease weights in use, which move a little from round to
        round. The round with its lowest mean is kept, of those that train reports: it tells nothing of an alignment's.
        ``validation_language_loss`` is the mean over `model.validated` of the token-wise loss;
        ``validation_head_auroc`` the mean over findings that occur both ways.
    """
    receive(model, shared, state)
    model.eval()
    by_adapter, logits_of_states = _token_losses(model, ClientBatches(model, studies, profile))
    measures = {f"validation_language_loss_{name}": value for name, value in by_adapter.items()}
    loss = method.losses.language * sum(measures.values())
    measures = {"validation_language_loss": sum(measures.values()) / len(measures), **measures, "validation_loss": loss}
    if logits_of_states is None:
        return measures, state
    weights, adjustment = state.tensors["disease_weights"], profile.training.logit_adjustment
    classification = classification_loss(logits_of_states, studies.states, weights, adjustment).item()
    measures["validation_loss"] += method.losses.classification * classification
    predicted = logits_of_states.softmax(-1)
    measures |= {"validation_classification": classification, **_head_measures(predicted, studies.states)}
    weights = updated_disease_weights(weights, predicted.argmax(-1), studies.states)
    return measures, HospitalState({**state.tensors, "disease_weights": weights})


def _token_losses(model: ReportModel, batches: ClientBatches) -> tuple[dict[str, float], Tensor | None]:
    """Mean loss a token under each adapter, and the diagnosis head's logits (N, 14, 4) if the model has one."""
    losses = dict.fromkeys(model.validated, 0.0)
    tokens, logits_of_states, order = 0, [], []
    for indices in batches.in_order(by_length=True):
        order += indices
        batch = batches.batch(indices)
        prefix = model.prefix(batch.images)
        count = int(batch.report_mask.sum())
        tokens += count
        for name, logits in zip(losses, model.report_logits(prefix, batch, [*losses]), strict=True):
            losses[name] += count * language_loss(logits, batch.report_ids, batch.report_mask).item()
        if "state_logits" in prefix.prompts.auxiliary:
            logits_of_states.append(prefix.prompts.auxiliary["state_logits"].cpu())
    means = {name: value / tokens for name, value in losses.items()}
    return means, torch.cat(logits_of_states)[torch.tensor(order).argsort()] if logits_of_states else None


def _head_measures(predicted: Tensor, states: Tensor) -> dict[str, float]:
    """AUROC and F1 of the diagnosis head: probabilities (N, 14, 4) against states (N, 14)."""
    auroc = list(head_auroc(predicted.numpy(), states.numpy()).values())
    return {
        "validation_head_auroc": float(numpy.nanmean(auroc)) if not all(map(math.isnan, auroc)) else 0.5,
        "validation_head_f1_micro_14": states_f1_micro(predicted.argmax(-1).numpy(), states.numpy()),
    }
