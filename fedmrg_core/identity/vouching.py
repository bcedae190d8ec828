"""The hospital's side: it trains only from the round's model on the chain, signs its update and commits to it.

A signed update waits on the hospital's disk before it is committed to. When the round has to be run again, the hospital
sends the same one: it cannot commit to a second, and on a GPU it might not come out the same.
"""

from __future__ import annotations

import pathlib
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

from fedmrg_core.federation.hospital import HospitalDisk
from fedmrg_core.federation.messages import CONFIG, FINISH, METRICS, MODEL_DIGEST, MODEL_ROUND, SERVER_ROUND
from fedmrg_core.federation.model_exchange import open_hospital, run_folder_of
from fedmrg_core.files.whole_files import atomic_file
from fedmrg_core.identity.keys import SIGNING, public_bytes, read_signing_key, verifies
from fedmrg_core.identity.members import Members, keys_folder, open_registry, read_members
from fedmrg_core.identity.registry import Registry
from fedmrg_core.identity.statement import (
    RECORD,
    SIGNATURE,
    STATEMENT,
    Statement,
    identity_record,
    payload_digest,
    read_statement,
    update_digest,
)

KEPT = "signed-update.pb"


class ModelNotOnChain(RuntimeError):
    """The server's message is about another model or round than the chain's; the hospital does nothing."""


class NotAMember(RuntimeError):
    """This hospital has no identity in this run, or another key than the chain says."""


def vouch(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """The mod, in front of everything that reads a model or makes an update.

    Raises:
        ModelNotOnChain: the model or adapter to start from is not the round's.
        NotAMember: the hospital's key is not that of its identity.
        ChainUnavailable: the chain does not answer.
    """
    kind = message.metadata.message_type
    if kind == MessageType.TRAIN:
        return _Hospital(context).train(message, context, call_next)
    if kind == FINISH:
        _Hospital(context).check_chosen(message)
    return call_next(message, context)


class _Hospital:
    """This hospital with its keys and its account."""

    def __init__(self, context: Context) -> None:
        self.run_folder = run_folder_of(context)
        _, hospital, self.disk = open_hospital(context)
        self.name = hospital.client.name
        folder = context.node_config.get("keys-folder")
        self.keys = pathlib.Path(str(folder)) if folder else keys_folder(self.run_folder, self.name)
        self.members: Members = read_members(self.run_folder)
        self.registry: Registry = open_registry(self.run_folder, self.name, self.keys)

    def train(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Check, train, sign, commit."""
        started = time.perf_counter()
        config = message.content[CONFIG]
        round_number, base = int(config[SERVER_ROUND]), str(config[MODEL_DIGEST])
        self._check_round(round_number, base)
        key, number = self._key(), self.members.identities[self.name]
        seconds = time.perf_counter() - started
        content = self._kept(round_number, base, key)
        if content is None:
            reply = call_next(message, context)
            if not reply.has_content() or METRICS not in reply.content:
                return reply  # an error, or the answer that the model has to be sent in full
            content = reply.content
            content[RECORD] = self._signed(content, round_number, base, number, key)
            _keep(self.disk, content)  # before it is committed to, or a crash in between would leave it unknown
        else:
            self.disk.forget_validation(round_number)
        started = time.perf_counter()
        statement, signature = _signed_parts(content)
        self.registry.commit(self.members.run_bytes, round_number, number, update_digest(statement, signature))
        content[RECORD] = identity_record(statement, signature, seconds + time.perf_counter() - started)
        return Message(content, reply_to=message)

    def check_chosen(self, message: Message) -> None:
        """Save no model that is not on the chain."""
        config = message.content[CONFIG]
        self._check_model(int(config[MODEL_ROUND]), str(config[MODEL_DIGEST]))

    def _check_round(self, round_number: int, base: str) -> None:
        run = self.registry.run(self.members.run_bytes)
        if not run.open or run.round != round_number:
            raise ModelNotOnChain(f"round {round_number} is not open on the chain; its last round is {run.round}")
        self._check_model(round_number - 1, base)

    def _check_model(self, round_number: int, digest: str) -> None:
        there = self.registry.model(self.members.run_bytes, round_number)
        if there != digest:
            raise ModelNotOnChain(
                f"the server sent a model of digest {digest}, and the chain has {there or 'none'} after round "
                f"{round_number}; nothing was trained or saved"
            )

    def _key(self) -> Ed25519PrivateKey:
        number = self.members.identities.get(self.name)
        if number is None:
            raise NotAMember(f"{self.name!r} is not in members.json")
        key, there = read_signing_key(self.keys / SIGNING), self.registry.identity(number)
        if not there.active:
            raise NotAMember(f"identity {number} of {self.name!r} is revoked")
        if there.public_key != public_bytes(key):
            raise NotAMember(f"{self.keys / SIGNING} is not the key that the chain has for identity {number}")
        return key

    def _signed(
        self, content: RecordDict, round_number: int, base: str, number: int, key: Ed25519PrivateKey
    ) -> ConfigRecord:
        statement = Statement(
            self.members.chain_id, self.members.contract, self.members.run, round_number, number, base,
            payload_digest(content),
        )  # fmt: skip
        return identity_record(statement, key.sign(statement.signed_bytes()), 0.0)

    def _kept(self, round_number: int, base: str, key: Ed25519PrivateKey) -> RecordDict | None:
        """The update of an earlier attempt at this round, from the same model and with today's key."""
        path = self.disk.folder / KEPT
        if not path.exists():
            return None
        content = recorddict_from_proto(RecordDictProto.FromString(path.read_bytes()))
        statement, signature = _signed_parts(content)
        same = (statement.run, statement.round, statement.base) == (self.members.run, round_number, base)
        return content if same and verifies(public_bytes(key), signature, statement.signed_bytes()) else None


def _signed_parts(content: RecordDict) -> tuple[Statement, bytes]:
    record = content[RECORD]
    return read_statement(str(record[STATEMENT])), bytes(record[SIGNATURE])


def _keep(disk: HospitalDisk, content: RecordDict) -> None:
    with atomic_file(disk.folder / KEPT) as temporary:
        temporary.write_bytes(recorddict_to_proto(content).SerializeToString())
