"""Which steps give the same bytes here as elsewhere: run python benchmarks/arithmetic_digests.py on both.

Prints a digest for each step at the sizes of profile smoke: drawn images, base models after a few steps, a client's
update, written reports. Run it on two processors, or twice on one with other instruction sets, and compare. With the
variables of profiles/exact.env set before Python starts, every line should be the same on every x86 processor that has
AVX2:

    env $(grep -v '^#' profiles/exact.env) OMP_NUM_THREADS=2 python benchmarks/arithmetic_digests.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import tempfile
import time
from collections.abc import Iterable

import numpy
import torch
from torch import Tensor

from fedmrg_core.data.labeller import label_report
from fedmrg_core.data.phantom import CENTRES, draw_study, public_texts
from fedmrg_core.runs.arithmetic import arithmetic_of
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.runs.methods import Ownership, load_method
from fedmrg_core.seeds import torch_threads
from fedmrg_core.tasks.reports import base_models
from fedmrg_core.tasks.reports.build import build_report_generator
from fedmrg_core.tasks.reports.inference import write_reports
from fedmrg_core.tasks.reports.local_training import train_client


class DrawnStudies:
    """A few phantom studies in the shape that training asks for."""

    def __init__(self, count: int) -> None:
        drawn = [draw_study(0, CENTRES[number % 5], number) for number in range(count)]
        self.texts = [study.findings for study in drawn]
        self.study_ids = [str(number) for number in range(count)]
        self.states = torch.tensor([study.states for study in drawn])
        self.pixels = torch.from_numpy(numpy.stack([study.image for study in drawn]))

    def __len__(self) -> int:
        return len(self.texts)

    def images(self, indices: Iterable[int]) -> Tensor:
        """(B, 1, H, W) in [0, 1]."""
        return self.pixels[torch.as_tensor(list(indices))].unsqueeze(1).float() / 255


def digest(*parts: bytes) -> str:
    """The first 16 digits of a sha256."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def of_tensors(tensors: dict[str, Tensor]) -> str:
    """The digest of tensors by name."""
    return digest(*(tensors[name].contiguous().cpu().numpy().tobytes() for name in sorted(tensors)))


def steps(folder: pathlib.Path, studies: int, threads: int) -> Iterable[tuple[str, str]]:
    """Name and digest of each step."""
    profile, method, data = load_profile("smoke"), load_method("fedmrg"), DrawnStudies(studies)
    yield "drawn images", digest(data.pixels.numpy().tobytes(), *(text.encode() for text in data.texts))
    texts = public_texts(256)
    states = torch.tensor([label_report(text) for text in texts])
    sizes = profile.base_models.model_copy(update={"llm_steps": 2, "backbone_steps": 2})
    llm, tokenizer, _ = base_models.pretrain_llm(texts, states, sizes, 0, progress=False)
    yield "LLM after 2 steps", of_tensors(llm.state_dict())
    pixels = data.pixels.unsqueeze(1)
    backbone, _ = base_models.pretrain_backbone(pixels, data.states, sizes, 0, progress=False)
    yield "backbone after 2 steps", of_tensors(backbone.state_dict())
    base_models.save_base_models(folder / "models", llm, tokenizer, backbone, {})
    model = build_report_generator(profile, method, folder / "models", 0)
    with torch_threads(threads):
        shared = {name: tensor.clone() for name, tensor in model.state(Ownership.SHARED).items()}
        update = train_client(
            model, data, shared, None, {}, client="a", round_number=1, profile=profile, method=method, seed=0,
            progress=False,
        )  # fmt: skip
        yield "a client's update", of_tensors(update.shared)
        yield "its own tensors", of_tensors(update.state.tensors)
        short = profile.generation.model_copy(update={"max_new_tokens": 24})
        rows = write_reports(model, data, "specialised_adapter", short)
        yield "reports", digest(*(row.generated.encode() for row in rows))


def main() -> None:
    """Print the arithmetic, and a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=32, help="of the client; 16 a step")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(json.dumps(arithmetic_of()))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        for name, found in steps(pathlib.Path(folder), given.studies, given.threads):
            print(f"{name:24} {found}  {time.perf_counter() - started:7.1f} s", flush=True)


if __name__ == "__main__":
    main()
