"""The HTML report: the figures, the measures and the executed notebooks of one run, in one folder of plain pages."""

from __future__ import annotations

import base64
import csv
import html
import os
import pathlib
import urllib.parse
from collections.abc import Sequence

from fedmrg_core.errors import InputError
from fedmrg_core.run_folder import write_text

# The measures of the front page; everything else stands in metrics.csv, which the page links.
FRONT_PAGE_METRICS = ("bleu_4", "meteor", "rouge_l", "cider", "clinical_f1_example_14_uncertain_negative")

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; } figure { margin: 2rem 0; } figcaption, .note { color: #555; }
table { border-collapse: collapse; } th, td { padding: .2rem .8rem; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
"""


def write_html_report(run: pathlib.Path, notebooks: Sequence[pathlib.Path], output: pathlib.Path) -> pathlib.Path:
    """Write ``output`` and, beside it, one page for each executed notebook; pictures are embedded.

    Args:
        run: the run folder; its ``figures/*.png`` and ``metrics.csv`` are shown.
        notebooks: executed notebooks in reading order.
        output: the front page, e.g. ``report/index.html``.

    Raises:
        InputError: the run folder has no figures, or a notebook is missing.
    """
    figures = sorted((run / "figures").glob("*.png"))
    if not figures:
        raise InputError(f"{run / 'figures'} holds no PNG; run notebook 08_figures for this run first.")
    pages = [_notebook_page(path, output.parent / "notebooks") for path in notebooks]
    sections = [
        f"<h1>FedMRG companion: {html.escape(' / '.join(run.parts[-4:]))}</h1>",
        '<p class="note">Unless the data is named otherwise, every image and report is of PhantomCXR, a phantom: '
        "numbers on it say nothing about patients.</p>",
        _files(run, output.parent),
        _metrics_table(run / "metrics.csv"),
        "<h2>Figures</h2>",
        *(_figure(path, output.parent) for path in figures),
        "<h2>Notebooks as they were run</h2>",
        "<ul>",
        *(f"<li>{_link(page, output.parent, page.stem)}</li>" for page in pages),
        "</ul>",
    ]
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>FedMRG companion</title><style>{STYLE}'
    write_text(output, head + "</style></head><body>\n" + "\n".join(sections) + "\n</body></html>\n")
    return output


def _notebook_page(notebook: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    import nbconvert
    import nbformat

    from fedmrg_core.committed_notebooks import stripped_outputs

    if not notebook.is_file():
        raise InputError(f"{notebook}: no such executed notebook; run it first with `fedmrg run`.")
    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs = stripped_outputs(cell)
    exporter = nbconvert.HTMLExporter(template_name="lab", embed_images=True)
    body, _ = exporter.from_notebook_node(content, {"metadata": {"name": notebook.stem}})
    page = folder / f"{notebook.stem}.html"
    write_text(page, body)
    return page


def _files(run: pathlib.Path, start: pathlib.Path) -> str:
    names = ("config.yaml", "rounds.csv", "ledger.csv", "predictions.csv", "metrics.csv", "manifest.json")
    links = [_link(run / name, start, name) for name in names if (run / name).is_file()]
    return f"<p>Stored results: {', '.join(links)}.</p>" if links else ""


def _metrics_table(path: pathlib.Path) -> str:
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["scope"] in ("home", "unseen")]
    lines = []
    for scope, adapter, system in dict.fromkeys((row["scope"], row["adapter"], row["system"]) for row in rows):
        same = [row for row in rows if (row["scope"], row["adapter"], row["system"]) == (scope, adapter, system)]
        values = {row["metric"]: row for row in same}
        cells = "".join(_number(values.get(metric)) for metric in FRONT_PAGE_METRICS)
        lines.append(f"<tr><td>{html.escape(' '.join((scope, adapter, system)))}</td>{cells}</tr>")
    header = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *FRONT_PAGE_METRICS))
    return f"<h2>Measures on the test sets, with floors</h2><table><tr>{header}</tr>{''.join(lines)}</table>"


def _number(row: dict[str, str] | None) -> str:
    if row is None or not row["value"]:
        return "<td></td>"
    interval = f" [{float(row['low']):.3f}, {float(row['high']):.3f}]" if row.get("low") and row.get("high") else ""
    return f'<td class="number">{float(row["value"]):.3f}{interval}</td>'


def _figure(path: pathlib.Path, start: pathlib.Path) -> str:
    picture = base64.b64encode(path.read_bytes()).decode()
    others = [path.with_suffix(suffix) for suffix in (".pdf", ".svg", ".csv")]
    links = ", ".join(_link(other, start, other.suffix[1:].upper()) for other in others if other.is_file())
    name = html.escape(path.stem.replace("_", " "))
    picture_tag = f'<img alt="{name}" src="data:image/png;base64,{picture}">'
    return f"<figure>{picture_tag}<figcaption>{name} ({links or 'PNG only'})</figcaption></figure>"


def _link(path: pathlib.Path, start: pathlib.Path, text: str) -> str:
    target = pathlib.PurePath(os.path.relpath(path, start)).as_posix()
    address = urllib.parse.quote(target, safe="/,=+ ")  # a folder called A%2FB is none called A/B
    return f'<a href="{html.escape(address)}">{html.escape(text)}</a>'
