"""The byte ledger: what crossed the wire, measured on the serialised messages, by round, client and module."""

from __future__ import annotations

import dataclasses
from typing import Literal

from flwr.app import Message
from flwr.common.serde import recorddict_to_proto

from fedmrg_core.federation.payload import ARRAYS, module_of

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

    The content is serialised with Flower's own protocol buffers and split by module; what is not an array of a module
    stands under its record's name (``prototypes``, ``metrics``, ``config``), what frames them under ``framing``, so
    that the rows add up to the ``message`` row. The envelope (node ids and times, under 200 bytes) is left out:
    Flower draws ids at random, and a ledger has to be the same in every engine. An error reply has no content.

    Returns:
        Rows for this message, ``message`` first.
    """
    if not message.has_content():
        return []
    content = recorddict_to_proto(message.content)
    total = content.ByteSize()
    sizes: dict[str, int] = {}
    for item in content.items:
        if item.key == ARRAYS:
            for array in item.array_record.items:
                module = module_of(array.key)
                sizes[module] = sizes.get(module, 0) + array.ByteSize()
        else:
            sizes[item.key] = sizes.get(item.key, 0) + item.ByteSize()
    sizes["framing"] = total - sum(sizes.values())
    rows = [(WHOLE_MESSAGE, total), *sorted(sizes.items())]
    return [LedgerRow(round_number, phase, client, direction, module, size) for module, size in rows]
