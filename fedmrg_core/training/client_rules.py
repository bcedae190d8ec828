"""What a method's client rule adds to a plain update: FedProx's pull, MOON's contrast, SCAFFOLD's controls.

    FedProx   L + mu / 2 |w - w_server|^2 over the shared parameters                                  [related]
    MOON      L - weight log( e^{sim(h, h_glob)/t} / (e^{sim(h, h_glob)/t} + e^{sim(h, h_prev)/t}) )  [related]
    SCAFFOLD  g + c - c_i for each shared parameter's gradient g                                      [related]

They hold for the model and the batches of any task. FedRep's two passes are a matter of which module learns when:
`client_update`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.runs.methods import ClientRule, Ownership
from fedmrg_core.training.client_state import CONTROL, HospitalState
from fedmrg_core.training.trained_model import TrainedModel

if TYPE_CHECKING:
    from fedmrg_core.training.training_steps import Batches


class UpdateRule:
    """One rule over the steps of one round; this one does nothing."""

    weight = 1.0  # of its terms in the loss

    def terms(self, batch: Any, indices: Sequence[int]) -> dict[str, Tensor]:
        """Further loss terms, unweighted, of the batch of the examples at `indices`."""
        return {}

    def correct_gradients(self) -> None:
        """Change the gradients in place, before they are clipped."""

    def kept(self) -> dict[str, Tensor]:
        """What the hospital keeps for its next round, beside the rest of its state."""
        return {}

    def sent(self) -> dict[str, Tensor]:
        """What travels beside the shared modules."""
        return {}


class Proximal(UpdateRule):
    """FedProx: half the squared distance from the server's model, over trainable shared parameters [related].

    Args:
        model: as it came from the server.
        weight: mu.
    """

    def __init__(self, model: TrainedModel, weight: float) -> None:
        self.weight = weight
        self.pairs = [(p, p.detach().clone()) for p in shared_parameters(model).values()]

    def terms(self, batch: Any, indices: Sequence[int]) -> dict[str, Tensor]:
        """``proximal``: 1/2 |w - w_server|^2."""
        return {"proximal": sum((now - received).square().sum() for now, received in self.pairs) / 2}


class ModelContrast(UpdateRule):
    """MOON: h pulled to the server model's feature of the same example, away from the client's last model's [related].

    Both are of the examples as they are, not changed at random, computed once a round [ours]. A client that has not
    trained before has no last model, and no term.

    Args:
        model: as it came from the server.
        batches: the client's.
        state: with ``previous/<key>``, the shared tensors of the model's `feature_modules` as the client last
            trained them.
        h_global: (N, D) features under the model as it came; computed here if None.
        settings: weight and temperature.
    """

    def __init__(
        self,
        model: TrainedModel,
        batches: Batches,
        state: HospitalState,
        h_global: Tensor | None,
        settings: ClientRule,
    ) -> None:
        self.model, self.weight, self.temperature = model, settings.moon, settings.moon_temperature
        previous = state.part("previous")
        self.h_previous: Tensor | None = None
        if previous:
            self.h_global = batches.features(model) if h_global is None else h_global
            received = self._feature_tensors()
            model.load_state(previous)
            self.h_previous = batches.features(model)
            model.load_state(received)

    def _feature_tensors(self) -> dict[str, Tensor]:
        shared = self.model.state(Ownership.SHARED)
        modules = self.model.feature_modules
        return {key: tensor.clone() for key, tensor in shared.items() if key.partition("/")[0] in modules}

    def terms(self, batch: Any, indices: Sequence[int]) -> dict[str, Tensor]:
        """``model_contrast``, the mean over the batch."""
        if self.h_previous is None:
            return {}
        h = self.model.batch_features(batch)
        return {"model_contrast": moon_contrast(h, self.h_global[indices], self.h_previous[indices], self.temperature)}

    def kept(self) -> dict[str, Tensor]:
        """``previous/<key>`` of the model as it stands."""
        return {f"previous/{key}": tensor.cpu() for key, tensor in self._feature_tensors().items()}


class ControlVariates(UpdateRule):
    """SCAFFOLD: each shared parameter's gradient is corrected by c - c_i, before clipping [related].

    c_i is this client's control, c the server's. A round's new c_i is the mean of its uncorrected gradients: the
    optimiser is AdamW, under which SCAFFOLD's cheaper option, distance travelled over learning rate, would not be a
    gradient [ours]. The c_i travel as shared tensors ``control/<key>`` and FedAvg makes c of them: their mean weighted
    by the examples of the clients that took part in the last round [ours]. The correction is left out in a client's
    first round, where c_i is nothing yet.

    Args:
        model: as it came from the server.
        state: with ``control/<key>``, this client's c_i.
        received: c, ``control/<key>`` among the shared tensors.
    """

    def __init__(self, model: TrainedModel, state: HospitalState, received: dict[str, Tensor]) -> None:
        self.parameters = shared_parameters(model)
        own = state.part(CONTROL)
        self.corrections = {
            key: received[f"{CONTROL}/{key}"].to(p.device) - own[key].to(p.device)
            for key, p in self.parameters.items()
            if own
        }
        self.sums = {key: torch.zeros_like(parameter) for key, parameter in self.parameters.items()}
        self.steps = dict.fromkeys(self.parameters, 0)

    def correct_gradients(self) -> None:
        """Note the raw gradients, then add c - c_i to them."""
        for key, parameter in self.parameters.items():
            if parameter.grad is None:  # not trained in this pass
                continue
            self.sums[key] += parameter.grad
            self.steps[key] += 1
            if key in self.corrections:
                parameter.grad += self.corrections[key]

    def sent(self) -> dict[str, Tensor]:
        """``control/<key>``: the new c_i."""
        return {f"{CONTROL}/{key}": (total / max(self.steps[key], 1)).cpu() for key, total in self.sums.items()}

    def kept(self) -> dict[str, Tensor]:
        """The same, for the next round."""
        return self.sent()


def update_rules(
    model: TrainedModel,
    batches: Batches,
    state: HospitalState,
    received: dict[str, Tensor],
    h_global: Tensor | None,
    settings: ClientRule,
) -> list[UpdateRule]:
    """The rules that a row of methods asks for, made while the model still is as it came from the server.

    Args:
        model: with the received and the personal tensors loaded.
        batches: the client's.
        state: what the hospital kept.
        received: the server's tensors, controls among them.
        h_global: (N, D) features under the model as it came, where they are there already.
        settings: the row's client rule.
    """
    rules: list[UpdateRule] = []
    if settings.proximal:
        rules.append(Proximal(model, settings.proximal))
    if settings.moon:
        rules.append(ModelContrast(model, batches, state, h_global, settings))
    if settings.control_variates:
        rules.append(ControlVariates(model, state, received))
    return rules


def shared_parameters(model: TrainedModel) -> dict[str, nn.Parameter]:
    """The trainable parameters of the shared modules, ``module/name``; no buffers."""
    owners = model.ownership
    return {k: p for k, p in model.trainable().items() if owners[k.partition("/")[0]] is Ownership.SHARED}


def initial_controls(model: TrainedModel) -> dict[str, Tensor]:
    """SCAFFOLD's c before round 1: zeros, keyed ``control/<key>``."""
    return {f"{CONTROL}/{key}": torch.zeros_like(p, device="cpu") for key, p in shared_parameters(model).items()}


def moon_contrast(h: Tensor, h_global: Tensor, h_previous: Tensor, temperature: float) -> Tensor:
    """MOON's loss: a softmax over two cosines, the server model's feature being the right answer [related].

    Args:
        h: (B, D) features of the model in training.
        h_global: (B, D) of the model as it came from the server, without gradient.
        h_previous: (B, D) of the client's last local model, without gradient.
        temperature: t > 0.

    Returns:
        A scalar, the mean over the batch.
    """
    near = functional.cosine_similarity(h, h_global.detach(), dim=-1)  # (B,)
    far = functional.cosine_similarity(h, h_previous.detach(), dim=-1)
    return functional.softplus((far - near) / temperature).mean()
