"""Who is let into a run: everybody on the list of clients, or, where the run asks for it, identities on a chain.

A federation knows only the interface. What stands behind it is loaded by name when a run's configuration says so, and
needs the optional group `identity` of packages.
"""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from fedmrg_core.errors import InputError
from fedmrg_core.federation.roster import Roster
from fedmrg_core.runs.run_configuration import RunConfiguration

if TYPE_CHECKING:  # a hospital's node starts without what these bring
    from flwr.app import Message

    from fedmrg_core.federation.task import Task

IDENTITY = "fedmrg_core.identity"


class ChainUnavailable(RuntimeError):
    """A chain does not answer: the run has stopped, and goes on when it is started again."""


class Gate(Protocol):
    """What the server does about identities. Every call may be made again after a crash."""

    def open_round(self, round_number: int, base: str) -> None:
        """Before a round: the digest of the model that it starts from."""

    def admit(self, round_number: int, client: str, reply: Message) -> Message:
        """A client's training reply as the round may use it.

        Raises:
            UnusableReply: it is not let in.
        """

    def leave_out(self, client: str, reason: object) -> None:
        """A reply that was let in cannot be used."""

    def close_round(self, round_number: int, weights: Mapping[str, float], model: str) -> None:
        """After a round, before its checkpoint: the weights of those whose updates are in its model, and its digest."""

    def settle(self, round_number: int) -> None:
        """After the checkpoint of a round: it counts from now on."""

    def stop(self, round_number: int) -> None:
        """A round has ended without a checkpoint: what was refused in it is written down."""

    def finish(self, chosen: int) -> None:
        """The run is over; the round whose model was chosen."""


class OpenGate:
    """Everybody on the list is let in, and nothing is written."""

    def open_round(self, round_number: int, base: str) -> None:
        """See `Gate`."""

    def admit(self, round_number: int, client: str, reply: Message) -> Message:
        """See `Gate`."""
        return reply

    def leave_out(self, client: str, reason: object) -> None:
        """See `Gate`."""

    def close_round(self, round_number: int, weights: Mapping[str, float], model: str) -> None:
        """See `Gate`."""

    def settle(self, round_number: int) -> None:
        """See `Gate`."""

    def stop(self, round_number: int) -> None:
        """See `Gate`."""

    def finish(self, chosen: int) -> None:
        """See `Gate`."""


def open_gate(run_folder: pathlib.Path, configuration: RunConfiguration) -> Gate:
    """The gate of a run."""
    return OpenGate() if configuration.identities is None else identity_part("gate").ChainGate(run_folder)


def enrol(run_folder: pathlib.Path, task: Task, roster: Roster) -> None:
    """On one machine, before round 1: make and register identities of all clients, where the run asks so."""
    if task.configuration.identities is not None:
        identity_part("enrolment").enrol(run_folder, task, roster)


def seal(run_folder: pathlib.Path, configuration: RunConfiguration) -> None:
    """After the last file of a run is written: gather the evidence, where the run has identities."""
    if configuration.identities is not None:
        identity_part("evidence").seal(run_folder)


def prepare_server(run_folder: pathlib.Path, configuration: RunConfiguration) -> RunConfiguration:
    """In a real federation, first: the server's keys and the contract, if the run has identities."""
    if configuration.identities is None:
        return configuration
    settings = identity_part("sites").prepare_server(run_folder, configuration.identities)
    return configuration.model_copy(update={"identities": settings})


def apply(run_folder: pathlib.Path, configuration: RunConfiguration, client: str) -> int | None:
    """Then a hospital makes and registers its identity; the number of it."""
    return None if configuration.identities is None else identity_part("sites").apply(run_folder, client)


def admit_members(
    run_folder: pathlib.Path, configuration: RunConfiguration, identities: Mapping[str, int]
) -> pathlib.Path | None:
    """Then the server opens the run on the chain; the list of members, for every hospital."""
    return None if configuration.identities is None else identity_part("sites").admit(run_folder, identities)


def join(run_folder: pathlib.Path, configuration: RunConfiguration, client: str, members: pathlib.Path) -> None:
    """Last, a hospital takes that list.

    Raises:
        InputError: the run has no identities, or the list is not this hospital's.
    """
    if configuration.identities is None:
        raise InputError(f"{run_folder}: this run has no identities; there is no list of members to take.")
    identity_part("sites").join(run_folder, client, members)


def check_joined(run_folder: pathlib.Path, configuration: RunConfiguration) -> None:
    """Before a hospital's node starts: it has the list of members, if the run has identities."""
    if configuration.identities is not None:
        identity_part("sites").check_joined(run_folder)


def identity_part(name: str) -> Any:
    """A module of what stands behind the interface.

    Raises:
        InputError: a package of the optional group is not installed.
    """
    try:
        return importlib.import_module(f"{IDENTITY}.{name}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("fedmrg_core"):
            raise
        raise InputError(
            f"identities: the package {error.name} is not installed; install the optional group: "
            "pip install 'fedmrg[identity]', or leave the key out."
        ) from error
