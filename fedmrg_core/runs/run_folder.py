"""The run folder (contract 4): everything one run leaves behind, every file either whole or not there.

A figure or a table is a pure function of run folders, so nothing in them depends on where the repository lies: no
absolute path is written.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedmrg_core.files.code_state import source_state
from fedmrg_core.files.stored_tables import cell_text
from fedmrg_core.files.whole_files import atomic_file, write_text
from fedmrg_core.runs.arithmetic import arithmetic_of

if TYPE_CHECKING:
    from torch import Tensor


class RunFolder:
    """One run's folder with atomic writers; every `name` is relative to it.

    Args:
        path: the folder, see :func:`fedmrg_core.paths.run_folder`; made when it is not there.
    """

    def __init__(self, path: pathlib.Path | str) -> None:
        self.path = pathlib.Path(path)
        self.path.mkdir(parents=True, exist_ok=True)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    def write_json(self, name: str, content: Any) -> pathlib.Path:
        """Write JSON.

        Raises:
            ValueError: a number is NaN or infinite, which JSON cannot say.
        """
        write_text(self / name, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return self / name

    def write_csv(
        self, name: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
    ) -> pathlib.Path:
        """Write rows as CSV; NaN and None become empty cells, lines end with a single newline.

        Args:
            name: the file.
            rows: one mapping a row.
            columns: the header; the keys of the first row if not given. A row may lack a column.

        Raises:
            ValueError: there is neither a row nor a header, or a row has a key that is no column.
        """
        if columns is None and not rows:
            raise ValueError(f"{name}: a table without rows needs its columns named.")
        header = list(columns) if columns is not None else list(rows[0])
        with atomic_file(self / name) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, header, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        return self / name

    def write_safetensors(
        self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> pathlib.Path:
        """Write tensors (any shape) in the safetensors format."""
        from safetensors.torch import save_file

        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        with atomic_file(self / name) as temporary:
            save_file(plain, temporary, dict(metadata or {}))
        return self / name

    def write_manifest(
        self, *, data_fingerprint: str, seeds: Mapping[str, int], wall_seconds: float, **further: Any
    ) -> pathlib.Path:
        """Write ``manifest.json``: what is needed to make this run again, and what it cost.

        Args:
            data_fingerprint: hash of the prepared studies that the run read.
            seeds: root seeds by name.
            wall_seconds: duration of the run in seconds, over all sittings of a resumed run.
            further: plain values of the caller, added as they are.
        """
        content = {
            **source_state(),
            "data_fingerprint": data_fingerprint,
            "seeds": dict(seeds),
            "wall_seconds": round(wall_seconds, 3),
            "peak_memory_bytes": peak_memory(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processors": os.cpu_count(),
            "gpu": used_gpu(),
            "arithmetic": arithmetic_of(),
            "packages": installed_packages(),
            **further,
        }
        return self.write_json("manifest.json", content)


def peak_memory() -> dict[str, int]:
    """Largest resident size in bytes of this process and of its largest finished child."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    scopes = {"process": resource.RUSAGE_SELF, "largest_child": resource.RUSAGE_CHILDREN}
    return {name: resource.getrusage(who).ru_maxrss * unit for name, who in scopes.items()}


def used_gpu() -> dict[str, str | int] | None:
    """Name and peak memory, in bytes of tensors, of the GPU that this process computed on; None on the CPU."""
    torch = sys.modules.get("torch")  # imported only by what computes
    if torch is None or not torch.cuda.is_initialized():
        return None
    return {"name": torch.cuda.get_device_name(), "peak_memory_bytes": torch.cuda.max_memory_allocated()}


def installed_packages() -> dict[str, str]:
    """Version of every installed distribution, by lower-case name; of two, that which is imported: the first found."""
    found: dict[str, str] = {}
    for item in importlib.metadata.distributions():
        found.setdefault(item.metadata["Name"].lower(), item.version)
    return dict(sorted(found.items()))


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return cell_text(value)
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
