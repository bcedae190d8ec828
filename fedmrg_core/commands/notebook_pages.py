"""An executed notebook as one plain page that needs nothing else: no script, no style and no font from elsewhere."""

from __future__ import annotations

import base64
import html
import io
import os
import pathlib
import re
from typing import TYPE_CHECKING

from fedmrg_core.commands.committed_notebooks import stripped_outputs, without_paths
from fedmrg_core.commands.notebooks import heading
from fedmrg_core.errors import InputError
from fedmrg_core.files.whole_files import write_text

if TYPE_CHECKING:
    from nbformat import NotebookNode

INJECTED = "injected-parameters"
# A page runs no script and asks no other machine for anything, whatever stands in it.
POLICY = "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'"
# What a table or a line of text needs. Pictures are outputs of their own.
TAGS = "a b br caption code div em h1 h2 h3 h4 hr i li ol p pre small span strong table tbody td th thead tr ul".split()
ATTRIBUTES = {"*": ["class", "colspan", "rowspan", "style"]}
LEFT_OUT = "What this cell printed or drew is left out: no study of this data set must be published.\n"
_NO_TEXT = re.compile(r"<(style|script)\b.*?(</\1\s*>|$)", re.DOTALL | re.IGNORECASE)
_FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.DOTALL)
# Matplotlib knows no brackets of a given size, and wants braces around a fraction's parts.
_SPELLINGS = ((r"\\[bB]igg?(?![a-zA-Z])", ""), (r"\\frac(\w)(\w)", r"\\frac{\1}{\2}"))
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; } .block { display: block; margin: 1rem 0; } img.formula { vertical-align: middle; }
pre { overflow-x: auto; font-size: 13px; } div.input pre { background: #f5f5f5; padding: .5rem; }
table { border-collapse: collapse; font-size: 14px; } th, td { padding: .2rem .8rem; text-align: right; }
div.prompt, a.anchor-link { display: none; }
"""


def read_executed(path: pathlib.Path) -> NotebookNode:
    """An executed notebook.

    Raises:
        InputError: there is none, or the file is no notebook.
    """
    import nbformat

    if not path.is_file():
        raise InputError(f"{path}: no such executed notebook; run it first with `fedmrg run`.")
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not an executed notebook; run it again with `fedmrg run`.") from error


def write_notebook_page(notebook: NotebookNode, page: pathlib.Path, private: bool) -> None:
    """Write one notebook with its code, outputs and formulas.

    Folders of this machine stay out, those that were given as parameters as well.

    Args:
        notebook: see `read_executed`; it is changed.
        page: the HTML file.
        private: leave out what cells printed and drew, in which notebooks show reports and single studies.
    """
    import nbconvert
    from pygments.formatters import HtmlFormatter

    folders = _given_folders(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            outputs = [_harmless(without_paths(output, folders)) for output in stripped_outputs(cell)]
            cell.outputs = [_nothing()] if private and outputs else outputs
            if INJECTED in cell.metadata.get("tags", []):
                cell.source = without_paths(cell.source, folders)
        elif cell.cell_type == "markdown":
            cell.source = _FORMULA.sub(_as_picture, cell.source)
    notebook.metadata.pop("widgets", None)  # states of bars, which want a script
    exporter = nbconvert.HTMLExporter(template_name="basic", embed_images=True)
    body, _ = exporter.from_notebook_node(notebook)
    style = _STYLE + HtmlFormatter().get_style_defs(".highlight")
    write_text(page, html_page(heading(notebook, page.stem), style, body))


def html_page(title: str, style: str, body: str) -> str:
    """A whole page; the title is escaped, the body is HTML."""
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    head = f'<head><meta charset="utf-8">{policy}<title>{html.escape(title)}</title><style>{style}</style></head>'
    return f'<!doctype html><html lang="en">{head}<body>\n{body}\n</body></html>\n'


def _given_folders(notebook: NotebookNode) -> dict[str, str]:
    """The folders of this machine among the parameters, and what stands for each: its name alone."""
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    paths = [value for value in given.values() if isinstance(value, str) and os.path.isabs(value)]
    return {path: f".../{pathlib.PurePath(path).name}" for path in paths}


def _harmless(output: NotebookNode) -> NotebookNode:
    """An output whose HTML has tags of `TAGS` alone: a report or a site's name may have come with others."""
    from nbconvert.preprocessors.sanitize import SanitizeHTML

    data = output.get("data", {})
    if "text/html" in data:  # what stands inside these two is no text to show
        data["text/html"] = _NO_TEXT.sub("", data["text/html"])
    return SanitizeHTML(tags=TAGS, attributes=ATTRIBUTES, strip=True).sanitize_code_outputs([output])[0]


def _nothing() -> NotebookNode:
    """What stands in place of a cell's outputs."""
    import nbformat

    return nbformat.v4.new_output("stream", text=LEFT_OUT)


def _as_picture(match: re.Match[str]) -> str:
    """A formula drawn by Matplotlib, or its TeX as code where that cannot draw it."""
    from matplotlib import mathtext

    written = (match["block"] or match["inline"]).strip()
    formula = written
    for pattern, spelling in _SPELLINGS:
        formula = re.sub(pattern, spelling, formula)
    buffer = io.BytesIO()
    try:
        mathtext.math_to_image(f"${' '.join(formula.split())}$", buffer, format="svg")
    except ValueError:
        return f"`{written}`"
    picture = base64.b64encode(buffer.getvalue()).decode()
    kind = "formula block" if match["block"] else "formula"
    return (
        f'<img class="{kind}" alt="{html.escape(" ".join(written.split()))}" src="data:image/svg+xml;base64,{picture}">'
    )
