"""One client's update: the algorithm box of the paper in code, free of Flower.

receive the shared modules; take the personal ones from the hospital's own state
h_global <- P(E(x)) with the shared encoder as it came; mu_k <- mean h_global          [ours, after MOON]
for every local epoch and batch: one AdamW step on L
send the shared modules and mu_k; keep the specialised adapter, optimiser moments and disease weights
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import numpy
import torch
from torch import Tensor
from tqdm.auto import tqdm

from fedmrg_core.configuration import MODULES, Method, Ownership, Profile
from fedmrg_core.evaluation.clinical_metrics import head_auroc, states_f1_micro
from fedmrg_core.prompts import classification_loss, initial_disease_weights, updated_disease_weights
from fedmrg_core.report_generator import (
    Batch,
    Contrast,
    ReportGenerator,
    encode_reports,
    language_loss,
    pad_reports,
    total_loss,
)
from fedmrg_core.seeds import numpy_stream

# Modules that learn at the encoder's pace; the adapters and the prompt table at their own.
ENCODER_PACED = ("encoder", "projection", "diagnosis_head")


class Studies(Protocol):
    """What training needs of a client's studies (`fedmrg_core.data.tensors.ClientTensors`)."""

    texts: Sequence[str]
    states: Tensor  # (N, 14)

    def __len__(self) -> int: ...

    def images(self, indices: Sequence[int]) -> Tensor:
        """(B, 1, H, W) in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class HospitalState:
    """All that stays in the hospital between rounds: flat tensors, so that safetensors holds it.

    Keys: ``personal/<module>/<name>``, ``optimiser/<key>/<moment>`` and ``disease_weights``.
    """

    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix/``, without it."""
        return {k.removeprefix(prefix + "/"): v for k, v in self.tensors.items() if k.startswith(prefix + "/")}


@dataclasses.dataclass(frozen=True)
class LocalUpdate:
    """What one client's update leaves: `shared` and `prototype` travel, `state` stays."""

    shared: dict[str, Tensor]
    prototype: Tensor | None  # (D,) mean feature mu_k; None where the method has no contrast
    state: HospitalState
    examples: int
    metrics: dict[str, float]


class ClientBatches:
    """A client's studies as seeded batches of :class:`Batch`."""

    def __init__(self, model: ReportGenerator, studies: Studies, profile: Profile) -> None:
        self.studies, self.settings = studies, profile.training
        self.padding = model.tokenizer.pad_token_id
        self.report_ids = encode_reports(model.tokenizer, studies.texts, profile.training)
        self.device = next(model.parameters()).device

    def batch(self, indices: Sequence[int], generator: numpy.random.Generator | None = None) -> Batch:
        """The studies at `indices`; with a generator, their images are shifted at random."""
        images = self.studies.images(indices)
        if generator is not None and self.settings.image_shift:
            images = shifted(images, self.settings.image_shift, generator)
        ids, mask = pad_reports([self.report_ids[i] for i in indices], self.padding)
        states = self.studies.states[torch.as_tensor(indices)]
        return Batch(*(tensor.to(self.device) for tensor in (images, states, ids, mask)))

    def shuffled(self, generator: numpy.random.Generator) -> list[list[int]]:
        """One epoch's batches of indices: reports of similar length together, so that little is padding [ours].

        Lengths are sorted within random groups of eight batches, so batches differ from epoch to epoch. A last batch
        of one study joins the one before it (BatchNorm, InfoNCE).
        """
        size = self.settings.batch_size
        order = generator.permutation(len(self.studies)).tolist()
        groups = [order[i : i + 8 * size] for i in range(0, len(order), 8 * size)]
        order = [index for group in groups for index in sorted(group, key=lambda i: len(self.report_ids[i]))]
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        if len(batches) > 1 and len(batches[-1]) == 1:
            alone = batches.pop()
            batches[-1] += alone
        return [batches[i] for i in generator.permutation(len(batches))]

    def in_order(self) -> list[list[int]]:
        """All studies in order, in batches twice the training size."""
        size = 2 * self.settings.batch_size
        return [list(range(i, min(i + size, len(self.studies)))) for i in range(0, len(self.studies), size)]


def shifted(images: Tensor, largest: int, generator: numpy.random.Generator) -> Tensor:
    """Each image of (B, 1, H, W) moved by up to `largest` pixels either way, edges repeated."""
    height, width = images.shape[-2:]
    padded = torch.nn.functional.pad(images, (largest,) * 4, mode="replicate")
    offsets = generator.integers(0, 2 * largest + 1, size=(len(images), 2)).tolist()
    return torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, offsets, strict=True)])


def train_client(
    model: ReportGenerator,
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
    """Train one client for one round.

    Args:
        model: the model in memory, whichever client used it last: every trainable tensor is loaded here.
        studies: the client's training studies.
        shared: the server's tensors, ``module/name``.
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
    batches = ClientBatches(model, studies, profile)
    contrasting = bool(method.losses.contrast_inter or method.losses.contrast_intra)
    h_global = global_features(model, batches) if contrasting else None  # (N, D)
    names = sorted(prototypes)
    rows = torch.stack([prototypes[name] for name in names]).to(batches.device) if names else torch.zeros(0, 0)
    own = names.index(client) if client in names else -1
    disease_weights = state.tensors["disease_weights"].to(batches.device)
    optimiser = _optimiser(model, state, profile)

    parameters = list(model.trainable().values())
    model.train()
    _keep_frozen_still(model)
    sums: dict[str, float] = {}
    epochs = range(profile.training.local_epochs)
    streams = [numpy_stream(seed, "batches", round_number, client, epoch) for epoch in epochs]
    schedule = [(indices, stream) for stream in streams for indices in batches.shuffled(stream)]
    steps = len(schedule)
    with tqdm(total=steps, desc=f"round {round_number} {client}", leave=False, disable=not progress) as bar:
        for step, (indices, stream) in enumerate(schedule):
            _set_learning_rate(optimiser, round_number - 1 + step / steps, profile)
            batch = batches.batch(indices, stream)
            contrast = Contrast(h_global[indices], rows, own) if contrasting else None
            terms = model.loss_terms(batch, method.losses, disease_weights, contrast)
            loss = total_loss(terms, method.losses)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, profile.training.gradient_clip)
            optimiser.step()
            for name, value in {**terms, "loss": loss}.items():
                sums[name] = sums.get(name, 0.0) + value.item()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}")
    return LocalUpdate(
        shared={name: tensor.cpu().clone() for name, tensor in model.state(Ownership.SHARED).items()},
        prototype=h_global.mean(dim=0).cpu() if contrasting else None,
        state=_leaving_state(model, optimiser, state),
        examples=len(studies),
        metrics={f"train_{name}": value / steps for name, value in sums.items()},
    )


def first_state(model: ReportGenerator, studies: Studies) -> HospitalState:
    """A hospital's state before its first round: initial personal modules, weights from its base rates."""
    personal = {f"personal/{name}": tensor for name, tensor in model.initial_personal.items()}
    return HospitalState({**personal, "disease_weights": initial_disease_weights(studies.states)})


@torch.no_grad()
def global_features(model: ReportGenerator, batches: ClientBatches) -> Tensor:
    """h_global (N, D) of all the client's images, under the encoder as it came from the server."""
    model.eval()
    return torch.cat([model.features(batches.batch(indices).images) for indices in batches.in_order()])


@torch.no_grad()
def validate_client(
    model: ReportGenerator,
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
        classification terms as training does; the round with its lowest mean is kept. ``validation_language_loss`` is
        the mean over the method's adapters of the token-wise loss; ``validation_head_auroc`` the mean over findings
        that occur both ways.
    """
    _receive(model, shared, state)
    model.eval()
    batches = ClientBatches(model, studies, profile)
    losses = dict.fromkeys(model.adapters, 0.0)
    tokens, logits_of_states = 0, []
    for indices in batches.in_order():
        batch = batches.batch(indices)
        prefix = model.prefix(batch.images)
        count = int(batch.report_mask.sum())
        tokens += count
        for name, logits in zip(model.adapters, model.report_logits(prefix, batch, model.adapters), strict=True):
            losses[name] += count * language_loss(logits, batch.report_ids, batch.report_mask).item()
        if "state_logits" in prefix.prompts.auxiliary:
            logits_of_states.append(prefix.prompts.auxiliary["state_logits"].cpu())
    measures = {f"validation_language_loss_{name}": value / tokens for name, value in losses.items()}
    loss = method.losses.language * sum(measures.values())
    measures = {"validation_language_loss": sum(measures.values()) / len(measures), **measures, "validation_loss": loss}
    if not logits_of_states:
        return measures, state
    logits, weights = torch.cat(logits_of_states), state.tensors["disease_weights"]
    classification = classification_loss(logits, studies.states, weights, profile.training.logit_adjustment).item()
    measures["validation_classification"] = classification
    measures["validation_loss"] += method.losses.classification * classification
    predicted = logits.softmax(-1)  # (N, 14, 4)
    auroc = head_auroc(predicted.numpy(), studies.states.numpy())
    measures["validation_head_auroc"] = (
        float(numpy.nanmean(list(auroc.values()))) if any(not math.isnan(value) for value in auroc.values()) else 0.5
    )
    measures["validation_head_f1_micro_14"] = states_f1_micro(predicted.argmax(-1).numpy(), studies.states.numpy())
    weights = updated_disease_weights(weights, predicted.argmax(-1), studies.states)
    return measures, HospitalState({**state.tensors, "disease_weights": weights})


def _receive(model: ReportGenerator, shared: dict[str, Tensor], state: HospitalState) -> None:
    model.load_state({**shared, **state.part("personal")})


def _keep_frozen_still(model: ReportGenerator) -> None:
    """A frozen encoder keeps its BatchNorm statistics too."""
    if model.ownership["encoder"] is Ownership.FROZEN:
        model.encoder.eval()


def _optimiser(model: ReportGenerator, state: HospitalState, profile: Profile) -> torch.optim.AdamW:
    """AdamW over everything trainable, with the moments the hospital kept."""
    trainable = model.trainable()
    settings = profile.training
    paces = {module: settings.learning_rate if module in ENCODER_PACED else settings.adapter_learning_rate
             for module in MODULES}  # fmt: skip
    groups = [
        {"params": [p for k, p in trainable.items() if k.split("/")[0] == module], "lr": pace, "pace": pace}
        for module, pace in paces.items()
    ]
    optimiser = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=settings.weight_decay)
    moments = state.part("optimiser")
    for key, parameter in trainable.items():
        if f"{key}/step" in moments:
            optimiser.state[parameter] = {
                "step": moments[f"{key}/step"].clone(),  # AdamW keeps its step count on the CPU
                **{name: moments[f"{key}/{name}"].clone().to(parameter.device) for name in ("exp_avg", "exp_avg_sq")},
            }
    return optimiser


def _set_learning_rate(optimiser: torch.optim.Optimizer, progress: float, profile: Profile) -> None:
    """Linear warm-up, then a cosine to a twentieth over the rounds; `progress` counts rounds from 0 [ours]."""
    warmup, rounds = profile.training.warmup_rounds, profile.federation.rounds
    if progress < warmup:
        factor = (progress + 0.05) / (warmup + 0.05)
    else:
        factor = 0.05 + 0.95 * (1 + math.cos(math.pi * (progress - warmup) / max(rounds - warmup, 1))) / 2
    for group in optimiser.param_groups:
        group["lr"] = group["pace"] * factor


def _leaving_state(model: ReportGenerator, optimiser: torch.optim.AdamW, before: HospitalState) -> HospitalState:
    tensors = {f"personal/{name}": t.cpu().clone() for name, t in model.state(Ownership.PERSONAL).items()}
    for key, parameter in model.trainable().items():
        for name, moment in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser/{key}/{name}"] = moment.detach().cpu().clone()
    tensors["disease_weights"] = before.tensors["disease_weights"]
    return HospitalState(tensors)
