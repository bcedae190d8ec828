"""A server that crafts what it sends, so that the next update says more [ours; related: arXiv 2506.04453].

It sets the projection and the prompts to zero: image tokens and prompts then vanish from the gradient of the first
layer, and of what it reads only the report's words are unknown. And it starts the adapter the other way round, A at
zero and B with columns that are orthonormal: the adapter still changes nothing, but dL/dA has all of its rows at once.

A hospital that looks at what it receives would see it: images are without effect, and A is zero.
"""

from __future__ import annotations

import torch

from fedmrg_core.errors import InputError
from fedmrg_core.federation.curious.recomputed import sent_by
from fedmrg_core.report_generator import ReportGenerator
from fedmrg_core.seeds import stream_seed
from fedmrg_core.training.adapter_names import GENERIC

BLINDED = "projection", "prompt_table"  # modules through which images and findings reach the LLM


@torch.no_grad()
def craft_start(model: ReportGenerator, seed: int = 0) -> None:
    """Change a model in place to what such a server would send.

    Raises:
        InputError: the adapter's A does not travel, so no server can start it at zero.
    """
    if not any(key.endswith("lora_A") for key in sent_by(model)):
        raise InputError(f"method {model.method.name!r} keeps its adapter's A, so its start cannot be crafted.")
    for module in BLINDED:
        if module in model.ownership:
            for tensor in model.tensors_of(module).values():
                tensor.zero_()
    generator = torch.Generator().manual_seed(stream_seed(seed, "attack", "crafted"))
    for name, tensor in model.llm.parameters_of(GENERIC).items():
        if name.endswith("lora_A"):
            tensor.zero_()
        else:
            tensor.copy_(torch.linalg.qr(torch.randn(tensor.shape, generator=generator))[0])
