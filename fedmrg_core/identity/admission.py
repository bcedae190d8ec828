"""Whether an update may be used: the rules, in the order in which they are asked, each with a code of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

from flwr.app import Message

from fedmrg_core.identity.keys import verifies
from fedmrg_core.identity.members import Members
from fedmrg_core.identity.registry import Registry
from fedmrg_core.identity.statement import (
    RECORD,
    SIGNATURE,
    STATEMENT,
    Statement,
    payload_digest,
    read_statement,
    update_digest,
)

ADMITTED = "admitted"
# What identity.csv says of an update that was not used, and what it means.
REFUSALS = {
    "no_update": "the hospital sent nothing, or an error",
    "chain_unavailable": "the hospital does not reach the chain",
    "unsigned": "it came without a signature, or with a statement that cannot be read",
    "unknown": "no such identity is registered",
    "another_name": "the identity belongs to another client than the node that sent it",
    "revoked": "its owner has ended the identity",
    "bad_signature": "the signature is not of this statement by the identity's key",
    "altered": "what arrived is not what was signed",
    "another_run": "it was signed for another run, contract or chain",
    "replayed": "it was sent and committed in an earlier round",
    "late": "it is of a round that is over, and was not committed in time",
    "wrong_round": "it is of a round that has not begun",
    "another_model": "it starts from another model than the round's",
    "not_committed": "its digest is not on the chain",
    "another_commitment": "the hospital committed to another update in this round",
    "unusable": "it was admitted, and its content cannot be used",
}


@dataclasses.dataclass(frozen=True)
class Update:
    """A signed update as it arrived."""

    statement: Statement
    signature: bytes
    digest: str  # of both

    def plain(self) -> dict[str, Any]:
        """For a JSON file."""
        return {"statement": self.statement.text(), "signature": self.signature.hex(), "update": self.digest}


class Inadmissible(Exception):
    """An update that is refused.

    Args:
        code: one of `REFUSALS`.
        update: as far as it could be read.
    """

    def __init__(self, code: str, update: Update | None = None) -> None:
        super().__init__(REFUSALS[code])
        self.code, self.update = code, update


def read_update(reply: Message) -> Update:
    """The identity record of a reply.

    Raises:
        Inadmissible: there is none, or it cannot be read.
    """
    record = reply.content.config_records.get(RECORD)
    try:
        statement, signature = read_statement(record[STATEMENT]), record[SIGNATURE]
        if not isinstance(signature, bytes):
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise Inadmissible("unsigned") from None
    return Update(statement, signature, update_digest(statement, signature))


def check_update(
    update: Update, reply: Message, client: str, round_number: int, members: Members, registry: Registry
) -> None:
    """Hold an update against the chain.

    Args:
        update: as read.
        reply: the message it came in.
        client: the name by which the server knows the node.
        round_number: of the round that is open.
        members: who has which identity.
        registry: the contract.

    Raises:
        Inadmissible: with the first rule that it breaks.
    """
    statement = update.statement

    def require(true: bool, code: str) -> None:
        if not true:
            raise Inadmissible(code, update)

    identity = registry.identity(statement.identity) if 0 < statement.identity < 2**256 else None
    require(identity is not None and int(identity.owner, 16) != 0, "unknown")
    require(members.identities.get(client) == statement.identity, "another_name")
    require(identity.active, "revoked")
    require(verifies(identity.public_key, update.signature, statement.signed_bytes()), "bad_signature")
    require(statement.payload == payload_digest(reply.content), "altered")
    here = (members.chain_id, members.contract, members.run)
    require((statement.chain, statement.contract, statement.run) == here, "another_run")
    run = members.run_bytes
    if 0 < statement.round < round_number:
        before = registry.commitment(run, statement.round, statement.identity)
        raise Inadmissible("replayed" if before == update.digest else "late", update)
    require(statement.round == round_number, "wrong_round")
    require(statement.base == registry.model(run, round_number - 1), "another_model")
    committed = registry.commitment(run, round_number, statement.identity)
    require(committed != "", "not_committed")
    require(committed == update.digest, "another_commitment")
