"""The byte ledger: what crossed the wire, measured on the serialised messages, by round, client and module."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Literal

from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.serde import error_to_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import Array as ArrayProto
from flwr.proto.recorddict_pb2 import ArrayRecord as ArrayRecordProto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

from fedmrg_core.federation.messages import ARRAYS, CONFIG, IDENTITY, METRICS, PROTOTYPES, module_of

WHOLE_MESSAGE = "message"  # the module name of a row that counts everything
FAILURE = "error"  # of an error reply, which holds a code and a class's name
UNDECLARED = "undeclared"  # of everything under a name that is not expected: a hospital must not name rows
RECORDS = (PROTOTYPES, METRICS, CONFIG, IDENTITY)


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
    message: Message,
    *,
    round_number: int,
    phase: str,
    client: str,
    direction: Literal["down", "up"],
    modules: Collection[str] | None = None,
) -> list[LedgerRow]:
    """Count one message.

    The bytes are those of Flower's own protocol buffers, split by module; what is not an array of a module stands under
    its record's name (``prototypes``, ``metrics``, ``config``), what frames them under ``framing``, so that the rows
    add up to the ``message`` row. The envelope (node ids and times, under 200 bytes) is left out: Flower draws ids at
    random, and a ledger has to be the same in every engine. An error reply has no content; its error counts.

    Arrays are not serialised once more for it: what a protocol buffer writes around them follows from their lengths.

    Args:
        message: which one.
        round_number: its round.
        phase: what the message is for.
        client: from or to whom.
        direction: from the server or to it.
        modules: whose arrays are expected in it; None: any.

    Returns:
        Rows for this message, ``message`` first.
    """

    def row(module: str, size: int) -> LedgerRow:
        return LedgerRow(round_number, phase, client, direction, module, size)

    if message.has_error():
        size = error_to_proto(message.error).ByteSize()
        return [row(WHOLE_MESSAGE, size), row(FAILURE, size)]
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
        parts = [(name, size)]
        if name == ARRAYS and isinstance(record, ArrayRecord):
            parts = [(module_of(key), part) for key, part in arrays.items()]
        expected = None if modules is None else modules if name == ARRAYS else RECORDS
        for module, part in parts:
            module = module if expected is None or module in expected else UNDECLARED
            sizes[module] = sizes.get(module, 0) + part
    sizes["framing"] = total - sum(sizes.values())
    rows = [(WHOLE_MESSAGE, total), *sorted(sizes.items())]
    return [row(*each) for each in rows]


def _array_size(key: str, array: Array) -> int:
    """Bytes of one array with its name in an ArrayRecord."""
    frame = ArrayProto(dtype=array.dtype, shape=array.shape, stype=array.stype).ByteSize()
    return ArrayRecordProto.Item(key=key).ByteSize() + _field(frame + _field(len(array.data)))


def _field(length: int) -> int:
    """Bytes that a field of so many bytes takes in a message: one for its tag, seven bits of its length a byte."""
    return 1 + max(1, -(-length.bit_length() // 7)) + length
