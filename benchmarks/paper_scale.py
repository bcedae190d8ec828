"""A training step and the decoding of FedMRG at the paper's scale, against what the machine can do at most.

    python benchmarks/paper_scale.py FOLDER [--methods fed-lora,fedmrg] [--batches 4,8,16] [--repeats 5]
        [--llm-layers 32 --llm-width 4096] [--new-tokens 64]

FOLDER gets checkpoints with random weights of the sizes of LLaMA-2-7B and ResNet-101 (13.6 GB) unless they are there,
in the Hugging Face layout: a profile may name FOLDER/llm and FOLDER/backbone. They are loaded as real ones are. Time
and memory do not depend on what the weights say.

Floors, measured in the same run: floating-point operations (counted by torch) of the LLM over the rate of a large
bfloat16 matrix product and of everything else over that of a large float32 one; for decoding, the LLM's bytes, read
once a token, over the rate at which a large copy reads and writes. Without a GPU give small sizes.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import time
from collections.abc import Callable

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from fedmrg_core.data.phantom import public_texts
from fedmrg_core.report_generator import ReportGenerator
from fedmrg_core.runs.configuration import Profile, load_profile
from fedmrg_core.runs.methods import load_method
from fedmrg_core.tasks.reports.base_models import train_tokenizer
from fedmrg_core.tasks.reports.batch import Batch, Contrast
from fedmrg_core.tasks.reports.build import build_report_generator
from fedmrg_core.training.adapter_names import GENERIC
from fedmrg_core.training.optimisation import build_optimiser
from fedmrg_core.training.pretrained import compute_device
from fedmrg_core.training.training_steps import total_loss

DEVICE = compute_device()
VOCABULARY = 32000


def make_checkpoints(folder: pathlib.Path, layers: int, width: int) -> None:
    """Write llm/ and backbone/ with random weights unless they are there."""
    if not (folder / "llm" / "config.json").is_file():
        tokenizer = train_tokenizer(public_texts(500), 2000)
        config = transformers.LlamaConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 128,
            intermediate_size=width * 43 // 16,  # 11008 at 4096
            vocab_size=VOCABULARY,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        torch.set_default_dtype(torch.bfloat16)
        with DEVICE:
            llm = transformers.LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
        llm.save_pretrained(folder / "llm")
        tokenizer.save_pretrained(folder / "llm")
    if not (folder / "backbone" / "config.json").is_file():
        config = transformers.ResNetConfig(depths=[3, 4, 23, 3], hidden_sizes=[256, 512, 1024, 2048])
        transformers.ResNetModel(config).save_pretrained(folder / "backbone")


def seconds_of(work: Callable[[], object], repeats: int, warm_up: int = 2) -> float:
    """Median seconds of `work`, the device's queue empty before and after."""

    def once() -> float:
        _synchronise()
        started = time.perf_counter()
        work()
        _synchronise()
        return time.perf_counter() - started

    return statistics.median([once() for _ in range(warm_up + repeats)][warm_up:])


def _synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def ceilings(size: int) -> dict[str, float]:
    """Operations a second of matrix products in bfloat16 and float32, bytes a second (read and written) of a copy."""
    found = {}
    for name in ("bfloat16", "float32"):
        left, right = (torch.randn(size, size, device=DEVICE, dtype=getattr(torch, name)) for _ in range(2))
        found[name] = 2 * size**3 / seconds_of(lambda a=left, b=right: a @ b, 5)
    source = torch.randn(8 * size, size, device=DEVICE)
    target = torch.empty_like(source)
    found["copy"] = 2 * source.nbytes / seconds_of(lambda: target.copy_(source), 5)
    return found


def random_batch(model: ReportGenerator, profile: Profile, size: int) -> Batch:
    """Noise and the longest reports that the profile allows."""
    generator = torch.Generator().manual_seed(0)
    tokens = profile.training.max_report_tokens
    ids = torch.randint(4, len(model.tokenizer), (size, tokens), generator=generator)
    images = torch.rand(size, 1, profile.image_size, profile.image_size, generator=generator)
    states = torch.randint(0, 4, (size, 14), generator=generator)
    return Batch(*(part.to(DEVICE) for part in (images, states, ids, torch.ones_like(ids, dtype=torch.bool))))


def training_step(model: ReportGenerator, profile: Profile, size: int) -> Callable[[], None]:
    """Forward, backward and AdamW on one batch, every loss term of the method's row among them."""
    method = model.method
    optimiser = build_optimiser(model.trainable(), profile.training, method)
    batch, weights = random_batch(model, profile, size), torch.ones(14, device=DEVICE)
    width = model.llm.width
    contrast = Contrast(torch.randn(size, width, device=DEVICE), torch.randn(5, width, device=DEVICE), own=0)

    def step() -> None:
        loss = total_loss(model.loss_terms(batch, method.losses, weights, contrast), method.losses)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def operations(model: ReportGenerator, step: Callable[[], None]) -> tuple[float, float]:
    """Floating-point operations of a step: the LLM's, and all others."""
    with FlopCounterMode(display=False) as counter:
        step()
    whole = counter.get_total_flops()
    by_module = counter.get_flop_counts()
    llm = sum(by_module.get(type(model.llm).__name__, {}).values())
    return llm, whole - llm


def measure_training(model: ReportGenerator, profile: Profile, size: int, repeats: int, most: dict[str, float]) -> str:
    """One line: time, floor, their ratio, peak memory."""
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        step = training_step(model, profile, size)
        seconds = seconds_of(step, repeats)
        llm, rest = operations(model, step)
    except torch.OutOfMemoryError:
        return "out of memory"
    floor = llm / most["bfloat16"] + rest / most["float32"]
    memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if DEVICE.type == "cuda" else ""
    work = f"LLM {llm / 1e12:.2f}, rest {rest / 1e12:.2f} Tflop"
    return f"{1000 * seconds:.0f} ms, floor {1000 * floor:.0f} ms ({work}), ratio {seconds / floor:.2f}{memory}"


def measure_decoding(model: ReportGenerator, profile: Profile, tokens: int, most: dict[str, float]) -> str:
    """One line: milliseconds a token of a whole batch under the profile's beams, against reading the LLM once."""
    settings = profile.generation.model_copy(update={"max_new_tokens": tokens, "end_bias": -1e4})
    images = random_batch(model, profile, settings.batch_size).images
    seconds = seconds_of(lambda: model.eval().generate(images, GENERIC, settings), 2, warm_up=1) / tokens
    size = sum(p.nbytes for name, p in model.llm.named_parameters() if "embed_tokens" not in name)
    floor = size / most["copy"]
    against = f"floor {1000 * floor:.1f} ms ({size / 1e9:.2f} GB), ratio {seconds / floor:.1f}"
    return f"{1000 * seconds:.1f} ms a token, {against}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--methods", default="fed-lora,fedmrg")
    parser.add_argument("--batches", default="4,8,16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--llm-layers", type=int, default=32)
    parser.add_argument("--llm-width", type=int, default=4096)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--matrix", type=int, default=8192, help="width of the products that measure the ceilings")
    parser.add_argument("--only-checkpoints", action="store_true", help="write them and stop")
    arguments = parser.parse_args()
    make_checkpoints(arguments.folder, arguments.llm_layers, arguments.llm_width)
    if arguments.only_checkpoints:
        return
    most = ceilings(arguments.matrix)
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    rates = ", ".join(f"{key} {rate / 1e12:.2f} T/s" for key, rate in most.items())
    print(f"{name}, torch {torch.__version__}: {rates}", flush=True)
    profile = load_profile("paper")
    sources = {"llm": str(arguments.folder / "llm"), "backbone": str(arguments.folder / "backbone")}
    profile = profile.model_copy(update={"base_models": profile.base_models.model_copy(update=sources)})
    for method in arguments.methods.split(","):
        model = build_report_generator(profile, load_method(method), arguments.folder, seed=0).to(DEVICE).train()
        for size in map(int, arguments.batches.split(",")):
            line = measure_training(model, profile, size, arguments.repeats, most)
            print(f"{method}, batch {size}: {line}", flush=True)
        decoding = measure_decoding(model, profile, arguments.new_tokens, most)
        print(f"{method}, decoding, batch {profile.generation.batch_size} x {profile.generation.beams}: {decoding}")
        del model


if __name__ == "__main__":
    main()
