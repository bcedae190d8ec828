"""The adapters of a chosen model on disk, as PEFT folders: the shared ones, and what is each hospital's own."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Protocol

import transformers

from fedmrg_core.data.site_names import path_part
from fedmrg_core.files.whole_files import partial_folder, replace_folder
from fedmrg_core.runs.methods import Method, Ownership


class HoldsAdapters(Protocol):
    """What a model whose adapters are saved has."""

    method: Method
    tokenizer: transformers.PreTrainedTokenizerBase

    @property
    def adapters(self) -> Sequence[str]:
        """The adapters it trains."""

    def adapter_owner(self, name: str) -> Ownership | None:
        """Who owns an adapter that can be saved; None if there is none of this name."""

    def save_adapter(self, name: str, folder: pathlib.Path) -> None:
        """Save one adapter as a PEFT folder that opens without this package."""


class AdapterSaver:
    """Writes the adapters of a model that is loaded.

    Args:
        model: in memory, with the tensors to save loaded.
        base_models: the folder whose path PEFT and transformers note in what they write; it is taken out again.
    """

    def __init__(self, model: HoldsAdapters, base_models: pathlib.Path) -> None:
        self.model, self.base_models = model, base_models

    def save_shared(self, folder: pathlib.Path) -> None:
        """The adapters that are not personal as PEFT folders, and the tokenizer."""
        for name, owner in self._adapters().items():
            if owner is not Ownership.PERSONAL:
                self.model.save_adapter(name, folder / name)
        self.model.tokenizer.save_pretrained(folder / "tokenizer")
        self._without_paths(folder)

    def save_own(self, folder: pathlib.Path, client: str) -> None:
        """The client's own adapters as PEFT folders <adapter>/<client>.

        With `client.fine_tuning_epochs` every adapter is the client's own.
        """
        tuned = self.model.method.client.fine_tuning_epochs > 0
        for name, owner in self._adapters().items():
            if tuned or owner is Ownership.PERSONAL:
                place = folder / name.removesuffix("_adapter") / path_part(client)
                partial = partial_folder(place)
                self.model.save_adapter(name, partial)
                self._without_paths(partial)
                replace_folder(partial, place)

    def _adapters(self) -> dict[str, Ownership]:
        """The adapters that can be saved, and who owns them."""
        owners = {name: self.model.adapter_owner(name) for name in self.model.adapters}
        return {name: owner for name, owner in owners.items() if owner is not None}

    def _without_paths(self, folder: pathlib.Path) -> None:
        """PEFT and transformers note where the LLM lay on this machine."""
        for path in (*folder.rglob("*.json"), *folder.rglob("*.md")):
            text = path.read_text(encoding="utf-8")
            if str(self.base_models) in text:
                path.write_text(text.replace(str(self.base_models), "base_models"), encoding="utf-8")
