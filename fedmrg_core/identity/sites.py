"""Identities where server and hospitals have a machine each: everybody makes and registers its own, over one node.

The server deploys the contract, and the invitation has its address. A hospital registers, and its application has the
number. The server holds each against the chain, and answers with members.json.
"""

from __future__ import annotations

import pathlib
import secrets
from collections.abc import Mapping

from fedmrg_core.errors import InputError
from fedmrg_core.federation.messages import digest_of
from fedmrg_core.federation.task import initial_model
from fedmrg_core.identity.enrolment import contract_address, once
from fedmrg_core.identity.keys import ACCOUNT, SIGNING, make_keys, public_bytes, read_account, read_signing_key
from fedmrg_core.identity.members import (
    COORDINATOR,
    MEMBERS,
    Members,
    identity_folder,
    keys_folder,
    metadata_digest,
    open_chain,
    read_members_file,
    read_settings,
    write_members,
)
from fedmrg_core.identity.registry import Registry
from fedmrg_core.runs.run_configuration import Identities


def prepare_server(run_folder: pathlib.Path, settings: Identities) -> Identities:
    """Make the server's keys, and have the contract deployed where none is configured.

    Args:
        run_folder: of the server.
        settings: which chain.

    Returns:
        The same with the contract's address and the chain's number, for everybody.

    Raises:
        InputError: the chain is embedded, or the contract is not what it has to be, or the account has too little.
        ChainUnavailable: the chain does not answer.
    """
    if settings.chain == "embedded":
        raise InputError(
            "identities.chain is embedded, which one machine alone can have; give the URL of an EVM node that the "
            "server and every hospital reach."
        )
    folder, keys = identity_folder(run_folder), keys_folder(run_folder, COORDINATOR)
    make_keys(keys)
    chain = open_chain(run_folder, settings)
    once(folder / ".since", str(chain.height))
    address = contract_address(folder, chain, settings, read_account(keys / ACCOUNT))
    return settings.model_copy(update={"contract": Registry(chain, address).address, "chain_id": chain.chain_id})


def apply(run_folder: pathlib.Path, name: str) -> int:
    """Make a hospital's keys where there are none, and register it.

    Args:
        run_folder: of the hospital, with the server's configuration.
        name: of the hospital.

    Returns:
        The identity's number.

    Raises:
        InputError: a key, the chain or the contract is not what it has to be, or the account has too little.
        ChainUnavailable: the chain does not answer.
    """
    make_keys(keys_folder(run_folder, name))
    registry, public = _registry(run_folder, name)
    return registry.register(public, metadata_digest(name), _model(run_folder))


def admit(run_folder: pathlib.Path, identities: Mapping[str, int]) -> pathlib.Path:
    """Hold each hospital's identity against the chain, open the run there and write members.json.

    Args:
        run_folder: of the server.
        identities: the number that each hospital says it has.

    Returns:
        members.json, for every hospital.

    Raises:
        InputError: an identity is another's, of another model or revoked.
        ChainUnavailable: the chain does not answer.
    """
    registry, public = _registry(run_folder, COORDINATOR)
    model, settings, folder = _model(run_folder), read_settings(run_folder), identity_folder(run_folder)
    coordinator = registry.register(public, metadata_digest(COORDINATOR), model)
    for name, number in identities.items():
        there = registry.identity(number)
        if not there.active or (there.metadata, there.model) != (metadata_digest(name), model):
            raise InputError(
                f"{name!r}: identity {number} on the chain at {registry.chain.name} is not of this hospital and this "
                "model, or is revoked; have it run fedmrg site init again."
            )
    label = bytes.fromhex(once(folder / ".label", secrets.token_hex(32)))
    run, since = registry.open_run(label, settings.pot), int(once(folder / ".since", "0"))
    write_members(
        run_folder,
        Members(registry.chain.chain_id, registry.address, since, coordinator, label.hex(), run.hex(), identities),
    )
    return folder / MEMBERS


def join(run_folder: pathlib.Path, name: str, given: pathlib.Path) -> None:
    """Take the server's list of members, after a look at what it says of this hospital.

    Raises:
        InputError: it is of another contract or chain, or says another identity of this hospital than it has.
        ChainUnavailable: the chain does not answer.
    """
    members, (registry, public) = read_members_file(given), _registry(run_folder, name)
    if (members.contract, members.chain_id) != (registry.address, registry.chain.chain_id):
        raise InputError(f"{given}: it is of another contract or chain than this hospital's run; copy the server's.")
    number = members.identities.get(name)
    if number is None or registry.identity(number).public_key != public:
        raise InputError(
            f"{given}: it does not have the identity of {name!r}; send application.json to the server again."
        )
    write_members(run_folder, members)


def check_joined(run_folder: pathlib.Path) -> None:
    """Before a hospital's node starts.

    Raises:
        InputError: it has no list of members.
    """
    if not (identity_folder(run_folder) / MEMBERS).is_file():
        raise InputError(
            f"{identity_folder(run_folder) / MEMBERS} does not exist; ask the server for its members.json and take it "
            "with fedmrg site join."
        )


def _registry(run_folder: pathlib.Path, name: str) -> tuple[Registry, bytes]:
    """The contract with a participant's account, and its public key."""
    keys, settings = keys_folder(run_folder, name), read_settings(run_folder)
    chain, account = open_chain(run_folder, settings), read_account(keys / ACCOUNT)
    return Registry(chain, str(settings.contract), account), public_bytes(read_signing_key(keys / SIGNING))


def _model(run_folder: pathlib.Path) -> bytes:
    return bytes.fromhex(digest_of(initial_model(run_folder)))
