"""The contract's functions, for whoever has an account; each does nothing where the chain has it already."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from eth_account.signers.local import LocalAccount
from eth_utils import ValidationError
from eth_utils.abi import event_abi_to_log_topic
from hexbytes import HexBytes
from web3 import Web3
from web3._utils.events import get_event_data
from web3.contract import Contract as BoundContract
from web3.exceptions import Web3ValidationError

from fedmrg_core.errors import InputError
from fedmrg_core.identity.chain import Chain, Receipt, Refused
from fedmrg_core.identity.contract import contract

# Units of gas that a call may take at most; fixed, so that a transaction's bytes do not depend on the block.
GAS = {
    "deploy": 4_000_000, "register": 400_000, "rotate": 150_000, "revoke": 100_000, "open_run": 250_000,
    "fund": 100_000, "open_round": 250_000, "commit": 150_000, "finish_run": 150_000, "seal": 150_000,
    "withdraw": 150_000, "reclaim": 150_000,
}  # fmt: skip
GAS_TO_CLOSE, GAS_A_MEMBER = 150_000, 120_000
READING = 1_000_000
NOTHING = bytes(32)


@dataclasses.dataclass(frozen=True)
class Identity:
    """What the chain says of an identity."""

    number: int
    owner: str
    public_key: bytes
    metadata: bytes
    model: bytes
    active: bool


@dataclasses.dataclass(frozen=True)
class Run:
    """What the chain says of a run."""

    coordinator: str
    round: int  # the last that was opened
    open: bool
    finished: bool
    pot: int  # wei
    weight: int
    chosen: int
    evidence: bytes


@dataclasses.dataclass(frozen=True)
class Event:
    """What a function has done; numbers as int, digests and addresses as text."""

    name: str
    values: dict[str, Any]
    transaction: str
    block: int


class Registry:
    """The contract at an address.

    Args:
        chain: where it is.
        address: of the contract.
        account: sends and pays; None: to read only.

    Raises:
        InputError: there is no contract at the address, or another one.
    """

    def __init__(self, chain: Chain, address: str, account: LocalAccount | None = None) -> None:
        self.chain, self.account = chain, account
        self._gas: dict[str, int] = {}
        if not Web3.is_address(address):
            raise InputError(f"contract {address!r} is no address; expected 0x and 40 hexadecimal digits.")
        self.address = Web3.to_checksum_address(address)
        code = chain.code(self.address)
        if code == "0x":
            raise InputError(
                f"contract {address}: there is no code at this address on the chain at {chain.name}; correct the "
                "address, or leave it out to have the contract deployed."
            )
        if not contract().deploys(code):
            raise InputError(
                f"contract {address}: the code at this address on the chain at {chain.name} is not registry.vy's; "
                "correct the address, or leave it out to have the contract deployed."
            )
        self._contract: BoundContract = chain.client.eth.contract(address=self.address, abi=contract().abi)

    # ---- identities ----

    def register(self, public_key: bytes, metadata: bytes, model: bytes) -> int:
        """Register an identity of the account's.

        Returns:
            Its number.
        """
        number = self.number_of(public_key)
        if number == 0:
            self._send("register", public_key, metadata, model)
            return self.number_of(public_key)
        if self.identity(number).owner != self.account.address:
            raise Refused(f"the key belongs to identity {number} of {self.identity(number).owner}")
        return number

    def rotate(self, identity: int, public_key: bytes) -> None:
        """Sign with another key from now on."""
        if self.identity(identity).public_key != public_key:
            self._send("rotate", identity, public_key)

    def revoke(self, identity: int) -> None:
        """End an identity."""
        if self.identity(identity).active:
            self._send("revoke", identity)

    def number_of(self, public_key: bytes) -> int:
        """The identity that has or had a key; 0 for none."""
        return self._read("identity_of", public_key)

    def identity(self, number: int) -> Identity:
        """An identity; one that is not registered is owned by nobody and inactive."""
        return Identity(number, *self._read("identities", number))

    # ---- runs ----

    def open_run(self, label: bytes, pot: int) -> bytes:
        """Begin a run of the account's.

        Returns:
            Its name on the chain.
        """
        run = self._read("run_of", self.account.address, label)
        if int(self.run(run).coordinator, 16) == 0:
            self._send("open_run", label, value=pot)
        return run

    def run(self, run: bytes) -> Run:
        """A run."""
        return Run(*self._read("runs", run))

    def model(self, run: bytes, round_number: int) -> str:
        """Digest of the model after a round, of the first one after round 0; "" if there is none yet."""
        found = self._read("model", run, round_number)
        return "" if found == NOTHING else found.hex()

    def open_round(self, run: bytes, round_number: int, base: str) -> None:
        """Say which model a round starts from."""
        state = self.run(run)
        if not (state.open and state.round == round_number and self.model(run, round_number - 1) == base):
            self._send("open_round", run, round_number, bytes.fromhex(base))

    def commit(self, run: bytes, round_number: int, identity: int, digest: str) -> None:
        """Commit to a signed update.

        Raises:
            Refused: another one was committed before, among other reasons.
        """
        if self.commitment(run, round_number, identity) != digest:
            self._send("commit", run, round_number, identity, bytes.fromhex(digest))

    def commitment(self, run: bytes, round_number: int, identity: int) -> str:
        """Digest of the update that an identity has committed; "" for none."""
        found = self._read("commitment", run, round_number, identity)
        return "" if found == NOTHING else found.hex()

    def close_round(self, run: bytes, round_number: int, weights: dict[int, int], model: str) -> None:
        """End a round: weights by identity, and the model that came out."""
        state = self.run(run)
        if state.open and state.round == round_number:
            gas = GAS_TO_CLOSE + GAS_A_MEMBER * len(weights)
            numbers, values = list(weights), list(weights.values())
            self._send("close_round", run, round_number, numbers, values, bytes.fromhex(model), gas=gas)

    def finish_run(self, run: bytes, chosen: int) -> None:
        """End a run with the model after a round."""
        if not self.run(run).finished:
            self._send("finish_run", run, chosen)

    def seal(self, run: bytes, evidence: str) -> None:
        """Keep the digest of a run's evidence."""
        if self.run(run).evidence == NOTHING:
            self._send("seal", run, bytes.fromhex(evidence))

    # ---- the incentive ----

    def due(self, run: bytes, identity: int) -> int:
        """What an identity can withdraw, in wei."""
        return self._read("due", run, identity)

    def withdraw(self, run: bytes, identity: int) -> Receipt:
        """Have an identity's part of the pot paid to its owner."""
        return self._send("withdraw", run, identity)

    # ---- what happened ----

    def events(self, since: int = 0) -> list[Event]:
        """Everything the contract has done from a block on, in its order."""
        return [
            decoded_event(log, Web3.to_hex(log["transactionHash"]), log["blockNumber"])
            for log in self.chain.logs(self.address, since)
        ]

    def gas_of(self, transaction: str) -> int:
        """Units of gas that a transaction took."""
        if transaction not in self._gas:
            self._gas[transaction] = self.chain.receipt(transaction).gas
        return self._gas[transaction]

    def _read(self, name: str, *arguments: Any) -> Any:
        function = getattr(self._contract.functions, name)(*arguments)
        reader = self.account.address if self.account else self.chain.reader
        sender = {"from": reader} if reader else {}
        return self.chain.ask(lambda _: function.call({**sender, "gas": READING}))

    def _send(self, name: str, *arguments: Any, gas: int | None = None, value: int = 0) -> Receipt:
        try:
            data = self._contract.encode_abi(name, args=list(arguments))
        except (Web3ValidationError, ValidationError) as error:
            raise Refused(str(error)) from error
        return self.chain.send(self.account, self.address, data, gas or GAS[name], value)


def deploy(chain: Chain, account: LocalAccount) -> str:
    """Deploy the contract.

    Returns:
        Its address.
    """
    return chain.send(account, None, contract().bytecode, GAS["deploy"]).contract


def decoded_call(data: bytes) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the function that a transaction's data call.

    Raises:
        ValueError: the contract has no such function.
    """
    function, arguments = _offline().decode_function_input(data)
    return function.fn_name, {key: _plain(value) for key, value in arguments.items()}


def decoded_event(log: Mapping[str, Any], transaction: str, block: int) -> Event:
    """An event from its topics and data.

    Raises:
        ValueError: the contract has no such event.
    """
    topics = [bytes(HexBytes(topic)) for topic in log["topics"]]
    abi = _event_abis().get(topics[0]) if topics else None
    if abi is None:
        raise ValueError("an event that registry.vy does not know")
    told = dict(log, address="0x" + "00" * 20, topics=list(map(HexBytes, topics)), data=HexBytes(log["data"]))
    place = {"transactionHash": b"", "blockHash": b"", "logIndex": 0, "transactionIndex": 0, "blockNumber": block}
    values = get_event_data(_offline().w3.codec, abi, {**told, **place})["args"]
    return Event(abi["name"], {key: _plain(value) for key, value in values.items()}, transaction, block)


@functools.cache
def _offline() -> Any:
    return Web3().eth.contract(abi=contract().abi)


@functools.cache
def _event_abis() -> dict[bytes, Any]:
    return {event_abi_to_log_topic(abi): abi for abi in contract().abi if abi["type"] == "event"}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value
