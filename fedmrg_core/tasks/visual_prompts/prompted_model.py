"""A frozen vision model with prompts made for each image, and the models that it is compared with.

    P(x) = P_g + CrossAttn(Q = P_g, K = V = E), then a feed-forward layer                      [secondary; form ours]
    tokens = [cls; P(x); E]    into the frozen model, whose feature the head reads

P_g by itself is a static prompt: the same for every image. What a row has none of is not built: without global_prompt
the head reads the frozen model as it came.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib

import peft
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.data.pictures.picture import Subject
from fedmrg_core.errors import InputError
from fedmrg_core.prompts.generator import CrossAttentionBlock
from fedmrg_core.runs.configuration import Adapter, Pictures, Profile
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.seeds import stream_seed
from fedmrg_core.tasks.visual_prompts.backbones import TokenBackbone, load_token_backbone
from fedmrg_core.tasks.visual_prompts.methods import PictureMethod
from fedmrg_core.tasks.visual_prompts.networks import small_network
from fedmrg_core.tasks.visual_prompts.sam import MaskHead, SamBackbone, load_sam
from fedmrg_core.training.adapter_kinds import layer_parameters
from fedmrg_core.training.trained_model import TrainedModel

ADAPTER = "default"


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a model makes of a batch of images."""

    logits: Tensor  # (B, K) of classes, (B, K, H, W) of masks
    attention: Tensor | None = None  # (B, L, M): where the generator's prompts looked
    prompts: Tensor | None = None  # (B, L, D)


class PromptedModel(TrainedModel):
    """The modules of a row around a frozen backbone; or a small network in their place.

    Args:
        method: which modules there are.
        subject: what is asked of an image.
        numbers: of prompts and networks.
        adapter: of LoRA.
        backbone: takes prompts; None where the row has a network.
        decoder: SAM's, where masks are asked.
    """

    method: PictureMethod

    def __init__(
        self,
        method: PictureMethod,
        subject: Subject,
        numbers: Pictures,
        adapter: Adapter,
        backbone: TokenBackbone | SamBackbone | None = None,
        decoder: MaskHead | None = None,
    ) -> None:
        super().__init__(method)
        self.subject, self.backbone, self.at_once = subject, backbone, numbers.batch_size
        if backbone is None:
            self.network = small_network(subject, numbers)
        else:
            self._build(numbers, adapter, backbone, decoder)
        self.settle_ownership()

    def _build(
        self, numbers: Pictures, adapter: Adapter, backbone: TokenBackbone | SamBackbone, decoder: MaskHead | None
    ) -> None:
        has = self.method.modules
        backbone.requires_grad_("backbone" in has)
        self.head = decoder or nn.Linear(backbone.outputs, len(self.subject.names))
        if "global_prompt" in has:
            check_prompts(numbers, backbone)
            scale = token_scale(backbone)
            self.global_prompt = nn.Embedding(numbers.prompts, backbone.width)
            nn.init.normal_(self.global_prompt.weight, std=scale)  # as large as the tokens they stand among [ours]
            if "generator" in has:
                self.generator = CrossAttentionBlock(backbone.width, numbers.heads, scale)
        if "adapter" in has:
            _add_adapter(backbone, adapter)

    def tensors_of(self, module: str) -> dict[str, Tensor]:
        """Those of the attribute that is called so; of the adapter the factors in the backbone's layers."""
        return layer_parameters(self.backbone, ADAPTER) if module == "adapter" else super().tensors_of(module)

    def forward(self, images: Tensor) -> Seen:
        """What the model says of images (B, C, H, W) in [0, 1]."""
        if self.backbone is None:
            return Seen(self.network(images))
        tokens = self.backbone.embed(images)
        prompts, attention = self.prompts_for(self.backbone.patches(tokens))
        features = self.backbone.run(tokens, prompts)
        if isinstance(self.backbone, SamBackbone):
            masks = self.head(features, self.backbone.places, self.backbone.no_mask)
            size = images.shape[-2:]
            return Seen(functional.interpolate(masks, size, mode="bilinear", align_corners=False), attention, prompts)
        return Seen(self.head(features), attention, prompts)

    def prompts_for(self, patches: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Prompts (B, L, D) for patches (B, M, D), and where they looked; None each where there is no such thing."""
        if "global_prompt" not in self.method.modules:
            return None, None
        if "generator" not in self.method.modules:
            return self.global_prompt.weight.expand(len(patches), -1, -1), None
        return self.generator(self.global_prompt.weight, patches)

    def loss_terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The unweighted loss terms of a batch of `pixels` and `truth`."""
        logits, truth = self(batch["pixels"]).logits, batch["truth"]
        if self.subject.kind == "one":
            return {"cross_entropy": functional.cross_entropy(logits, truth.argmax(dim=1))}
        terms = {"cross_entropy": functional.binary_cross_entropy_with_logits(logits, truth)}
        return terms | ({"dice": dice_loss(logits, truth)} if self.subject.kind == "masks" else {})

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """Probabilities of classes (B, K), or of pixels (B, K, H, W)."""
        logits = self(images).logits
        return logits.softmax(dim=1) if self.subject.kind == "one" else logits.sigmoid()


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """One minus the soft Dice of a batch's regions, MONAI's; an empty region that is found empty costs nothing."""
    from monai.losses import DiceLoss  # its import takes seconds

    return DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)(logits, truth)


def check_prompts(numbers: Pictures, backbone: TokenBackbone | SamBackbone) -> None:
    """Hold the numbers of prompts against a backbone.

    Raises:
        InputError: there are more prompts than the model has positions, or the heads do not divide its width.
    """
    if numbers.prompts > backbone.positions:
        raise InputError(
            f"pictures.prompts: {numbers.prompts} prompts are more than the {backbone.positions} positions that the "
            "model has for patches; expected at most as many."
        )
    if backbone.width % numbers.heads:
        raise InputError(
            f"pictures.heads: {numbers.heads} does not divide {backbone.width}, the width of the model's tokens."
        )


@torch.no_grad()
def token_scale(backbone: TokenBackbone | SamBackbone) -> float:
    """s, the spread of a backbone's patches: of one image that goes from black to white."""
    model = backbone.encoder if isinstance(backbone, SamBackbone) else backbone.model
    size = model.config.image_size
    image = torch.linspace(0, 1, size * size).view(1, 1, size, size).to(next(backbone.parameters()).device)
    return backbone.patches(backbone.embed(image)).std().item()


def _add_adapter(backbone: nn.Module, adapter: Adapter) -> None:
    """LoRA into a backbone's linear layers, in place."""
    there = {path.rpartition(".")[2] for path, layer in backbone.named_modules() if isinstance(layer, nn.Linear)}
    if missing := [name for name in adapter.target_modules if name not in there]:
        raise InputError(
            f"adapter.target_modules: {', '.join(missing)} not found among the layers of the vision model; expected "
            f"some of {', '.join(sorted(there))}."
        )
    settings = peft.LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=list(adapter.target_modules))
    peft.inject_adapter_in_model(settings, backbone, ADAPTER)


def build_prompted_model(
    profile: Profile, method: PictureMethod, subject: Subject, base_model: str | pathlib.Path, seed: int
) -> PromptedModel:
    """Load the frozen model and give it the row's modules; the seed's "initialisation" stream sets every new parameter.

    Args:
        profile: numbers of the run.
        method: a row.
        subject: what is asked of an image.
        base_model: folder or cached hub name of a ViT, or where masks are asked of a SAM; not read for a network.
        seed: root seed.

    Raises:
        InputError: the model cannot be used, or the numbers do not fit it.
    """
    method.check(profile)
    numbers, backbone, decoder = profile.pictures or Pictures(), None, None
    if "network" not in method.modules:
        if subject.kind == "masks":
            backbone, decoder = load_sam(base_model, len(subject.names))
        else:
            backbone = load_token_backbone(base_model)
        check_image_size(profile.image_size, backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "initialisation"))
        return PromptedModel(method, subject, numbers, profile.adapter, backbone, decoder)


def check_image_size(image_size: int, backbone: TokenBackbone | SamBackbone) -> None:
    """Hold the size of prepared pictures against a backbone.

    Raises:
        InputError: SAM was made for another one, or the patches of a ViT do not fill it.
    """
    if isinstance(backbone, SamBackbone):
        if backbone.image_size != image_size:
            raise InputError(
                f"image_size: {image_size}, and this SAM reads images of {backbone.image_size} pixels alone; set it so."
            )
    elif image_size % backbone.model.config.patch_size:
        raise InputError(
            f"image_size: {image_size} is no multiple of {backbone.model.config.patch_size}, the patches of the model."
        )


def shares(model: PromptedModel) -> dict[str, float]:
    """Parameters that travel, those of the foundation model, and the first as a share of the second.

    SAM's mask decoder belongs to the foundation model, a linear head does not; a small network has none (NaN).
    """
    sent = sum(tensor.numel() for tensor in model.state(Ownership.SHARED).values())
    added = {id(parameter) for key, parameter in model.trainable().items() if key.startswith("adapter/")}
    parts = [model.backbone, model.head if isinstance(model.backbone, SamBackbone) else None]
    held = [parameter for part in parts if part is not None for parameter in part.parameters()]
    foundation = sum(parameter.numel() for parameter in held if id(parameter) not in added)
    return {"sent": sent, "foundation": foundation, "share": sent / foundation if foundation else math.nan}
