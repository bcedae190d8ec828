"""The chain as an audit reads it: every transaction that the contract has carried out, who signed it, what it did.

It comes from the embedded chain's file, which is carried out again; from a node; or from a bundle, offline: there a
transaction is believed because its sender has signed it, and its events because they are what that function writes.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import rlp
from eth_account import Account
from eth_utils import keccak
from web3 import Web3

from fedmrg_core.errors import InputError
from fedmrg_core.identity.chain import Chain
from fedmrg_core.identity.contract import contract
from fedmrg_core.identity.embedded import GENESIS
from fedmrg_core.identity.members import CHAIN, Members, identity_folder, open_registry, read_members
from fedmrg_core.identity.registry import Event, decoded_call, decoded_event

TRANSACTIONS = "transactions.json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A transaction that was carried out."""

    transaction: str  # its hash
    sender: str
    function: str  # "deploy" for the first
    arguments: dict[str, Any]
    events: tuple[Event, ...]
    gas: int


@dataclasses.dataclass(frozen=True)
class Book:
    """All entries of a contract from a run's first block on, and what does not hold about them."""

    members: Members
    entries: tuple[Entry, ...]
    problems: tuple[str, ...]

    def events(self, *names: str) -> list[tuple[Entry, Event]]:
        """The events of these names with their entries, oldest first."""
        return [(entry, event) for entry in self.entries for event in entry.events if event.name in names]


def read_book(run_folder: pathlib.Path) -> Book:
    """The book of a run folder, or of a bundle that is unpacked like one.

    Raises:
        InputError: the chain's files are damaged, or members.json.
        ChainUnavailable: the run's node does not answer.
    """
    members = read_members(run_folder)
    path = identity_folder(run_folder) / CHAIN / TRANSACTIONS
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else _rows(run_folder, members)
    entries = tuple(_entry(row, members, str(run_folder)) for row in rows)
    return Book(members, entries, tuple(_problems(entries, members)))


def transactions_text(run_folder: pathlib.Path) -> str:
    """The text of transactions.json: raw transactions and receipts, of whichever chain."""
    return json.dumps(_rows(run_folder, read_members(run_folder)), indent=1) + "\n"


def _rows(run_folder: pathlib.Path, members: Members) -> list[dict[str, Any]]:
    registry = open_registry(run_folder, None, anew=True)
    _check_genesis(identity_folder(run_folder) / CHAIN / GENESIS)
    rows: dict[str, dict[str, Any]] = {}
    for log in registry.chain.logs(registry.address, members.since):
        name = Web3.to_hex(log["transactionHash"])
        row = rows.setdefault(name, {"transaction": name, **_transaction(registry.chain, name), "logs": []})
        topics = [Web3.to_hex(topic) for topic in log["topics"]]
        row["logs"].append({"topics": topics, "data": Web3.to_hex(log["data"])})
    return list(rows.values())


def _check_genesis(path: pathlib.Path) -> None:
    """Everything in it counts, also what a reader would pass over."""
    if path.exists():
        text = path.read_text(encoding="utf-8", errors="replace")
        content = json.loads(text)
        if text != json.dumps({"accounts": sorted(content.get("accounts", []))}, indent=1) + "\n":
            raise InputError(f"{path}: it was changed; expected the list of accounts as the run wrote it.")


def _transaction(chain: Chain, name: str) -> dict[str, Any]:
    found = chain.ask(lambda client: client.eth.get_transaction(name))
    raw = rlp.encode(
        [
            found["nonce"], found["gasPrice"], found["gas"], bytes.fromhex((found["to"] or "0x")[2:]), found["value"],
            bytes(found["input"]), found["v"], int.from_bytes(found["r"], "big"), int.from_bytes(found["s"], "big"),
        ]
    )  # fmt: skip
    if Web3.to_hex(keccak(raw)) != name:
        raise InputError(f"transaction {name} is of a kind that this project does not send; its sender cannot be read.")
    receipt = chain.receipt(name)
    return {"raw": Web3.to_hex(raw), "block": receipt.block, "gas": receipt.gas}


def _entry(row: dict[str, Any], members: Members, place: str) -> Entry:
    try:
        raw = Web3.to_bytes(hexstr=row["raw"])
        if Web3.to_hex(keccak(raw)) != row["transaction"]:
            raise ValueError("its hash is another one")
        sender, fields = Account.recover_transaction(raw), rlp.decode(raw)
        target, data = fields[3], fields[5]
        if not target:
            function, arguments = "deploy", {"bytecode": Web3.to_hex(data)}
        elif Web3.to_checksum_address(target) != members.contract:
            raise ValueError("it calls another contract")
        else:
            function, arguments = decoded_call(data)
        events = tuple(decoded_event(log, row["transaction"], int(row["block"])) for log in row["logs"])
        return Entry(row["transaction"], sender, function, arguments, events, int(row["gas"]))
    except (ValueError, KeyError, TypeError, IndexError, rlp.exceptions.RLPException) as error:
        raise InputError(f"{place}: transaction {str(row)[:80]} is none of the contract's ({error}).") from error


def _problems(entries: tuple[Entry, ...], members: Members) -> list[str]:
    """Entries that the contract cannot have written."""
    owners: dict[int, str] = {}
    coordinators: dict[str, str] = {}
    found = []
    for entry in entries:
        for event in entry.events:
            if event.name == "Registered":
                owners[event.values["identity"]] = event.values["owner"]
            if event.name == "RunOpened":
                coordinators[event.values["run"]] = event.values["coordinator"]
        if entry.function == "deploy":
            if entry.arguments["bytecode"] != contract().bytecode:
                found.append(f"transaction {entry.transaction}: another contract than registry.vy was deployed")
            continue
        allowed = _allowed(entry, owners, coordinators)
        if allowed is not None and entry.sender != allowed:
            found.append(f"transaction {entry.transaction}: {entry.function} was not sent by {allowed}")
        if _written(entry) != _expected(entry):
            found.append(f"transaction {entry.transaction}: its events are not those of {entry.function}")
    return found


def _allowed(entry: Entry, owners: dict[int, str], coordinators: dict[str, str]) -> str | None:
    """Who alone may send a call; None: anybody."""
    if entry.function in ("rotate", "revoke", "commit", "withdraw"):
        return owners.get(entry.arguments["identity"], "nobody")
    if entry.function in ("open_round", "close_round", "finish_run", "seal", "reclaim"):
        return coordinators.get(entry.arguments["run"], "nobody")
    return None


# The event of each function; its values are the call's arguments of the same names.
_EVENTS = {
    "register": "Registered", "rotate": "KeyRotated", "revoke": "Revoked", "open_round": "RoundOpened",
    "commit": "Committed", "close_round": "RoundClosed", "finish_run": "RunFinished", "seal": "Sealed",
    "withdraw": "Withdrawn", "reclaim": "Withdrawn", "fund": "Funded",
}  # fmt: skip


def _written(entry: Entry) -> list[tuple]:
    return [(event.name, *_shared(event.values, entry.arguments)) for event in entry.events]


def _expected(entry: Entry) -> list[tuple]:
    """The events of a call, each with the values that its arguments tell."""
    arguments = entry.arguments
    if entry.function == "open_run":
        return _written(entry) if entry.events and entry.events[0].values["coordinator"] == entry.sender else []
    accepted = []
    if entry.function == "close_round":
        run, number = arguments["run"], arguments["round"]
        pairs = zip(arguments["identities"], arguments["weights"], strict=True)
        told = [event.values for event in entry.events if event.name == "Accepted"]
        keys = ("run", "round", "identity", "weight")
        if [tuple(values[key] for key in keys) for values in told] != [(run, number, *pair) for pair in pairs]:
            return []
        accepted = [item for item in _written(entry) if item[0] == "Accepted"]
    last = entry.events[-1].values if entry.events else {}
    name = _EVENTS[entry.function]
    return [*accepted, (name, *((key, arguments[key]) for key in sorted(last) if key in arguments))]


def _shared(values: dict[str, Any], arguments: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(key, values[key]) for key in sorted(values) if key in arguments]
