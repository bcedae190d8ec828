"""Every test runs offline, on one thread, from the repository's root."""

import contextlib
import gc
import os
import pathlib
import shutil
import sys

import pytest
from hypothesis import settings

# Set before any test module imports torch, transformers or flwr.
for name, value in {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}.items():
    os.environ.setdefault(name, value)

# Millions of objects of imported libraries are looked through again and again: a twelfth of the tests' time.
gc.set_threshold(50_000, 20, 10)

# The same examples every time, so that a run of the tests says something of the code alone; others are drawn with
# `pytest --hypothesis-profile=default`.
settings.register_profile("same-examples", derandomize=True, database=None)
settings.load_profile("same-examples")

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """What a test draws without a seed of its own does not depend on the tests that ran before it in its process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def base_models(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Base models as `small_model` builds them, once a process; a test that changes some copies them."""
    from small_model import small_base_models

    return small_base_models(tmp_path_factory.mktemp("base") / "models")


@pytest.fixture(scope="session")
def stored_llama(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A LLaMA as people publish it, once a process; for one to change there is `llama`."""
    from checkpoint_families import save_llm

    return save_llm(tmp_path_factory.mktemp("stored") / "llama", "llama")


@pytest.fixture
def llama(stored_llama: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A LLaMA that a test may spoil."""
    return pathlib.Path(shutil.copytree(stored_llama, tmp_path / "llama"))


@pytest.fixture(scope="session")
def small_phantom(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A prepared phantom with 6 studies to train on at each site, once a process."""
    from fedmrg_core.data.prepared import prepare

    folder = tmp_path_factory.mktemp("phantom") / "prepared"
    prepare("phantom", None, folder, 32, seed=0, train=6, validation=3, test=2)
    return folder


@pytest.fixture(scope="module")
def workspace(
    base_models: pathlib.Path, small_phantom: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """A module's own folder for runs, with base models and a prepared phantom as everywhere."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copytree(base_models, folder / "base_models")
    shutil.copytree(small_phantom, folder / "prepared")
    return folder


@pytest.fixture
def meteor_asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """METEOR without its Java, which takes seconds to start: the lines of every start, all answered alike."""
    from fedmrg_core.metrics import meteor

    starts: list[list[str]] = []

    def java_beside(lines: list[str]) -> contextlib.nullcontext:
        starts.append(list(lines))
        return contextlib.nullcontext(lambda: "5 5 2 2 3 3 2 2 0 0 0 0 0 0 0 0 0 0 0 0 1 5 5\n" * len(lines))

    monkeypatch.setattr(meteor, "java_beside", java_beside)
    return starts


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list:
    """The arrays of every update that goes up, by key, in the order in which clients train."""
    from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

    from fedmrg_core.federation import grid

    found, carry = [], grid._over_the_wire

    def watch(message):
        arrived = carry(message)
        if arrived.metadata.message_type == "train" and arrived.metadata.reply_to_message_id:
            content = recorddict_from_proto(recorddict_to_proto(arrived.content))
            found.append({key: array.numpy().astype(float) for key, array in content["arrays"].items()})
        return arrived

    monkeypatch.setattr(grid, "_over_the_wire", watch)
    return found


@pytest.fixture
def llm():
    """A LLaMA of two layers, 32 wide, with fresh weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=50
    )
    return transformers.LlamaForCausalLM(config)
