"""On one machine: keys for everybody, the contract, and an identity for every client and for the server.

Each step looks first whether the chain has it already, so a crash in between costs nothing twice.
"""

from __future__ import annotations

import pathlib
import secrets

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_account.signers.local import LocalAccount
from web3.utils import get_create_address

from fedmrg_core.errors import InputError
from fedmrg_core.federation.messages import digest_of
from fedmrg_core.federation.roster import Roster
from fedmrg_core.federation.task import Task, initial_model
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.identity.chain import Chain
from fedmrg_core.identity.embedded import make_chain
from fedmrg_core.identity.keys import (
    ACCOUNT,
    SIGNING,
    make_keys,
    public_bytes,
    read_account,
    read_signing_key,
    write_signing_key,
)
from fedmrg_core.identity.members import (
    CHAIN,
    COORDINATOR,
    MEMBERS,
    Members,
    identity_folder,
    keys_folder,
    metadata_digest,
    open_chain,
    open_registry,
    read_members,
    write_members,
)
from fedmrg_core.identity.registry import Registry, deploy
from fedmrg_core.runs.run_configuration import Identities


def enrol(run_folder: pathlib.Path, task: Task, roster: Roster) -> None:
    """Register the clients of a run, open it on the chain and write members.json, unless that is done.

    Raises:
        InputError: a key, the chain or the contract is not what it has to be, an account has too little, or the
            members are other clients.
        ChainUnavailable: the chain does not answer.
    """
    folder, settings = identity_folder(run_folder), task.configuration.identities
    if (folder / MEMBERS).exists():
        _check_members(run_folder, roster)
        return
    names = (COORDINATOR, *roster.names)
    for name in names:
        make_keys(keys_folder(run_folder, name))
    accounts = {name: read_account(keys_folder(run_folder, name) / ACCOUNT) for name in names}
    if settings.chain == "embedded":
        make_chain(folder / CHAIN, [account.address for account in accounts.values()])
    chain = open_chain(run_folder, settings)
    since = int(once(folder / ".since", str(chain.height)))
    address = contract_address(folder, chain, settings, accounts[COORDINATOR])
    model = bytes.fromhex(digest_of(initial_model(run_folder)))
    numbers = {}
    for name in names:
        key = read_signing_key(keys_folder(run_folder, name) / SIGNING)
        registry = Registry(chain, address, accounts[name])
        numbers[name] = registry.register(public_bytes(key), metadata_digest(name), model)
    label = bytes.fromhex(once(folder / ".label", secrets.token_hex(32)))
    run = Registry(chain, address, accounts[COORDINATOR]).open_run(label, settings.pot)
    coordinator = numbers.pop(COORDINATOR)
    write_members(run_folder, Members(chain.chain_id, address, since, coordinator, label.hex(), run.hex(), numbers))


def _check_members(run_folder: pathlib.Path, roster: Roster) -> None:
    members = read_members(run_folder)
    different = sorted(set(members.identities) ^ set(roster.names))
    if different:
        raise InputError(
            f"{identity_folder(run_folder) / MEMBERS} and clients.json differ in {different[0]!r}; choose another run "
            "folder, or have both of the same clients."
        )
    open_registry(run_folder, COORDINATOR)  # says now what is wrong with key, chain or contract


def contract_address(folder: pathlib.Path, chain: Chain, settings: Identities, account: LocalAccount) -> str:
    """The contract that is configured, or one deployed here, once."""
    if settings.contract is not None:
        return settings.contract
    # The address follows from the account and its next number: written first, a crash cannot have it deployed twice.
    number = chain.ask(lambda client: client.eth.get_transaction_count(account.address))
    address = once(folder / ".contract", get_create_address(account.address, number))
    if chain.code(address) == "0x":
        (folder / ".contract").unlink()
        address = once(folder / ".contract", get_create_address(account.address, number))
        deploy(chain, account)
    return address


def once(path: pathlib.Path, text: str) -> str:
    """What a file says; the text given if it does not exist yet."""
    if not path.exists():
        write_text(path, text + "\n")
    return path.read_text(encoding="utf-8").strip()


def rotate_key(run_folder: pathlib.Path, client: str) -> bytes:
    """Make a new key for a client and register it.

    The new one lies beside the old until the chain has it, so a crash in between loses neither.

    Returns:
        The new public key.

    Raises:
        InputError: the client is no member, or a key or the chain is not what it has to be.
    """
    number = read_members(run_folder).identities.get(client)
    if number is None:
        raise InputError(f"{client!r} is no member of this run; see members.json.")
    folder = keys_folder(run_folder, client)
    new = folder / f"new-{SIGNING}"
    if not new.exists():
        write_signing_key(new, Ed25519PrivateKey.generate())
    public = public_bytes(read_signing_key(new))
    open_registry(run_folder, client).rotate(number, public)
    new.replace(folder / SIGNING)
    return public
