"""The names of a model's adapters and of its ways to write, and which modules of a row make up an adapter."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedmrg_core.runs.methods import Ownership

GENERIC, SPECIALISED = "generic_adapter", "specialised_adapter"
BASE = "base_model"  # the LLM as it came, without any adapter
COPY = "generic_copy"  # FedDAT's frozen copy of the generic adapter: part of no module, it never leaves the process
BOTH = "both_adapters"  # half of each low-rank update: a way to write, no third adapter [ours]
MIXTURE = "mixture"  # FedDAT's dual adapter teacher: half of the specialised update and half of the copy's [related]
# The modules of a row that make up each adapter, and what the names of the parts' tensors end in.
ADAPTER_MODULES = {
    GENERIC: {GENERIC: "", "generic_adapter_a": ".lora_A", "generic_adapter_b": ".lora_B"},
    SPECIALISED: {SPECIALISED: ""},
}
HALVES = {BOTH: (GENERIC, SPECIALISED), MIXTURE: (SPECIALISED, COPY)}


def answer_label(name: str) -> str:
    """What tables call an adapter, or BOTH: generic, specialised, both."""
    return name.partition("_")[0]


def adapter_of(module: str) -> str | None:
    """The adapter that a module of a row is, or is a part of; None for other modules."""
    return next((name for name, parts in ADAPTER_MODULES.items() if module in parts), None)


def adapters_made_of(modules: Collection[str]) -> list[str]:
    """The adapters that a row's modules make up, the generic one first."""
    return [name for name, parts in ADAPTER_MODULES.items() if parts.keys() & set(modules)]


def adapter_owner(name: str, owners: Mapping[str, Ownership]) -> Ownership | None:
    """Who owns an adapter: personal if a part of it is, else shared if a part is; None if there is none.

    Args:
        name: of the adapter.
        owners: of a row's modules.
    """
    found = {owners[module] for module in ADAPTER_MODULES[name] if module in owners}
    return next((owner for owner in (Ownership.PERSONAL, Ownership.SHARED, Ownership.FROZEN) if owner in found), None)
