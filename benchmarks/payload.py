"""What compression of the payload saves and loses: bytes a round and client, and the error of one message.

    python benchmarks/payload.py [RUN_FOLDER] [--ranks 4 8 16] [--bits 4 8 16]

With a run folder: the update from the round before its last to its last checkpoint that are kept, or, if only one is
kept, a random update of its shapes. Without one: a small model's shapes. `error` is the part of the update's norm that
one message leaves out; error feedback sends it later. Bytes are those of the arrays, without frames, in each direction.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import sys

import pandas
import safetensors.torch
import torch
from torch import Tensor

from fedmrg_core.federation.compression import pack  # noqa: E402
from fedmrg_core.federation.messages import module_of  # noqa: E402
from fedmrg_core.runs.methods import Payload


def synthetic_shapes() -> dict[str, tuple[int, ...]]:
    """An encoder of four stages, a projection, a head, prompts, and LoRA of rank 16 on an LLM of four layers."""
    shapes: dict[str, tuple[int, ...]] = {"encoder/stem": (32, 1, 7, 7)}
    for stage, (before, width) in enumerate([(32, 32), (32, 64), (64, 128), (128, 192)]):
        shapes |= {f"encoder/{stage}.first": (width, before, 3, 3), f"encoder/{stage}.second": (width, width, 3, 3)}
        shapes |= {f"encoder/{stage}.{name}": (width,) for name in ("weight", "bias")}
    shapes |= {"projection/weight": (192, 192), "diagnosis_head/weight": (56, 192), "prompt_table/weight": (56, 192)}
    for layer in range(8):
        shapes |= {f"generic_adapter/{layer}.lora_A": (16, 192), f"generic_adapter/{layer}.lora_B": (192, 16)}
    return shapes


def two_models(run_folder: pathlib.Path | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A model and the one after it."""
    kept = sorted(run_folder.glob("checkpoint/round-*/shared.safetensors")) if run_folder else []
    if run_folder and not kept:
        sys.exit(f"{run_folder}: no checkpoint; expected the folder of a federated run.")
    models = [safetensors.torch.load_file(path) for path in kept]
    if len(models) > 1:
        return models[-2], models[-1]
    shapes = {key: tuple(t.shape) for key, t in models[0].items()} if models else synthetic_shapes()
    generator = torch.Generator().manual_seed(0)
    before = {key: torch.zeros(shape) for key, shape in shapes.items()}
    return before, {key: decaying(shape, generator) for key, shape in shapes.items()}


def decaying(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A random array whose singular values fall as 1 / k: neither of low rank nor white."""
    values = torch.randn(shape, generator=generator)
    if values.dim() < 2:
        return values
    u, s, vh = torch.linalg.svd(values.flatten(1), full_matrices=False)
    return ((u / torch.arange(1, len(s) + 1)) @ vh).reshape(shape)


def measured(before: dict[str, Tensor], after: dict[str, Tensor], payload: Payload) -> dict[str, float]:
    """Bytes in all and by module, and the error, of one message."""
    packed = pack(after, before, {}, payload)
    sizes = {module_of(name): array.numpy().size for name, array in packed.record.items()}
    lost = math.sqrt(sum(tensor.square().sum().item() for tensor in packed.unsent.values()))
    norm = math.sqrt(sum((after[key] - before[key]).square().sum().item() for key in after))
    whole = 4 * sum(tensor.numel() for tensor in after.values())
    total = sum(sizes.values())
    return {"bytes": total, "times_smaller": whole / total, "error": lost / norm, **sizes}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--ranks", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument("--bits", nargs="+", type=int, default=[4, 8, 16], choices=[4, 8, 16, 32])
    arguments = parser.parse_args()
    before, after = two_models(arguments.run_folder)
    rows = []
    for rank in (None, *arguments.ranks):
        for bits in arguments.bits:
            found = measured(before, after, Payload(rank=rank, bits=bits))
            rows.append({"rank": rank or "full", "bits": bits, **found})
    print(f"uncompressed: {4 * sum(tensor.numel() for tensor in after.values())} bytes a direction, client and round")
    print(pandas.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.3f}"))


if __name__ == "__main__":
    main()
