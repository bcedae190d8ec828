"""Outputs of committed notebooks."""

import base64
import io

import nbformat
import numpy
from PIL import Image

from fedmrg_core.committed_notebooks import stripped_outputs


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
