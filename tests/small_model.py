"""A very small real model and studies for tests: 32-pixel images, a LLM 32 wide, built in a second."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy
import torch

from fedmrg_core.report_generator import ReportGenerator
from fedmrg_core.runs.configuration import Profile
from fedmrg_core.runs.methods import Method, load_method
from fedmrg_core.tasks.reports.base_models import new_backbone, save_base_models, train_tokenizer
from fedmrg_core.tasks.reports.build import build_report_generator
from fedmrg_core.training.small_llm import new_llm

TEXTS = [
    "The heart is enlarged. No pneumothorax.",
    "The lungs are clear.",
    "There is a small left pleural effusion.",
    "No acute finding. The heart size is normal.",
]

PROFILE = Profile.model_validate(
    {
        "name": "tiny",
        "image_size": 32,
        "phantom": {"train": 4, "validation": 2, "test": 2},
        "base_models": {
            "llm_width": 32,
            "llm_layers": 2,
            "vocabulary": 300,
            "backbone_widths": [8, 16],
            "backbone_depths": [1, 1],
        },
        "adapter": {"rank": 4, "alpha": 4},
        "training": {
            "batch_size": 4,
            "learning_rate": 1e-2,
            "adapter_learning_rate": 1e-2,
            "image_shift": 2,
            "max_report_tokens": 16,
        },
        "federation": {"rounds": 3},
        "generation": {"beams": 2, "max_new_tokens": 8},
    }
)


@dataclasses.dataclass
class SmallStudies:
    """Studies drawn at random, in the shape training asks for."""

    texts: list[str]
    states: torch.Tensor
    pixels: torch.Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def images(self, indices) -> torch.Tensor:
        return self.pixels[torch.as_tensor(indices)]


def small_studies(count: int = 10, seed: int = 0) -> SmallStudies:
    generator = numpy.random.default_rng(seed)
    states = torch.from_numpy(generator.integers(0, 4, size=(count, 14)))
    pixels = torch.from_numpy(generator.random((count, 1, 32, 32), dtype=numpy.float32))
    return SmallStudies([TEXTS[i % len(TEXTS)] for i in range(count)], states, pixels)


def small_base_models(folder: pathlib.Path, seed: int = 0) -> pathlib.Path:
    sizes = PROFILE.base_models
    tokenizer = train_tokenizer(TEXTS * 5, sizes.vocabulary)
    save_base_models(folder, new_llm(sizes, tokenizer, seed), tokenizer, new_backbone(sizes, seed), {})
    return folder


def small_model(folder: pathlib.Path, method: str | Method = "fedmrg", profile: Profile = PROFILE) -> ReportGenerator:
    row = load_method(method) if isinstance(method, str) else method
    if not folder.is_dir():
        small_base_models(folder)
    return build_report_generator(profile, row, folder, seed=0)


def ones(embeddings: torch.Tensor) -> torch.Tensor:
    """The attention mask (B, L) of embeddings (B, L, D) without padding."""
    return torch.ones(embeddings.shape[:2], dtype=torch.long)
