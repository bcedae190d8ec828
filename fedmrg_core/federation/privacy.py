"""Differential privacy of whole hospitals, with a budget: Flower's clipping, noise and accountant.

Each round the server clips every update to one length, averages them with equal weights, and adds Gaussian noise. What
is protected is the shared model: who receives it learns little of whether a hospital took part. The server itself sees
the updates as they come. Losses and counts of the hospitals are not covered, and no study of one hospital by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import numpy
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import (
    GaussianPrivacyEvent,
    Grid,
    NeighboringRelation,
    PrivacyAccountant,
    PrivacyConfig,
    SamplingMethod,
)
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Strategy
from torch import Tensor

from fedmrg_core.errors import InputError
from fedmrg_core.federation.messages import ARRAYS, EXAMPLES, METRICS
from fedmrg_core.federation.task import Task
from fedmrg_core.runs.configuration import sample_size
from fedmrg_core.runs.methods import ServerRule
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.runs.run_folder import RunFolder
from fedmrg_core.seeds import numpy_stream

PRIVACY_FILE = "privacy.csv"
RELEASES = "releases"
_SHORTEST = 1e-12  # an update shorter than this is none


@dataclasses.dataclass(frozen=True)
class Cohort:
    """Who takes part in a run.

    Attributes:
        clients: how many hospitals there are.
        sampled: how many of them train in a round.
        seed: of the run; the noise is drawn from it, so that a run can be made again.
    """

    clients: int
    sampled: int
    seed: int

    @classmethod
    def of(cls, configuration: RunConfiguration, clients: int) -> Cohort:
        """The cohort of a run."""
        return cls(clients, sample_size(clients, configuration.profile.federation.participation), configuration.seed)


class PrivateAverage(DifferentialPrivacyServerSideFixedClipping):
    """Flower's FedAvg under central differential privacy [related: Geyer et al. 2017, McMahan et al. 2018].

    Args:
        average: the FedAvg that is wrapped.
        rule: clipping norm, noise multiplier, budget.
        cohort: who takes part.
    """

    def __init__(self, average: FedAvg, rule: ServerRule, cohort: Cohort) -> None:
        self.rule, self.cohort = rule, cohort
        super().__init__(
            average, rule.noise_multiplier, rule.clipping_norm, cohort.sampled, accountant=make_accountant(rule, cohort)
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As Flower's, but everybody is written to: the loop picks those who train.

        Raises:
            PrivacyBudgetExhausted: the round would spend more than the budget.
        """
        self.current_arrays = arrays
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        asked = messages[: self.num_sampled_clients]
        if len(asked) == self.num_sampled_clients:  # else the round stops by rule, and nothing is released
            self._prepare_accounting(server_round, asked)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As Flower's, with equal weights: a hospital's size must not raise what one of them can change."""
        replies = list(replies)
        for reply in replies:
            arrays = reply.content[ARRAYS]
            reply.content[ARRAYS] = _with_length({key: arrays[key] for key in self.current_arrays}, self.current_arrays)
            reply.content[METRICS] = MetricRecord({EXAMPLES: 1.0})
        with _drawn_from(numpy_stream(self.cohort.seed, "privacy", server_round)):
            return super().aggregate_train(server_round, replies)

    def state(self) -> dict[str, Tensor]:
        """``releases``: how many noisy averages the hospitals were sent."""
        return {RELEASES: torch.tensor(self.accountant.num_releases)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on with what was spent before."""
        if releases := int(state[RELEASES]):
            self.accountant.compose(_release(self.rule, self.cohort), releases)


def make_accountant(rule: ServerRule, cohort: Cohort) -> PrivacyAccountant:
    """Flower's accountant of Renyi differential privacy, with nothing spent.

    Which hospitals are sampled is known to the server, so that sampling is not counted as a protection.

    Raises:
        InputError: the package it needs is missing.
    """
    settings = PrivacyConfig(
        target_delta=rule.delta,
        population_size=cohort.clients,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        sampling_method=SamplingMethod.NO_AMPLIFICATION,
        max_epsilon=rule.max_epsilon,
    )
    try:
        from flwr.serverapp import RdpAccountant

        return RdpAccountant(settings)
    except ImportError as error:
        raise InputError(
            "server.rule: private needs the package dp-accounting; install it with pip install 'fedmrg[privacy]'."
        ) from error


def check_private(task: Task) -> None:
    """Hold a rule with a budget against what leaves the hospitals of a task.

    Raises:
        InputError: something would leave without clipping and noise, or a variance would be given noise.
    """
    row = task.configuration.method
    if row.server.rule != "private":
        return
    unprotected = {
        "prototypes of the encoder": bool(task.leaving().prototype),
        "statistics of batches, whose variances noise would make negative": bool(task.shared_buffers()),
    }
    for what, leaves in unprotected.items():
        if leaves:
            raise InputError(
                f"method {row.name!r}: server.rule private does not cover {what}, which this row sends; choose a row "
                "that does not send them."
            )


def affordable_rounds(configuration: RunConfiguration, clients: int) -> int:
    """How many rounds a run may have: those of its profile, or fewer where a budget of privacy ends before.

    Raises:
        InputError: not one round fits into the budget.
    """
    rounds, rule = configuration.profile.federation.rounds, configuration.method.server
    if rule.rule != "private":
        return rounds
    cohort = Cohort.of(configuration, clients)
    accountant, release = make_accountant(rule, cohort), _release(rule, cohort)
    for spent in range(rounds):
        if accountant.would_exceed(release):
            if spent:
                return spent
            raise InputError(
                f"method {configuration.method.name!r}: server.max_epsilon is {rule.max_epsilon:g}, and one round "
                f"spends {epsilon_after(rule, cohort, 1):.4g}; raise server.max_epsilon or server.noise_multiplier."
            )
        accountant.compose(release)
    return rounds


def epsilon_after(rule: ServerRule, cohort: Cohort, releases: int) -> float:
    """The epsilon that some rounds spend at the rule's delta."""
    accountant = make_accountant(rule, cohort)
    if releases:
        accountant.compose(_release(rule, cohort), releases)
    return accountant.get_epsilon(rule.delta)


def write_spending(run_folder: pathlib.Path, strategy: Strategy) -> None:
    """privacy.csv: the epsilon spent after each round; nothing for rules without a budget."""
    if isinstance(strategy, PrivateAverage):
        rule, cohort = strategy.rule, strategy.cohort
        rows = [
            {"round": number, "epsilon": epsilon_after(rule, cohort, number), "delta": rule.delta}
            for number in range(1, strategy.accountant.num_releases + 1)
        ]
        RunFolder(run_folder).write_csv(PRIVACY_FILE, rows, ["round", "epsilon", "delta"])


def _with_length(arrays: Mapping[str, Array], before: Mapping[str, Array]) -> ArrayRecord:
    """A model as it came; one that is no other than before is moved by a trace, as Flower divides by the length."""
    squares = sum(float(((arrays[key].numpy() - before[key].numpy()).astype(float) ** 2).sum()) for key in arrays)
    if squares < _SHORTEST**2:
        first = next(iter(arrays))
        moved = before[first].numpy().copy()
        moved.flat[0] += max(_SHORTEST, abs(moved.flat[0]) * 1e-6)
        arrays = {**before, first: Array(moved)}
    return ArrayRecord(dict(arrays))


def _release(rule: ServerRule, cohort: Cohort) -> GaussianPrivacyEvent:
    return GaussianPrivacyEvent(rule.noise_multiplier, cohort.sampled, cohort.clients)


@contextlib.contextmanager
def _drawn_from(stream: numpy.random.Generator) -> Iterator[None]:
    """Flower's noise comes from NumPy's global generator: within, it starts from a number of this stream."""
    before = numpy.random.get_state()
    numpy.random.seed(stream.integers(0, 2**32, size=8, dtype=numpy.uint32))
    try:
        yield
    finally:
        numpy.random.set_state(before)
