"""Build a baseline that is trained whole from a profile, a row of methods.yaml and the base models' folder."""

from __future__ import annotations

import pathlib

import torch

from fedmrg_core.baselines.transformer import Sizes
from fedmrg_core.baselines.whole_model import WholeModel
from fedmrg_core.configuration import Profile
from fedmrg_core.encoder import load_encoder, token_count
from fedmrg_core.methods import Method
from fedmrg_core.pretrained import load_configuration, load_tokenizer
from fedmrg_core.seeds import stream_seed
from fedmrg_core.trained_model import TrainedModel


def build_whole_model(profile: Profile, method: Method, base_models: pathlib.Path, seed: int) -> TrainedModel:
    """Load the backbone, and build a decoder as wide and as deep as the LLM, whose tokenizer it shares.

    The seed's "initialisation" stream sets every new parameter: the same on every client and engine.

    Args:
        profile: names of the base models, lengths of reports, image size.
        method: a row of methods.yaml with model transformer, r2gen, wcl or dcl.
        base_models: folder of notebook 05, for what the profile does not name.
        seed: root seed.

    Raises:
        InputError: a model folder is missing or not what it should be, or the row asks for what its model has not.
    """
    llm_name, backbone_name = profile.base_models.sources(base_models)
    llm, tokenizer = load_configuration(llm_name, "LLM", weights=False), load_tokenizer(llm_name)
    longest = max(profile.training.max_report_tokens, profile.generation.max_new_tokens) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "initialisation"))
        encoder = load_encoder(backbone_name)
        sizes = Sizes.like_llm(llm, token_count(encoder, profile.image_size), longest)
        return WholeModel(encoder, sizes, tokenizer, method, profile)
