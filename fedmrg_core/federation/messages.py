"""Tensors to Flower's ArrayRecord and back, and the check of what a hospital sent.

Everything travels as float32: NumPy has no bfloat16, and a sum of float32 has the same bytes on every engine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping

import numpy
import torch
from flwr.app import Array, ArrayRecord, Error, Message
from flwr.common.constant import ErrorCode
from torch import Tensor

# Names of the records in a message.
ARRAYS, PROTOTYPES, METRICS, CONFIG = "arrays", "prototypes", "metrics", "config"
# Names in the metrics record that are not measures.
EXAMPLES, SECONDS = "num-examples", "local-seconds"
LONGEST_NAME = 60  # characters of a name that a hospital chose, in a message
# Names in the config record: which rounds' files a hospital goes on from.
SERVER_ROUND, STATE_ROUND, BEST_ROUND = "server-round", "state-round", "best-round"
# The shared model of a message: after which round it is, its digest, and whether its arrays are packed.
MODEL_ROUND, MODEL_DIGEST, MODEL_PACKED = "model-round", "model-digest", "model-packed"
# What a hospital says of itself when it is asked who it is.
CLIENT, TRAINING_STUDIES, FINGERPRINT = "client", "training-studies", "fingerprint"
# The last message: its type, and whether the hospital is asked to test itself.
FINISH, TEST = "query.finish", "test"
NEEDS_MODEL = "needs-model"  # a hospital's answer when it has not the model of that digest


class UnusableReply(ValueError):
    """A reply that cannot take part in the round; the text is the reason, for the log and rounds.csv."""


def to_record(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Floating-point tensors of any precision as a record of float32 arrays, in the order of their keys."""
    record = ArrayRecord()
    for key in sorted(tensors):
        values = tensors[key].detach().to(device="cpu", dtype=torch.float32).contiguous().numpy()
        record[key] = Array.from_numpy_ndarray(values)
    return record


def from_record(record: ArrayRecord) -> dict[str, Tensor]:
    """The tensors of a record, float32 on the CPU.

    Raises:
        ValueError: an array is not in NumPy's format (pickled objects are never read).
    """
    return {key: torch.from_numpy(numpy.asarray(array.numpy(), order="C")) for key, array in record.items()}


def module_of(key: str) -> str:
    """``encoder/stages.0.weight`` belongs to ``encoder``."""
    return key.partition("/")[0]


def error_reply(error: Exception, message: Message) -> Message:
    """A reply that tells the server that something went wrong in a hospital, by the error's class alone.

    Its sentence can hold a file's name or a word of a report, so it stays in the hospital.
    """
    return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=type(error).__name__), reply_to=message)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes as float32: the same for two models that are the same to the bit."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        values = tensors[key].detach().to(device="cpu", dtype=torch.float32).contiguous().numpy()
        digest.update(f"{key} {values.shape} ".encode())
        digest.update(values.astype("<f4", copy=False).reshape(-1).data)
    return digest.hexdigest()


def check_update(
    reply: Message,
    expected: Mapping[str, tuple[int, ...]],
    prototype_length: int | None,
    names: Collection[str],
    dtype: str = "float32",
) -> dict[str, float]:
    """Hold a training reply against the shared model.

    Args:
        reply: the hospital's message.
        expected: keys and shapes of the arrays that have to be in it.
        prototype_length: D if any client has sent a prototype before.
        names: of the metrics that are declared.
        dtype: of the arrays: "uint8" where they are packed.

    Returns:
        The reply's metrics.

    Raises:
        UnusableReply: an error, records or arrays missing or unknown, another shape or type, NaN or infinity.
    """
    metrics = check_metrics(reply, names)
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UnusableReply(f"metric {name} is {value}")
    records = reply.content.array_records
    unknown = sorted(set(reply.content) - {ARRAYS, PROTOTYPES, METRICS})
    if unknown:
        raise UnusableReply(f"record {unknown[0]} is unknown")
    if ARRAYS not in records:
        raise UnusableReply("no arrays were sent")
    different = sorted(set(expected) ^ set(records[ARRAYS]))
    if different:
        what = "missing" if different[0] in expected else "unknown"
        raise UnusableReply(f"array {different[0]} is {what}")
    for key, shape in expected.items():
        _check_array(key, records[ARRAYS][key], shape, dtype)
    if PROTOTYPES in records:
        _check_prototype(records[PROTOTYPES], prototype_length)
    return metrics


def check_metrics(reply: Message, names: Collection[str]) -> dict[str, float]:
    """The metrics of a reply, each one number.

    Args:
        reply: the hospital's message.
        names: of the metrics that are declared; a hospital that chose others could overwrite columns of rounds.csv.

    Raises:
        UnusableReply: an error, no metrics, a metric that is not declared, a value that is not a number, or no positive
            count of examples.
    """
    if reply.has_error():
        raise UnusableReply(f"error: {reply.error.reason}; its own log says more")
    if not reply.has_content() or METRICS not in reply.content.metric_records:
        raise UnusableReply("no metrics were sent")
    metrics = dict(reply.content.metric_records[METRICS])
    for name, value in metrics.items():
        if name not in (*names, EXAMPLES, SECONDS):
            raise UnusableReply(f"metric {name[:LONGEST_NAME]!r} is not declared")
        if isinstance(value, list):
            raise UnusableReply(f"metric {name} is a list, expected one number")
    examples = metrics.get(EXAMPLES, 0)
    if not (math.isfinite(examples) and examples > 0):
        raise UnusableReply(f"{EXAMPLES} is {examples}, expected a positive number")
    return metrics


def _check_prototype(record: ArrayRecord, length: int | None) -> None:
    if len(record) != 1:
        raise UnusableReply(f"{len(record)} prototypes were sent, expected one")
    array = next(iter(record.values()))
    if len(array.shape) != 1:
        raise UnusableReply(f"the prototype has shape {tuple(array.shape)}, expected one dimension")
    _check_array("prototype", array, tuple(array.shape) if length is None else (length,))


def _check_array(name: str, array: Array, shape: tuple[int, ...], dtype: str = "float32") -> None:
    try:
        values = array.numpy()
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise UnusableReply(f"array {name} cannot be read") from error
    if values.shape != shape:
        raise UnusableReply(f"array {name} has shape {values.shape}, expected {shape}")
    if values.dtype != numpy.dtype(dtype):
        raise UnusableReply(f"array {name} has type {values.dtype}, expected {dtype}")
    if not numpy.isfinite(values).all():
        raise UnusableReply(f"array {name} holds NaN or infinity")
