"""Build a model of the report task from a profile, a row of methods.yaml and the base models' folder."""

from __future__ import annotations

import pathlib

import torch

from fedmrg_core.encoder import load_encoder, token_count
from fedmrg_core.errors import InputError
from fedmrg_core.report_generator import ReportGenerator
from fedmrg_core.runs.configuration import Profile
from fedmrg_core.seeds import stream_seed
from fedmrg_core.tasks.reports.baselines.transformer import Sizes
from fedmrg_core.tasks.reports.baselines.whole_model import WholeModel
from fedmrg_core.tasks.reports.methods import ReportMethod
from fedmrg_core.tasks.reports.report_model import ReportModel
from fedmrg_core.training.language_models import check_positions, free_positions, load_language_model
from fedmrg_core.training.pretrained import load_configuration, load_tokenizer, told


def build_report_generator(profile: Profile, method: ReportMethod, base_models: pathlib.Path, seed: int) -> ReportModel:
    """Load backbone and LLM (the profile's names, or notebook 05's in `base_models`) and compose them.

    A method without an LLM is one of `baselines`. The seed's "initialisation" stream sets every new parameter: the same
    on every client and engine.

    Raises:
        InputError: the row does not fit the profile, a model folder is missing, or its model cannot be used as the
            profile says.
    """
    method.check(profile)
    if method.model != "llm":
        return build_whole_model(profile, method, base_models, seed)
    llm_name, backbone_name = profile.base_models.sources(base_models)
    precision = getattr(torch, profile.base_models.precision)
    llm, tokenizer = load_language_model(llm_name, precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "initialisation"))
        encoder = load_encoder(backbone_name)
        model = ReportGenerator(encoder, llm, tokenizer, method, profile)
    report = max(profile.training.max_report_tokens, profile.generation.max_new_tokens)
    prefix = model.prefix_length(token_count(encoder, profile.image_size))
    if "count" in method.prompt_type.settings_type.model_fields:
        _check_prompts(model, free_positions(llm.config, prefix, report))
    check_positions(llm.config, prefix, report)
    _try_out(model, profile)
    return model


def build_whole_model(profile: Profile, method: ReportMethod, base_models: pathlib.Path, seed: int) -> ReportModel:
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


def _check_prompts(model: ReportGenerator, free: int) -> None:
    """Prompts of a number that the row sets are the first thing to have fewer of, where that helps."""
    count = model.prompt_source.count
    if -count <= free < 0:
        raise InputError(
            f"method {model.method.name!r}: prompts: {model.method.prompts} takes {count} positions of the LLM, which "
            f"has {count + free} left beside images and reports; expected fewer (prompt_settings.count), smaller "
            "images (image_size) or shorter reports."
        )


@torch.no_grad()
def _try_out(model: ReportGenerator, profile: Profile) -> None:
    """Let the LLM read and write a few tokens under its first adapter, as every client will."""
    adapter, ids = model.adapters[0], model.instruction_ids[None]
    embeddings, mask = model.llm.embed(ids), torch.ones_like(ids)
    settings = profile.generation.model_copy(update={"max_new_tokens": 2})
    try:
        model.llm(embeddings, mask, 1, [adapter])
        model.llm.generate(embeddings, adapter, **model.decoding(settings))
    except Exception as error:  # what an adapter cannot do on a LLM ends in errors of any class
        raise InputError(
            f"method {model.method.name!r}: its adapter (adapter_kind {model.llm.kind}) does not work on this LLM "
            f"({told(error)}); expected another LLM or another method."
        ) from error
