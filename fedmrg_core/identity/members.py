"""Who is who: members.json, public, the same at the server and at every hospital; and how its chain is opened.

Below a run folder: ``identity/members.json``, ``identity/keys/<name>/`` with a participant's own keys, on one machine
all of them, and ``identity/chain/`` of the embedded chain.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping

from eth_account.signers.local import LocalAccount

from fedmrg_core.data.site_names import path_part
from fedmrg_core.errors import InputError
from fedmrg_core.files.strict_yaml import read_yaml, validated
from fedmrg_core.files.whole_files import read_json, write_text
from fedmrg_core.identity.chain import Chain, node
from fedmrg_core.identity.embedded import EmbeddedChain, replica
from fedmrg_core.identity.keys import read_account
from fedmrg_core.identity.registry import Registry
from fedmrg_core.runs.run_configuration import CONFIGURATION_FILE, Identities

FOLDER, MEMBERS, CHAIN, KEYS = "identity", "members.json", "chain", "keys"
COORDINATOR = "\0coordinator"  # the server among the participants: no client can have this name


@dataclasses.dataclass(frozen=True)
class Members:
    """The identities of a run.

    Attributes:
        chain_id: the chain's number.
        contract: its address there.
        since: the block from which on events of this run are looked for.
        coordinator: the server's identity; its account opens and closes rounds.
        label: what the coordinator calls the run, hexadecimal; with its address it makes the run's name.
        run: the run's name on the chain, hexadecimal.
        identities: number of each client's identity.
    """

    chain_id: int
    contract: str
    since: int
    coordinator: int
    label: str
    run: str
    identities: Mapping[str, int]

    @property
    def run_bytes(self) -> bytes:
        """The run's name."""
        return bytes.fromhex(self.run)

    def client_of(self, identity: int) -> str | None:
        """The client that has an identity."""
        return next((client for client, number in self.identities.items() if number == identity), None)


def identity_folder(run_folder: pathlib.Path) -> pathlib.Path:
    """Where a run keeps everything about identities."""
    return run_folder / FOLDER


def keys_folder(run_folder: pathlib.Path, name: str) -> pathlib.Path:
    """A participant's keys."""
    return run_folder / FOLDER / KEYS / (".coordinator" if name == COORDINATOR else path_part(name))


def members_text(members: Members) -> str:
    """The text of members.json."""
    return json.dumps(dataclasses.asdict(members), indent=1, ensure_ascii=False) + "\n"


def write_members(run_folder: pathlib.Path, members: Members) -> None:
    """Write members.json."""
    write_text(run_folder / FOLDER / MEMBERS, members_text(members))


def read_members(run_folder: pathlib.Path) -> Members:
    """Read members.json.

    Raises:
        InputError: it is missing or damaged.
    """
    return read_members_file(run_folder / FOLDER / MEMBERS)


def read_members_file(path: pathlib.Path) -> Members:
    """Read a list of members.

    Raises:
        InputError: it is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; a run with identities has one: it is made when the run begins.")
    try:
        members = Members(**read_json(path))
        bytes.fromhex(members.run), bytes.fromhex(members.label), dict(members.identities)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: not a list of members ({error}); copy the server's.") from error
    return members


def metadata_digest(name: str) -> bytes:
    """What an identity says of itself, as the chain has it: SHA-256 of its name."""
    return hashlib.sha256(json.dumps({"name": name}, ensure_ascii=False).encode()).digest()


def read_settings(run_folder: pathlib.Path) -> Identities:
    """What config.yaml says of identities; whoever audits need not have the run's task installed.

    Raises:
        InputError: config.yaml is missing or damaged.
    """
    path = run_folder / CONFIGURATION_FILE
    given = read_yaml(path, "run folder").get("identities", {})
    return validated(Identities, given, f"{path}: identities")


def open_chain(run_folder: pathlib.Path, settings: Identities, anew: bool = False) -> Chain:
    """The chain of a run.

    Args:
        run_folder: of the run.
        settings: which chain.
        anew: carry an embedded chain out from its first block, for an audit.

    Raises:
        InputError: it has another number than is configured, or the embedded one is damaged.
        ChainUnavailable: it does not answer.
    """
    if settings.chain == "embedded":
        folder = run_folder / FOLDER / CHAIN
        chain: Chain = EmbeddedChain(folder) if anew else replica(folder)
    else:
        chain = node(settings.chain)
    if settings.chain_id is not None and (there := chain.chain_id) != settings.chain_id:
        raise InputError(
            f"identities.chain_id is {settings.chain_id}, and the chain at {chain.name} has the number {there}; "
            "correct the number or the address."
        )
    return chain


def open_registry(
    run_folder: pathlib.Path, name: str | None, keys: pathlib.Path | None = None, anew: bool = False
) -> Registry:
    """The contract of a run.

    Args:
        run_folder: of the run.
        name: whose account is used; None: to read only.
        keys: that participant's folder, if not in the run folder.
        anew: see `open_chain`.

    Raises:
        InputError: members.json, a key, the chain or the contract is not what it has to be.
        ChainUnavailable: the chain does not answer.
    """
    members, settings = read_members(run_folder), read_settings(run_folder)
    account: LocalAccount | None = None
    if name is not None:
        account = read_account((keys or keys_folder(run_folder, name)) / "account.key")
    chain = open_chain(run_folder, settings, anew)
    if (there := chain.chain_id) != members.chain_id:
        raise InputError(
            f"{run_folder / FOLDER / MEMBERS}: this run is on chain {members.chain_id}, and the chain at {chain.name} "
            f"has the number {there}; correct identities.chain."
        )
    return Registry(chain, members.contract, account)
