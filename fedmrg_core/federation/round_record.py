"""What one round leaves behind: a row for each client, the bytes, and where the time went."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Collection, Mapping, Sequence

import pandas
from flwr.app import Message

from fedmrg_core.federation.ledger import LedgerRow, count_message
from fedmrg_core.federation.messages import EXAMPLES, SECONDS
from fedmrg_core.federation.replies import ERROR, SILENT
from fedmrg_core.runs.run_folder import RunFolder

logger = logging.getLogger(__name__)

OK = "ok"
LEFT_OUT = "left_out"  # its update is not in the round's model
NOT_SAMPLED = "not_sampled"  # it had a pause: partial participation
NOT_VALIDATED = "not_validated"  # its update is, but it sent no usable validation

LONGEST_REASON = 300  # characters of a client's error that are kept


class RoundRecord:
    """Collects one round's rows.

    Args:
        round_number: from 1.
        clients: every client of the run, whether it answers or not.
    """

    def __init__(self, round_number: int, clients: Sequence[str]) -> None:
        self.round_number = round_number
        self.ledger: list[LedgerRow] = []
        self.local_seconds = 0.0
        self._rows = {
            client: {"round": round_number, "client": client, "status": OK, "reason": ""} for client in clients
        }

    def count(
        self, message: Message, phase: str, client: str, direction: str, modules: Collection[str] | None = None
    ) -> None:
        """Enter a message into the ledger; of a hospital's message with the `modules` that are expected in it."""
        self.ledger += count_message(
            message,
            round_number=self.round_number,
            phase=phase,
            client=client,
            direction=direction,
            modules=modules,
        )

    def measured(self, client: str, metrics: Mapping[str, float], examples_column: str) -> None:
        """Enter a usable reply's metrics."""
        row = self._rows[client]
        for name, value in metrics.items():
            if name == SECONDS:  # a time is not the same in two runs: it goes to timing.csv
                self.local_seconds += value
            else:
                row[examples_column if name == EXAMPLES else name] = value

    def leave_out(self, client: str, reason: object, status: str = LEFT_OUT) -> None:
        """Enter that a client's reply was not used, and why."""
        text = " ".join(str(reason).split())[:LONGEST_REASON]
        if self._rows[client]["status"] != NOT_SAMPLED:  # which is more to the point
            self._rows[client]["status"] = status
        self._rows[client]["reason"] = text
        logger.warning("round %d: client %s %s: %s", self.round_number, client, status.replace("_", " "), text)

    def pause(self, client: str) -> None:
        """Enter that a client does not train in this round."""
        self._rows[client]["status"] = NOT_SAMPLED

    def rows(self) -> list[dict]:
        """Rows of rounds.csv, sorted by client."""
        return [self._rows[client] for client in sorted(self._rows)]

    def ledger_rows(self) -> list[dict]:
        """Rows of ledger.csv."""
        return [dataclasses.asdict(row) for row in self.ledger]

    def refused(self) -> int:
        """Clients that answered, and whose update was refused for what it held."""
        reasons = [row["reason"] for row in self._rows.values() if row["status"] == LEFT_OUT]
        return sum(reason.partition(":")[0] not in (SILENT, ERROR) for reason in reasons)

    def why_too_few(self) -> str:
        """The clients that dropped out and their reasons, for the error that ends a run."""
        dropped = [row for row in self.rows() if row["reason"]]
        return "; ".join(f"{row['client']}: {row['reason']}" for row in dropped)


def write_tables(run_folder: pathlib.Path, rounds: Sequence[dict], ledger: Sequence[dict]) -> None:
    """Write rounds.csv and ledger.csv."""
    for name, rows in (("rounds.csv", rounds), ("ledger.csv", ledger)):
        if rows:
            columns = list(dict.fromkeys(column for row in rows for column in row))
            RunFolder(run_folder).write_csv(name, rows, columns)


def write_timing(run_folder: pathlib.Path, round_number: int, wall_seconds: float, local_seconds: float) -> None:
    """Add a round to timing.csv; a round that is run again replaces its row.

    ``overhead`` is the part of the wall time that was not local training or validation. Where clients work at the same
    time their seconds add up to more than the wall time and it is negative.
    """
    path = run_folder / "timing.csv"
    row = {
        "round": round_number,
        "wall_seconds": wall_seconds,
        "local_seconds": local_seconds,
        "overhead": (wall_seconds - local_seconds) / wall_seconds,
    }
    before = pandas.read_csv(path).query("round < @round_number").to_dict("records") if path.exists() else []
    RunFolder(run_folder).write_csv(path.name, [*before, row])
