"""The arrays of a record as one, on their way over a SuperLink.

A SuperLink keeps every array of a message as objects of their own, and each of them costs two requests and several
transactions of its database. A model has hundreds. So on a real federation the arrays of each record travel joined:
their bytes one after another, and a layout that says where each begins. What the round, the ledger and the signatures
see is the record as it was.
"""

from __future__ import annotations

import json
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

LAYOUT, JOINED = "joined-layout", "joined"


def join(content: RecordDict) -> RecordDict:
    """The content of a message with one array in each of its array records, and their layout beside them."""
    layout: dict[str, list[list[Any]]] = {}
    joined = RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            layout[name] = [[key, one.dtype, list(one.shape), one.stype, len(one.data)] for key, one in record.items()]
            data = b"".join(one.data for one in record.values())
            record = ArrayRecord({JOINED: Array("uint8", (len(data),), "bytes", data)})
        joined[name] = record
    joined[LAYOUT] = ConfigRecord({LAYOUT: json.dumps(layout)})
    return joined


def split(content: RecordDict) -> RecordDict:
    """What :func:`join` was given; content that was not joined as it is.

    Raises:
        ValueError: the layout is not one of these arrays. Other exceptions where it is no layout at all.
    """
    if LAYOUT not in content:
        return content
    layout = json.loads(str(content[LAYOUT][LAYOUT]))
    parts = RecordDict({name: record for name, record in content.items() if name != LAYOUT})
    for name, entries in layout.items():
        data, begin = parts[name][JOINED].data, 0
        record = ArrayRecord()
        for key, dtype, shape, stype, length in entries:
            record[key] = Array(dtype, tuple(shape), stype, data[begin : begin + length])
            begin += length
        if begin != len(data) or len(record) != len(entries) or any(entry[-1] < 0 for entry in entries):
            raise ValueError(f"{name}: the layout does not fit the bytes")
        parts[name] = record
    return parts


def join_arrays(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod: where the request came joined, the answer goes joined."""
    joins = message.has_content() and LAYOUT in message.content
    if joins:
        message.content = split(message.content)
    reply = call_next(message, context)
    if joins and reply.has_content():
        reply.content = join(reply.content)
    return reply
