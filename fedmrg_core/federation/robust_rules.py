"""Rules of the server that a few dishonest clients cannot lead away: Flower's Krum, trimmed mean and median.

All of them take clients alike: a weight by examples would let a client that claims many have its way. (Among those that
Multi-Krum has chosen Flower weights by examples, and so does this.) None remembers anything from round to round.

What else travels with the parameters [ours]:

- BatchNorm statistics and other buffers are never Krum's business: a client whose parameters are honest could bring a
  poisoned variance. They are made of all clients by the median, or by the trimmed mean of that rule. A variance is the
  robust mean of var_k + (mean_k - mean)^2, with the robust mean in both places where the average pools by examples
  (`fedmrg_core.training.batch_statistics`). It never comes out negative.
- LoRA factors are tensors like others. The median of the factors is no factor of a median of products, as the mean is
  none of the mean's.
- SCAFFOLD's control variates have to sum to their mean: `runs.methods` refuses the pair.
- Prototypes are no part of any rule. Each client's goes to the others as it came, so a row whose contrast reads them is
  as open there as with the average.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, MultiKrum
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean

from fedmrg_core.federation.messages import ARRAYS
from fedmrg_core.training.batch_statistics import MEAN, VARIANCE

Values = numpy.ndarray
Centre = Callable[[Values], Values]  # of (clients, ...): one value for each place


class RobustMedian(FedMedian):
    """Flower's FedMedian: of each number the median over clients [related: Yin et al. 2018]."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As Flower's, but for variances, see the module."""
        replies = _usable(replies)
        variances = pooled_variances(replies, _median)  # before Flower takes the arrays out of the replies
        arrays, metrics = super().aggregate_train(server_round, replies)
        return _with_values(arrays, variances), metrics


class RobustTrimmedMean(FedTrimmedAvg):
    """Flower's FedTrimmedAvg: of each number the mean without the f lowest and highest [related: Yin et al. 2018].

    Flower cuts int(beta n) at either end. A beta that is right for all clients cuts fewer, or none at all, in a round
    in which some are left out, so beta follows from f and the round's clients here [ours].

    Args:
        attackers: f.
        settings: of FedAvg.
    """

    def __init__(self, attackers: int, **settings: int | str) -> None:
        super().__init__(**settings)
        self.attackers = attackers

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As Flower's, but for variances, see the module."""
        replies = _usable(replies)
        if not replies:
            return None, None
        cut = min(self.attackers, (len(replies) - 1) // 2)
        self.beta = (cut + 0.25) / len(replies)  # clear of whole numbers: int(0.29 * 100) is 28
        variances = pooled_variances(replies, lambda values: trim_mean(values, self.beta))
        arrays, metrics = super().aggregate_train(server_round, replies)
        return _with_values(arrays, variances), metrics


class RobustKrum(MultiKrum):
    """Flower's MultiKrum: the clients whose parameters are nearest to those of most others, or the mean of these.

    A client's score is the sum of its squared distances to the n - f - 2 nearest others. The lowest is chosen
    [related: Blanchard et al. 2017], or as many of the lowest as there are such neighbours: how many Multi-Krum takes
    is open [ours].

    Flower's own distances are |x|^2 + |y|^2 - 2 x y of whole models in float32. Where models differ by a thousandth of
    their length no digit of them is left, some come out negative, and all models are stacked in memory. So they are
    summed here in float64, of differences, one tensor at a time, and over parameters alone [ours].

    Args:
        attackers: f.
        several: Multi-Krum.
        settings: of FedAvg.
    """

    buffers: frozenset[str] = frozenset()

    def __init__(self, attackers: int, several: bool, **settings: int | str) -> None:
        super().__init__(num_malicious_nodes=attackers, **settings)
        self.several = several

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The chosen clients' parameters, and the median of all clients' buffers."""
        replies = _usable(replies)
        if not replies:
            return None, None
        chosen = nearest(squared_distances(replies, self.buffers), self.num_malicious_nodes, self.several)
        arrays, metrics = FedAvg.aggregate_train(self, server_round, [replies[place] for place in chosen])
        buffers = {key: _median(_stacked(replies, key)) for key in sorted(self.buffers & set(arrays))}
        return _with_values(arrays, buffers | pooled_variances(replies, _median)), metrics


def squared_distances(replies: Sequence[Message], buffers: Collection[str] = ()) -> Values:
    """(n, n), the squared Euclidean distance of each two clients' parameters."""
    found = numpy.zeros((len(replies), len(replies)))
    for key in replies[0].content[ARRAYS]:
        if key in buffers:
            continue
        values = _stacked(replies, key)
        for one, other in itertools.combinations(range(len(replies)), 2):
            difference = numpy.subtract(values[one], values[other], dtype=float)
            found[one, other] += float(numpy.square(difference).sum())
    return found + found.T


def nearest(distances: Values, attackers: int, several: bool = False) -> list[int]:
    """The places of the clients that Krum chooses; of equal scores the first.

    Args:
        distances: (n, n), see `squared_distances`.
        attackers: f.
        several: Multi-Krum.
    """
    count = max(1, len(distances) - attackers - 2)
    others = numpy.sort(distances + numpy.diag(numpy.full(len(distances), numpy.inf)))  # none is its own neighbour
    scores = others[:, :count].sum(axis=1)
    order = numpy.argsort(scores, kind="stable").tolist()
    return sorted(order[: count if several else 1])  # summed in the clients' order


def pooled_variances(replies: Sequence[Message], centre: Centre) -> dict[str, Values]:
    """The clients' BatchNorm variances around a common mean, by key.

    Args:
        replies: of the clients that trained.
        centre: the robust mean, of (clients, channels).
    """
    found = {}
    for key in replies[0].content[ARRAYS] if replies else ():
        mean_key = f"{key.removesuffix(VARIANCE)}{MEAN}"
        if key.endswith(VARIANCE) and mean_key in replies[0].content[ARRAYS]:
            means, variances = (_stacked(replies, name).astype(float) for name in (mean_key, key))
            found[key] = centre(variances + (means - centre(means)) ** 2)
    return found


def _usable(replies: Iterable[Message]) -> list[Message]:
    return [reply for reply in replies if not reply.has_error()]


def _stacked(replies: Sequence[Message], key: str) -> Values:
    """(clients, ...) of one tensor."""
    return numpy.stack([reply.content[ARRAYS][key].numpy() for reply in replies])


def _median(values: Values) -> Values:
    return numpy.median(values, axis=0)


def _with_values(arrays: ArrayRecord | None, values: Mapping[str, Values]) -> ArrayRecord | None:
    """Arrays in float32 throughout, some of them replaced."""
    if arrays is None:
        return None
    whole = {key: values[key] if key in values else array.numpy() for key, array in arrays.items()}
    return ArrayRecord({key: Array(numpy.asarray(value, numpy.float32)) for key, value in whole.items()})
