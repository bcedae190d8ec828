"""The audit: replays the chain against a run folder, or against a bundle of evidence, and says what does not fit."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from fedmrg_core.errors import InputError
from fedmrg_core.federation.messages import digest_of
from fedmrg_core.files.tensor_files import read_tensors
from fedmrg_core.identity.admission import ADMITTED
from fedmrg_core.identity.book import Book, read_book
from fedmrg_core.identity.contract import COMPILED, SOURCE
from fedmrg_core.identity.evidence import (
    EVIDENCE,
    SIGNATURE,
    file_digest,
    files_of,
    listing_of,
    unzipped,
)
from fedmrg_core.identity.keys import verifies
from fedmrg_core.identity.members import FOLDER, MEMBERS, identity_folder, members_text
from fedmrg_core.identity.records import TABLE, read_rounds, round_text, table_text
from fedmrg_core.identity.statement import read_statement, update_digest


@dataclasses.dataclass
class Audit:
    """What an audit found.

    Attributes:
        rows: a row for each update: round, client, identity, code, weight, update, transaction of its commitment.
        problems: sentences; none: everything is accounted for.
        notes: what the evidence does not speak of.
    """

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Story:
    """What the chain says of the run, by round; of an update the key of its identity when it was committed."""

    opened: Mapping[int, str]
    closed: Mapping[int, str]
    commits: Mapping[tuple[int, int], tuple[str, str, bytes]]  # round, identity: digest, transaction, key
    accepted: Mapping[tuple[int, int], int]  # round, identity: weight
    chosen: int | None
    evidence: str | None
    coordinator_key: bytes


def audit_run(run_folder: pathlib.Path) -> Audit:
    """Audit a run folder with its chain.

    Raises:
        InputError: it has no identities.
        ChainUnavailable: the run's node does not answer.
    """
    if not (identity_folder(run_folder) / MEMBERS).exists():
        raise InputError(f"{run_folder}: this run has no identities to audit; expected {FOLDER}/{MEMBERS} in it.")
    audit = Audit()
    story = _checked(run_folder, audit)
    if story is not None:
        _check_checkpoint(run_folder, story, audit)
        _check_files(run_folder, story, audit, files_of(run_folder), whole=True)
    return audit


def audit_bundle(path: pathlib.Path) -> Audit:
    """Audit a bundle, without the run folder and without its chain."""
    audit = Audit()
    try:
        contents = unzipped(path)
    except InputError as error:
        audit.problems.append(str(error))
        return audit
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for entry, content in contents.items():
            place = folder / entry
            if not place.resolve().is_relative_to(folder.resolve()):
                audit.problems.append(f"{entry} would lie outside the bundle")
                return audit
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        story = _checked(folder, audit)
        if story is not None:
            _check_signature(contents, story, audit)
            covered = [item for item in files_of(folder) if item not in (SIGNATURE, SOURCE.name, COMPILED.name)]
            _check_files(folder, story, audit, covered, whole=False)
        for own in (SOURCE, COMPILED):
            if contents.get(own.name) != own.read_bytes():
                audit.problems.append(f"{own.name} is another one than this package's")
    return audit


def _checked(folder: pathlib.Path, audit: Audit) -> _Story | None:
    """Hold the chain against the rounds; None where the chain cannot be read."""
    try:
        book, rounds = read_book(folder), read_rounds(folder)
        audit.problems += book.problems
        story = _story(book)
        for content in rounds:
            _check_round(content, book, story, audit)
        _check_tables(folder, book, rounds, audit)
    except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
        audit.problems.append(f"{type(error).__name__}: {error}" if not isinstance(error, InputError) else str(error))
        return None
    told = {content["round"] for content in rounds}
    for number in sorted(story.opened):
        if number not in told:
            audit.problems.append(f"round {number} is on the chain, and the run folder does not speak of it")
        elif number not in story.closed:
            audit.notes.append(f"round {number} is open on the chain: it was not finished")
    return story


def _story(book: Book) -> _Story:
    keys: dict[int, bytes] = {}
    commits: dict[tuple[int, int], tuple[str, str, bytes]] = {}
    accepted: dict[tuple[int, int], int] = {}
    opened, closed, chosen, evidence = {}, {}, None, None
    for entry in book.entries:
        for event in entry.events:
            told = event.values
            if event.name in ("Registered", "KeyRotated"):
                keys[told["identity"]] = bytes.fromhex(told["public_key"])
            if told.get("run") != book.members.run:
                continue
            if event.name == "RoundOpened":
                opened[told["round"]] = told["base"]
            elif event.name == "RoundClosed":
                closed[told["round"]] = told["model"]
            elif event.name == "Committed":
                who = told["identity"]
                commits[told["round"], who] = (told["digest"], entry.transaction, keys.get(who, b""))
            elif event.name == "Accepted":
                accepted[told["round"], told["identity"]] = told["weight"]
            elif event.name == "RunFinished":
                chosen = told["round"]
            elif event.name == "Sealed":
                evidence = told["evidence"]
    return _Story(opened, closed, commits, accepted, chosen, evidence, keys.get(book.members.coordinator, b""))


def _check_round(content: dict[str, Any], book: Book, story: _Story, audit: Audit) -> None:
    number = content["round"]
    wrong = audit.problems.append
    if story.opened.get(number) != content["base"]:
        wrong(f"round {number}: the model it started from is not the one on the chain")
    if number in story.closed and story.closed[number] != content["model"]:
        wrong(f"round {number}: the model that came out is not the one on the chain")
    for client, row in content["clients"].items():
        identity = book.members.identities.get(client, 0)
        digest, transaction, key = story.commits.get((number, identity), ("", "", b""))
        own = transaction if row.get("update") == digest else ""
        audit.rows.append({"round": number, "client": client, "identity": identity, **_told(row), "transaction": own})
        where = f"round {number}, client {client}"
        if row["code"] == ADMITTED:
            for sentence in _wrong_with(row, number, identity, digest, key, content["base"], book):
                wrong(f"{where}: {sentence}")
            if number in story.closed and story.accepted.get((number, identity)) != row["weight"]:
                wrong(f"{where}: its weight is not the one on the chain")
        elif (number, identity) in story.accepted:
            wrong(f"{where}: it was accepted on the chain, and the run folder says {row['code']}")
    numbers = {book.members.identities.get(client) for client in content["clients"]}
    for round_number, identity in sorted(story.commits):
        if round_number == number and identity not in numbers:
            client = book.members.client_of(identity)
            if client is not None or (number, identity) in story.accepted:
                wrong(f"round {number}: identity {identity} ({client}) has committed, and no file speaks of it")


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return {"code": row["code"], "weight": row["weight"], "update": row.get("update", "")}


def _wrong_with(
    row: dict[str, Any], number: int, identity: int, digest: str, key: bytes, base: str, book: Book
) -> list[str]:
    """What does not fit about an admitted update."""
    statement, signature = read_statement(row["statement"]), bytes.fromhex(row["signature"])
    members = book.members
    here = (members.chain_id, members.contract, members.run, number, identity, base)
    said = (
        statement.chain, statement.contract, statement.run, statement.round, statement.identity, statement.base,
    )  # fmt: skip
    checks = {
        "its statement is of something else": said != here,
        "its signature is not of its statement": not verifies(key, signature, statement.signed_bytes()),
        "its digest is not of its statement": update_digest(statement, signature) != row["update"],
        "its digest is not the one on the chain": digest != row["update"],
    }
    return [sentence for sentence, holds in checks.items() if holds]


def _check_tables(folder: pathlib.Path, book: Book, rounds: list[dict[str, Any]], audit: Audit) -> None:
    """The tables say what the rounds' files say, and those files are as they were written."""
    members = book.members
    texts = {f"{FOLDER}/{MEMBERS}": members_text(members), TABLE: table_text(rounds, members.identities)}
    for content in rounds:
        texts[f"{FOLDER}/rounds/round-{content['round']:04d}.json"] = round_text(content)
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != text.encode():
            audit.problems.append(f"{name} is not what the rounds say")
    weights = {(c["round"], client): row for c in rounds for client, row in c["clients"].items()}
    path = folder / "rounds.csv"
    if not path.exists():
        audit.problems.append("rounds.csv is missing")
        return
    with path.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            one = weights.get((int(row["round"]), row["client"]))
            used = bool(one) and one["code"] == ADMITTED
            said = row["status"] in ("ok", "not_validated")
            if used != said or (used and round(float(row["num_examples"])) != one["weight"]):
                where = f"rounds.csv, round {row['round']}, client {row['client']}"
                audit.problems.append(f"{where}: not what was admitted")


def _check_checkpoint(run_folder: pathlib.Path, story: _Story, audit: Audit) -> None:
    """The model of the last round is the one on the chain."""
    pointer = run_folder / "checkpoint" / "current"
    if not pointer.exists():
        audit.notes.append("there is no checkpoint: the last model is not looked at")
        return
    name = pointer.read_text(encoding="utf-8", errors="replace").strip().partition(" ")[0]  # behind it: a digest
    try:
        number = int(name.removeprefix("round-"))
        digest = digest_of(read_tensors(run_folder / "checkpoint" / name / "shared.safetensors"))
    except (InputError, ValueError) as error:
        audit.problems.append(str(error) if isinstance(error, InputError) else f"{pointer} names no round: {name!r}")
        return
    if story.closed.get(number) != digest:
        audit.problems.append(f"checkpoint/{name}: its model is not the one on the chain")


def _check_files(folder: pathlib.Path, story: _Story, audit: Audit, there: list[str], whole: bool) -> None:
    path = folder / FOLDER / EVIDENCE
    if story.evidence is None:
        audit.notes.append("the run is not sealed: its files are not held against the chain")
        return
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != story.evidence:
        audit.problems.append(f"{FOLDER}/{EVIDENCE} is not the one whose digest is on the chain")
        return
    files = json.loads(path.read_text(encoding="utf-8"))["files"]
    for name in there:
        if name not in files:
            audit.notes.append(f"{name} came after the run was sealed")
        elif file_digest(folder / name) != files[name]:
            audit.problems.append(f"{name} was changed after the run was sealed")
    if whole:
        audit.problems += [f"{name} is missing" for name in sorted(set(files) - set(there))]


def _check_signature(contents: dict[str, bytes], story: _Story, audit: Audit) -> None:
    try:
        signed = json.loads(contents[SIGNATURE])
        key, signature = bytes.fromhex(signed["public_key"]), bytes.fromhex(signed["signature"])
    except (KeyError, ValueError, TypeError) as error:
        audit.problems.append(f"{SIGNATURE} cannot be read ({error})")
        return
    if contents[SIGNATURE] != (json.dumps(signed, indent=1) + "\n").encode():
        audit.problems.append(f"{SIGNATURE} was changed")
    if key != story.coordinator_key:
        audit.problems.append("the bundle is signed by another key than the server's on the chain")
    if not verifies(key, signature, listing_of(contents)):
        audit.problems.append("the bundle's signature is not of its files")
