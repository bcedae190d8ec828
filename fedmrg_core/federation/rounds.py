"""The server's loop: send, check, aggregate, validate, checkpoint, round after round.

Flower's strategies make the messages and aggregate; the loop is ours, because `Strategy.start` can neither go on from a
round nor stop when clients fail.
"""

from __future__ import annotations

import logging
import math
import pathlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedmrg_core.federation.checkpoints import BestRound, ServerState, load_checkpoint, save_checkpoint
from fedmrg_core.federation.correspondence import Correspondence, Reply, arrived
from fedmrg_core.federation.downlink import Downlink, SentModel, Update, with_model
from fedmrg_core.federation.gate import Gate, open_gate
from fedmrg_core.federation.messages import (
    ARRAYS,
    BEST_ROUND,
    EXAMPLES,
    METRICS,
    PROTOTYPES,
    STATE_ROUND,
    from_record,
    to_record,
)
from fedmrg_core.federation.privacy import Cohort, PrivateAverage, check_private, write_spending
from fedmrg_core.federation.replies import Expected, UnusableReply, read_loss, read_metrics, too_long
from fedmrg_core.federation.reply_store import ReplyStore
from fedmrg_core.federation.roster import Roster
from fedmrg_core.federation.round_record import NOT_VALIDATED, RoundRecord, write_tables, write_timing
from fedmrg_core.federation.server_rules import load_state, make_strategy, state_of
from fedmrg_core.federation.task import SELECTION_MEASURE, Task, initial_model, run_fingerprint
from fedmrg_core.runs.configuration import sample_size
from fedmrg_core.seeds import numpy_stream

logger = logging.getLogger(__name__)


class TooFewClients(RuntimeError):
    """Fewer usable clients than `min_clients`: the run has stopped."""


def log_round(rows: list[dict]) -> None:
    """One line on a round's outcome."""
    losses = {row["client"]: row.get(SELECTION_MEASURE, math.nan) for row in rows}
    text = ", ".join(f"{client} {loss:.3f}" for client, loss in losses.items())
    logger.info("round %d: validation language loss %s", rows[0]["round"], text)


class FederatedRounds:
    """The rounds of one run.

    Args:
        grid: any of Flower's grids.
        run_folder: receives checkpoint/, rounds.csv, ledger.csv and timing.csv.
        task: the server's half of it.
        roster: who takes part.
        strategy: what aggregates, if not what the method's row of methods.yaml says.
        report: called after each round with its rows of rounds.csv.
        gate: who is let in, if not what the run's configuration says.
    """

    def __init__(
        self,
        grid: Grid,
        run_folder: pathlib.Path,
        task: Task,
        roster: Roster,
        strategy: Strategy | None = None,
        report: Callable[[list[dict]], None] = log_round,
        gate: Gate | None = None,
    ) -> None:
        self.run_folder, self.task, self.roster = run_folder, task, roster
        self.settings, self.seed = task.configuration.profile.federation, task.configuration.seed
        method, buffers = task.configuration.method, frozenset(task.shared_buffers())
        check_private(task)
        method.server.check_clients(sample_size(len(roster.names), self.settings.participation))
        cohort = Cohort.of(task.configuration, len(roster.clients))
        self.strategy = strategy or make_strategy(method.server, buffers, cohort)
        self.rule, self.first_choice = method.server, method.first_choice
        self.report = report
        self.gate = gate or open_gate(run_folder, task.configuration)
        self.fingerprint = run_fingerprint(task, roster)
        self.hospitals = Correspondence(grid, roster, self.settings.round_timeout, task.leaving().modules)
        # Round 0 is the start: no state on any disk yet, and the model that every hospital makes from the seed itself.
        nothing_yet = dict.fromkeys(roster.names, 0)
        self.state = load_checkpoint(run_folder / "checkpoint", self.fingerprint) or ServerState(
            0, initial_model(run_folder), {}, nothing_yet, nothing_yet
        )
        self.downlink = Downlink(method.payload, self.state.shared, buffers)
        load_state(self.strategy, self.state.rule)

    def run(self, last_round: int) -> None:
        """Run the rounds up to `last_round` that the checkpoint does not hold yet.

        Raises:
            TooFewClients: in some round fewer than `min_clients` were left.
        """
        # After a kill tables may be of a round that the checkpoint lacks, or lack one that it has: it is what counts.
        write_tables(self.run_folder, self.state.rounds, self.state.ledger)
        write_spending(self.run_folder, self.strategy)
        self.gate.settle(self.state.round_number)
        for round_number in range(self.state.round_number + 1, last_round + 1):
            started = time.perf_counter()
            record = RoundRecord(round_number, self.roster.names)
            try:
                self._round(record)
            except TooFewClients:
                # The rows say who failed and why. No checkpoint: the round is run again when they are back.
                write_tables(
                    self.run_folder, self.state.rounds + record.rows(), self.state.ledger + record.ledger_rows()
                )
                self.gate.stop(round_number)
                raise
            save_checkpoint(self.run_folder / "checkpoint", self.state, self.fingerprint)
            write_tables(self.run_folder, self.state.rounds, self.state.ledger)
            write_spending(self.run_folder, self.strategy)
            write_timing(self.run_folder, round_number, time.perf_counter() - started, record.local_seconds)
            self.gate.settle(round_number)
            self.report(record.rows())

    def _round(self, record: RoundRecord) -> None:
        """Train and validate once; `self.state` is the state after it."""
        # Everybody is waited for once. Later a hospital that is away must not cost each round the whole timeout.
        self.hospitals.meet()
        sampled = sampled_clients(self.roster.names, self.settings.participation, self.seed, record.round_number)
        resting = [client for client in self.roster.names if client not in sampled]
        for client in resting:
            record.pause(client)
        updates, prototypes = self._train(record, sampled)
        self._require(record, len(updates), len(sampled))
        self._require_everybody(record, len(updates), len(sampled))
        self._require_majority(record, len(updates))
        weights = {client: float(reply.content[METRICS][EXAMPLES]) for client, reply in updates.items()}
        taken, aggregated = tuple(updates), self._aggregated(record.round_number, updates)
        updates.clear()  # the replies are large
        sent, unsent = self.downlink.following(aggregated, self.state)
        state_rounds = self.state.state_rounds | dict.fromkeys(taken, record.round_number)
        # Those who rest validate as well: else rounds would be compared by the losses of different clients [ours].
        losses = self._validate(record, sent, sorted((*taken, *resting)), taken, state_rounds)
        self._require(record, len(losses), len(sampled))
        # A shared model is one round's for everybody; where nothing is shared, nothing ties hospitals to one round.
        choose = _better if self.state.shared else _each_its_own
        new = BestRound(record.round_number, losses, state_rounds)
        self.gate.close_round(record.round_number, weights, sent.digest)
        self.state = ServerState(
            round_number=record.round_number,
            shared=sent.tensors,
            prototypes=self.state.prototypes | prototypes,
            state_rounds=state_rounds,
            model_rounds=self.state.model_rounds | dict.fromkeys(losses, record.round_number),
            rule=state_of(self.strategy),
            unsent=unsent,
            best=choose(self.state.best, new) if record.round_number >= self.first_choice else None,
            rounds=self.state.rounds + record.rows(),
            ledger=self.state.ledger + record.ledger_rows(),
        )

    def _aggregated(self, round_number: int, updates: Mapping[str, Message]) -> dict[str, Tensor]:
        if not self.state.shared:  # every module is personal
            return {}
        # Clients are summed in the order of their names: the order of arrival would show in the last bits.
        arrays, _ = self.strategy.aggregate_train(round_number, list(updates.values()))
        return from_record(arrays)

    def _require(self, record: RoundRecord, usable: int, sampled: int) -> None:
        """No run with fewer than `min_clients`, but where fewer were asked, as many as were asked will do."""
        required = min(self.settings.min_clients, sampled)
        if usable < required:
            raise TooFewClients(
                f"round {record.round_number}: {usable} usable clients are left and min_clients is {required}; "
                f"left out: {record.why_too_few()}."
            )

    def _require_everybody(self, record: RoundRecord, usable: int, sampled: int) -> None:
        """Noise is measured for the number that was asked: where a budget is spent, every one of them has to answer."""
        if isinstance(self.strategy, PrivateAverage) and usable < sampled:
            raise TooFewClients(
                f"round {record.round_number}: {usable} usable clients are left and server.rule private needs "
                f"{sampled}; left out: {record.why_too_few()}."
            )

    def _require_majority(self, record: RoundRecord, usable: int) -> None:
        """No round with fewer clients than the server's rule needs; one refused for what it sent is an attacker found.

        So an attacker cannot stop a run by sending what is refused.
        """
        needed = self.rule.clients_needed - min(self.rule.attackers or 0, record.refused())
        if usable < needed:
            raise TooFewClients(
                f"round {record.round_number}: {usable} usable clients are left, and {self.rule.rule} with "
                f"server.attackers {self.rule.attackers} needs {needed}; left out: {record.why_too_few()}."
            )

    def _train(self, record: RoundRecord, sampled: Collection[str]) -> tuple[dict[str, Message], dict[str, Tensor]]:
        """Have the sampled clients train from the shared model.

        Returns:
            Usable replies as the strategy wants them and the clients' new prototypes, both sorted by client.
        """
        sent, prototypes = self.downlink.known(self.state), to_record(self.state.prototypes)
        self.gate.open_round(record.round_number, sent.digest)
        # A hospital removes its older files in training, so it is told which round's it may still be asked for.
        best = self.state.best.state_rounds if self.state.best else {}
        outgoing = self.hospitals.addressed(
            self.strategy.configure_train(record.round_number, sent.full, ConfigRecord(), self.hospitals.grid), sampled
        )
        for client, message in outgoing.items():
            rounds = {STATE_ROUND: self.state.state_rounds[client], BEST_ROUND: best.get(client, 0)}
            with_model(message, sent, self._has_model(client), rounds)
            message.content[PROTOTYPES] = prototypes
        replies = self.hospitals.exchange(record, "train", outgoing, sent)
        updates = self._readable(record, replies, sampled, sent)
        usable: dict[str, Message] = {}
        received: dict[str, Tensor] = {}
        for client, update in updates.items():
            record.measured(client, update.metrics, "num_examples")
            content = update.reply.content
            if PROTOTYPES in content:
                # Under the name that the server knows the node by, whatever name came with it.
                received[client] = next(iter(from_record(content[PROTOTYPES]).values()))
            # Only the weight: Flower would average every metric, and refuses replies whose names differ.
            weight = MetricRecord({EXAMPLES: update.metrics[EXAMPLES]})
            update.reply.content = RecordDict({ARRAYS: content[ARRAYS], METRICS: weight})
            usable[client] = update.reply
        return usable, received

    def _readable(
        self, record: RoundRecord, replies: Mapping[str, Reply], sampled: Collection[str], sent: SentModel
    ) -> dict[str, Update]:
        """The updates that may be used, by client; the others are entered as left out."""
        declared, updates, store = self.task.leaving(), {}, ReplyStore(self.run_folder)
        for client in sampled:
            examples = self.roster.get(client).train
            expected = Expected(self.downlink.shapes, "float32", declared.prototype, declared.training, examples)
            try:
                reply = self.gate.admit(record.round_number, client, arrived(replies, client))
                updates[client] = self.downlink.read_update(reply, sent, expected, store)
            except UnusableReply as reason:
                self._leave_out(record, client, reason)
        for group in ("parameters", "buffers"):
            refused = too_long({client: update.lengths[group] for client, update in updates.items()})
            for client, reason in refused.items():
                self._leave_out(record, client, reason)
                del updates[client]
        return updates

    def _leave_out(self, record: RoundRecord, client: str, reason: UnusableReply) -> None:
        record.leave_out(client, reason)
        self.gate.leave_out(client, reason)

    def _has_model(self, client: str) -> bool:
        """Whether a client has the model that this round starts from."""
        return self.state.model_rounds[client] == self.state.round_number

    def _validate(
        self,
        record: RoundRecord,
        sent: SentModel,
        clients: Collection[str],
        taken: Collection[str],
        state_rounds: Mapping[str, int],
    ) -> dict[str, float]:
        """Send the new shared model.

        Args:
            record: of the round.
            sent: the model.
            clients: who is to validate it.
            taken: those of them who have trained, and so have the model before it.
            state_rounds: the round of each client's state that goes with it.

        Returns:
            `SELECTION_MEASURE` of each that answered.
        """
        outgoing = self.hospitals.addressed(
            self.strategy.configure_evaluate(record.round_number, sent.full, ConfigRecord(), self.hospitals.grid),
            clients,
        )
        for client, message in outgoing.items():
            with_model(message, sent, client in taken or self._has_model(client), {STATE_ROUND: state_rounds[client]})
        replies = self.hospitals.exchange(record, "evaluate", outgoing, sent)
        losses = {}
        for client in clients:
            try:
                metrics = read_metrics(arrived(replies, client), self.task.leaving().validation)
                loss = read_loss(metrics, SELECTION_MEASURE)
            except UnusableReply as reason:
                record.leave_out(client, reason, NOT_VALIDATED)
                continue
            record.measured(client, metrics, "validation_examples")
            losses[client] = loss
        return losses


def sampled_clients(clients: Sequence[str], participation: float, seed: int, round_number: int) -> list[str]:
    """Who trains in a round: the share of the clients, rounded up, drawn by name, in the order of `clients`."""
    count = sample_size(len(clients), participation)
    # A stream of its own for each round: a resumed run draws the same without having drawn the rounds before.
    chosen = numpy_stream(seed, "participation", round_number).permutation(sorted(clients))[:count].tolist()
    return [client for client in clients if client in chosen]


def _better(best: BestRound | None, new: BestRound) -> BestRound:
    """The better of the best round so far and a new one: validated by more clients, then the lower mean loss [ours]."""
    # First the count: a mean over fewer hospitals may be lower only because a hard one is missing.
    if best is None or (len(new.losses), -new.loss) > (len(best.losses), -best.loss):
        return new
    return best


def _each_its_own(best: BestRound | None, new: BestRound) -> BestRound:
    """The same for hospitals that share nothing: they know no mean, and each keeps the round that was its own best."""
    if best is None:
        return new
    better = {c for c, loss in best.losses.items() if loss <= new.losses.get(c, math.inf)}
    return BestRound(
        new.round_number,
        new.losses | {client: best.losses[client] for client in better},
        new.state_rounds | {client: best.state_rounds[client] for client in better},
    )
