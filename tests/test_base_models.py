"""Base models repeat to the byte, are steered through their phrase vectors, and save whole or not at all."""

import pytest
import torch
import transformers
from small_model import PROFILE, TEXTS, small_base_models

from fedmrg_core.data.labeller import label_report
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import torch_threads
from fedmrg_core.tasks.reports import base_models
from fedmrg_core.training.small_llm import new_llm

SIZES = PROFILE.base_models.model_copy(update={"llm_steps": 6, "backbone_steps": 4, "largest_epochs": 1000})
STATES = torch.tensor([label_report(text) for text in TEXTS])


def pretrained(sizes=SIZES):
    return base_models.pretrain_llm(TEXTS, STATES, sizes, seed=0, progress=False)


def test_pretraining_repeats_to_the_byte_on_two_threads():
    with torch_threads(2):
        first, again = pretrained()[0].state_dict(), pretrained()[0].state_dict()
        images = torch.randint(0, 255, (8, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        states = STATES.repeat(2, 1)
        backbones = [base_models.pretrain_backbone(images, states, SIZES, seed=0, progress=False)[0] for _ in range(2)]
        one, other = (backbone.state_dict() for backbone in backbones)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_backbone_learns_from_changed_images_and_repeats():
    images = torch.randint(0, 255, (8, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    changed = SIZES.model_copy(update={"image_rotation": 20.0, "image_shift": 2})
    first, again, plain = (
        base_models.pretrain_backbone(images, STATES.repeat(2, 1), sizes, seed=0, progress=False)[0].state_dict()
        for sizes in (changed, changed, SIZES)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], plain[name]) for name in first)


def test_a_small_corpus_is_not_read_too_often():
    sizes = SIZES.model_copy(update={"llm_steps": 500, "largest_epochs": 24, "pretraining_batch_size": 32})
    assert len(pretrained(sizes)[2]) == 24 * len(TEXTS) // 32


def test_states_change_what_the_llm_expects():
    llm, tokenizer, losses = pretrained(SIZES.model_copy(update={"llm_steps": 60}))
    assert losses[-1] < losses[0]
    with torch.no_grad():
        right = base_models.llm_loss(llm, tokenizer, TEXTS, STATES)
        plain = base_models.llm_loss(llm, tokenizer, TEXTS, None)
    assert right.item() != pytest.approx(plain.item(), abs=1e-4)
    reports = base_models.steered_reports(llm, tokenizer, STATES)
    assert len(reports) == len(TEXTS) and reports == base_models.steered_reports(llm, tokenizer, STATES)


def test_perplexity_of_an_untrained_llm_is_near_its_vocabulary():
    tokenizer = base_models.train_tokenizer(TEXTS * 5, 300)
    llm = new_llm(SIZES, tokenizer, 0)
    assert base_models.perplexity(llm, tokenizer, TEXTS) == pytest.approx(len(tokenizer), rel=0.2)


def test_any_text_survives_the_tokenizer():
    tokenizer = base_models.train_tokenizer(TEXTS, 300)
    for text in ("Cardiomegaly, 12 mm; œdème – ±3°", "XXXX\tno change"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_saved_models_open_the_ordinary_way(tmp_path):
    folder = small_base_models(tmp_path / "models")
    assert transformers.AutoModelForCausalLM.from_pretrained(folder / "llm").config.model_type == "llama"
    assert transformers.AutoModel.from_pretrained(folder / "backbone").config.model_type == "resnet"
    assert transformers.AutoTokenizer.from_pretrained(folder / "llm").bos_token == "<s>"
    assert base_models.saved_description(folder) == {} and base_models.saved_description(tmp_path) is None
    assert not list(folder.rglob("*.bin"))


def test_impossible_sizes_are_named():
    with pytest.raises(InputError, match="llm_width: 100 is no multiple of 32"):
        base_models.check_sizes(SIZES.model_copy(update={"llm_width": 100}))
