"""Checkpoints read rightly, or refused with one sentence that names the folder: files, weights, decoding, tokens."""

import json
import pathlib
import pickle
import shutil

import huggingface_hub
import pytest
import safetensors.torch
import torch
import transformers
from checkpoint_families import refused, save_backbone, save_llm, set_json
from small_model import small_model

from fedmrg_core.encoder import load_encoder
from fedmrg_core.errors import InputError
from fedmrg_core.training.adapter_names import GENERIC
from fedmrg_core.training.language_models import load_language_model
from fedmrg_core.training.pretrained import load_configuration, load_tokenizer


def rewrite(folder: pathlib.Path, change) -> None:
    """Put `change(tensors)` in the place of a folder's weights."""
    path = folder / "model.safetensors"
    tensors = {key: tensor.clone() for key, tensor in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(change(tensors), path, metadata={"format": "pt"})


# ---- every weight comes from the file ----


def test_the_weights_in_memory_are_those_of_the_file(stored_llama):
    llm, _ = load_language_model(stored_llama)
    there = safetensors.torch.load_file(stored_llama / "model.safetensors")
    assert there.keys() <= llm.state_dict().keys()
    assert all(torch.equal(llm.state_dict()[key], tensor) for key, tensor in there.items())


@pytest.mark.parametrize("prefix", ["base_model.model.", "module."])
def test_a_prefix_before_every_name_is_refused(prefix, llama):
    rewrite(llama, lambda tensors: {f"{prefix}{key}": tensor for key, tensor in tensors.items()})
    refused(llama, rf"lack model\.embed_tokens\.weight \(21 missing\), and holds {prefix}lm_head")


def test_a_missing_layer_is_refused(llama):
    rewrite(llama, lambda tensors: {key: tensor for key, tensor in tensors.items() if ".layers.1." not in key})
    refused(llama, r"lack model\.layers\.1\.self_attn\.q_proj\.weight \(9 missing\)")


def test_a_layer_too_many_is_refused(llama):
    set_json(llama / "config.json", num_hidden_layers=1)
    refused(llama, r"hold model\.layers\.1\.\S+ \(9 such\), for which its config\.json has no place")


def test_an_adapter_beside_the_weights_of_a_layer_is_refused(llama):
    extra = {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(4, 32)}
    rewrite(llama, lambda tensors: {**tensors, **extra})
    refused(llama, r"hold model\.layers\.0\.self_attn\.q_proj\.lora_A\.weight")


def test_other_sizes_than_the_configuration_says_are_refused(llama):
    set_json(llama / "config.json", intermediate_size=48)
    refused(llama, r"down_proj\.weight in the weights of \S+ has shape \(32, 64\), its config\.json says \(32, 48\)")


def test_weights_that_are_not_finite_are_refused(llama):
    rewrite(llama, lambda tensors: {**tensors, "model.norm.weight": tensors["model.norm.weight"] / 0.0})
    refused(llama, "not finite")


def test_tied_output_weights_need_not_be_in_the_file(tmp_path):
    folder = save_llm(tmp_path / "tied", "llama", tie_word_embeddings=True)
    assert "lm_head.weight" not in safetensors.torch.load_file(folder / "model.safetensors")
    llm, _ = load_language_model(folder)
    assert torch.equal(llm.get_output_embeddings().weight, llm.get_input_embeddings().weight)


def test_a_backbone_that_lacks_a_layer_is_refused(tmp_path):
    config = transformers.ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    folder = save_backbone(tmp_path / "resnet", config)
    rewrite(folder, lambda tensors: {key: tensor for key, tensor in tensors.items() if "stages.1" not in key})
    with pytest.raises(InputError, match=r"weights of \S+resnet lack encoder\.stages\.1\.\S+ \(\d+ missing\)"):
        load_encoder(folder)


# ---- files ----


def test_a_git_lfs_pointer_is_named(llama):
    (llama / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    refused(llama, r"model\.safetensors is a pointer of git-lfs")


def test_a_pointer_in_place_of_the_tokenizer_is_named(llama):
    (llama / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    refused(llama, r"tokenizer\.json is a pointer of git-lfs")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_file_that_is_cut_off_or_empty_is_named(file, share, llama):
    content = (llama / file).read_bytes()
    (llama / file).write_bytes(content[: int(share * len(content))])
    refused(llama, rf"{file} is (cut off or damaged|empty)")


def test_a_missing_shard_is_named(llama):
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (llama / "model.safetensors").rename(llama / "model-00001-of-00002.safetensors")
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(llama, "cannot be loaded")


def test_a_quantised_checkpoint_without_its_package_is_refused(llama):
    set_json(llama / "config.json", quantization_config={"quant_method": "awq", "bits": 4})
    refused(llama, r"cannot be loaded \(.+\)")


def test_an_adapter_is_told_from_a_model(base_models, tmp_path):
    small_model(base_models).save_adapter(GENERIC, tmp_path / "adapter")
    refused(tmp_path / "adapter", r"holds an adapter of base_models/llm \(adapter_config\.json\)")
    with pytest.raises(InputError, match="holds an adapter"):
        load_encoder(tmp_path / "adapter")
    with pytest.raises(InputError, match="holds an adapter"):
        load_tokenizer(tmp_path / "adapter")


def test_an_adapter_beside_a_whole_model_is_not_taken_in(llama):
    (llama / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    refused(llama, r"holds an adapter \(adapter_config\.json\)")


def test_the_trained_model_of_a_run_is_told_from_a_checkpoint(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "run" / "model" / "shared.safetensors")
    refused(tmp_path / "run" / "model", "a run of this project trained")
    refused(tmp_path / "run", "a run of this project trained")


def test_a_file_instead_of_its_folder_is_named(stored_llama):
    refused(stored_llama / "model.safetensors", "is a file")


def test_weights_without_a_configuration_are_named(base_models, llama):
    (llama / "config.json").unlink()
    refused(llama, r"holds no config\.json")
    safetensors.torch.save_file({"a": torch.zeros(1)}, llama.parent / "model.safetensors")
    shutil.copytree(base_models / "llm", llama.parent / "inner")
    refused(llama.parent, r"holds no config\.json; .*perhaps one of its folders inner")


@pytest.mark.parametrize("name", ["/no/such/folder", "./no/folder", "no/folder"])
def test_a_name_that_is_nowhere_is_named(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", name == "no/folder")
    with pytest.raises(InputError, match=rf"LLM: {name} is neither a folder here nor a model in the local cache"):
        load_language_model(name)


def test_a_cached_hub_model_is_looked_at_like_a_folder(stored_llama, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--some--llama", "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(stored_llama, repository / "snapshots" / commit)
    assert load_language_model("some/llama")[0].name_or_path == "some/llama"
    weights = repository / "snapshots" / commit / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"model\.safetensors is cut off or damaged"):
        load_language_model("some/llama")


# ---- nothing is unpickled, no code of a checkpoint runs ----


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: pathlib.Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


@pytest.mark.parametrize("safe_too", [True, False])
def test_a_pickle_is_never_opened(safe_too, llama, tmp_path):
    (llama / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    if safe_too:
        load_language_model(llama)
    else:
        (llama / "model.safetensors").unlink()
        refused(llama, r"holds no \.safetensors weights")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("known", [True, False])
def test_code_in_a_checkpoint_never_runs(known, llama, tmp_path):
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'mark')!r}).touch()\n"
    (llama / "own.py").write_text(code)
    (llama / "custom_generate").mkdir()
    (llama / "custom_generate" / "generate.py").write_text(code + "def generate(model, **kwargs): pass\n")
    places = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
    set_json(llama / "config.json", auto_map=places, **({} if known else {"model_type": "own"}))
    set_json(llama / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.T", None]})
    if known:
        load_language_model(llama)
    else:
        refused(llama, "wants to run code of its own, which is never done here")
    assert not (tmp_path / "mark").exists()


def test_no_source_file_opens_pickles_or_trusts_code(repository):
    for path in (*repository.glob("fedmrg_core/**/*.py"), *repository.glob("notebooks/*.py")):
        text = path.read_text(encoding="utf-8").replace("safetensors.torch.load", "")
        for word in ("torch.load", "import pickle", "trust_remote_code=True", "use_safetensors=False"):
            assert word not in text, f"{path}: {word}"


def test_everything_is_loaded_through_one_function(repository):
    """Where a model is read elsewhere, nobody asks whether all its weights were there."""
    found = [
        path.name
        for path in (*repository.glob("fedmrg_core/**/*.py"), *repository.glob("notebooks/*.py"))
        if "from_pretrained(" in path.read_text(encoding="utf-8").replace("nn.Embedding.from_pretrained(", "")
    ]
    assert sorted(found) == ["adapters.py", "pretrained.py"]  # the former in a docstring


def test_a_configuration_alone_needs_no_weights(llama):
    (llama / "model.safetensors").unlink()
    assert load_configuration(llama, "LLM", weights=False).hidden_size == 32
