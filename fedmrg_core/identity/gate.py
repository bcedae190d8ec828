"""The server's side: opens and closes rounds on the chain, and lets in only what `admission` allows.

What a round brought is written to ``identity/rounds/`` before its checkpoint, and sent to the chain after it. So a
round that is run again is still open there, and one that counts is closed sooner or later, once.
"""

from __future__ import annotations

import logging
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flwr.app import Message, RecordDict

from fedmrg_core.federation.gate import ChainUnavailable
from fedmrg_core.federation.replies import UnusableReply
from fedmrg_core.files.whole_files import read_json, write_text
from fedmrg_core.identity.admission import ADMITTED, Inadmissible, Update, check_update, read_update
from fedmrg_core.identity.members import COORDINATOR, identity_folder, open_registry, read_members
from fedmrg_core.identity.records import ROUNDS, round_path, round_text, write_tables
from fedmrg_core.identity.statement import CHAIN_SECONDS, RECORD

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
LARGEST_WEIGHT = 2**64 - 1


class ChainGate:
    """The gate of a run with identities; see :class:`fedmrg_core.federation.gate.Gate`.

    Args:
        run_folder: of the run.

    Raises:
        InputError: members.json, a key, the chain or the contract is not what it has to be.
        ChainUnavailable: the chain does not answer.
    """

    def __init__(self, run_folder: pathlib.Path) -> None:
        self.run_folder, self.members = run_folder, read_members(run_folder)
        self.registry = open_registry(run_folder, COORDINATOR)
        self._rows: dict[str, dict[str, Any]] = {}  # of the round that is open, by client
        self._round, self._base = 0, ""  # the one that this process has opened
        self._server_seconds, self._hospital_seconds = 0.0, 0.0

    def open_round(self, round_number: int, base: str) -> None:
        """Open it on the chain; a round that is run again is open already."""
        self._rows, self._round, self._base = {}, round_number, base
        self._hospital_seconds, self._server_seconds = 0.0, 0.0
        self._timed(lambda: self.registry.open_round(self.members.run_bytes, round_number, base))

    def admit(self, round_number: int, client: str, reply: Message) -> Message:
        """Let a reply in without its identity record, or say why not."""
        if reply.has_error():
            self._failed(client, str(reply.error.reason))
            return reply  # the check that follows names the error
        update = None
        try:
            update = read_update(reply)
            self._timed(lambda: check_update(update, reply, client, round_number, self.members, self.registry))
            examples = _examples(reply)
            if not examples or examples > LARGEST_WEIGHT:
                raise Inadmissible("unusable", update)
        except Inadmissible as reason:
            self._enter(client, reason.code, reason.update)
            raise UnusableReply(reason.code, str(reason)) from reason
        self._enter(client, ADMITTED, update)
        seconds = reply.content[RECORD].get(CHAIN_SECONDS, 0.0)
        self._hospital_seconds += seconds if isinstance(seconds, float) else 0.0
        reply.content = RecordDict({name: record for name, record in reply.content.items() if name != RECORD})
        return reply

    def leave_out(self, client: str, reason: object) -> None:
        """Enter that an admitted update could not be used, or that nothing came."""
        row = self._rows.get(client)
        if row is None:
            self._enter(client, "no_update", None)
        elif row["code"] == ADMITTED:
            row["code"] = "unusable"

    def close_round(self, round_number: int, weights: Mapping[str, float], model: str) -> None:
        """Write down what the round brought; `settle` sends it."""
        for client, weight in weights.items():
            self._rows[client]["weight"] = round(weight)
        self._write(round_number, model)

    def settle(self, round_number: int) -> None:
        """Close a round on the chain, if it is the one that is open there, and write the tables."""
        if round_number == 0:
            return
        content = read_json(round_path(self.run_folder, round_number))
        weights = {
            self.members.identities[client]: row["weight"]
            for client, row in content["clients"].items()
            if row["code"] == ADMITTED
        }
        run, model = self.members.run_bytes, content["model"]
        self._timed(lambda: self.registry.close_round(run, round_number, weights, model))
        for path in (identity_folder(self.run_folder) / ROUNDS).glob("round-*.json"):
            if path.name > round_path(self.run_folder, round_number).name:
                path.unlink()  # of an attempt that a crash ended
        seconds = {"round": round_number, "server": self._server_seconds, "hospitals": self._hospital_seconds}
        if round_number != self._round:  # of an earlier sitting, which has its row unless a crash came between
            seconds = None
        write_tables(self.run_folder, self.members, self.registry, round_number, seconds)

    def stop(self, round_number: int) -> None:
        """Write down who was refused in a round that too few have come through."""
        self._write(round_number, "")
        write_tables(self.run_folder, self.members, self.registry, round_number, None)

    def finish(self, chosen: int) -> None:
        """End the run on the chain."""
        self._timed(lambda: self.registry.finish_run(self.members.run_bytes, chosen))
        write_tables(self.run_folder, self.members, self.registry, self._round, None)

    def _failed(self, client: str, error: str) -> None:
        """An error came instead of an update; if it is the chain's fault for everybody, the run stops here."""
        if error == ChainUnavailable.__name__:
            self._timed(lambda: self.registry.run(self.members.run_bytes))
            self._enter(client, "chain_unavailable", None)
        else:
            self._enter(client, "no_update", None)

    def _enter(self, client: str, code: str, update: Update | None) -> None:
        self._rows[client] = {"code": code, "weight": 0, **(update.plain() if update else {})}
        if code != ADMITTED:
            logger.warning("client %s is not let in: %s", client, code)

    def _write(self, round_number: int, model: str) -> None:
        content = {
            "round": round_number,
            "base": self._base,
            "model": model,
            "clients": {client: self._rows[client] for client in sorted(self._rows)},
        }
        write_text(round_path(self.run_folder, round_number), round_text(content))

    def _timed(self, action: Callable[[], Result]) -> Result:
        started = time.perf_counter()
        try:
            return action()
        finally:
            self._server_seconds += time.perf_counter() - started


def _examples(reply: Message) -> int:
    """The weight of an update, as the strategy takes it; 0 where that is no whole number."""
    metrics = reply.content.metric_records.get("metrics", {})
    value = metrics.get("num-examples", 0)
    return int(value) if isinstance(value, int | float) and value == value // 1 else 0
