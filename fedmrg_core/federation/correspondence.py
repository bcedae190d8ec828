"""Who is on the other side of the grid, and the exchange of messages with them: by client's name, each only its own."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Collection, Iterable, Mapping

from flwr.app import Message, MessageType, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid

from fedmrg_core.federation.downlink import SentModel, in_full
from fedmrg_core.federation.joined_arrays import join, split
from fedmrg_core.federation.replies import IDENTITY, SILENT, UnusableReply, needs_model, read_identity, reading
from fedmrg_core.federation.roster import ROSTER, Roster
from fedmrg_core.federation.round_record import RoundRecord

logger = logging.getLogger(__name__)

Reply = Message | UnusableReply  # what came of a client, or why it is not used


class Correspondence:
    """The server's messages to hospitals and their answers.

    Args:
        grid: any of Flower's grids.
        roster: who takes part.
        timeout: seconds to wait for an answer.
        modules: that may leave a hospital, for the ledger's rows.

    Attributes:
        clients: names by node, of those who have said who they are.
    """

    def __init__(self, grid: Grid, roster: Roster, timeout: float, modules: Collection[str]) -> None:
        self.grid, self.roster, self.timeout, self.modules = grid, roster, timeout, modules
        self.clients: dict[int, str] = {}

    def meet(self) -> None:
        """Ask every node not met before which client it is; at first wait for all, at most `round_timeout`."""
        deadline = time.monotonic() + (0.0 if self.clients else self.timeout)
        while len(nodes := list(self.grid.get_node_ids())) < len(self.roster.names):
            if time.monotonic() >= deadline:
                break
            time.sleep(0.2)  # Flower's grid can be asked who is there, and tells nobody when someone comes
        self.clients = {node: client for node, client in self.clients.items() if node in nodes}
        questions = {
            str(node): Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY)
            for node in nodes
            if node not in self.clients
        }
        if not questions:
            return
        answers = by_sender(self.grid.send_and_receive(questions.values(), timeout=self.timeout), questions)
        for node in answers:
            try:
                name, fingerprint = read_identity(arrived(answers, node))
            except UnusableReply as reason:
                logger.warning("node %s cannot take part: %s", node, reason)
                continue
            # States are kept by name: an unknown name has none, and two nodes of one name would both train on it.
            if self._is_welcome(node, name, fingerprint):
                self.clients[int(node)] = name

    def _is_welcome(self, node: str, name: str, fingerprint: str) -> bool:
        """Hold what a node says of itself against clients.json; a node that is not expected takes no part."""
        expected = self.roster.get(name)
        if expected is None:
            reason = f"is not in {ROSTER} ({', '.join(self.roster.names)}); add it there or correct its client.json"
        elif name in self.clients.values():
            reason = "takes part already on another node; give every hospital a name of its own"
        elif fingerprint != expected.fingerprint:
            reason = f"has other studies than {ROSTER} says; write both anew from one client.json"
        else:
            return True
        logger.warning("node %s cannot take part: client %r %s.", node, name, reason)
        return False

    def addressed(self, messages: Iterable[Message], clients: Collection[str]) -> dict[str, Message]:
        """The messages to nodes that are one of `clients`, sorted by client."""
        by_client = {self.clients.get(message.metadata.dst_node_id): message for message in messages}
        return {client: by_client[client] for client in sorted(clients) if client in by_client}

    def exchange(
        self, record: RoundRecord, phase: str, outgoing: Mapping[str, Message], sent: SentModel
    ) -> dict[str, Reply]:
        """Send messages and wait for the replies; those who turn out to need the whole model get it.

        Returns:
            Replies by client, errors among them.
        """
        replies = self._sent_and_received(record, phase, outgoing)
        again = {
            client: in_full(outgoing[client], sent)
            for client, reply in sorted(replies.items())
            if isinstance(reply, Message) and needs_model(reply)
        }
        return replies | self._sent_and_received(record, phase, again) if again else replies

    def _sent_and_received(self, record: RoundRecord, phase: str, outgoing: Mapping[str, Message]) -> dict[str, Reply]:
        """Send messages and wait for the replies, keeping the ledger."""
        for client, message in outgoing.items():  # bytes are spent whether or not an answer comes
            record.count(message, phase, client, "down")
        replies = self._joined(outgoing) if over_a_superlink(self.grid) else self._as_they_are(outgoing)
        for client, reply in sorted(replies.items()):
            if isinstance(reply, Message):
                record.count(reply, phase, client, "up", self.modules)
        return replies

    def _as_they_are(self, outgoing: Mapping[str, Message]) -> dict[str, Reply]:
        return by_sender(self.grid.send_and_receive(outgoing.values(), timeout=self.timeout), outgoing)

    def _joined(self, outgoing: Mapping[str, Message]) -> dict[str, Reply]:
        """The same over a SuperLink: see `joined_arrays`."""
        contents = {client: message.content for client, message in outgoing.items()}
        for message in outgoing.values():
            message.content = join(message.content)
        replies = self._as_they_are(outgoing)
        for client, message in outgoing.items():  # as it was, for whoever sends it again
            message.content = contents[client]
        for client, reply in replies.items():
            if isinstance(reply, Message) and reply.has_content():
                try:
                    with reading():
                        reply.content = split(reply.content)
                except UnusableReply as reason:
                    replies[client] = reason
        return replies


def over_a_superlink(grid: Grid) -> bool:
    """Whether messages go over a SuperLink; its grid, which takes long to import, is then there already."""
    module = sys.modules.get("flwr.superlink.grid.http_grid")
    return module is not None and isinstance(grid, module.HttpGrid)


def by_sender(arriving: Iterable[Message], outgoing: Mapping[str, Message]) -> dict[str, Reply]:
    """Replies by client: each by the message that it answers, and only of the node that was sent it.

    A node that answers in another's place makes neither's reply usable: the one asked is named. Where a node has gone,
    the SuperLink says so.
    """
    asked = {message.metadata.message_id: client for client, message in outgoing.items()}
    replies: dict[str, Reply] = {}
    for reply in arriving:
        client = asked.get(reply.metadata.reply_to_message_id)
        if client is None:
            logger.warning("node %d answers a message that was not sent.", reply.metadata.src_node_id)
        elif reply.has_error() and reply.metadata.src_node_id == SUPERLINK_NODE_ID:
            replies.setdefault(client, UnusableReply(SILENT, "left before its answer had come"))
        elif reply.metadata.src_node_id != outgoing[client].metadata.dst_node_id:
            replies[client] = UnusableReply(IDENTITY, f"node {reply.metadata.src_node_id} answered in its place")
        else:
            replies.setdefault(client, reply)
    return replies


def arrived(replies: Mapping[str, Reply], client: str) -> Message:
    """A client's reply.

    Raises:
        UnusableReply: there is none, or none of the client's own.
    """
    reply = replies.get(client, UnusableReply(SILENT, "sent nothing"))
    if isinstance(reply, UnusableReply):
        raise reply
    return reply
