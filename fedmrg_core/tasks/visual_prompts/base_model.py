"""The small frozen ViT and SAM, pretrained on public-style phantom pictures that no client holds.

Published prompts sit in foundation models [secondary]; where there is none, these stand in for them [ours].
"""

from __future__ import annotations

import json
import pathlib

import numpy
import scipy.ndimage
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.data.pictures.phantom_pictures import TAUGHT_BEFORE, findings_of, public_studies
from fedmrg_core.files.described_folders import write_description
from fedmrg_core.files.whole_files import partial_folder, replace_folder
from fedmrg_core.runs.configuration import BaseModels, Pictures
from fedmrg_core.seeds import numpy_stream, stream_seed
from fedmrg_core.tasks.visual_prompts.sam import MaskHead, SamBackbone
from fedmrg_core.training.small_llm import optimise

DESCRIPTION = "description.json"
MEAN, DEVIATION = 0.5, 0.25  # of grey levels
VIT_TASK = (
    f"supervised: {', '.join(TAUGHT_BEFORE)} and the view, and of each patch the share that is lung and heart; the "
    "clients are asked for other findings"
)
SAM_TASK = (
    "self-supervised: patches are hidden, and the dark, middle and bright third of the whole picture are outlined; the "
    "clients are asked for organs"
)
THIRDS = 3  # as many as SAM's decoder makes masks
SMOOTH = 1.5  # pixels, standard deviation before a picture is cut into thirds
HIDDEN = 0.4  # share of the patches


def pretrain_vit(
    sizes: BaseModels, numbers: Pictures, image_size: int, seed: int, progress: bool = True
) -> tuple[transformers.ViTModel, list[float]]:
    """A small ViT that has learned to tell other findings, the view, and what each patch of public pictures shows.

    Without the patches 400 steps left it at chance; with them 600 gave a linear probe an area of .68 [ours].

    Args:
        sizes: pictures, steps, learning rate.
        numbers: sizes of the model.
        image_size: pixels.
        seed: root seed.
        progress: show a bar.

    Returns:
        The model without its classifier, and the loss of every step.
    """
    studies = list(public_studies(sizes.public_studies, image_size, seed))
    pixels = _pixels([study.image for study in studies])
    truth = torch.tensor(numpy.stack([[*findings_of(s, TAUGHT_BEFORE), s.view == "AP"] for s in studies])).float()
    masks = torch.tensor(numpy.stack([[study.lung_mask, study.heart_mask] for study in studies])).float()
    patches = functional.avg_pool2d(masks, numbers.patch).flatten(2).transpose(1, 2)  # (N, M, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "base", "vit"))
        vit = new_vit(numbers, image_size)
        heads = nn.ModuleList([nn.Linear(numbers.width, truth.shape[1]), nn.Linear(numbers.width, 2)])
    draw = numpy_stream(seed, "base", "vit", "batches")

    def step() -> Tensor:
        chosen = draw.integers(0, len(pixels), sizes.pretraining_batch_size)
        hidden = vit(pixels[chosen]).last_hidden_state
        wanted = zip(heads, (hidden[:, 0], hidden[:, 1:]), (truth, patches), strict=True)
        return sum(functional.binary_cross_entropy_with_logits(head(h), y[chosen]) for head, h, y in wanted)

    learning = [*vit.parameters(), *heads.parameters()]
    losses = optimise(learning, step, sizes.backbone_steps, sizes.pretraining_learning_rate, "ViT", progress)
    return vit.eval(), losses


def new_vit(numbers: Pictures, image_size: int) -> transformers.ViTModel:
    """A small grey ViT with fresh weights; heads are 16 wide."""
    config = transformers.ViTConfig(
        hidden_size=numbers.width, num_hidden_layers=numbers.layers, num_attention_heads=max(numbers.width // 16, 1),
        intermediate_size=4 * numbers.width, image_size=image_size, patch_size=numbers.patch, num_channels=1,
    )  # fmt: skip
    return transformers.ViTModel(config, add_pooling_layer=False)


def pretrain_sam(
    sizes: BaseModels, numbers: Pictures, image_size: int, seed: int, progress: bool = True
) -> tuple[transformers.SamModel, list[float]]:
    """A small SAM that has learned what lies where in public pictures; arguments as `pretrain_vit`.

    A click on a region of like grey taught it nothing in as many steps: every pixel came out at the mean [ours].
    """
    images = [study.image for study in public_studies(sizes.public_studies, image_size, seed)]
    pixels = torch.from_numpy(numpy.stack(images))[:, None].float() / 255
    thirds = torch.tensor(numpy.stack([grey_thirds(image) for image in images]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "base", "sam"))
        sam = new_sam(numbers, image_size)
    backbone, head = SamBackbone(sam, MEAN, DEVIATION), MaskHead(sam.mask_decoder, THIRDS)
    side, draw = image_size // numbers.patch, numpy_stream(seed, "base", "sam", "batches")

    def step() -> Tensor:
        chosen = draw.integers(0, len(pixels), sizes.pretraining_batch_size)
        seen = torch.tensor(draw.random((len(chosen), 1, side, side)) >= HIDDEN).float()
        seen = seen.repeat_interleave(numbers.patch, 2).repeat_interleave(numbers.patch, 3)
        embeddings = backbone.run(backbone.embed(torch.where(seen > 0, pixels[chosen], MEAN)))
        found = head(embeddings, backbone.places, backbone.no_mask)
        found = functional.interpolate(found, (image_size, image_size), mode="bilinear", align_corners=False)
        return functional.cross_entropy(found, thirds[chosen])

    losses = optimise(sam.parameters(), step, sizes.backbone_steps, sizes.pretraining_learning_rate, "SAM", progress)
    return sam.eval(), losses


def new_sam(numbers: Pictures, image_size: int) -> transformers.SamModel:
    """A small grey SAM with fresh weights: windows, and a last layer that sees everything."""
    width, decoder = numbers.width, numbers.decoder_width
    vision = {
        "hidden_size": width, "output_channels": decoder, "num_hidden_layers": numbers.layers,
        "num_attention_heads": max(width // 16, 1), "num_channels": 1, "image_size": image_size,
        "patch_size": numbers.patch, "window_size": numbers.window, "global_attn_indexes": [numbers.layers - 1],
        "num_pos_feats": decoder // 2, "mlp_dim": 4 * width, "initializer_range": 0.02,
    }  # fmt: skip
    prompts = {"hidden_size": decoder, "image_size": image_size, "patch_size": numbers.patch, "mask_input_channels": 4}
    masks = {"hidden_size": decoder, "mlp_dim": 4 * decoder, "num_attention_heads": 4, "iou_head_hidden_dim": decoder}
    prompts["image_embedding_size"] = image_size // numbers.patch
    return transformers.SamModel(
        transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=masks)
    )


def grey_thirds(image: numpy.ndarray) -> numpy.ndarray:
    """Which third of its picture's grey levels each pixel of (H, W) is in: 0 dark, 1, 2 bright."""
    smooth = scipy.ndimage.gaussian_filter(image.astype(float), SMOOTH)
    return numpy.digitize(smooth, numpy.quantile(smooth, [1 / THIRDS, 2 / THIRDS])).astype(numpy.int64)


def _pixels(images: list[numpy.ndarray]) -> Tensor:
    """(N, 1, H, W), as the model reads them."""
    return (torch.from_numpy(numpy.stack(images))[:, None].float() / 255 - MEAN) / DEVIATION


def save_base_model(
    folder: pathlib.Path, name: str, model: transformers.PreTrainedModel, description: dict[str, object]
) -> None:
    """Save `folder/<name>` and `folder/description.json`, whole or not at all."""
    partial = partial_folder(folder)
    model.save_pretrained(partial / name)
    preprocessing = {"image_mean": [MEAN], "image_std": [DEVIATION], "do_normalize": True}
    (partial / name / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=1) + "\n")
    write_description(partial, description)
    replace_folder(partial, folder)
