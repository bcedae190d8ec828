"""The end of a federation: the server saves the shared model and tells every hospital which round was chosen.

Each hospital then saves its own part on its own disk, fine-tunes it first where the method says so, and where asked
tests itself and answers with numbers. The server opens no personal tensor.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from flwr.app import ConfigRecord, Message, RecordDict

from fedmrg_core.federation.checkpoints import load_shared
from fedmrg_core.federation.correspondence import Reply, arrived
from fedmrg_core.federation.downlink import SentModel, with_model
from fedmrg_core.federation.messages import (
    CONFIG,
    EXAMPLES,
    FINISH,
    SECONDS,
    STATE_ROUND,
    TEST,
    digest_of,
    to_record,
)
from fedmrg_core.federation.replies import UnusableReply, read_metrics
from fedmrg_core.federation.round_record import RoundRecord
from fedmrg_core.federation.rounds import FederatedRounds
from fedmrg_core.files.whole_files import partial_folder, replace_folder
from fedmrg_core.runs.run_folder import RunFolder

logger = logging.getLogger(__name__)

TESTS = "hospital_tests.csv"  # what hospitals that test themselves answer
COST = "finish.csv"  # bytes of the last messages, in the columns of ledger.csv


class Unfinished(RuntimeError):
    """A hospital has not saved its part of the model."""


def finish(rounds: FederatedRounds, test: bool = False) -> None:
    """Save the chosen model everywhere; done again after a crash, it leaves the same.

    Args:
        rounds: of a run whose last round is over.
        test: ask the hospitals to test themselves; their answers become hospital_tests.csv.

    Raises:
        Unfinished: a hospital that has trained did not answer, or answered with an error.
    """
    best = rounds.state.best
    rounds.gate.finish(best.round_number)
    shared = load_shared(rounds.run_folder / "checkpoint", best.round_number)
    partial = partial_folder(rounds.run_folder / "model")
    rounds.task.save_shared(partial, shared)
    replace_folder(partial, rounds.run_folder / "model")
    rounds.hospitals.meet()
    # Most hospitals have the model of the best round on their disk; who has not says so and is sent it.
    sent = SentModel(best.round_number, shared, digest_of(shared), to_record(shared), news=None, packed=False)
    outgoing = {}
    for node, client in sorted(rounds.hospitals.clients.items(), key=lambda item: item[1]):
        message = Message(RecordDict({CONFIG: ConfigRecord({TEST: test})}), dst_node_id=node, message_type=FINISH)
        with_model(message, sent, news_only=True, more={STATE_ROUND: best.state_rounds.get(client, 0)})
        outgoing[client] = message
    record = RoundRecord(rounds.state.round_number, rounds.roster.names)
    replies = rounds.hospitals.exchange(record, "finish", outgoing, sent)
    answers = _answers(rounds, replies, best.state_rounds)
    folder = RunFolder(rounds.run_folder)
    if test:
        rows = [
            {"client": client, "metric": name, "value": value, "studies": int(metrics[EXAMPLES])}
            for client, metrics in answers.items()
            for name, value in sorted(metrics.items())
            if name not in (EXAMPLES, SECONDS) and not math.isnan(value)
        ]
        folder.write_csv(TESTS, rows, ("client", "metric", "value", "studies"))
    folder.write_csv(COST, record.ledger_rows())  # the last file of a run that the server's app writes


def _answers(
    rounds: FederatedRounds, replies: Mapping[str, Reply], state_rounds: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """The metrics of each hospital that has finished; one that never trained has nothing to save."""
    answers, failed = {}, []
    for client in rounds.roster.names:
        try:
            answers[client] = read_metrics(arrived(replies, client), rounds.task.leaving().testing)
        except UnusableReply as reason:
            logger.warning("client %s has not saved its model: %s", client, reason)
            failed += [f"{client} ({reason})"] if state_rounds.get(client) else []
    if failed:
        raise Unfinished(
            f"{', '.join(failed)} did not save its part of the model; the others have theirs. Start the run again when "
            "this is mended: no round is run again."
        )
    return answers
