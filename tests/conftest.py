"""Every test runs offline, on one thread, from the repository's root."""

import os
import pathlib
import sys

import pytest

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
