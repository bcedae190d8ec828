"""Updates as low-rank factors of few-bit numbers: pure functions, the same in a hospital and on the server.

A matrix M (n, m), an array of more dimensions read as (first, rest), becomes two factors of the payload's rank where
they are smaller: the leading singular vectors of its shorter side, rounded, and what makes the product with the rounded
ones come closest to M. Vectors go in full.

Numbers are rounded to signed integers of 4, 8 or 16 bits under one scale for each block of 64 in a row. All
numbers of a module travel as one array of bytes, ``<module>/packed``: an array each would cost more than its numbers.

What rounding and factors leave out is returned as `unsent` and added to the next update: error feedback [related:
PowerSGD, EF-SGD]. Buffers (BatchNorm statistics) travel in full: a variance that was rounded may be negative [ours].
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import numpy
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

from fedmrg_core.federation.messages import module_of
from fedmrg_core.runs.methods import Payload

BLOCK = 64  # numbers under one scale [ours]
PACKED = "packed"  # the name of a module's bytes
_INTEGERS = {16: "<i2", 8: "i1"}


@dataclasses.dataclass(frozen=True)
class Packed:
    """A model on its way: what is sent, what arrives, and what is left for the next time."""

    record: ArrayRecord
    received: dict[str, Tensor]
    unsent: dict[str, Tensor]  # empty without error feedback


# ---- numbers ----


def quantised_size(rows: int, columns: int, bits: int) -> int:
    """Bytes of a (rows, columns) matrix after :func:`quantise`."""
    if bits == 32:
        return 4 * rows * columns
    return 2 * rows * math.ceil(columns / BLOCK) + math.ceil(rows * columns * bits / 8)


def quantise(values: Tensor, bits: int) -> bytes:
    """Round a (rows, columns) matrix to `bits` bits a number, to nearest even; 32 bits are plain float32.

    The error of a number is at most half its block's scale, which is the block's largest magnitude divided by
    2^(bits - 1) - 1 and rounded up to bfloat16 (under one part in 128 more).
    """
    matrix = values.double().numpy()
    if bits == 32:
        return matrix.astype("<f4").tobytes()
    rows, columns = matrix.shape
    if not matrix.size:
        return bytes(quantised_size(rows, columns, bits))
    largest = 2 ** (bits - 1) - 1
    blocks = math.ceil(columns / BLOCK)
    padded = numpy.zeros((rows, blocks * BLOCK))
    padded[:, :columns] = matrix
    padded = padded.reshape(rows, blocks, BLOCK)
    scales = _short_scales(numpy.abs(padded).max(axis=-1) / largest)
    steps = _long_scales(scales)[..., None]
    rounded = numpy.rint(padded / numpy.where(steps > 0, steps, 1.0)).clip(-largest, largest)
    integers = rounded.reshape(rows, -1)[:, :columns].ravel().astype("<i2")
    data = pack_nibbles(integers) if bits == 4 else integers.astype(_INTEGERS[bits]).tobytes()
    return scales.tobytes() + data


def dequantise(data: bytes, rows: int, columns: int, bits: int) -> Tensor:
    """The inverse of :func:`quantise`, float64.

    Raises:
        ValueError: the bytes are not as many as they have to be.
    """
    if len(data) != quantised_size(rows, columns, bits):
        raise ValueError(f"{len(data)} bytes for a matrix of {rows} by {columns} numbers of {bits} bits")
    if bits == 32:
        return torch.from_numpy(numpy.frombuffer(data, "<f4").astype(float).reshape(rows, columns))
    blocks = math.ceil(columns / BLOCK)
    scales = _long_scales(numpy.frombuffer(data, "<u2", count=rows * blocks)).reshape(rows, blocks)
    rest = data[2 * rows * blocks :]
    integers = unpack_nibbles(rest, rows * columns) if bits == 4 else numpy.frombuffer(rest, _INTEGERS[bits])
    steps = numpy.repeat(scales, BLOCK, axis=1)[:, :columns]
    return torch.from_numpy(integers.reshape(rows, columns) * steps)


def pack_nibbles(integers: numpy.ndarray) -> bytes:
    """Integers from -8 to 7, two to a byte, the first in the lower half; an odd one out is followed by a zero."""
    nibbles = (numpy.asarray(integers) & 0xF).astype(numpy.uint8)
    if len(nibbles) % 2:
        nibbles = numpy.append(nibbles, numpy.uint8(0))
    return (nibbles[0::2] | (nibbles[1::2] << 4)).astype(numpy.uint8).tobytes()


def unpack_nibbles(data: bytes, count: int) -> numpy.ndarray:
    """The first `count` integers that :func:`pack_nibbles` packed."""
    pairs = numpy.frombuffer(data, numpy.uint8)
    nibbles = numpy.stack([pairs & 0xF, pairs >> 4], axis=1).ravel()[:count].astype(numpy.int16)
    return numpy.where(nibbles > 7, nibbles - 16, nibbles)


def _short_scales(scales: numpy.ndarray) -> numpy.ndarray:
    """Scales as bfloat16, rounded up so that the largest number of a block still fits."""
    bits = scales.astype("<f4").view("<u4").astype(numpy.uint64)
    return ((bits + 0xFFFF) >> 16).astype("<u2")


def _long_scales(scales: numpy.ndarray) -> numpy.ndarray:
    return (scales.astype("<u4") << 16).view("<f4").astype(float)


# ---- arrays ----


def _matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """(first, rest); a vector is one row, a number a matrix of one."""
    if len(shape) < 2:
        return 1, math.prod(shape)
    return shape[0], math.prod(shape[1:])


def _factor_sizes(shape: Sequence[int], settings: Payload) -> tuple[int, int] | None:
    """Bytes of the two factors, the shorter side's first, or None where the full matrix is no larger than they."""
    rows, columns = _matrix_shape(shape)
    if settings.rank is None or settings.rank >= min(rows, columns):
        return None
    left, right = (quantised_size(settings.rank, n, settings.bits) for n in sorted((rows, columns)))
    return (left, right) if left + right < quantised_size(rows, columns, settings.bits) else None


def is_factorised(shape: Sequence[int], settings: Payload) -> bool:
    """Whether an array of this shape travels as two factors."""
    return _factor_sizes(shape, settings) is not None


def encoded_size(shape: Sequence[int], settings: Payload) -> int:
    """Bytes of an array of this shape after :func:`encode_array`."""
    factors = _factor_sizes(shape, settings)
    return sum(factors) if factors else quantised_size(*_matrix_shape(shape), settings.bits)


def encode_array(values: Tensor, settings: Payload) -> bytes:
    """One array of any shape as factors, or in full, of rounded numbers."""
    matrix = values.double().reshape(_matrix_shape(values.shape))
    if not is_factorised(values.shape, settings):
        return quantise(matrix, settings.bits)
    matrix = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    # The eigenvectors of M M' are M's left singular vectors; this side is the short one.
    vectors = torch.linalg.eigh(matrix @ matrix.T).eigenvectors.flip(1)
    left = quantise(vectors[:, : settings.rank].T, settings.bits)  # (rank, n)
    rounded = dequantise(left, settings.rank, len(matrix), settings.bits)
    # Least squares against the rounded vectors, not a projection on the exact ones, which the other side has not.
    right = torch.linalg.lstsq(rounded.T, matrix).solution  # (rank, m)
    return left + quantise(right, settings.bits)


def decode_array(data: bytes, shape: Sequence[int], settings: Payload) -> Tensor:
    """The inverse of :func:`encode_array` but for what it left out, float64.

    Raises:
        ValueError: the bytes are not as many as they have to be.
    """
    rows, columns = _matrix_shape(shape)
    factors = _factor_sizes(shape, settings)
    if factors is None:
        return dequantise(data, rows, columns, settings.bits).reshape(tuple(shape))
    left = dequantise(data[: factors[0]], settings.rank, min(rows, columns), settings.bits)
    right = dequantise(data[factors[0] :], settings.rank, max(rows, columns), settings.bits)
    product = left.T @ right
    return (product if rows <= columns else product.T).reshape(tuple(shape))


# ---- models ----


def packed_sizes(
    shapes: Mapping[str, Sequence[int]], settings: Payload, buffers: Collection[str] = ()
) -> dict[str, int]:
    """Bytes of each array that :func:`pack` sends for a model of these shapes, by its key."""
    sizes: dict[str, int] = {}
    for key, shape in sorted(shapes.items()):
        name = f"{module_of(key)}/{PACKED}"
        sizes[name] = sizes.get(name, 0) + _size(key, shape, settings, buffers)
    return sizes


def pack(
    model: Mapping[str, Tensor],
    base: Mapping[str, Tensor],
    unsent: Mapping[str, Tensor],
    settings: Payload,
    buffers: Collection[str] = (),
) -> Packed:
    """Send `model` to someone who has `base`.

    Args:
        model: the tensors to send, ``module/name``, any floating-point type.
        base: the tensors the other side has, of the same keys and shapes.
        unsent: what earlier messages left out; missing keys count as zero.
        settings: rank, bits, and whether to keep what is left out.
        buffers: the keys that are sent in full and unchanged.

    Raises:
        ValueError: the two models differ in keys or shapes, or a number is not finite.
    """
    if set(model) != set(base):
        raise ValueError(f"array {sorted(set(model) ^ set(base))[0]} is missing or unknown")
    wanted, data = {}, {}
    for key in sorted(model):
        if model[key].shape != base[key].shape:
            raise ValueError(f"array {key} has shape {tuple(model[key].shape)}, expected {tuple(base[key].shape)}")
        if not torch.isfinite(model[key]).all():
            raise ValueError(f"array {key} holds NaN or infinity")
        wanted[key] = model[key].detach().cpu().double()
        if key in buffers:
            part = wanted[key].float().numpy().astype("<f4").tobytes()
        else:
            if key in unsent:
                wanted[key] = wanted[key] + unsent[key].double()
            part = encode_array(wanted[key] - base[key].double(), settings)
        data.setdefault(f"{module_of(key)}/{PACKED}", []).append(part)
    record = ArrayRecord()
    for name, parts in data.items():
        record[name] = Array.from_numpy_ndarray(numpy.frombuffer(b"".join(parts), numpy.uint8))
    received = unpack(record, base, settings, buffers)
    rest = {key: (tensor - received[key].double()).float() for key, tensor in wanted.items() if key not in buffers}
    return Packed(record, received, rest if settings.error_feedback else {})


def unpack(
    record: ArrayRecord, base: Mapping[str, Tensor], settings: Payload, buffers: Collection[str] = ()
) -> dict[str, Tensor]:
    """The model that arrives where `base` is, float32 on the CPU.

    Raises:
        ValueError: an array is missing, too many, or not as long as the model makes it, or a number is not finite.
    """
    expected = packed_sizes({key: tensor.shape for key, tensor in base.items()}, settings, buffers)
    if set(expected) != set(record):
        raise ValueError(f"array {sorted(set(expected) ^ set(record))[0]} is missing or unknown")
    data = {name: record[name].numpy().tobytes() for name in expected}
    for name, size in expected.items():
        if len(data[name]) != size:
            raise ValueError(f"array {name} holds {len(data[name])} bytes, expected {size}")
    model, read = {}, dict.fromkeys(expected, 0)
    for key in sorted(base):
        name, shape = f"{module_of(key)}/{PACKED}", base[key].shape
        start = read[name]
        read[name] = start + _size(key, shape, settings, buffers)
        part = data[name][start : read[name]]
        if key in buffers:
            model[key] = torch.from_numpy(numpy.frombuffer(part, "<f4").copy()).reshape(shape)
        else:
            model[key] = (base[key].double() + decode_array(part, shape, settings)).float()
        if not torch.isfinite(model[key]).all():
            raise ValueError(f"array {key} holds NaN or infinity")
    return model


def _size(key: str, shape: Sequence[int], settings: Payload, buffers: Collection[str]) -> int:
    return 4 * math.prod(shape) if key in buffers else encoded_size(shape, settings)
