"""Base models that the repository holds: taken whole and unchanged, or refused in one sentence."""

from __future__ import annotations

import json
import shutil

import pytest
from small_model import PROFILE, small_base_models

from fedmrg_core.data.sources import DATA_SOURCES
from fedmrg_core.errors import InputError
from fedmrg_core.paths import STORED_BASE_MODELS
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.tasks.reports.base_models import LOSS_STEPS, save_base_models
from fedmrg_core.tasks.reports.stored_base_models import (
    choose_models,
    is_built_here,
    store_base_models,
    stored_models,
    take_stored_models,
    write_making,
)

SIZES = PROFILE.base_models


@pytest.fixture
def built(tmp_path):
    """Base models as notebook 05 leaves them."""
    folder = small_base_models(tmp_path / "base_models" / "tiny" / "phantom")
    description = {"profile": SIZES.model_dump(mode="json"), "data": "phantom", "seed": 0, "corpus": "abc"}
    (folder / "description.json").write_text(json.dumps(description))
    write_making(folder, "phantom", "the command", seconds=3)
    return folder


@pytest.fixture
def stored(built, tmp_path):
    rewrite(built / "manifest.json", uncommitted_changes=False, commit="a" * 40)
    return store_base_models(built, "tiny", "phantom", tmp_path / "stored")


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_stored_is_taken_whole(stored, tmp_path):
    folder = tmp_path / "work" / "base_models" / "tiny" / "phantom"
    take_stored_models(stored, folder, SIZES, "phantom", 0)
    assert content(folder) == content(stored) and {"llm", "backbone"} <= {path.name for path in folder.iterdir()}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (
        manifest["command"] == "the command" and manifest["packages"]["torch"] and manifest["arithmetic"]["processor"]
    )
    assert not is_built_here(folder)
    (folder / "llm" / "config.json").write_text("{}")
    take_stored_models(stored, folder, SIZES, "phantom", 0)  # a copy that was changed is taken again
    assert content(folder) == content(stored)


def test_a_folder_of_ones_own_learns_from_the_same_corpus(stored, tmp_path):
    root = tmp_path / "stored"
    for data in ("phantom", "phantom-image0.5", "folder"):
        assert stored_models("tiny", data, root) == stored
    assert stored_models("tiny", "iu_xray", root) is None and stored_models("other", "phantom", root) is None
    take_stored_models(stored, tmp_path / "work", SIZES, "folder", 0)


def test_stored_or_fresh(stored, tmp_path):
    root = tmp_path / "stored"
    assert choose_models("stored", "tiny", "phantom", root) == stored
    assert choose_models("fresh", "tiny", "phantom", root) is None
    with pytest.raises(InputError, match="base_models is 'frsh'; expected one of stored, fresh"):
        choose_models("frsh", "tiny", "phantom", root)


@pytest.mark.parametrize(
    ("sizes", "seed", "sentence"),
    [
        ({"llm_width": 64}, 0, "made with llm_width 32, this run asks for 64; build them with BASE_MODELS=fresh"),
        ({}, 1, "made with seed 0, this run asks for 1; build them with BASE_MODELS=fresh"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(stored, tmp_path, sizes, seed, sentence):
    with pytest.raises(InputError, match=sentence):
        take_stored_models(stored, tmp_path / "work", SIZES.model_copy(update=sizes), "phantom", seed)
    assert not (tmp_path / "work").exists()


def test_another_version_of_the_corpus_is_refused(stored, tmp_path):
    rewrite(stored / "manifest.json", corpus_version="0")
    version = DATA_SOURCES["phantom"].version
    with pytest.raises(InputError, match=f"made with version of the corpus 0, this run asks for {version}"):
        take_stored_models(stored, tmp_path / "work", SIZES, "phantom", 0)


@pytest.mark.parametrize("damage", ["format", "no json", "missing file", "changed file", "further file"])
def test_damaged_models_are_refused(stored, tmp_path, damage):
    weights = stored / "llm" / "model.safetensors"
    match damage:
        case "format":
            rewrite(stored / "manifest.json", format=99)
            sentence = "has format 99; this code reads format 1"
        case "no json":
            (stored / "manifest.json").write_text("{")
            sentence = "is no manifest of base models"
        case "missing file":
            weights.unlink()
            sentence = "model.safetensors is not the file that manifest.json names"
        case "changed file":
            weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
            sentence = "model.safetensors is not the file that manifest.json names"
        case "further file":
            (stored / "llm" / "code.py").write_text("print()")
            sentence = "code.py is not the file that manifest.json names"
    with pytest.raises(InputError, match=f"{sentence}.*BASE_MODELS=fresh"):
        take_stored_models(stored, tmp_path / "work", SIZES, "phantom", 0)
    assert not (tmp_path / "work").exists()


def test_only_committed_models_that_were_built_here_are_stored(built, stored, tmp_path):
    rewrite(built / "manifest.json", uncommitted_changes=True)
    with pytest.raises(InputError, match="made with uncommitted changes"):
        store_base_models(built, "tiny", "phantom", tmp_path / "stored")
    copy = tmp_path / "copy"
    shutil.copytree(stored, copy)
    with pytest.raises(InputError, match="holds the stored base models themselves"):
        store_base_models(copy, "tiny", "phantom", tmp_path / "stored")
    with pytest.raises(InputError, match="holds no base models"):
        store_base_models(tmp_path / "nothing", "tiny", "phantom", tmp_path / "stored")
    assert is_built_here(built) and content(stored)


def test_loss_curves_are_kept(tmp_path):
    source = small_base_models(tmp_path / "source")
    import transformers

    llm = transformers.AutoModelForCausalLM.from_pretrained(source / "llm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source / "llm")
    backbone = transformers.AutoModel.from_pretrained(source / "backbone")
    losses = {"LLM": [2.0] * LOSS_STEPS + [1.0] * 5}
    save_base_models(tmp_path / "kept", llm, tokenizer, backbone, {}, losses)
    text = (tmp_path / "kept" / "losses.csv").read_text()
    assert text == f"model,step,loss\nLLM,{LOSS_STEPS},2.0\nLLM,{2 * LOSS_STEPS},1.0\n"


def test_the_models_of_profile_smoke_fit_it(tmp_path):
    """What the repository holds is what profile smoke asks for, whole and unchanged, and small."""
    stored, sizes = stored_models("smoke", "phantom"), load_profile("smoke").base_models
    assert stored is not None and stored.is_relative_to(STORED_BASE_MODELS)
    take_stored_models(stored, tmp_path / "models", sizes, "phantom", 0)
    assert sum(path.stat().st_size for path in stored.rglob("*") if path.is_file()) < 8 * 2**20
    manifest = json.loads((stored / "manifest.json").read_text())
    assert manifest["uncommitted_changes"] is False and "base_models=fresh" in manifest["command"]
    assert not [path for path in stored.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".py")]
