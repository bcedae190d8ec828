"""The embedded chain: an EVM in this process, and a file that all processes of a run write their transactions to.

Every process has a replica of its own, which reads what others have added and carries it out. Nothing in a block
depends on the clock or on chance, so every replica has the same blocks, today and whenever an audit replays the file.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

import filelock
import web3
from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.backends.pyevm.main import get_default_genesis_params
from eth_tester.exceptions import TransactionFailed
from eth_utils import ValidationError
from web3 import Web3

from fedmrg_core.errors import InputError
from fedmrg_core.files.whole_files import read_json, write_text
from fedmrg_core.identity.chain import Chain, Refused, client

Answer = TypeVar("Answer")
GENESIS, BLOCKS = "genesis.json", "blocks.jsonl"
BEGINNING = 1_700_000_000  # seconds; a block is a second later than the one before, whatever the clock says
BALANCE = 10**24  # wei of every account at the beginning: gas costs nothing here
GAS_PRICE = 2 * 10**9  # wei; the first blocks ask for 1 gwei, later ones for less
LOCK_SECONDS = 60.0


class EmbeddedChain(Chain):
    """One replica.

    Args:
        folder: holds genesis.json and blocks.jsonl.

    Raises:
        InputError: a file is missing or damaged, or a block comes out otherwise than it was written.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        accounts = read_json(folder / GENESIS)["accounts"]
        self._tester, self.reader = _tester(accounts), accounts[0]
        self._read = 0  # bytes of blocks.jsonl that are carried out
        super().__init__(client(web3.EthereumTesterProvider(self._tester)), f"{folder.name} (embedded)")
        self._catch_up()

    def ask(self, question: Callable[[Web3], Answer]) -> Answer:
        """The answer, with what other processes have added since."""
        self._catch_up()
        try:
            return super().ask(question)
        except TransactionFailed as error:
            raise Refused(str(error).removeprefix("execution reverted: ")) from error

    def gas_price(self) -> int:
        """Always the same, so that a transaction's hash does not depend on the block it came into."""
        return GAS_PRICE

    def deliver(self, raw: bytes, digest: bytes) -> None:
        """Carry a transaction out and add it to the file, while no other process does."""
        # Made each time: a lock does not outlive the fork of a worker.
        with filelock.FileLock(self.folder / ".lock", timeout=LOCK_SECONDS):
            self._catch_up()
            path = self.folder / BLOCKS
            with path.open("ab") as file:
                file.truncate(self._read)  # a line that a crash cut off: nobody has had an answer to it
                line = self._carry_out(raw)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            self._read += len(line)

    def _carry_out(self, raw: bytes) -> bytes:
        """The line of a transaction's block."""
        try:
            self.client.eth.send_raw_transaction(raw)
        except (ValidationError, TransactionFailed) as error:
            raise Refused(str(error)) from error
        block = self.client.eth.get_block("latest")
        return _line({"block": block["number"], "hash": Web3.to_hex(block["hash"]), "raw": Web3.to_hex(raw)})

    def _catch_up(self) -> None:
        for line in self._new_lines():
            try:
                raw = Web3.to_bytes(hexstr=json.loads(line)["raw"])
                made = self._carry_out(raw)
            except (ValueError, KeyError, TypeError, Refused) as error:
                raise InputError(
                    f"{self.folder / BLOCKS}: the line at byte {self._read} is no transaction ({error})."
                ) from error
            if made != line:
                raise InputError(
                    f"{self.folder / BLOCKS}: the block at byte {self._read} comes out otherwise than it was written; "
                    "the file was changed."
                )
            self._read += len(line)

    def _new_lines(self) -> Iterator[bytes]:
        path = self.folder / BLOCKS
        if path.exists() and path.stat().st_size > self._read:
            with path.open("rb") as file:
                file.seek(self._read)
                # Without its end a line is still being written, or a crash cut it off.
                yield from [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]


_replicas: dict[pathlib.Path, tuple[int, EmbeddedChain]] = {}


def replica(folder: pathlib.Path) -> EmbeddedChain:
    """This process's replica of a chain; what it has carried out once it does not carry out again."""
    path = folder.resolve()
    made = (path / GENESIS).stat().st_mtime_ns if (path / GENESIS).exists() else 0  # another chain in this place
    if path not in _replicas or _replicas[path][0] != made:
        _replicas.clear()
        _replicas[path] = made, EmbeddedChain(path)
    return _replicas[path][1]


def make_chain(folder: pathlib.Path, accounts: Collection[str]) -> None:
    """Begin a chain on which these addresses have what they need, unless the folder has one."""
    if not (folder / GENESIS).exists():
        content = {"accounts": sorted(accounts)}
        write_text(folder / GENESIS, json.dumps(content, indent=1) + "\n")


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


class _Backend(PyEVMBackend):
    """An EVM whose blocks have no random number and no time of day in them."""

    def mine_blocks(self, num_blocks: int = 1, coinbase: bytes = bytes(20)) -> tuple[bytes, ...]:
        """A block of what was sent since the last one."""
        hashes = []
        for _ in range(num_blocks):
            time = self.chain.header.timestamp
            block = self.chain.mine_block(coinbase=coinbase, mix_hash=bytes(32), blob_gas_used=0)
            self._set_time(time + 1)
            hashes.append(block.hash)
        return tuple(hashes)

    def _set_time(self, seconds: int) -> None:
        self.chain.header = self.chain.header.copy(timestamp=seconds)


def _tester(accounts: Collection[str]) -> EthereumTester:
    state = {
        Web3.to_bytes(hexstr=address): {"balance": BALANCE, "nonce": 0, "code": b"", "storage": {}}
        for address in accounts
    }
    backend = _Backend(get_default_genesis_params({"timestamp": BEGINNING}), state)
    backend._set_time(BEGINNING + 1)
    return EthereumTester(backend)
