"""What the model of any task has: modules with owners, whose tensors come, go and are optimised.

Training, rules, optimiser and the federation ask for nothing else. A task's own code asks for more and declares it:
that of the reports in `report_model`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fedmrg_core.errors import InputError
from fedmrg_core.runs.methods import Method, Ownership
from fedmrg_core.training.batch_statistics import is_statistic


class TrainedModel(nn.Module):
    """A model made of the modules that its row of methods names (contract 3).

    Attributes:
        method: its row.
        ownership: who owns each module.
        initial_personal: the personal tensors as they started, ``module/name``.
        feature_modules: the modules that `batch_features` goes through; none where a model has no features.

    Args:
        method: which modules exist and who owns them.
    """

    method: Method
    ownership: dict[str, Ownership]
    initial_personal: dict[str, Tensor]
    feature_modules: tuple[str, ...] = ()

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.ownership = dict(method.modules)

    def tensors_of(self, module: str) -> dict[str, Tensor]:
        """Parameters and floating-point buffers (BatchNorm statistics) of one module of its row.

        Here those of the attribute that is called so; a model whose modules lie otherwise says where.
        """
        part = getattr(self, module)
        kept = part.state_dict()  # without the constant buffers
        buffers = {n: b for n, b in part.named_buffers() if n in kept and b.is_floating_point()}
        return {**dict(part.named_parameters()), **buffers}

    def batch_features(self, batch: Any) -> Tensor:
        """A vector for each example of a batch, (B, D), which rules compare (MOON).

        Raises:
            InputError: the model has none.
        """
        raise InputError(f"method {self.method.name!r}: client.moon compares features, and its model has none.")

    @contextlib.contextmanager
    def computed_once(self) -> Iterator[None]:
        """Inside, features of the batch that the loss was computed on should come without a second pass.

        A model that has features says how; here nothing is remembered, and BatchNorm counts such a batch twice.
        """
        yield

    def train_only(self, modules: Collection[str]) -> None:
        """Put the model in training, where only these modules learn: BatchNorm of the others keeps its statistics."""
        self.train()
        still = {id(tensor) for name in self.ownership if name not in modules for tensor in self._buffers_of(name)}
        for layer in self.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and id(layer.running_mean) in still:
                layer.eval()

    def _buffers_of(self, module: str) -> list[Tensor]:
        return [tensor for tensor in self.tensors_of(module).values() if not isinstance(tensor, nn.Parameter)]

    def remember_shared(self) -> None:
        """Called when a round's shared tensors have just been loaded, for models that keep something of them."""

    def after_step(self, progress: float) -> None:
        """Called after every step of the optimiser, while gradients are still there.

        Args:
            progress: share of the whole run that is done, in [0, 1].
        """

    def settle_ownership(self) -> None:
        """Freeze what is frozen and remember how personal modules start; call it when all modules stand."""
        for name, owner in self.ownership.items():
            if owner is Ownership.FROZEN:
                for tensor in self.tensors_of(name).values():
                    tensor.requires_grad_(False)
        self.initial_personal = {name: tensor.clone() for name, tensor in self.state(Ownership.PERSONAL).items()}

    def state(self, ownership: Ownership) -> dict[str, Tensor]:
        """Every tensor of the modules so owned, keyed ``module/parameter.name``, detached and not copied."""
        return {
            f"{module}/{name}": tensor.detach()
            for module, owner in self.ownership.items()
            if owner is ownership
            for name, tensor in self.tensors_of(module).items()
        }

    def own(self, statistics: bool) -> dict[str, Tensor]:
        """What a client keeps and lays over the shared tensors.

        Args:
            statistics: its BatchNorm statistics of shared modules as well as its personal modules.
        """
        shared = self.state(Ownership.SHARED) if statistics else {}
        return self.state(Ownership.PERSONAL) | {key: t for key, t in shared.items() if is_statistic(key)}

    def trainable(self) -> dict[str, nn.Parameter]:
        """Every parameter that training changes, keyed ``module/parameter.name``."""
        return {
            f"{module}/{name}": tensor
            for module, owner in self.ownership.items()
            if owner is not Ownership.FROZEN
            for name, tensor in self.tensors_of(module).items()
            if isinstance(tensor, nn.Parameter)
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Copy in the tensors of whole modules, strictly.

        Raises:
            InputError: a module is unknown, one of its tensors is missing or unknown, or a shape differs.
        """
        by_module: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            module, _, name = key.partition("/")
            by_module.setdefault(module, {})[name] = tensor
        for module, part in by_module.items():
            if module not in self.ownership:
                raise InputError(f"model state: module {module!r} is unknown; expected {', '.join(self.ownership)}.")
            _copy_in(self.tensors_of(module), part)


def parameter_counts(model: TrainedModel) -> dict[str, int]:
    """How many parameters there are of each sort; buffers (BatchNorm statistics, fixed random matrices) do not count.

    Returns:
        ``shared`` and ``personal``, and ``trainable``, their sum; ``frozen`` (what is no module, such as a LLM, and
        modules that the method freezes), and ``total``, everything.
    """
    counts = {"shared": 0, "personal": 0}
    for key, parameter in model.trainable().items():
        counts[model.ownership[key.split("/")[0]].value] += parameter.numel()
    trainable, total = sum(counts.values()), sum(parameter.numel() for parameter in model.parameters())
    return {"trainable": trainable, **counts, "frozen": total - trainable, "total": total}


def _copy_in(parameters: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    wrong = parameters.keys() ^ tensors.keys()
    if wrong:
        raise InputError(
            f"model state: parameter {sorted(wrong)[0]!r} is missing or unknown; expected the same method."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != tensors[name].shape:
                raise InputError(
                    f"model state: {name!r} has shape {tuple(tensors[name].shape)}, expected {tuple(parameter.shape)}."
                )
            parameter.copy_(tensors[name])
