"""What travels between server and clients: nothing personal, every byte in the ledger, weighted as it should be."""

from __future__ import annotations

import os
import pathlib
import types

import flwr.app
import numpy
import pandas
import pytest
import safetensors.torch
import torch
from federation_fake import EXAMPLES, fake_configuration
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.common import serde
from flwr.common.serde import recorddict_to_proto
from flwr.proto.message_pb2 import Message

from fedmrg_core.federation import grid, hospital, ledger, messages
from fedmrg_core.federation.reply_store import ReplyStore, StoredArray
from fedmrg_core.federation.run import run_federation


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list:
    """Every message that crosses the in-process grid, as (message type, direction, content)."""
    messages = []
    carry = grid._over_the_wire

    def watch(message):
        arrived = carry(message)
        if arrived.has_content():
            direction = "up" if arrived.metadata.reply_to_message_id else "down"
            messages.append((arrived.metadata.message_type, direction, recorddict_to_proto(arrived.content)))
        return arrived

    monkeypatch.setattr(grid, "_over_the_wire", watch)
    return messages


def test_nothing_personal_is_in_any_message(tmp_path: pathlib.Path, watched: list) -> None:
    run_federation(tmp_path, fake_configuration(), progress=False)
    assert {kind for kind, _, _ in watched} == {"query", "train", "evaluate", "query.finish"}
    for _, _, content in watched:
        for item in content.items:
            keys = [array.key for array in item.array_record.items]
            if item.key == "arrays":
                assert {key.split("/")[0] for key in keys} == {"encoder", "generic_adapter"}
            elif item.key == "prototypes":
                assert set(keys) <= set(EXAMPLES)
            else:
                assert item.key in ("metrics", "config") and not keys
            named = [value.key for value in (*item.metric_record.items, *item.config_record.items)]
            assert not any("personal" in name or "optimiser" in name or "weights" in name for name in named)
    kept = hospital.HospitalDisk(tmp_path, "a").load(3)
    assert {"personal/specialised_adapter/w", "optimiser/momentum", "disease_weights"} == set(kept.tensors)


def test_the_ledger_is_what_was_serialised(tmp_path: pathlib.Path, watched: list) -> None:
    run_federation(tmp_path, fake_configuration(), progress=False)
    table = pandas.read_csv(tmp_path / "ledger.csv")
    whole = table[table.module == "message"]
    for phase in ("train", "evaluate"):
        for direction in ("down", "up"):
            sizes = [len(c.SerializeToString()) for kind, way, c in watched if kind == phase and way == direction]
            rows = whole[(whole.phase == phase) & (whole.direction == direction)]
            assert sorted(rows.bytes) == sorted(sizes)
            assert len(sizes) == 9  # three clients, three rounds
    parts = table[table.module != "message"].groupby(["round", "phase", "client", "direction"]).bytes.sum()
    sums = whole.set_index(["round", "phase", "client", "direction"]).bytes
    assert (parts.sort_index() == sums.sort_index()).all()


@pytest.mark.parametrize("length", [1, 4, 31, 32, 33, 4095, 4096, 524288, 524289])
def test_the_ledger_counts_arrays_of_any_length_as_flower_writes_them(length: int) -> None:
    """On both sides of where a protocol buffer needs one byte more for a length."""
    tensors = {"encoder/w": torch.zeros(length), "encoder/" + "b" * 130: torch.zeros(()), "prompts/t": torch.ones(2, 3)}
    prototypes, config = messages.to_record({"a": torch.ones(length)}), ConfigRecord({"server-round": 3})
    content = RecordDict(
        {"arrays": messages.to_record(tensors), "prototypes": prototypes, "nothing": ArrayRecord(), "config": config}
    )
    message = types.SimpleNamespace(content=content, has_content=lambda: True, has_error=lambda: False)
    rows = ledger.count_message(message, round_number=1, phase="train", client="a", direction="up")
    sizes = {row.module: row.bytes for row in rows}
    written = recorddict_to_proto(content)
    assert sizes["message"] == len(written.SerializeToString())
    items = {item.key: item for item in written.items}
    encoder = [array.ByteSize() for array in items["arrays"].array_record.items if array.key.startswith("encoder/")]
    assert sizes["encoder"] == sum(encoder)
    assert {name: sizes[name] for name in ("prototypes", "nothing", "config")} == {
        name: items[name].ByteSize() for name in ("prototypes", "nothing", "config")
    }
    assert sum(sizes.values()) == 2 * sizes["message"]


def test_messages_arrive_as_flower_would_write_and_read_them(tmp_path: pathlib.Path, monkeypatch) -> None:
    carry, compared = grid._over_the_wire, []

    def compare(message):
        arrived = carry(message)
        whole = serde.message_from_proto(Message.FromString(serde.message_to_proto(message).SerializeToString()))
        assert serde.message_to_proto(arrived) == serde.message_to_proto(whole)
        if message.has_content():
            assert list(arrived.content) == list(whole.content)
        compared.append(message)
        return arrived

    monkeypatch.setattr(grid, "_over_the_wire", compare)
    monkeypatch.setenv("FAKE_FAILURES", "c:raises:2")
    run_federation(tmp_path, fake_configuration(), progress=False)
    assert len(compared) > 30


@pytest.mark.numerical
def test_the_average_is_weighted_by_examples(tmp_path: pathlib.Path, watched: list) -> None:
    configuration = fake_configuration(rounds=1)
    run_federation(tmp_path, configuration, progress=False)
    updates = [content for kind, way, content in watched if kind == "train" and way == "up"]
    total = sum(EXAMPLES.values())
    shared = safetensors.torch.load_file(tmp_path / "model" / "shared.safetensors")
    for key, averaged in shared.items():
        expected = numpy.zeros(averaged.shape)
        for content, examples in zip(updates, EXAMPLES.values(), strict=True):
            arrays = next(item.array_record for item in content.items if item.key == "arrays")
            data = next(array.value.data for array in arrays.items if array.key == key)
            values = numpy.frombuffer(data[-4 * averaged.numel() :], dtype="<f4").reshape(averaged.shape)
            expected += values.astype(float) * examples / total
        numpy.testing.assert_allclose(averaged.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_bfloat16_travels_as_float32() -> None:
    tensor = torch.tensor([1.0, -2.5, 3.140625], dtype=torch.bfloat16)
    back = messages.from_record(messages.to_record({"encoder/w": tensor}))["encoder/w"]
    assert back.dtype == torch.float32
    assert torch.equal(back.to(torch.bfloat16), tensor)


def test_replies_wait_on_disk(tmp_path: pathlib.Path) -> None:
    values = torch.randn(7, 3)
    with (tmp_path / "spool").open("w+b") as file:
        plain = messages.to_record({"encoder/w": values})["encoder/w"]
        stored = StoredArray(plain, file)
        file.flush()
        assert "data" not in vars(stored)
        assert stored.data == plain.data
        numpy.testing.assert_array_equal(stored.numpy(), values.numpy())


def test_replies_of_many_hospitals_wait_in_one_open_file(tmp_path: pathlib.Path) -> None:
    store, before = ReplyStore(tmp_path), len(os.listdir("/dev/fd"))
    with grid.InProcessGrid(None, [], {}, tmp_path).identity():
        question = flwr.app.Message(RecordDict(), dst_node_id=2, message_type="train")
        kept = [
            store.keep(flwr.app.Message(RecordDict({"arrays": messages.to_record({"a/w": values})}), reply_to=question))
            for values in torch.arange(400.0).reshape(100, 4)
        ]
        assert len(os.listdir("/dev/fd")) <= before + 1
        store.renew()  # arrays of the round before can still be read
        more = store.keep(flwr.app.Message(RecordDict({"arrays": messages.to_record({})}), reply_to=question))
    values = [messages.from_record(reply.content["arrays"])["a/w"] for reply in kept]
    assert torch.equal(torch.stack(values), torch.arange(400.0).reshape(100, 4)) and not more.content["arrays"]
    del kept, values
    assert len(os.listdir("/dev/fd")) <= before
