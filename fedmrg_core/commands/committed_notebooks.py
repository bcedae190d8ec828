"""The .ipynb beside each percent .py: the same cells, with the outputs of a reference run and nothing that changes by
the hour (no timestamps, no progress bars, no widget states, no absolute paths).

The direction is one way, from .py to .ipynb: an executed notebook is never written back into its source.
"""

from __future__ import annotations

import base64
import io
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedmrg_core.commands.notebooks import NOTEBOOKS, read_notebook
from fedmrg_core.data.publishing import shows_studies
from fedmrg_core.errors import InputError
from fedmrg_core.files.whole_files import write_text

if TYPE_CHECKING:
    from nbformat import NotebookNode

PNG = "image/png"
WIDGET = "application/vnd.jupyter.widget-view+json"
PAPERMILL_TAGS = {"injected-parameters", "papermill-error-cell-tag"}


def sync_notebook(source: pathlib.Path, executed: pathlib.Path | None = None) -> pathlib.Path:
    """Write ``NN_name.ipynb`` beside ``NN_name.py``.

    Args:
        source: the percent file.
        executed: an executed notebook to take the outputs from; without one, outputs already there are kept for as
            long as no cell has changed.

    Raises:
        InputError: the executed notebook has other cells than the source, or shows data that must not be published.
    """
    import nbformat

    notebook = read_notebook(source)
    target = source.with_suffix(".ipynb")
    if executed is not None:
        _take_outputs(notebook, executed)
    elif target.is_file() and not differing_cells(source):
        _take_outputs(notebook, target)
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
    write_text(target, nbformat.writes(notebook) + "\n")
    return target


def differing_cells(source: pathlib.Path) -> list[str]:
    """How the cells of ``NN_name.ipynb`` differ from those of ``NN_name.py``, one sentence each; empty when equal."""
    target = source.with_suffix(".ipynb")
    if not target.is_file():
        return [f"{target} is missing."]
    expected, found = (_cells(read_notebook(path)) for path in (source, target))
    if len(expected) != len(found):
        return [f"{target} has {len(found)} cells, {source.name} has {len(expected)}."]
    pairs = enumerate(zip(expected, found, strict=True))
    return [f"{target}: cell {number} is not that of {source.name}." for number, (one, other) in pairs if one != other]


def sources() -> list[pathlib.Path]:
    """Every percent notebook of the repository, in reading order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]*_*.py"))


def stripped_outputs(cell: NotebookNode) -> list[NotebookNode]:
    """The outputs of a code cell without progress bars, widgets and absolute paths."""
    kept = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream" and output.name == "stderr":  # progress bars and their timings
            continue
        if WIDGET in output.get("data", {}):
            continue
        if "execution_count" in output:
            output.execution_count = None
        output = without_paths(output)
        if PNG in output.get("data", {}):
            output.data[PNG] = _with_palette(output.data[PNG])
        if "metadata" in output:
            output.metadata = {}
        kept.append(output)
    return kept


def _take_outputs(notebook: NotebookNode, executed: pathlib.Path) -> None:
    import nbformat

    try:
        run = nbformat.read(executed, as_version=4)
    except (OSError, nbformat.reader.NotJSONError) as error:
        raise InputError(f"{executed}: no executed notebook is there; run it with `fedmrg run` first.") from error
    data = run.metadata.get("papermill", {}).get("parameters", {}).get("data", "phantom")
    if not shows_studies(data):
        raise InputError(
            f"{executed}: its outputs show studies of {data!r}, which must not be published; run it on data=phantom."
        )
    cells = [cell for cell in run.cells if not PAPERMILL_TAGS & set(cell.metadata.get("tags", []))]
    if [cell.source for cell in cells] != [cell.source for cell in notebook.cells]:
        raise InputError(f"{executed}: its cells are not those of the source; run the notebook again before the sync.")
    number = 0
    for cell, done in zip(notebook.cells, cells, strict=True):
        if cell.cell_type == "code":
            number += 1
            cell.outputs = stripped_outputs(done)
            cell.execution_count = number if done.get("execution_count") else None


def _cells(notebook: NotebookNode) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(cell.cell_type, cell.source, tuple(cell.metadata.get("tags", []))) for cell in notebook.cells]


def _with_palette(picture: str) -> str:
    """A PNG in base64 with 256 colours: a third of the bytes, for plots and grey images as good as all of them."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        if image.mode == "P":
            return picture
        colours = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    flat.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def without_paths(value: Any, further: Mapping[str, str] | None = None) -> Any:
    """Replace the folders of this machine in every text of a nested output.

    Args:
        value: a text, or a mapping or list of outputs, which is changed.
        further: other folders, and what stands for each.
    """
    if isinstance(value, str):
        value = re.sub(rf"{re.escape(tempfile.gettempdir())}/ipykernel_\d+/\d+\.py", "<cell>", value)
        folders = {os.getcwd(): ".", sys.prefix: "<environment>", str(pathlib.Path.home()): "~", **(further or {})}
        for folder, stand_in in sorted(folders.items(), key=lambda item: -len(item[0])):
            if len(folder) > 1:
                value = value.replace(folder, stand_in)
        return value
    if isinstance(value, dict):
        for key in value:
            value[key] = without_paths(value[key], further)
    elif isinstance(value, list):
        value[:] = [without_paths(item, further) for item in value]
    return value
