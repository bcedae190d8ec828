"""Arrays that travel joined over a SuperLink: they come back as they were, and a wrong layout is the sender's fault."""

from __future__ import annotations

import json

import numpy
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedmrg_core.federation.correspondence import Correspondence
from fedmrg_core.federation.grid import InProcessGrid
from fedmrg_core.federation.joined_arrays import JOINED, LAYOUT, join, join_arrays, split
from fedmrg_core.federation.replies import UNREADABLE, UnusableReply

records = st.dictionaries(
    st.text(max_size=8),
    arrays.arrays(st.sampled_from(["<f4", "u1", "<i8"]), arrays.array_shapes(min_dims=0, min_side=0, max_side=3)),
    max_size=4,
)


def content_of(**tensors: dict[str, numpy.ndarray]) -> RecordDict:
    made = {name: ArrayRecord({key: Array(value) for key, value in record.items()}) for name, record in tensors.items()}
    return RecordDict({**made, "metrics": MetricRecord({"loss": 0.5})})


@given(records, records)
def test_they_come_back_as_they_were(first, second):
    content = content_of(arrays=first, prototypes=second)
    joined = join(content)
    assert all(len(record) == 1 for record in joined.array_records.values())
    back = split(joined)
    assert list(back) == list(content)
    for name, record in content.array_records.items():
        assert list(back[name]) == list(record)
        for key, array in record.items():
            assert vars(back[name][key]) == vars(array)
    assert split(content) is content


ONE = {"w": numpy.ones(2, "<f4")}
LENGTH = len(Array(ONE["w"]).data)


def arrays_of(*parts: tuple[str, int]) -> str:
    return json.dumps({"arrays": [[key, "float32", [2], "numpy.ndarray", length] for key, length in parts]})


@pytest.mark.parametrize(
    "layout",
    [
        "", "[1", "[]", "3", '{"elsewhere": []}', '{"arrays": 3}', '{"metrics": []}',
        arrays_of(), arrays_of(("w", LENGTH - 1)), arrays_of(("w", LENGTH), ("w", 0)),
        arrays_of(("w", LENGTH + 3), ("v", -3)),
    ],
)  # fmt: skip
def test_a_wrong_layout_leaves_the_hospital_out(layout):
    content = join(content_of(arrays=ONE))
    content[LAYOUT] = ConfigRecord({LAYOUT: layout})
    with pytest.raises(Exception):  # noqa: B017 -- of any kind: the server reads it under `reading`
        split(content)


class SuperLink(HttpGrid):
    """Answers each message with what `answers` makes of it, and remembers what it was sent."""

    def __init__(self, answer) -> None:
        self.answer, self.sent = answer, []

    def send_and_receive(self, messages, *, timeout=None):
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"{number}"
            self.sent.append(message.content)
        return [self.answer(message) for message in messages]


@pytest.fixture
def sender(tmp_path):
    with InProcessGrid(None, [], {}, tmp_path).identity():
        assert TaskIdentity.run_id
        yield


class Ledger:
    def __init__(self) -> None:
        self.counted = []

    def count(self, message, phase, client, way, modules=()) -> None:
        self.counted.append(sorted(message.content))


def exchanged(answer, **tensors):
    grid, ledger = SuperLink(answer), Ledger()
    letters = Correspondence(grid, None, 1.0, ())
    message = Message(content_of(**tensors), dst_node_id=7, message_type=MessageType.TRAIN)
    before = message.content
    replies = letters._sent_and_received(ledger, "train", {"a": message})
    assert message.content is before
    return replies["a"], grid, ledger


def test_a_superlink_is_sent_one_array_a_record_and_the_ledger_counts_them_all(sender):
    def answer(message):
        return join_arrays(message, None, lambda received, _: Message(received.content, reply_to=received))

    tensors = {f"t{number}": numpy.full(3, number, "<f4") for number in range(5)}
    reply, grid, ledger = exchanged(answer, arrays=tensors)
    assert [list(content["arrays"]) for content in grid.sent] == [[JOINED]]
    assert {key: array.numpy().tolist() for key, array in reply.content["arrays"].items()} == {
        key: value.tolist() for key, value in tensors.items()
    }
    assert ledger.counted == [["arrays", "metrics"]] * 2


def test_a_hospital_with_a_wrong_layout_is_left_out(sender):
    def answer(message):
        content = join(content_of(arrays=ONE))
        content[LAYOUT] = ConfigRecord({LAYOUT: "[1"})
        return Message(content, reply_to=message)

    reply, _, _ = exchanged(answer, arrays=ONE)
    assert isinstance(reply, UnusableReply) and reply.code == UNREADABLE
