"""`fedmrg audit`, and `fedmrg identity`: what the owner of an identity does with it."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Annotated

import typer

from fedmrg_core.commands.described import DescribedCommand
from fedmrg_core.errors import InputError

app = typer.Typer(help="What the owner of an identity on a run's chain does with it.", no_args_is_help=True)

RunFolder = Annotated[pathlib.Path, typer.Argument(help="A run folder.")]
Client = Annotated[str, typer.Argument(help="The client whose identity it is; its keys have to be here.")]


def audit(
    place: Annotated[pathlib.Path, typer.Argument(help="A run folder, or a bundle: a file evidence.zip.")],
) -> None:
    """Replay the chain of a run with identities against its folder: every round, every update, every file.

    Of a run folder that is in order the evidence is bundled into identity/evidence.zip, which can be audited anywhere.

    Exit code 0: all is accounted for; 1: something is not.
    """
    with _installed():
        from fedmrg_core.identity.audit import audit_bundle, audit_run
        from fedmrg_core.identity.evidence import write_bundle
        from fedmrg_core.identity.members import COORDINATOR, keys_folder
    if not place.exists():
        raise InputError(f"{place} does not exist; expected a run folder or a bundle of evidence.")
    with _reachable():
        found = audit_run(place) if place.is_dir() else audit_bundle(place)
    print("round", "client", "identity", "code", "weight", "update", "transaction", sep="\t")
    for row in found.rows:
        print(*(str(value)[:18] for value in row.values()), sep="\t")
    for sentence in found.notes:
        print(f"note\t{sentence}")
    for sentence in found.problems:
        print(f"problem\t{sentence}")
    rounds, used = {row["round"] for row in found.rows}, [row for row in found.rows if row["code"] == "admitted"]
    print(f"{len(rounds)} rounds, {len(used)} updates used of {len(found.rows)}, {len(found.problems)} problems.")
    if found.problems:
        raise typer.Exit(1)
    if place.is_dir() and keys_folder(place, COORDINATOR).exists():
        with _reachable():
            print(f"Evidence: {write_bundle(place)}")


@app.command(cls=DescribedCommand)
def show(run_folder: RunFolder) -> None:
    """Print the members of a run as the chain has them: identity, owner, whether active, balance, what is due."""
    with _installed():
        from fedmrg_core.identity.members import open_registry, read_members
    with _reachable():
        members, registry = read_members(run_folder), open_registry(run_folder, None)
        print("client", "identity", "owner", "active", "wei", "due", sep="\t")
        for client, number in members.identities.items():
            identity = registry.identity(number)
            wei, due = registry.chain.balance(identity.owner), registry.due(members.run_bytes, number)
            print(client, number, identity.owner, "yes" if identity.active else "no", wei, due, sep="\t")


@app.command(cls=DescribedCommand)
def rotate(run_folder: RunFolder, client: Client) -> None:
    """Make a new key for a client and have the chain know it; the old one signs nothing any more."""
    with _installed():
        from fedmrg_core.identity.enrolment import rotate_key
    with _reachable():
        print(f"{client}: the key is now {rotate_key(run_folder, client).hex()}")


@app.command(cls=DescribedCommand)
def revoke(run_folder: RunFolder, client: Client) -> None:
    """End a client's identity for good; its updates are refused from now on."""
    with _installed():
        from fedmrg_core.identity.members import open_registry
    with _reachable():
        number = _number(run_folder, client)
        open_registry(run_folder, client).revoke(number)
    print(f"{client}: identity {number} is revoked")


@app.command(cls=DescribedCommand)
def withdraw(run_folder: RunFolder, client: Client) -> None:
    """Have a client's part of a finished run's pot paid to its account."""
    with _installed():
        from fedmrg_core.identity.members import open_registry, read_members
    with _reachable():
        number, registry = _number(run_folder, client), open_registry(run_folder, client)
        run = read_members(run_folder).run_bytes
        due = registry.due(run, number)
        registry.withdraw(run, number)
    print(f"{client}: {due} wei were paid to {registry.account.address}")


def _number(run_folder: pathlib.Path, client: str) -> int:
    from fedmrg_core.identity.members import read_members

    identities = read_members(run_folder).identities
    if client not in identities:
        raise InputError(f"{client!r} is no member of this run; expected one of {', '.join(identities)}.")
    return identities[client]


@contextlib.contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            f"the package {error.name} is not installed; install the optional group: pip install 'fedmrg[identity]'."
        ) from error


@contextlib.contextmanager
def _reachable() -> Iterator[None]:
    """What the chain does not answer or allow is a sentence, not a traceback."""
    from fedmrg_core.federation.gate import ChainUnavailable
    from fedmrg_core.identity.chain import Refused

    try:
        yield
    except ChainUnavailable as error:
        raise InputError(str(error)) from error
    except Refused as error:
        raise InputError(f"the contract refuses: {error}.") from error
