"""How much more a training step costs with both adapters than with a single LoRA, as ratios in one run.

    python benchmarks/dual_adapter_step.py [--profile standard] [--repeats 20]

The floor is the ratio of the work: encoder once and LLM twice, against encoder once and LLM once, in floating-point
operations counted by torch. Random images, texts and weights of the profile's sizes; nothing is read from disk. The
variants take turns, step by step, so that whatever else the machine does hits them alike; medians are compared.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy
import torch
from torch.utils.flop_counter import FlopCounterMode

from fedmrg_core.data.phantom import public_texts
from fedmrg_core.runs.configuration import Profile, load_profile
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.tasks.reports.base_models import new_backbone, save_base_models, train_tokenizer
from fedmrg_core.tasks.reports.batch import Batch, encode_reports, pad_reports
from fedmrg_core.tasks.reports.build import build_report_generator
from fedmrg_core.tasks.reports.methods import ReportMethod
from fedmrg_core.training.small_llm import new_llm
from fedmrg_core.training.training_steps import total_loss

SHARED = {"encoder": Ownership.SHARED, "projection": Ownership.SHARED, "generic_adapter": Ownership.SHARED}
BOTH = {**SHARED, "specialised_adapter": Ownership.PERSONAL}
BOOSTING = {"generic_to_specialised": 0.5, "specialised_to_generic": 0.5}
VARIANTS = {
    "single LoRA": (SHARED, {}),
    "both adapters": (BOTH, {}),
    "both adapters and mutual boosting": (BOTH, BOOSTING),
}


def training_step(profile: Profile, variant: str, folder: pathlib.Path, texts: list[str]):
    """A function that does one step, forward, backward and AdamW."""
    modules, losses = VARIANTS[variant]
    method = ReportMethod(name=variant, description="", prompts="none", modules=modules, losses=losses)
    model = build_report_generator(profile, method, folder, seed=0).train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    size = profile.training.batch_size
    images = torch.from_numpy(
        numpy.random.default_rng(0).random((size, 1, profile.image_size, profile.image_size), "f4")
    )
    rows = encode_reports(model.tokenizer, texts[:size], profile.training)
    batch = Batch(images, torch.zeros(size, 14, dtype=torch.long), *pad_reports(rows, model.tokenizer.pad_token_id))

    def step() -> None:
        loss = total_loss(model.loss_terms(batch, method.losses, torch.ones(14), None), method.losses)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    profile, texts = load_profile(arguments.profile), public_texts(500)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "models"
        tokenizer = train_tokenizer(texts, profile.base_models.vocabulary)
        save_base_models(
            folder, new_llm(profile.base_models, tokenizer, 0), tokenizer, new_backbone(profile.base_models, 0), {}
        )
        steps = {name: training_step(profile, name, folder, texts) for name in VARIANTS}
    operations = {}
    for name, step in steps.items():
        step()
        with FlopCounterMode(display=False) as counter:
            step()
        operations[name] = counter.get_total_flops()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.repeats):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"profile {profile.name}, batch {profile.training.batch_size}, {torch.get_num_threads()} threads")
    for name in steps:
        ratio, floor = (part[name] / part["single LoRA"] for part in (medians, operations))
        against = f"ratio {ratio:.2f}  floor {floor:.2f}  ratio/floor {ratio / floor:.2f}"
        print(f"{name:35s} {1000 * medians[name]:7.0f} ms  {against}")


if __name__ == "__main__":
    main()
