"""The one place that reads what comes from a hospital: whatever it is, the round goes on without it, and says why.

Every message is read by a function of this module, and all that can be wrong with one ends as an `UnusableReply` with a
code. It stands in front of the reason in the log and in rounds.csv. Bounds are wide [ours]: they are to catch what no
training makes, not to tell good hospitals from bad ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
from collections.abc import Collection, Iterator, Mapping

import numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, Message

from fedmrg_core.federation.messages import (
    ARRAYS,
    CLIENT,
    CONFIG,
    EXAMPLES,
    FINGERPRINT,
    METRICS,
    NEEDS_MODEL,
    PROTOTYPES,
    SECONDS,
)

# The page docs/promised.md says what each one means.
CODES = ("silent", "error", "identity", "record", "metric", "count", "array", "range", "norm", "unreadable")
SILENT, ERROR, IDENTITY, RECORD, METRIC, COUNT, ARRAY, RANGE, NORM, UNREADABLE = CODES

LONGEST_NAME = 60  # characters of a name that a hospital chose, in a message
LARGEST = 1e8  # magnitude of a tensor's number or of a metric [ours]
LONGEST_SECONDS = 1e7  # of one hospital's work in one round: four months [ours]
# An update that is so many times as long as the median of the round's updates is none of the same training [ours].
NORM_FACTOR = 100.0
COMPARED = 3  # updates that a median needs
# Names of tensors that have a lowest number, by their last part.
LOWEST = {"running_var": 0.0, "num_batches_tracked": 0.0}


class UnusableReply(ValueError):
    """A reply that cannot take part in the round; the text is a code and the reason, for the log and rounds.csv."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a training reply has to hold.

    Attributes:
        arrays: keys and shapes.
        dtype: of the arrays: "uint8" where they are packed.
        prototype: length of the client's mean feature; 0: none goes.
        metrics: names that are declared.
        examples: the most that the client may count: the training studies that it has announced.
    """

    arrays: Mapping[str, tuple[int, ...]]
    dtype: str
    prototype: int
    metrics: Collection[str]
    examples: float


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """While this is open, whatever a message makes go wrong is the message's fault.

    Raises:
        UnusableReply: of its own code, or `UNREADABLE` for any other exception: arbitrary records reach code that
            nobody wrote for them.
    """
    try:
        yield
    except UnusableReply:
        raise
    except Exception as error:
        raise UnusableReply(UNREADABLE, f"reading it ended with {type(error).__name__}") from error


def read_identity(reply: Message) -> tuple[str, str]:
    """Who a node says that it is: the client's name, and the fingerprint of its studies.

    Raises:
        UnusableReply: an error, or no such answer.
    """
    with reading():
        config = _content(reply).get(CONFIG)
        if not isinstance(config, ConfigRecord):
            raise UnusableReply(RECORD, "no config was sent")
        for key in (CLIENT, FINGERPRINT):
            if not isinstance(config.get(key), str):
                raise UnusableReply(RECORD, f"{key} is missing or no text")
        return str(config[CLIENT])[:LONGEST_NAME], str(config[FINGERPRINT])


def read_metrics(reply: Message, names: Collection[str], examples: float = LARGEST) -> dict[str, float]:
    """The metrics of a reply, each one number no larger than LARGEST; NaN stands for what could not be measured.

    Args:
        reply: the hospital's message.
        names: of the metrics that are declared; a hospital that chose others could overwrite columns of rounds.csv.
        examples: the most that it may count.

    Raises:
        UnusableReply: an error, no metrics, a metric that is not declared, a value that is no such number, or a count
            of examples that is not from 1 to `examples`.
    """
    with reading():
        content = _content(reply)
        if METRICS not in content.metric_records:
            raise UnusableReply(RECORD, "no metrics were sent")
        metrics = dict(content.metric_records[METRICS])
        for name, value in metrics.items():
            if name not in (*names, EXAMPLES, SECONDS):
                raise UnusableReply(METRIC, f"metric {name[:LONGEST_NAME]!r} is not declared")
            if isinstance(value, list):
                raise UnusableReply(METRIC, f"metric {name} is a list, expected one number")
            _check_metric(name, value)
        count = metrics.get(EXAMPLES, 0)
        if not 1 <= count <= examples:
            raise UnusableReply(COUNT, f"{EXAMPLES} is {count:g}, expected a number from 1 to {examples:g}")
        return metrics


def read_loss(metrics: Mapping[str, float], name: str) -> float:
    """The measure that rounds are compared by.

    Raises:
        UnusableReply: it is missing, NaN (which compares false with everything: no round would be better) or negative.
    """
    loss = metrics.get(name, math.nan)
    if not loss >= 0:
        raise UnusableReply(RANGE, f"{name} is {loss:g}, expected a loss of at least 0")
    return loss


def check_update(reply: Message, expected: Expected) -> dict[str, float]:
    """Hold a training reply against the shared model.

    Returns:
        The reply's metrics.

    Raises:
        UnusableReply: an error, records or arrays missing or unknown, another shape or type, numbers outside of their
            range.
    """
    with reading():
        metrics = read_metrics(reply, expected.metrics, expected.examples)
        for name, value in metrics.items():
            if math.isnan(value):
                raise UnusableReply(RANGE, f"metric {name} is nan")
        content = reply.content
        for name in sorted(set(content) - {METRICS}):
            if name not in (ARRAYS, PROTOTYPES):
                raise UnusableReply(RECORD, f"record {name[:LONGEST_NAME]!r} is unknown")
            if not isinstance(content[name], ArrayRecord):
                raise UnusableReply(RECORD, f"record {name} holds no arrays")
        if ARRAYS not in content:
            raise UnusableReply(RECORD, "no arrays were sent")
        arrays = content.array_records[ARRAYS]
        different = sorted(set(expected.arrays) ^ set(arrays))
        if different:
            what = "missing" if different[0] in expected.arrays else "unknown"
            raise UnusableReply(ARRAY, f"array {different[0][:LONGEST_NAME]} is {what}")
        for key, shape in expected.arrays.items():
            check_values(key, _read_array(key, arrays[key], shape, expected.dtype))
        if PROTOTYPES in content:
            _check_prototype(content.array_records[PROTOTYPES], expected.prototype)
        return metrics


def check_values(key: str, values: numpy.ndarray) -> None:
    """Hold the numbers of one tensor against the range of its kind.

    Raises:
        UnusableReply: NaN, infinity, a magnitude above LARGEST, or a number below the lowest of `LOWEST`.
    """
    if not values.size:
        return
    smallest, largest = float(values.min()), float(values.max())  # NaN shows in both
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        raise UnusableReply(RANGE, f"array {key} holds NaN or infinity")
    if max(-smallest, largest) > LARGEST:
        raise UnusableReply(RANGE, f"array {key} holds a number of more than {LARGEST:g}")
    lowest = LOWEST.get(key.replace("/", ".").rpartition(".")[2], -math.inf)
    if smallest < lowest:
        raise UnusableReply(RANGE, f"array {key} holds {smallest:g}, expected nothing below {lowest:g}")


def too_long(norms: Mapping[str, float]) -> dict[str, UnusableReply]:
    """The clients whose update is more than NORM_FACTOR times as long as the median of the others'.

    Args:
        norms: Euclidean length of each client's difference from the model that it was sent.

    Returns:
        The reason by client. With fewer than COMPARED updates, or others that did not move, nobody is refused.
    """
    found = {}
    for client, norm in norms.items():
        others = statistics.median([other for name, other in norms.items() if name != client] or [0.0])
        if len(norms) >= COMPARED and 0 < NORM_FACTOR * others < norm:
            found[client] = UnusableReply(
                NORM, f"its update is {norm / others:.3g} times as long as the others' median, at most {NORM_FACTOR:g}"
            )
    return found


def needs_model(reply: Message) -> bool:
    """Whether a hospital has answered that it has not the model it was told of."""
    if not reply.has_content() or CONFIG not in reply.content.config_records:
        return False
    return reply.content.config_records[CONFIG].get(NEEDS_MODEL) is True


def _content(reply: Message) -> Mapping:
    if reply.has_error():
        raise UnusableReply(ERROR, f"{str(reply.error.reason)[:LONGEST_NAME]}; its own log says more")
    if not reply.has_content():
        raise UnusableReply(RECORD, "an empty message was sent")
    return reply.content


def _check_metric(name: str, value: float) -> None:
    if abs(value) > LARGEST:
        raise UnusableReply(RANGE, f"metric {name} is {value:g}, expected at most {LARGEST:g} in magnitude")
    if name == SECONDS and not 0 <= value <= LONGEST_SECONDS:
        raise UnusableReply(RANGE, f"{name} is {value:g}, expected seconds from 0 to {LONGEST_SECONDS:g}")


def _check_prototype(record: ArrayRecord, length: int) -> None:
    if not length:
        raise UnusableReply(RECORD, "a prototype was sent, and none is declared")
    if len(record) != 1:
        raise UnusableReply(ARRAY, f"{len(record)} prototypes were sent, expected one")
    check_values("prototype", _read_array("prototype", next(iter(record.values())), (length,), "float32"))


def _read_array(name: str, array: Array, shape: tuple[int, ...], dtype: str) -> numpy.ndarray:
    try:
        values = array.numpy()
    except Exception as error:  # NumPy's reader of headers raises of many kinds
        raise UnusableReply(ARRAY, f"array {name} cannot be read") from error
    if values.shape != shape:
        raise UnusableReply(ARRAY, f"array {name} has shape {values.shape}, expected {shape}")
    if values.dtype != numpy.dtype(dtype):
        raise UnusableReply(ARRAY, f"array {name} has type {values.dtype}, expected {dtype}")
    return values
