"""Tensors to Flower's ArrayRecord and back, and the names that stand in messages; `replies` reads what comes.

Everything travels as float32: NumPy has no bfloat16, and a sum of float32 has the same bytes on every engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy
import torch
from flwr.app import Array, ArrayRecord, Error, Message
from flwr.common.constant import ErrorCode
from torch import Tensor

# Names of the records in a message.
ARRAYS, PROTOTYPES, METRICS, CONFIG = "arrays", "prototypes", "metrics", "config"
IDENTITY = "identity"  # the signature of an update, where a run has identities
# Names in the metrics record that are not measures.
EXAMPLES, SECONDS = "num-examples", "local-seconds"
# Names in the config record: which rounds' files a hospital goes on from.
SERVER_ROUND, STATE_ROUND, BEST_ROUND = "server-round", "state-round", "best-round"
# The shared model of a message: after which round it is, its digest, and whether its arrays are packed.
MODEL_ROUND, MODEL_DIGEST, MODEL_PACKED = "model-round", "model-digest", "model-packed"
# What a hospital says of itself when it is asked who it is.
CLIENT, TRAINING_STUDIES, FINGERPRINT = "client", "training-studies", "fingerprint"
# The last message: its type, and whether the hospital is asked to test itself.
FINISH, TEST = "query.finish", "test"
NEEDS_MODEL = "needs-model"  # a hospital's answer when it has not the model of that digest


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
