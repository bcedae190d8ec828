"""Whatever a hospital sends, the round goes on without it: arbitrary records, hostile numbers, forged senders."""

from __future__ import annotations

import io
import math

import numpy
import pandas
import pytest
from federation_fake import EXAMPLES, FakeTask, fake_configuration
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmrg_core.federation import replies, round_record
from fedmrg_core.federation.correspondence import arrived, by_sender
from fedmrg_core.federation.downlink import Downlink
from fedmrg_core.federation.grid import InProcessGrid
from fedmrg_core.federation.ledger import count_message
from fedmrg_core.federation.messages import ARRAYS, CONFIG, METRICS, PROTOTYPES, from_record, to_record
from fedmrg_core.federation.replies import UnusableReply
from fedmrg_core.federation.run import run_federation

TASK = FakeTask(None, fake_configuration())
SHARED = TASK.initial_shared()
SHAPES = {key: tuple(tensor.shape) for key, tensor in SHARED.items()}
EXPECTED = replies.Expected(SHAPES, "float32", 4, ("train_loss",), 8)


@pytest.fixture(autouse=True)
def inside_a_run():
    with InProcessGrid(None, [], {}, None).identity():
        yield


def reply(content: RecordDict | None = None, error: Error | None = None) -> Message:
    question = Message(RecordDict(), dst_node_id=2, message_type="train")
    question.metadata.__dict__["_message_id"] = "1"
    return Message(error, reply_to=question) if error else Message(content, reply_to=question)


def honest(**records) -> Message:
    """A reply as it should be, with records changed or, given None, left out."""
    content = {
        ARRAYS: to_record(SHARED),
        METRICS: MetricRecord({"train_loss": 1.0, "num-examples": 3, "local-seconds": 0.1}),
        PROTOTYPES: ArrayRecord({"a": Array(numpy.ones(4, numpy.float32))}),
        **records,
    }
    return reply(RecordDict({name: record for name, record in content.items() if record is not None}))


def with_array(key: str, values: numpy.ndarray) -> Message:
    record = to_record(SHARED)
    record[key] = Array(values)
    return honest(arrays=record)


def metrics(**changed) -> MetricRecord:
    return MetricRecord({"train_loss": 1.0, "num-examples": 3, "local-seconds": 0.1, **changed})


def npz() -> Array:
    file = io.BytesIO()
    numpy.savez(file, a=numpy.zeros(4))
    return Array("float32", (4,), "numpy.ndarray", file.getvalue())


def number(key: str, value: float) -> Message:
    return with_array(key, numpy.full(SHAPES[key], value, numpy.float32))


WEIGHT = "encoder/stage.weight"
HOSTILE = {
    "an npz as an array": (lambda: honest(prototypes=ArrayRecord({"a": npz()})), "unreadable"),
    "an npz in the model": (lambda: honest(arrays=ArrayRecord({**to_record(SHARED), WEIGHT: npz()})), "unreadable"),
    "prototypes as a config": (lambda: honest(prototypes=ConfigRecord({"a": "b"})), "record"),
    "arrays as metrics": (lambda: honest(arrays=MetricRecord({"a": 1.0})), "record"),
    "metrics as arrays": (lambda: honest(metrics=ArrayRecord()), "record"),
    "another record": (lambda: honest(notes=ConfigRecord({"patient": "a"})), "record"),
    "no arrays": (lambda: honest(arrays=None), "record"),
    "two prototypes": (lambda: honest(prototypes=ArrayRecord({"a": npz(), "b": npz()})), "array"),
    "a prototype of another length": (
        lambda: honest(prototypes=ArrayRecord({"a": Array(numpy.ones(5, numpy.float32))})), "array"),
    "a number of 3e38": (lambda: number(WEIGHT, 3e38), "range"),
    "minus infinity": (lambda: number(WEIGHT, -math.inf), "range"),
    "integers": (lambda: with_array(WEIGHT, numpy.ones((3, 4), numpy.int32)), "array"),
    "the other byte order": (lambda: with_array(WEIGHT, numpy.ones((3, 4), ">f4")), "array"),
    "a count of 1e300": (lambda: honest(metrics=metrics(**{"num-examples": 1e300})), "range"),
    "a count above the announced": (lambda: honest(metrics=metrics(**{"num-examples": 9})), "count"),
    "a count of none": (lambda: honest(metrics=metrics(**{"num-examples": 0})), "count"),
    "a count that is NaN": (lambda: honest(metrics=metrics(**{"num-examples": math.nan})), "count"),
    "negative seconds": (lambda: honest(metrics=metrics(**{"local-seconds": -1.0})), "range"),
    "a loss of 1e300": (lambda: honest(metrics=metrics(train_loss=1e300)), "range"),
    "a loss of NaN": (lambda: honest(metrics=metrics(train_loss=math.nan)), "range"),
    "a metric named round": (lambda: honest(metrics=metrics(round=7.0)), "metric"),
    "a metric that is a list": (lambda: honest(metrics=metrics(train_loss=[1.0, 2.0])), "metric"),
    "a long error": (lambda: reply(error=Error(0, "x" * 200_000)), "error"),
}  # fmt: skip


def read(message: Message) -> dict[str, float]:
    return replies.check_update(message, EXPECTED)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_replies_are_refused_by_code(name):
    make, code = HOSTILE[name]
    with pytest.raises(UnusableReply) as caught:
        read(make())
    assert caught.value.code == code and str(caught.value).startswith(f"{code}: ")
    assert len(str(caught.value)) < 200
    count_message(make(), round_number=1, phase="train", client="a", direction="up", modules=("encoder",))


def test_an_honest_reply_is_read():
    assert read(honest()) == {"train_loss": 1.0, "num-examples": 3, "local-seconds": 0.1}
    assert read(honest(prototypes=None))["num-examples"] == 3


def test_negative_variances_are_refused():
    shapes = {"encoder/bn.running_var": (3,), "encoder/bn.running_mean": (3,)}
    expected = replies.Expected(shapes, "float32", 0, ("train_loss",), 8)
    values = {key: numpy.full(3, -0.5, numpy.float32) for key in shapes}
    with pytest.raises(UnusableReply, match="range: array encoder/bn.running_var holds -0.5, expected nothing below 0"):
        replies.check_update(
            honest(arrays=ArrayRecord({key: Array(array) for key, array in values.items()}), prototypes=None), expected
        )


@pytest.mark.parametrize(
    ("loss", "usable"), [(0.0, True), (2.5, True), (-1.0, False), (math.nan, False), (None, False)]
)
def test_rounds_are_compared_by_losses_alone(loss, usable):
    measured = {} if loss is None else {"validation_loss": loss}
    if usable:
        assert replies.read_loss(measured, "validation_loss") == loss
    else:
        with pytest.raises(UnusableReply, match="range: validation_loss is"):
            replies.read_loss(measured, "validation_loss")


def test_an_update_that_is_far_longer_than_the_others_is_refused():
    assert not replies.too_long({"a": 1.0, "b": 50.0, "c": 0.1})
    assert set(replies.too_long({"a": 1.0, "b": 2000.0, "c": 2.0, "d": 1.5})) == {"b"}
    assert not replies.too_long({"a": 1.0, "b": 2000.0})  # who of two is wrong?
    assert not replies.too_long({"a": 0.0, "b": 5.0, "c": 0.0})  # others that did not move say nothing
    assert not replies.too_long({})


# ---- who sent it ----


def asked(node: int, name: str) -> Message:
    message = Message(RecordDict(), dst_node_id=node, message_type="train")
    message.metadata.__dict__["_message_id"] = name
    return message


def answer_of(question: Message, node: int) -> Message:
    message = Message(RecordDict({CONFIG: ConfigRecord({"node": node})}), reply_to=question)
    message.metadata.__dict__["_src_node_id"] = node
    return message


def test_a_forged_sender_is_named(caplog):
    outgoing = {"a": asked(2, "1"), "b": asked(3, "2"), "c": asked(4, "3")}
    arriving = [
        answer_of(outgoing["a"], 2),
        answer_of(outgoing["b"], 4),  # c's node in b's place
        answer_of(asked(5, "9"), 5),  # nobody asked
    ]
    found = by_sender(arriving, outgoing)
    assert set(found) == {"a", "b"} and arrived(found, "a").content[CONFIG]["node"] == 2
    with pytest.raises(UnusableReply, match="identity: node 4 answered in its place"):
        arrived(found, "b")
    with pytest.raises(UnusableReply, match="silent: sent nothing"):
        arrived(found, "c")
    assert "node 5 answers a message that was not sent" in caplog.text


def test_the_superlink_says_that_a_node_has_gone():
    question = asked(2, "1")
    gone = Message(Error(code=ErrorCode.NODE_UNAVAILABLE, reason="gone"), reply_to=question)
    gone.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
    with pytest.raises(UnusableReply, match="silent: left before its answer had come"):
        arrived(by_sender([gone], {"a": question}), "a")


@pytest.mark.parametrize(
    "content", [RecordDict(), RecordDict({CONFIG: ConfigRecord()}), RecordDict({CONFIG: ConfigRecord({"client": 7})}),
                RecordDict({CONFIG: ArrayRecord()})]
)  # fmt: skip
def test_an_answer_without_a_name_is_refused(content):
    with pytest.raises(UnusableReply, match="record: "):
        replies.read_identity(reply(content))


def test_a_name_is_cut():
    config = ConfigRecord({"client": "x" * 1000, "fingerprint": "f"})
    assert replies.read_identity(reply(RecordDict({CONFIG: config}))) == ("x" * replies.LONGEST_NAME, "f")


# ---- the ledger ----


def test_a_hospital_names_no_row_of_the_ledger():
    sent = RecordDict({"=cmd()": ConfigRecord({"a": 1}), ARRAYS: ArrayRecord({"mine/w": Array(numpy.zeros(3))})})
    rows = count_message(reply(sent), round_number=1, phase="train", client="a", direction="up", modules=("encoder",))
    sizes = {row.module: row.bytes for row in rows}
    assert set(sizes) == {"message", "undeclared", "framing"}
    assert sizes["message"] == sizes["undeclared"] + sizes["framing"]


def test_an_error_has_its_bytes_in_the_ledger():
    rows = count_message(reply(error=Error(0, "ValueError")), round_number=1, phase="train", client="a", direction="up")
    assert [row.module for row in rows] == ["message", "error"]
    assert len("ValueError") < rows[0].bytes == rows[1].bytes < 40


# ---- arbitrary records ----

numbers = st.integers(-(2**63), 2**63 - 1) | st.floats()
names = st.sampled_from([ARRAYS, METRICS, PROTOTYPES, CONFIG, "num-examples", "train_loss", *SHAPES]) | st.text(
    max_size=9
)
lists = st.lists(st.floats(), max_size=3)
config_values = numbers | st.text(max_size=9) | st.binary(max_size=9) | st.booleans() | lists
shapes = st.sampled_from(sorted(SHAPES.values())) | st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def arrays(draw) -> Array:
    if draw(st.booleans()):
        return Array(draw(st.sampled_from(["float32", "", "object", "O"])), draw(shapes),
                     draw(st.sampled_from(["numpy.ndarray", "", "torch"])), draw(st.binary(max_size=200)))  # fmt: skip
    dtype = draw(st.sampled_from(["float32", "float64", "int8", "uint8", "bool", "complex64", "U3"]))
    values = numpy.zeros(draw(shapes), dtype)
    if values.size and dtype == "float32":
        values.flat[0] = draw(st.floats(width=32))
    return Array(values)


records = st.one_of(
    st.dictionaries(names, arrays(), max_size=7).map(ArrayRecord),
    st.dictionaries(names, numbers | lists, max_size=4).map(MetricRecord),
    st.dictionaries(names, config_values, max_size=4).map(ConfigRecord),
)


@st.composite
def contents(draw) -> RecordDict:
    """Anything at all, or an honest reply with something changed."""
    content = dict(honest().content) if draw(st.booleans()) else {}
    content |= draw(st.dictionaries(names, records, max_size=3))
    return RecordDict(content)


@given(content=contents())
@settings(max_examples=2000, deadline=None)
def test_arbitrary_records_are_usable_or_refused(content):
    message = reply(content)
    count_message(message, round_number=1, phase="train", client="a", direction="up", modules=("encoder",))
    for step in (replies.read_identity, lambda m: replies.read_metrics(m, ("validation_loss",)), read):
        try:
            step(message)
        except UnusableReply as refused:
            assert refused.code in replies.CODES
    replies.needs_model(message)


@given(content=contents())
@settings(max_examples=500, deadline=None)
def test_what_is_read_can_be_aggregated(content):
    """A reply that passes holds the model's tensors, finite, and a positive weight."""
    message = reply(content)
    try:
        found = read(message)
    except UnusableReply:
        return
    tensors = from_record(message.content[ARRAYS])
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == SHAPES
    assert all(tensor.abs().max() <= replies.LARGEST for tensor in tensors.values() if tensor.numel())
    assert 1 <= found["num-examples"] <= EXPECTED.examples


# ---- a whole run ----


def test_honest_clients_end_with_the_same_bytes_whatever_one_sends(tmp_path, monkeypatch):
    """Client b sends something else in every round; a and c end as if it had sent nothing."""
    deliver, bad = InProcessGrid._deliver, {}
    one_of_each_code = {code: make for make, code in HOSTILE.values()}

    def spoilt(self, message):
        sent = deliver(self, message)
        partition = self._contexts[message.metadata.dst_node_id].node_config["partition-id"]
        if partition != 1 or message.metadata.message_type != "train":
            return sent
        if bad["make"] is None:
            return None
        reply = bad["make"]()
        reply.metadata.__dict__.update(sent.metadata.__dict__)
        return reply

    monkeypatch.setattr(InProcessGrid, "_deliver", spoilt)
    models = set()
    for code, make in {**one_of_each_code, replies.SILENT: None}.items():
        bad["make"] = make
        run_federation(tmp_path / code, fake_configuration(rounds=2), progress=False)
        models.add((tmp_path / code / "model" / "shared.safetensors").read_bytes())
        table = pandas.read_csv(tmp_path / code / "rounds.csv", keep_default_na=False)
        spoilt_rows = table.query("client == 'b'")
        assert (spoilt_rows.status == round_record.LEFT_OUT).all() and spoilt_rows.reason.str.startswith(code).all()
        assert (table.query("client != 'b'").status == round_record.OK).all()
    assert len(models) == 1 and set(EXAMPLES) == {"a", "b", "c"}


def test_an_update_out_of_all_proportion_is_left_out(tmp_path, monkeypatch):
    read_update = Downlink.read_update

    def scaled(self, message, sent, expected, store):
        update = read_update(self, message, sent, expected, store)
        if expected.examples == EXAMPLES["b"]:
            update.lengths["parameters"] *= 1000
        return update

    monkeypatch.setattr(Downlink, "read_update", scaled)
    run_federation(tmp_path, fake_configuration(rounds=1), progress=False)
    table = pandas.read_csv(tmp_path / "rounds.csv", keep_default_na=False).set_index("client")
    assert table.loc["b", "status"] == "left_out" and table.loc["b", "reason"].startswith("norm: its update is ")
    assert table.loc["b", "num_examples"] == "" and (table.drop("b").status == "ok").all()
