"""The small convolutional networks that prompts are compared with: MONAI's U-Net, and its DenseNet for classes."""

from __future__ import annotations

from torch import nn

from fedmrg_core.data.pictures.picture import Subject
from fedmrg_core.runs.configuration import Pictures


def small_network(subject: Subject, numbers: Pictures) -> nn.Module:
    """A network from scratch: images (B, C, H, W) to logits of classes (B, K), or of masks (B, K, H, W).

    Instance norm: BatchNorm's running statistics of few pictures would be a difference of their own [ours].
    """
    from monai.networks.nets import DenseNet, UNet  # its import takes seconds

    widths = numbers.network_widths
    if subject.kind == "masks":
        return UNet(
            spatial_dims=2, in_channels=subject.channels, out_channels=len(subject.names), channels=widths,
            strides=(2,) * (len(widths) - 1), num_res_units=1,
        )  # fmt: skip
    return DenseNet(
        spatial_dims=2, in_channels=subject.channels, out_channels=len(subject.names), init_features=widths[0],
        growth_rate=widths[0] // 2, block_config=(2,) * len(widths), norm="instance",
    )  # fmt: skip
