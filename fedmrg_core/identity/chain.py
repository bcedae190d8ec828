"""A chain to read from and to send to: any EVM node by its URL, or the embedded one (`embedded`).

A chain that does not answer is asked again a few times; then the run stops with one sentence, and goes on from there
when it is started again. A transaction that was sent keeps its number and its bytes, so it is never carried out twice.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import requests
import web3
from eth_account.signers.local import LocalAccount
from web3 import Web3
from web3.exceptions import BadResponseFormat, ContractLogicError, TransactionNotFound, Web3RPCError
from web3.middleware import AttributeDictMiddleware
from web3.providers import BaseProvider
from web3.types import RPCEndpoint

from fedmrg_core.errors import InputError
from fedmrg_core.federation.gate import ChainUnavailable

logger = logging.getLogger(__name__)

WAITS = (0.5, 2.0, 5.0)  # seconds before a question is asked again
PATIENCE = 120.0  # seconds until a transaction must be in a block
TIMEOUT = 20.0  # seconds for one answer
SILENCE = (requests.RequestException, ConnectionError, TimeoutError, BadResponseFormat)
Answer = TypeVar("Answer")


class Refused(RuntimeError):
    """The contract does not allow it; the text is its reason."""


@dataclasses.dataclass(frozen=True)
class Receipt:
    """A transaction in a block."""

    transaction: str  # its hash
    block: int
    gas: int
    status: int  # 1: carried out
    contract: str | None  # address of what it deployed
    raw: dict[str, Any]  # as web3 has it, for events


class Chain:
    """One chain.

    Args:
        client: of web3.
        name: in messages, e.g. its URL.
    """

    reader: str | None = None  # the address that questions come from where nobody's account is at hand

    def __init__(self, client: Web3, name: str) -> None:
        self.client, self.name = client, name

    def ask(self, question: Callable[[Web3], Answer]) -> Answer:
        """The answer to a question, asked again when there is none.

        Raises:
            ChainUnavailable: it was asked `len(WAITS) + 1` times.
            Refused: the contract refuses.
        """
        for wait in (*WAITS, None):
            try:
                return question(self.client)
            except ContractLogicError as error:
                raise Refused(str(error.message).removeprefix("execution reverted: ")) from error
            except SILENCE as error:
                if wait is None:
                    raise ChainUnavailable(
                        f"the chain at {self.name} does not answer ({type(error).__name__}, asked {len(WAITS) + 1} "
                        "times); start the run again when it does: nothing is lost and nothing is sent twice."
                    ) from error
                logger.warning("the chain at %s does not answer; asked again in %s s", self.name, wait)
                time.sleep(wait)
        raise AssertionError

    @functools.cached_property
    def chain_id(self) -> int:
        """The number that tells chains apart."""
        return self.ask(lambda client: client.eth.chain_id)

    @property
    def height(self) -> int:
        """Number of the last block."""
        return self.ask(lambda client: client.eth.block_number)

    def code(self, address: str) -> str:
        """The code of the contract at an address, hexadecimal with 0x; "0x" where there is none."""
        return Web3.to_hex(self.ask(lambda client: client.eth.get_code(Web3.to_checksum_address(address))))

    def gas_price(self) -> int:
        """Wei for a unit of gas."""
        return self.ask(lambda client: client.eth.gas_price)

    def send(self, account: LocalAccount, to: str | None, data: str, gas: int, value: int = 0) -> Receipt:
        """Send a transaction and wait for its block.

        Args:
            account: signs and pays.
            to: a contract; None deploys one.
            data: hexadecimal.
            gas: at most so many units.
            value: wei that go along.

        Raises:
            InputError: the account has too little.
            Refused: the contract refuses; if possible before anything is spent.
            ChainUnavailable: no answer.
        """
        price = self.gas_price()
        balance, need = self.balance(account.address), gas * price + value
        if balance < need:
            raise InputError(
                f"account {account.address} has {balance} wei on the chain at {self.name}, and this transaction may "
                f"take {need}; send it some."
            )
        wanted = {"to": to, "data": data, "gas": gas, "value": value}
        fields = {key: item for key, item in wanted.items() if item is not None}
        self.ask(lambda client: client.eth.call({**fields, "from": account.address}))
        number = self.ask(lambda client: client.eth.get_transaction_count(account.address, "pending"))
        signed = account.sign_transaction({**fields, "gasPrice": price, "nonce": number, "chainId": self.chain_id})
        self.deliver(signed.raw_transaction, signed.hash)
        receipt = self._receipt(signed.hash)
        if receipt.status != 1:
            raise Refused(f"transaction {receipt.transaction} was not carried out")
        return receipt

    def deliver(self, raw: bytes, digest: bytes) -> None:
        """Hand a signed transaction over; one that is there already is not sent again."""

        def sent(client: Web3) -> None:
            try:
                client.eth.send_raw_transaction(raw)
            except (Web3RPCError, ValueError):
                # Asked a second time, after an answer was lost, a node says "already known" or "nonce too low".
                if not _is_known(client, digest):
                    raise

        self.ask(sent)

    def balance(self, address: str) -> int:
        """Wei of an account."""
        return self.ask(lambda client: client.eth.get_balance(address))

    def receipt(self, digest: str | bytes) -> Receipt:
        """The receipt of a transaction that is in a block."""
        found = self.ask(lambda client: client.eth.get_transaction_receipt(digest))
        return Receipt(
            Web3.to_hex(found["transactionHash"]), found["blockNumber"], found["gasUsed"], found["status"],
            found["contractAddress"], dict(found),
        )  # fmt: skip

    def logs(self, address: str, since: int) -> list[Any]:
        """Events of a contract from a block on, oldest first."""
        wanted = {"address": address, "fromBlock": since, "toBlock": "latest"}
        return self.ask(lambda client: client.eth.get_logs(wanted))

    def _receipt(self, digest: bytes) -> Receipt:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self.receipt(digest)
            except TransactionNotFound as error:
                if time.monotonic() > until:
                    raise ChainUnavailable(
                        f"the chain at {self.name} has not put transaction {Web3.to_hex(digest)} into a block for "
                        f"{PATIENCE:.0f} s; start the run again later: it is not sent twice."
                    ) from error
                time.sleep(0.2)


def node(url: str) -> Chain:
    """The chain of an EVM node, by its URL."""
    provider = web3.HTTPProvider(
        url, {"timeout": TIMEOUT}, exception_retry_configuration=None, cache_allowed_requests=True,
        cacheable_requests={RPCEndpoint("eth_chainId")},
    )  # fmt: skip
    return Chain(client(provider), url)


def client(provider: BaseProvider) -> Web3:
    """web3 without what asks more questions before each: default senders, names, and the chain's number every time."""
    return Web3(provider, middleware=[(AttributeDictMiddleware, "attrdict")])


def _is_known(client: Web3, digest: bytes) -> bool:
    try:
        client.eth.get_transaction(digest)
    except TransactionNotFound:
        return False
    return True
