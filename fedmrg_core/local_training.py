"""One client's update: the algorithm box of the paper in code, free of Flower.

receive the shared modules; lay the hospital's personal ones over them, and its own BatchNorm statistics if it keeps any
h_global <- P(E(x)) with the shared encoder as it came; mu_k <- mean h_global          [ours, after MOON]
for every local epoch and batch: one AdamW step on L, and on what the method's client rule adds (`client_rules`)
send the shared modules and mu_k; keep specialised adapter, statistics, optimiser moments, disease weights
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy
import torch
from torch import Tensor
from tqdm.auto import tqdm

from fedmrg_core.batch import Contrast, language_loss
from fedmrg_core.client_batches import ClientBatches, Studies
from fedmrg_core.client_rules import UpdateRule, update_rules
from fedmrg_core.client_state import HospitalState, LocalUpdate, without_controls
from fedmrg_core.configuration import Profile
from fedmrg_core.evaluation.clinical_metrics import head_auroc, states_f1_micro
from fedmrg_core.methods import Method, Ownership
from fedmrg_core.optimisation import build_optimiser, moments_of, scheduled_factor, set_learning_rate
from fedmrg_core.prompts import classification_loss, initial_disease_weights, updated_disease_weights
from fedmrg_core.seeds import numpy_stream
from fedmrg_core.trained_model import TrainedModel
from fedmrg_core.training_steps import TrainingSteps, learning, torch_seeded

__all__ = ["ClientBatches", "HospitalState", "LocalUpdate", "first_state", "train_client", "validate_client"]


@dataclasses.dataclass(frozen=True)
class Pass:
    """One pass over the client's studies."""

    modules: frozenset[str]  # those that learn in it
    batches: list[list[int]]  # indices of studies
    stream: numpy.random.Generator


def train_client(
    model: TrainedModel,
    studies: Studies,
    shared: dict[str, Tensor],
    state: HospitalState | None,
    prototypes: dict[str, Tensor],
    *,
    client: str,
    round_number: int,
    profile: Profile,
    method: Method,
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
    _receive(model, shared, state)
    model.remember_shared()
    batches = ClientBatches(model, studies, profile)
    contrasting = bool(method.losses.contrast_inter or method.losses.contrast_intra)
    h_global = batches.features(model) if contrasting else None  # (N, D)
    contrast = _contrast_of(h_global, prototypes, client) if contrasting else None
    rules = update_rules(model, batches, state, shared, h_global, method.client)
    optimiser = build_optimiser(model.trainable(), profile.training, method, state.part("optimiser"))
    weights = state.tensors["disease_weights"]
    steps = TrainingSteps(model, batches, optimiser, method, profile, weights, rules, contrast)
    passes = _passes(model, batches, method, profile, seed, round_number, client)
    with torch_seeded(seed, "dropout", round_number, client):
        _train(steps, passes, profile, round_number, f"round {round_number} {client}" if progress else None)
    sent = {name: tensor.cpu().clone() for name, tensor in model.state(Ownership.SHARED).items()}
    return LocalUpdate(
        shared=sent | {name: tensor for rule in rules for name, tensor in rule.sent().items()},
        prototype=h_global.mean(dim=0).cpu() if contrasting else None,
        state=_leaving_state(model, optimiser, rules, weights, profile.training.own_statistics),
        examples=len(studies),
        metrics=steps.means(),
    )


def _contrast_of(h_global: Tensor, prototypes: dict[str, Tensor], client: str) -> Callable[[Sequence[int]], Contrast]:
    """What the client-aware contrast compares the studies at some indices with."""
    names = sorted(prototypes)
    rows = torch.stack([prototypes[name] for name in names]).to(h_global.device) if names else torch.zeros(0, 0)
    own = names.index(client) if client in names else -1
    return lambda indices: Contrast(h_global[indices], rows, own)


def _passes(
    model: TrainedModel,
    batches: ClientBatches,
    method: Method,
    profile: Profile,
    seed: int,
    round_number: int,
    client: str,
) -> list[Pass]:
    """The passes of a round: one a local epoch, in which everything learns.

    With `client.alternating`, FedRep [related]: the local epochs with only the personal modules learning, then as many
    with only the shared ones. The round then takes twice the steps, as in that paper.
    """
    owned = {owner: frozenset(m for m, o in model.ownership.items() if o is owner) for owner in Ownership}
    personal, shared = owned[Ownership.PERSONAL], owned[Ownership.SHARED]
    alternate = [modules for modules in (personal, shared) if modules]
    learners = alternate if method.client.alternating else [personal | shared]
    passes = []
    for modules in learners:
        for _ in range(profile.training.local_epochs):
            stream = numpy_stream(seed, "batches", round_number, client, len(passes))
            passes.append(Pass(modules, batches.shuffled(stream), stream))
    return passes


def _train(steps: TrainingSteps, passes: list[Pass], profile: Profile, round_number: int, bar_name: str | None) -> None:
    """Every step of a round, the learning rate following the rounds of the whole run."""
    total = sum(len(one.batches) for one in passes)
    rounds = profile.federation.rounds
    with tqdm(total=total, desc=bar_name, leave=False, disable=bar_name is None) as bar:
        for one in passes:
            with learning(steps.model, one.modules):
                for indices in one.batches:
                    done = round_number - 1 + steps.count / total
                    set_learning_rate(steps.optimiser, scheduled_factor(done, profile))
                    loss = steps.step(indices, one.stream)
                    steps.model.after_step((round_number - 1 + steps.count / total) / rounds)
                    bar.update()
                    bar.set_postfix(loss=f"{loss:.3f}")


def first_state(model: TrainedModel, studies: Studies) -> HospitalState:
    """A hospital's state before its first round: initial personal modules, weights from its base rates."""
    personal = {f"personal/{name}": tensor for name, tensor in model.initial_personal.items()}
    return HospitalState({**personal, "disease_weights": initial_disease_weights(studies.states)})


def _receive(model: TrainedModel, shared: dict[str, Tensor], state: HospitalState) -> None:
    model.load_state({**without_controls(shared), **state.part("personal")})


def _leaving_state(
    model: TrainedModel,
    optimiser: torch.optim.AdamW,
    rules: Sequence[UpdateRule],
    disease_weights: Tensor,
    own_statistics: bool,
) -> HospitalState:
    tensors = {f"personal/{name}": t.cpu().clone() for name, t in model.own(own_statistics).items()}
    tensors |= {f"optimiser/{key}": tensor for key, tensor in moments_of(optimiser, model.trainable()).items()}
    for rule in rules:
        tensors |= rule.kept()
    return HospitalState({**tensors, "disease_weights": disease_weights})


@torch.no_grad()
def validate_client(
    model: TrainedModel,
    studies: Studies,
    shared: dict[str, Tensor],
    state: HospitalState,
    *,
    client: str,
    profile: Profile,
    method: Method,
) -> tuple[dict[str, float], HospitalState]:
    """Measure the shared model, with the client's own personal modules, on the client's validation studies.

    The prompts come from predicted states, as at inference.

    Returns:
        Measures, and the state with its disease weights re-estimated. ``validation_loss`` weighs the language and
        classification terms as training does, with the disease weights in use, which move a little from round to
        round; the round with its lowest mean is kept. ``validation_language_loss`` is the mean over
        `model.validated` of the token-wise loss; ``validation_head_auroc`` the mean over findings that occur both
        ways.
    """
    _receive(model, shared, state)
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


def _token_losses(model: TrainedModel, batches: ClientBatches) -> tuple[dict[str, float], Tensor | None]:
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
