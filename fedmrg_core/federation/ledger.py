"""The byte ledger: what crossed the wire, measured on the serialised messages, by round, client and module."""

from __future__ import annotations

import dataclasses
from typing import Literal

from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.serde import recorddict_to_proto
from flwr.proto.recorddict_pb2 import Array as ArrayProto
from flwr.proto.recorddict_pb2 import ArrayRecord as ArrayRecordProto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

from fedmrg_core.federation.messages import ARRAYS, module_of

WHOLE_MESSAGE = "message"  # the module name of a row that counts everything


@dataclasses.dataclass(frozen=True)
class LedgerRow:
    """One module's bytes in one message; ``message`` rows count the whole of it."""

    round: int
    phase: str  # "train" or "evaluate"
    client: str
    direction: Literal["down", "up"]
    module: str
    bytes: int


def count_message(
    message: Message, *, round_number: int, phase: str, client: str, direction: Literal["down", "up"]
) -> list[LedgerRow]:
    """Count one message.

    The bytes are those of Flower's own protocol buffers, split by module; what is not an array of a module stands under
    its record's name (``prototypes``, ``metrics``, ``config``), what frames them under ``framing``, so that the rows
    add up to the ``message`` row. The envelope (node ids and times, under 200 bytes) is left out: Flower draws ids at
    random, and a ledger has to be the same in every engine. An error reply has no content.

    Arrays are not serialised once more for it: what a protocol buffer writes around them follows from their lengths.

    Returns:
        Rows for this message, ``message`` first.
    """
    if not message.has_content():
        return []
    sizes: dict[str, int] = {}
    total = 0
    for name, record in message.content.items():
        if isinstance(record, ArrayRecord):
            arrays = {key: _array_size(key, array) for key, array in record.items()}
            size = RecordDictProto.Item(key=name).ByteSize() + _field(sum(map(_field, arrays.values())))
        else:
            size = recorddict_to_proto(RecordDict({name: record})).items[0].ByteSize()
        total += _field(size)
        parts = [(module_of(key), part) for key, part in arrays.items()] if name == ARRAYS else [(name, size)]
        for module, part in parts:
            sizes[module] = sizes.get(module, 0) + part
    sizes["framing"] = total - sum(sizes.values())
    rows = [(WHOLE_MESSAGE, total), *sorted(sizes.items())]
    return [LedgerRow(round_number, phase, client, direction, module, size) for module, size in rows]


def _array_size(key: str, array: Array) -> int:
    """Bytes of one array with its name in an ArrayRecord."""
    frame = ArrayProto(dtype=array.dtype, shape=array.shape, stype=array.stype).ByteSize()
    return ArrayRecordProto.Item(key=key).ByteSize() + _field(frame + _field(len(array.data)))


def _field(length: int) -> int:
    """Bytes that a field of so many bytes takes in a message: one for its tag, seven bits of its length a byte."""
    return 1 + max(1, -(-length.bit_length() // 7)) + length
