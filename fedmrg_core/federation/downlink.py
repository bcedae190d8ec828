"""The server's side of the exchange of models (the hospitals': `model_exchange`): who is sent what."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping

import numpy
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor

from fedmrg_core.errors import InputError
from fedmrg_core.federation.checkpoints import ServerState
from fedmrg_core.federation.compression import is_factorised, pack, packed_sizes, unpack
from fedmrg_core.federation.messages import (
    ARRAYS,
    CONFIG,
    MODEL_DIGEST,
    MODEL_PACKED,
    MODEL_ROUND,
    digest_of,
    to_record,
)
from fedmrg_core.federation.replies import ARRAY, Expected, UnusableReply, check_update, check_values, reading
from fedmrg_core.federation.reply_store import ReplyStore
from fedmrg_core.runs.methods import Payload


@dataclasses.dataclass(frozen=True)
class SentModel:
    """The shared model after a round, as every hospital has it or is sent it."""

    round_number: int
    tensors: dict[str, Tensor]
    digest: str
    full: ArrayRecord
    news: ArrayRecord | None  # for those who have the model before it; None: nothing that they have not
    packed: bool  # whether `news` is compressed


@dataclasses.dataclass(frozen=True)
class Update:
    """A usable training reply.

    Attributes:
        metrics: as they were sent.
        reply: the message, with whole arrays in the order of their keys.
        lengths: Euclidean length of the difference from the model sent, of parameters and of buffers.
    """

    metrics: dict[str, float]
    reply: Message
    lengths: dict[str, float]


class Downlink:
    """Makes what is sent, and reads what comes back, as the method's payload has it.

    Args:
        payload: rank and bits of what travels.
        shared: the shared tensors, for their shapes.
        buffers: the keys among them that are no parameters.

    Raises:
        InputError: the rank is so large that it changes nothing.
    """

    def __init__(self, payload: Payload, shared: Mapping[str, Tensor], buffers: Collection[str]) -> None:
        self.payload, self.buffers = payload, buffers
        self.shapes = {key: tuple(tensor.shape) for key, tensor in shared.items()}
        matrices = [shape for shape in self.shapes.values() if len(shape) > 1]
        if payload.rank and matrices and not any(is_factorised(shape, payload) for shape in matrices):
            raise InputError(
                f"payload.rank is {payload.rank}, and no shared matrix is larger than its factors of that rank; "
                "choose a smaller rank, or leave it out to send matrices in full."
            )

    def known(self, state: ServerState) -> SentModel:
        """The model of a checkpoint, for a round that starts from it: those who have it are told its digest only."""
        # They were sent it to validate it. A second time would double what goes down, so the digest has to do; one that
        # has lost it answers so and is sent it in full.
        return SentModel(
            state.round_number, state.shared, digest_of(state.shared), to_record(state.shared), news=None, packed=False
        )

    def following(self, aggregated: dict[str, Tensor], state: ServerState) -> tuple[SentModel, dict[str, Tensor]]:
        """The model after `state`'s, and what its compression leaves out for the one after that.

        Hospitals train and validate what arrives; the server goes on from that as well.
        """
        tensors, news, unsent = aggregated, None, {}
        if self.payload.compressed:
            packed = pack(aggregated, state.shared, state.unsent, self.payload, self.buffers)
            # What was rounded away is added to the next difference (error feedback), else small steps would be lost for
            # good. It belongs to what hospitals now hold, so the server must not go on from the exact mean.
            tensors, news, unsent = packed.received, packed.record, packed.unsent
        full = to_record(tensors)
        sent = SentModel(
            state.round_number + 1, tensors, digest_of(tensors), full, news or full, self.payload.compressed
        )
        return sent, unsent

    def read_update(self, reply: Message, sent: SentModel, expected: Expected, store: ReplyStore) -> Update:
        """Check a training reply and unpack it.

        Args:
            reply: the hospital's message.
            sent: the model it was trained from.
            expected: what it has to hold, its arrays as the model has them.
            store: takes a message's unpacked arrays out of memory.

        Raises:
            UnusableReply: see :func:`fedmrg_core.federation.replies.check_update`, or what is packed makes no model.
        """
        with reading():
            if not self.payload.compressed:
                metrics = check_update(reply, expected)
                # Any order of keys is accepted; tensors and their files are kept in one.
                record = reply.content[ARRAYS]
                reply.content[ARRAYS] = ArrayRecord({key: record[key] for key in sorted(record)})
                return Update(metrics, reply, self._lengths(reply, sent))
            sizes = packed_sizes(self.shapes, self.payload, self.buffers)
            packed = {name: (size,) for name, size in sizes.items()}
            metrics = check_update(reply, dataclasses.replace(expected, arrays=packed, dtype="uint8"))
            try:
                model = unpack(reply.content[ARRAYS], sent.tensors, self.payload, self.buffers)
            except ValueError as error:
                raise UnusableReply(ARRAY, str(error)) from error
            for key, tensor in model.items():
                check_values(key, tensor.numpy())
            reply.content[ARRAYS] = to_record(model)
            # A few packed bytes became a whole model, and one waits for each hospital.
            return Update(metrics, store.keep(reply), self._lengths(reply, sent))

    def _lengths(self, reply: Message, sent: SentModel) -> dict[str, float]:
        """How far parameters and buffers are from the model sent, one tensor in memory at a time."""
        squares = dict.fromkeys(("parameters", "buffers"), 0.0)
        for key, array in reply.content[ARRAYS].items():
            difference = numpy.subtract(array.numpy(), sent.tensors[key].numpy(), dtype=float)
            squares["buffers" if key in self.buffers else "parameters"] += float(numpy.square(difference).sum())
        return {group: math.sqrt(value) for group, value in squares.items()}


def with_model(
    message: Message, sent: SentModel, news_only: bool, more: Mapping[str, str | int | bool] | None = None
) -> None:
    """Put a model into a message, in place of what the strategy put there.

    Args:
        message: of the strategy, its config record in it.
        sent: the model.
        news_only: the hospital has the model before it, or, where that is all, this one.
        more: further entries of the config record.
    """
    content = {name: record for name, record in message.content.items() if name != ARRAYS}
    arrays = sent.news if news_only else sent.full
    if arrays is not None:
        content[ARRAYS] = arrays
    config = {
        MODEL_ROUND: sent.round_number,
        MODEL_DIGEST: sent.digest,
        MODEL_PACKED: sent.packed and news_only,  # a whole model is never packed: there is nothing to add it to
        **(more or {}),
    }
    content[CONFIG] = ConfigRecord({**message.content[CONFIG], **config})
    message.content = RecordDict(content)


def in_full(message: Message, sent: SentModel) -> Message:
    """The same request once more with the whole model, for a hospital that has answered that it needs it."""
    again = Message(  # Flower gives a message its id on sending: the first one has been sent
        RecordDict(dict(message.content)),
        dst_node_id=message.metadata.dst_node_id,
        message_type=message.metadata.message_type,
    )
    with_model(again, sent, news_only=False)
    return again
