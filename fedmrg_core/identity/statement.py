"""What a hospital signs with an update: which run, round and model it is of, and the digest of what it sends."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedmrg_core.federation.messages import IDENTITY, METRICS, SECONDS

RECORD = IDENTITY  # of a message: the statement and its signature
STATEMENT, SIGNATURE, CHAIN_SECONDS = "statement", "signature", "chain-seconds"
_BEGINNING = b"FedMRG update 1\n"  # a signature of this project's stands for nothing else


@dataclasses.dataclass(frozen=True)
class Statement:
    """What is signed.

    Attributes:
        chain: id of the chain.
        contract: its address there.
        run: of the contract, hexadecimal.
        round: from 1.
        identity: the signer's number.
        base: digest of the model that the update starts from.
        payload: digest of the message without this record.
    """

    chain: int
    contract: str
    run: str
    round: int
    identity: int
    base: str
    payload: str

    def text(self) -> str:
        """The one way to write it."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    def signed_bytes(self) -> bytes:
        """What the signature is of."""
        return _BEGINNING + self.text().encode()


def read_statement(text: str) -> Statement:
    """A statement from its text.

    Raises:
        ValueError: it is not written as `Statement.text` writes it.
    """
    try:
        statement = Statement(**json.loads(text))
    except TypeError as error:
        raise ValueError(str(error)) from error
    kinds = {field.name: {"int": int, "str": str}[field.type] for field in dataclasses.fields(Statement)}
    if any(type(getattr(statement, name)) is not kind for name, kind in kinds.items()) or statement.text() != text:
        raise ValueError("not a statement")
    return statement


def update_digest(statement: Statement, signature: bytes) -> str:
    """Digest of a signed update, hexadecimal: what is committed on the chain."""
    return hashlib.sha256(statement.signed_bytes() + signature).hexdigest()


def payload_digest(content: RecordDict) -> str:
    """Digest of what a message holds, hexadecimal, but for this module's record and the seconds it took.

    A time is not the same when a round is run again, and its update has to be.
    """
    digest = hashlib.sha256()
    for name in sorted(set(content) - {RECORD}):
        digest.update(_line("record", name))
        record = content[name]
        for key in sorted(record):
            if isinstance(record, ArrayRecord):
                array = record[key]
                digest.update(_line("array", key, array.dtype, list(array.shape), array.stype, len(array.data)))
                digest.update(array.data)
            elif (name, key) != (METRICS, SECONDS):
                digest.update(_line("entry", key, _plain(record[key])))
    return digest.hexdigest()


def identity_record(statement: Statement, signature: bytes, seconds: float) -> ConfigRecord:
    """The record that goes with an update."""
    return ConfigRecord({STATEMENT: statement.text(), SIGNATURE: signature, CHAIN_SECONDS: seconds})


def _line(*parts: Any) -> bytes:
    return json.dumps(parts).encode() + b"\n"


def _plain(value: Any) -> Any:
    """Bytes as hexadecimal; a whole number and a number with a point stay apart, as in the message."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
