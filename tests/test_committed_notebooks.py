"""Committed notebooks: how they are written, their order, their outputs."""

import ast
import base64
import io
import pathlib

import nbformat
import numpy
import pytest
from PIL import Image

from fedmrg_core.commands.committed_notebooks import sources, stripped_outputs
from fedmrg_core.commands.notebooks import PARAMETERS_TAG, read_notebook

NOTEBOOKS = sorted((pathlib.Path(__file__).resolve().parent.parent / "notebooks").glob("*.py"))
LONGEST_CELL = 10  # lines of code that are not blank; imports and parameters may take more


def only_imports(source: str) -> bool:
    return all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in ast.parse(source).body)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_is_short_and_explained_before(path):
    before = None
    for cell in read_notebook(path).cells:
        if cell.cell_type == "code":
            lines = [line for line in cell.source.splitlines() if line.strip()]
            assert before == "markdown", f"no explanation before: {lines[0]}"
            may_be_long = PARAMETERS_TAG in cell.metadata.get("tags", []) or only_imports(cell.source)
            assert may_be_long or len(lines) <= LONGEST_CELL, f"{len(lines)} lines, split the cell: {lines[0]}"
        before = cell.cell_type


def test_every_notebook_is_kept_with_its_copy_and_in_reading_order(repository, monkeypatch):
    monkeypatch.chdir(repository)
    names = [path.stem for path in sources()]
    assert names == [path.stem for path in NOTEBOOKS]
    place = names.index("03b_customised_prompts")
    assert (names[place - 1], names[place + 1]) == ("03_diagnosis_prompts", "04_dual_adapters")
    place = names.index("05b_one_round_by_hand")  # the step between the pieces and the federation
    assert (names[place - 1], names[place + 1]) == ("05_base_models", "06_federated_run")


def test_pictures_of_a_committed_notebook_are_small_and_look_the_same():
    ramp = numpy.linspace(0, 255, 300 * 200).reshape(200, 300).astype(numpy.uint8)
    pixels = numpy.stack([ramp] * 3 + [numpy.full_like(ramp, 255)], axis=2)
    pixels[:40, :40] = (0, 114, 178, 255)  # a line of a plot
    pixels[-40:, -40:] = 0  # transparent: white in a notebook
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    given = base64.b64encode(buffer.getvalue()).decode()
    output = nbformat.v4.new_output("display_data", {"image/png": given})
    (kept,) = stripped_outputs(nbformat.v4.new_code_cell(outputs=[output]))
    with Image.open(io.BytesIO(base64.b64decode(kept.data["image/png"]))) as small:
        assert small.mode == "P"
        seen = numpy.asarray(small.convert("RGB")).astype(int)
    pixels[-40:, -40:] = 255
    assert abs(seen - pixels[:, :, :3]).max() <= 4
    again = nbformat.v4.new_code_cell(outputs=[nbformat.from_dict(kept)])
    assert stripped_outputs(again)[0].data["image/png"] == kept.data["image/png"]
