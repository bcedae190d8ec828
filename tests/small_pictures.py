"""Very small pictures and frozen models: a whole federation of visual prompts in seconds."""

from __future__ import annotations

import pathlib

import torch

from fedmrg_core.federation.run import configure_run
from fedmrg_core.runs.configuration import Profile
from fedmrg_core.runs.methods import load_method
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.tasks.visual_prompts.base_model import new_sam, new_vit, save_base_model
from fedmrg_core.tasks.visual_prompts.preparing import prepare_pictures

DATA = ("phantom_findings", "phantom_masks")
LAYERS = {"phantom_findings": ("q_proj", "v_proj"), "phantom_masks": ("qkv",)}


def small_profile(data: str = "phantom_findings", **pictures: object) -> Profile:
    """A profile of few pictures and two rounds."""
    return Profile.model_validate(
        {
            "name": "tiny",
            "image_size": 32,
            "phantom": {"train": 10, "validation": 6, "test": 6},
            "adapter": {"rank": 2, "alpha": 2, "target_modules": LAYERS[data]},
            "training": {"batch_size": 5, "learning_rate": 1e-2, "adapter_learning_rate": 1e-2},
            "federation": {"rounds": 2},
            "bootstrap_samples": 50,
            "pictures": {
                "prompts": 3, "heads": 2, "width": 16, "layers": 2, "patch": 8, "window": 3, "decoder_width": 16,
                "network_widths": [8, 16], **pictures,
            },
        }
    )  # fmt: skip


def small_inputs(root: pathlib.Path) -> pathlib.Path:
    """prepared/DATA and base/DATA of both data sets below a folder; the frozen models are not trained."""
    for data, name, make in zip(DATA, ("vit", "sam"), (new_vit, new_sam), strict=True):
        profile = small_profile(data)
        prepare_pictures(root / "prepared" / data, data, profile)
        torch.manual_seed(0)
        save_base_model(root / "base" / data, name, make(profile.pictures, profile.image_size), {})
    return root


def small_run(root: pathlib.Path, folder: pathlib.Path, data: str, method: str, **settings: object) -> RunConfiguration:
    """The configuration of a run on them."""
    given = {"profile": small_profile(data), "seed": 0, "threads": 1, **settings}
    return configure_run(
        folder, method=load_method(method, task="visual_prompts"), data=data, task="visual_prompts",
        prepared=root / "prepared" / data, base_models=root / "base" / data, **given,
    )  # fmt: skip
