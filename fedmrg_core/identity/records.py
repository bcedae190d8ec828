"""What a run with identities leaves in its folder beside the rounds: who was let in, what the chain cost.

``identity.csv``: a row for each client that was asked, a round; ``gas.csv``: units of gas by function, a round (0:
before the first); ``chain_timing.csv``: seconds, which no two runs have alike.
"""

from __future__ import annotations

import collections
import csv
import io
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import pandas

from fedmrg_core.files.whole_files import read_json, write_text
from fedmrg_core.identity.members import Members, identity_folder
from fedmrg_core.identity.registry import Event, Registry
from fedmrg_core.runs.run_folder import RunFolder

ROUNDS, TABLE, GAS, TIMING = "rounds", "identity.csv", "gas.csv", "chain_timing.csv"
COLUMNS = ("round", "client", "identity", "code", "weight", "update")
# Which function an event is of; an acceptance comes with the end of its round.
FUNCTIONS = {
    "Deployed": "deploy",
    "Registered": "register", "KeyRotated": "rotate", "Revoked": "revoke", "RunOpened": "open_run", "Funded": "fund",
    "RoundOpened": "open_round", "Committed": "commit", "RoundClosed": "close_round", "RunFinished": "finish_run",
}  # fmt: skip


def round_path(run_folder: pathlib.Path, round_number: int) -> pathlib.Path:
    """What the server wrote down of a round."""
    return identity_folder(run_folder) / ROUNDS / f"round-{round_number:04d}.json"


def read_rounds(run_folder: pathlib.Path) -> list[dict[str, Any]]:
    """What the server wrote down of every round, in their order."""
    return [read_json(path) for path in sorted((identity_folder(run_folder) / ROUNDS).glob("round-*.json"))]


def round_text(content: dict[str, Any]) -> str:
    """The text of what the server writes down of a round."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def table_text(rounds: list[dict[str, Any]], identities: Mapping[str, int]) -> str:
    """The text of identity.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for content in rounds:
        for client, row in content["clients"].items():
            who = {"round": content["round"], "client": client, "identity": identities.get(client, "")}
            writer.writerow({**who, **row})
    return text.getvalue()


def write_tables(
    run_folder: pathlib.Path, members: Members, registry: Registry, round_number: int, seconds: dict | None
) -> None:
    """Write identity.csv and gas.csv, and a round's row of chain_timing.csv."""
    write_text(run_folder / TABLE, table_text(read_rounds(run_folder), members.identities))
    RunFolder(run_folder).write_csv(GAS, gas_rows(members, registry), ("round", "function", "transactions", "gas"))
    if seconds is not None:
        path = run_folder / TIMING
        before = pandas.read_csv(path).query("round < @round_number").to_dict("records") if path.exists() else []
        RunFolder(run_folder).write_csv(TIMING, [*before, seconds])


def gas_rows(members: Members, registry: Registry) -> list[dict[str, Any]]:
    """Gas of a run's transactions until its end by round and function; registrations of its members are in round 0."""
    mine: dict[str, tuple[int, str]] = {}
    last = 0
    for event in registry.events(members.since):
        if event.name in FUNCTIONS and belongs(event, members):
            last = event.values["round"] if event.name == "RoundOpened" else last
            mine.setdefault(event.transaction, (last, FUNCTIONS[event.name]))
            if event.name == "RunFinished":  # what comes after is not of the run, and its files are sealed
                break
    found: dict[tuple[int, str], list[int]] = collections.defaultdict(list)
    for transaction, key in mine.items():
        found[key].append(registry.gas_of(transaction))
    return [
        {"round": number, "function": function, "transactions": len(gas), "gas": sum(gas)}
        for (number, function), gas in sorted(found.items())
    ]


def belongs(event: Event, members: Members) -> bool:
    """Whether an event is of this run or of one of its members."""
    if "run" in event.values:
        return event.values["run"] == members.run
    return event.name == "Deployed" or event.values["identity"] in {members.coordinator, *members.identities.values()}
