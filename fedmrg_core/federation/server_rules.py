"""How the server makes the next shared model of the clients' updates: Flower's strategies, and one of our own.

Those that hold against dishonest clients stand in `robust_rules`.
A strategy that remembers something from round to round has `state` and `load_state`: the checkpoint keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, Strategy
from torch import Tensor
from torch.nn import functional

from fedmrg_core.federation.messages import ARRAYS, EXAMPLES, METRICS
from fedmrg_core.federation.privacy import Cohort, PrivateAverage
from fedmrg_core.federation.robust_rules import RobustKrum, RobustMedian, RobustTrimmedMean
from fedmrg_core.runs.methods import ServerRule
from fedmrg_core.training.batch_statistics import is_statistic, pooled_statistics

# Every connected client, weighted by its training examples; who takes part is the loop's choice.
_EVERYBODY = {
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
    "weighted_by_key": EXAMPLES,
}
_NEGLIGIBLE = 1e-10  # of the largest singular value


def make_strategy(rule: ServerRule, buffers: Collection[str] = (), cohort: Cohort | None = None) -> Strategy:
    """The strategy of one row of methods.

    Args:
        rule: which one, and its numbers.
        buffers: keys of shared tensors that are no parameters (BatchNorm statistics). No optimiser of the server moves
            them: a step of momentum or Adam could make a variance negative [ours]. Nor does Krum choose by them.
        cohort: who takes part; a rule with a budget of privacy needs it.

    Raises:
        ValueError: the rule has a name in ServerRule, and no strategy here.
    """
    if rule.rule == "fedavg":
        return FederatedAverage(**_EVERYBODY)
    if rule.rule == "private":
        return PrivateAverage(FedAvg(**_EVERYBODY), rule, cohort)
    if rule.rule == "exact-lora":
        return ExactLora(**_EVERYBODY)
    if rule.rule == "median":
        return RobustMedian(**_EVERYBODY)
    if rule.rule == "trimmed-mean":
        return RobustTrimmedMean(rule.attackers, **_EVERYBODY)
    if rule.rule in ("krum", "multi-krum"):
        strategy = RobustKrum(rule.attackers, rule.rule == "multi-krum", **_EVERYBODY)
    elif rule.rule == "fedavgm":
        strategy = ServerMomentum(server_learning_rate=rule.learning_rate, server_momentum=rule.momentum, **_EVERYBODY)
    elif rule.rule == "fedadam":
        strategy = ServerAdam(eta=rule.learning_rate, tau=rule.tau, **_EVERYBODY)
    else:
        raise ValueError(f"server.rule {rule.rule} has no strategy; give it one in make_strategy")
    strategy.buffers = frozenset(buffers)
    return strategy


def state_of(strategy: Strategy) -> dict[str, Tensor]:
    """What a strategy carries from round to round; nothing for plain averages."""
    return strategy.state() if hasattr(strategy, "state") else {}


def load_state(strategy: Strategy, state: Mapping[str, Tensor]) -> None:
    """Give a new strategy what :func:`state_of` took from another; nothing is the state before round 1."""
    if state:
        strategy.load_state(state)


class FederatedAverage(FedAvg):
    """Flower's FedAvg, with BatchNorm statistics pooled, see :mod:`fedmrg_core.training.batch_statistics`."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The weighted mean of the clients' arrays; of their BatchNorm statistics those of all examples together."""
        replies = [reply for reply in replies if not reply.has_error()]
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is not None:
            for key, tensor in self.corrections(arrays, replies).items():
                arrays[key] = Array.from_numpy_ndarray(tensor.contiguous().numpy())
        return arrays, metrics

    def corrections(self, means: ArrayRecord, replies: Sequence[Message]) -> dict[str, Tensor]:
        """The tensors for which the mean of the clients' is the wrong one, as they should be.

        Args:
            means: the weighted mean of every array.
            replies: of the clients that trained; none with an error.
        """
        names = [key for key in means if is_statistic(key)]
        clients = [{key: _tensor(reply.content[ARRAYS][key]) for key in names} for reply in replies]
        return pooled_statistics(clients, _shares(replies))


class _PlainBuffers(FederatedAverage):
    """Stands between Flower's server optimisers and the average, and remembers how that has the buffers."""

    buffers: frozenset[str] = frozenset()
    _means: Mapping[str, Array] = {}

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The weighted mean of the clients' arrays."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        self._means = {} if arrays is None else {key: arrays[key] for key in self.buffers & set(arrays)}
        return arrays, metrics

    def with_plain_buffers(self, arrays: ArrayRecord) -> ArrayRecord:
        """A server optimiser's result with each buffer as the average has it, in float32 throughout."""
        values = {key: self._means.get(key, array).numpy() for key, array in arrays.items()}
        return ArrayRecord({key: Array(numpy.asarray(value, numpy.float32)) for key, value in values.items()})


class ServerMomentum(FedAvgM, _PlainBuffers):
    """Flower's FedAvgM, from the model that the clients have [related: Hsu et al. 2019]."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As Flower's, but from `arrays` in every round: Flower goes on from its own last result."""
        self.current_arrays = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As Flower's, but for the buffers."""
        self._keys = list(self.current_arrays)
        arrays, metrics = super().aggregate_train(server_round, replies)
        return arrays if arrays is None else self.with_plain_buffers(arrays), metrics

    def state(self) -> dict[str, Tensor]:
        """``momentum/<key>`` for each array, once a round was aggregated."""
        if self.momentum_vector is None:
            return {}
        pairs = zip(self._keys, self.momentum_vector, strict=True)
        return {f"momentum/{key}": torch.tensor(values) for key, values in pairs}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`; arrays come in the order of their keys."""
        self.momentum_vector = [state[name].numpy() for name in sorted(state)]


class ServerAdam(FedAdam, _PlainBuffers):
    """Flower's FedAdam [related: Reddi et al. 2020]."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As Flower's, but for the buffers."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        return arrays if arrays is None else self.with_plain_buffers(arrays), metrics

    def state(self) -> dict[str, Tensor]:
        """``first_moment/<key>`` and ``second_moment/<key>`` for each array, once a round was aggregated."""
        moments = {"first_moment": self.m_t or {}, "second_moment": self.v_t or {}}
        return {f"{name}/{key}": torch.tensor(value) for name, part in moments.items() for key, value in part.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        parts: dict[str, dict[str, numpy.ndarray]] = {"first_moment": {}, "second_moment": {}}
        for name, tensor in state.items():
            moment, _, key = name.partition("/")
            parts[moment][key] = tensor.numpy()
        self.m_t, self.v_t = parts.values()


class ExactLora(FederatedAverage):
    """The average, but LoRA factors are made of the mean of the clients' products [related: exact aggregation of LoRA].

    The mean of the factors is not the factor of the mean: mean(B_k) mean(A_k) differs from mean(B_k A_k). The latter is
    factorised to the adapter's rank r by truncated SVD: exact where its rank is at most r, else the nearest
    matrix of rank r. Of K clients' products it may be K r.
    """

    def corrections(self, means: ArrayRecord, replies: Sequence[Message]) -> dict[str, Tensor]:
        """The pooled statistics, and the factors that stand in one module, by their mean products."""
        corrected = super().corrections(means, replies)
        weights = torch.tensor(_shares(replies), dtype=torch.double)
        for a_key in means:
            b_key = a_key.removesuffix("lora_A") + "lora_B"
            if not a_key.endswith("lora_A") or b_key not in means:
                continue
            b, a = ([_tensor(reply.content[ARRAYS][key]) for reply in replies] for key in (b_key, a_key))
            factors = factorised_mean(b, a, weights, _tensor(means[b_key]), _tensor(means[a_key]))
            corrected |= {key: factor.float() for key, factor in zip((b_key, a_key), factors, strict=True)}
        return corrected


def factorised_mean(
    b: Sequence[Tensor], a: Sequence[Tensor], weights: Tensor, mean_b: Tensor, mean_a: Tensor
) -> tuple[Tensor, Tensor]:
    """Factors of the weighted mean of products, of the clients' own rank.

    A product has many pairs of factors. Clients go on with Adam's moments of the entries that they have trained, so the
    pair returned is turned and scaled towards the mean factors [ours]: with U sqrt(S) and sqrt(S) V' as they are, the
    moments would belong to other rows and columns.

    Args:
        b: (out, r) of each client.
        a: (r, in) of each client.
        weights: (K,) that sum to one.
        mean_b: (out, r), the weighted mean of `b`.
        mean_a: (r, in), the weighted mean of `a`.

    Returns:
        B = c U sqrt(S) R and A = R' sqrt(S) V' / c, float64, with R orthogonal and c > 0. Directions in which the mean
        product is zero start from a zero column of B and a row of A as long as the mean A's rows are: with zeros in
        both no gradient would ever reach them [ours].
    """
    rank = len(a[0])
    # Of the stacks' triangular factors the SVD is that of the whole product, and much smaller than it.
    left, left_small = torch.linalg.qr(torch.cat([w * b_k.double() for w, b_k in zip(weights, b, strict=True)], dim=1))
    right, right_small = torch.linalg.qr(torch.cat([a_k.double() for a_k in a]).T)
    u, s, vh = torch.linalg.svd(left_small @ right_small.T, full_matrices=False)
    u, s, vh = left @ u[:, :rank], s[:rank], vh[:rank] @ right.T
    mean_b, mean_a = mean_b.double(), mean_a.double()
    empty = s <= _NEGLIGIBLE * s[0]
    b_lengths = torch.where(empty, torch.zeros_like(s), s.sqrt())
    a_lengths = torch.where(empty, mean_a.norm(dim=1).mean(), s.sqrt())
    missing = rank - len(s)  # a layer narrower than the rank
    new_b, new_a = functional.pad(u * b_lengths, (0, missing)), torch.cat([a_lengths[:, None] * vh, mean_a[len(s) :]])
    return _like_the_means(new_b, new_a, mean_b, mean_a)


def _like_the_means(b: Tensor, a: Tensor, mean_b: Tensor, mean_a: Tensor) -> tuple[Tensor, Tensor]:
    """(c B R, R' A / c): c for the means' ratio of norms, R orthogonal and by Procrustes the nearest to the means."""
    norms = [tensor.norm() for tensor in (b, a, mean_b, mean_a)]
    if min(norms) == 0:  # B before the first round
        return b, a
    scale = (norms[2] * norms[1] / (norms[0] * norms[3])).sqrt()
    b, a = scale * b, a / scale
    left, _, right = torch.linalg.svd(b.T @ mean_b / norms[2] ** 2 + a @ mean_a.T / norms[3] ** 2)
    turn = left @ right
    return b @ turn, turn.T @ a


def _shares(replies: Sequence[Message]) -> list[float]:
    """Each client's share of all training examples."""
    examples = [float(reply.content[METRICS][EXAMPLES]) for reply in replies]
    return [count / sum(examples) for count in examples]


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(numpy.asarray(array.numpy(), order="C"))
