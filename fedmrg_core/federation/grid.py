"""Engine (a): Flower's grid on one machine. One model in memory; clients take it in turns, or work side by side.

This is the only module that touches Flower's private state (`TaskIdentity`, a message's id); flwr is pinned for it.
Messages pass through Flower's own serialisation both ways, so that what arrives is what would arrive by wire. Arrays
of a reply wait on disk until the strategy reads them, as they would in a SuperLink: memory does not grow with clients.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing.connection import Connection

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import array_from_proto, array_to_proto, message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.recorddict_pb2 import Array as ArrayProto
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from tqdm.auto import tqdm

from fedmrg_core.federation.messages import error_reply
from fedmrg_core.federation.reply_store import ReplyStore
from fedmrg_core.federation.workers import Workers

Part = tuple[str, str, bytes]  # of a message: the names of a record and of an array in it, and the array serialised

RUN_ID = 1  # any number: one run to a grid
SERVER_NODE = 1
FIRST_CLIENT_NODE = 2


class InProcessGrid(Grid):
    """Delivers each message to the client app at once, one client after another.

    An exception in the app comes back as an error reply; an app that returns None sends nothing. `timeout` cannot
    interrupt a call in the same process and is not looked at.

    Args:
        client_app: the app all clients run.
        node_configs: each node's configuration, e.g. ``{"partition-id": 0, "num-partitions": 5}``.
        run_config: the run's configuration, seen by every client.
        folder: where replies wait; the files have no name and vanish with the process.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: list[dict],
        run_config: Mapping[str, str | int],
        folder: pathlib.Path,
    ) -> None:
        self._app, self._store = client_app, ReplyStore(folder)
        self._contexts = {
            node: Context(
                run_id=RUN_ID, node_id=node, node_config=config, state=RecordDict(), run_config=dict(run_config)
            )
            for node, config in enumerate(node_configs, start=FIRST_CLIENT_NODE)
        }
        self._run = Run.create_empty(RUN_ID)
        self._replies: dict[str, Message] = {}
        self._pushed = 0

    def __enter__(self) -> InProcessGrid:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(at_once=kind is not None)

    def close(self, at_once: bool = False) -> None:
        """Let go of what the grid has started: nothing here."""

    @contextlib.contextmanager
    def identity(self) -> Iterator[None]:
        """While this is open, messages can be made in this process: Flower asks for the task they come from."""
        before = dict(vars(TaskIdentity))
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = RUN_ID, RUN_ID, SERVER_NODE
        try:
            yield
        finally:
            for name in ("_run_id", "_task_id", "_node_id"):
                setattr(TaskIdentity, name, before[name])

    def set_run(self, run: Run) -> None:
        """Part of Flower's interface."""
        self._run = run

    @property
    def run(self) -> Run:
        """Part of Flower's interface."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Part of Flower's interface; `Message(...)` does the same."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The clients' nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the app on each message.

        Returns:
            The messages' ids.
        """
        ids = []
        self._store.renew()
        for message in messages:
            self._pushed += 1
            message.metadata.__dict__["_message_id"] = f"{self._pushed:036d}"  # as long as Flower's ids
            reply = self._deliver(message)
            if reply is not None:
                self._replies[message.metadata.message_id] = reply
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that have come."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and collect the replies; `timeout` is not looked at."""
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        reply = self.answer(node, _over_the_wire(message))
        return None if reply is None else self._store.keep(_over_the_wire(reply))

    def answer(self, node: int, received: Message) -> Message | None:
        """What the client app on a node answers to a message that has arrived there."""
        try:
            return self._app(received, self._contexts[node])
        except Exception as error:
            # Any failure of one hospital, whatever its kind, must not end the others' round.
            return error_reply(error, received)


class WorkerGrid(InProcessGrid):
    """The same with hospitals side by side in worker processes; see `workers`.

    Args:
        client_app: the app all clients run.
        node_configs: each node's configuration.
        run_config: the run's configuration.
        folder: where replies wait.
        workers: how many processes.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: list[dict],
        run_config: Mapping[str, str | int],
        folder: pathlib.Path,
        workers: int,
    ) -> None:
        super().__init__(client_app, node_configs, {**run_config, "progress": False}, folder)
        self._workers, self._progress = Workers(self._work, workers), bool(run_config["progress"])

    def close(self, at_once: bool = False) -> None:
        """End the workers."""
        self._workers.end(at_once)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have the workers run the app on the messages, and wait for all of them.

        Returns:
            The messages' ids.
        """
        sent: list[str] = []
        messages = list(messages)
        self._store.renew()

        def tasks() -> Iterator[tuple[int, bytes, list[Part]]]:
            for message in messages:
                self._pushed += 1
                message.metadata.__dict__["_message_id"] = f"{self._pushed:036d}"
                sent.append(message.metadata.message_id)
                yield message.metadata.dst_node_id, _frame(message), list(_arrays(message))

        kind = messages[0].metadata.message_type if messages else ""
        with tqdm(total=len(messages), desc=f"{kind}, hospitals", leave=False, disable=not self._progress) as bar:
            for index, reply in self._workers.do(tasks(), self._receive):
                if reply is not None:
                    self._replies[sent[index]] = reply
                bar.update()
        return sent

    def _work(self, connection: Connection, task: tuple[int, bytes, list[Part]]) -> None:
        """In a worker: one message; the reply's frame goes first, then its arrays one by one, then nothing more."""
        node, *parts = task
        reply = self.answer(node, _put_together(*parts))
        connection.send(None if reply is None else _frame(reply))
        for part in () if reply is None else _arrays(reply):
            connection.send(part)
        connection.send(None)

    def _receive(self, connection: Connection) -> Message | None:
        """A reply, its arrays on disk one by one."""
        frame = connection.recv()
        message = None if frame is None else _put_together(frame, ())
        while (part := connection.recv()) is not None:
            name, key, content = part
            array = array_from_proto(ArrayProto.FromString(content))
            message.content.array_records[name][key] = self._store.array(array)
        self._store.flush()
        return message


def _over_the_wire(message: Message) -> Message:
    """The message as it arrives elsewhere: arrays one by one, so that memory never holds it several times over."""
    return _put_together(_frame(message), _arrays(message))


def _frame(message: Message) -> bytes:
    """A message without what its arrays hold, serialised."""
    if not message.has_content():
        return message_to_proto(message).SerializeToString()
    whole = message.content
    try:
        message.content = RecordDict(
            {name: ArrayRecord() if isinstance(record, ArrayRecord) else record for name, record in whole.items()}
        )
        return message_to_proto(message).SerializeToString()
    finally:
        message.content = whole


def _arrays(message: Message) -> Iterator[Part]:
    """Its arrays, serialised one after another."""
    for name, record in message.content.array_records.items() if message.has_content() else ():
        for key, array in record.items():
            yield name, key, array_to_proto(array).SerializeToString()


def _put_together(frame: bytes, arrays: Iterable[Part]) -> Message:
    """The message of a frame and its arrays."""
    message = message_from_proto(MessageProto.FromString(frame))
    for name, key, content in arrays:
        message.content.array_records[name][key] = array_from_proto(ArrayProto.FromString(content))
    return message
