"""The HTML report of one run: what it is and how well it did, the figures, then every number and notebook."""

from __future__ import annotations

import base64
import html
import importlib
import os
import pathlib
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence

import pandas

from fedmrg_core.commands.measure_names import floor_name, measure_name
from fedmrg_core.commands.notebook_pages import html_page, read_executed, write_notebook_page
from fedmrg_core.commands.notebooks import heading
from fedmrg_core.commands.run_summary import RunSummary, summarise, with_interval
from fedmrg_core.data import publishing
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.stored_runs import Run, load_run
from fedmrg_core.evaluation.table_writers import ROLES
from fedmrg_core.files.stored_tables import read_table
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.paths import REPOSITORY
from fedmrg_core.tasks.reports.predictions import ADAPTER_NAMES

FIGURES = "figures"  # the folder of scripts, and of what they draw in a run folder
STORED = ("config.yaml", "rounds.csv", "ledger.csv", "predictions.csv", "metrics.csv", "manifest.json")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; } figure { margin: 2rem 0; } figcaption, .note { color: #555; } .result { font-size: 1.2rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .8rem; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } details { margin: .5rem 0; overflow-x: auto; }
"""


def write_html_report(run: pathlib.Path, notebooks: Sequence[pathlib.Path], output: pathlib.Path) -> RunSummary:
    """Write ``output`` and, beside it, one page for each executed notebook; pictures are embedded.

    The pages obey the data set's level (`fedmrg_core.data.publishing`): of any but "all" they show no report, no image,
    no single study, no figure of the user's own, and nothing that a notebook printed or drew. Numbers of few studies
    stay in, for they are of use at home; the front page then begins by saying that it must not be passed on.

    Args:
        run: the run folder of a finished and evaluated run.
        notebooks: executed notebooks in reading order.
        output: the front page, e.g. ``report/index.html``.

    Returns:
        What the front page begins with.

    Raises:
        InputError: a table of the run or a notebook is missing or unreadable, or the run has no figures. No page is
            written then.
    """
    finished = load_run(run)
    summary = summarise(finished)
    data = finished.configuration.data
    private, few = not publishing.shows_studies(data), _has_few_studies(finished)
    figures = sorted((run / FIGURES).glob("*.png"))
    if not figures:
        raise InputError(f"{run / FIGURES} holds no PNG; run notebook 08_figures for this run first.")
    if private:
        figures = [path for path in figures if path.stem in publishing.figures_of(data)]
    executed = {path: read_executed(path) for path in notebooks}
    start = output.parent
    pages = {start / "notebooks" / f"{path.stem}.html": content for path, content in executed.items()}
    links = [_link(page, start, heading(content, page.stem)) for page, content in pages.items()]
    for page, content in pages.items():
        write_notebook_page(content, page, private)
    sections = [
        f"<h1>FedMRG companion: {html.escape(summary.name)}</h1>",
        f"<p><b>{html.escape(_few_studies(finished))}</b></p>" if few else "",
        f'<p class="result">{html.escape(summary.sentence)}</p>',
        _table(summary.header, summary.rows),
        f'<p class="note">{html.escape(summary.note)}</p>',
        "<h2>Figures</h2>",
        *(_figure(path, start) for path in figures),
        "<h2>Every measure</h2>",
        *_all_measures(finished),
        "<h2>Notebooks as they were run</h2>",
        f'<p class="note">{html.escape(_left_out(finished))}</p>' if private else "",
        f"<ul>{''.join(f'<li>{link}</li>' for link in links)}</ul>" if links else "",
        "<h2>Stored results</h2>",
        f"<p>{', '.join(_link(run / file, start, file) for file in _stored(run, private))}</p>",
    ]
    write_text(output, html_page(f"FedMRG companion: {summary.name}", STYLE, "\n".join(filter(None, sections))))
    return summary


def _stored(run: pathlib.Path, private: bool) -> list[str]:
    """The tables to link to; answers to single studies are none of a page that may be passed on."""
    return [file for file in STORED if (run / file).is_file() and not (private and file == "predictions.csv")]


def _left_out(run: Run) -> str:
    return (
        f"Images and reports of {run.configuration.data} must not be published: no page of X-rays and no map of "
        "studies is here, and what the notebooks printed and drew stands in the executed notebooks alone."
    )


def _has_few_studies(run: Run) -> bool:
    """Whether some number on the page is of too few studies to be published."""
    data, path = run.configuration.data, run.folder / "rounds.csv"
    rounds = read_table(path, ("round", "client"), "make the run again") if path.is_file() else pandas.DataFrame()
    return publishing.has_small_cells(data, run.metrics) or publishing.has_small_clients(data, rounds)


def _few_studies(run: Run) -> str:
    return (
        f"Do not pass this page on: some of its numbers are of fewer than {publishing.SMALLEST_CELL} studies, and of "
        f"{run.configuration.data} only aggregates may be published."
    )


def _all_measures(run: Run) -> Iterator[str]:
    """A folded table for each test set: every measure of every answer and floor."""
    places = sorted(set(run.metrics["scope"]), key=lambda scope: ([*ROLES, scope].index(scope), scope))
    for place in places:
        rows = run.metrics[run.metrics["scope"] == place]
        title = f"{ROLES.get(place, place)}: {int(rows['studies'].max())} test studies"
        columns = {key: part.set_index("metric") for key, part in rows.groupby(["adapter", "system"], sort=False)}
        header = ["Measure", *(_answer_name(adapter, system) for adapter, system in columns)]
        body = [
            [measure_name(metric), *(_cell(table, metric) for table in columns.values())]
            for metric in dict.fromkeys(rows["metric"])
        ]
        yield f"<details><summary>{html.escape(title)}</summary>{_table(header, body)}</details>"


def _answer_name(adapter: str, system: str) -> str:
    return ADAPTER_NAMES.get(adapter, adapter) if system == "model" else floor_name(system)


def _cell(table: pandas.DataFrame, metric: str) -> str:
    return with_interval(metric, *table.loc[metric, ["value", "low", "high"]]) if metric in table.index else ""


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    first = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    lines = []
    for name, *cells in rows:
        numbers = "".join(f'<td class="number">{html.escape(cell)}</td>' for cell in cells)
        lines.append(f"<tr><td>{html.escape(name)}</td>{numbers}</tr>")
    return f"<table><tr>{first}</tr>{''.join(lines)}</table>"


def _figure(path: pathlib.Path, start: pathlib.Path) -> str:
    picture = base64.b64encode(path.read_bytes()).decode()
    others = [path.with_suffix(suffix) for suffix in (".pdf", ".svg", ".csv")]
    links = ", ".join(_link(other, start, other.suffix[1:].upper()) for other in others if other.is_file())
    name = html.escape(path.stem.replace("_", " "))
    text = html.escape(figure_caption(path.stem))
    picture_tag = f'<img alt="{name}" src="data:image/png;base64,{picture}">'
    caption = f"<b>{name.capitalize()}.</b> {text} ({links or 'PNG only'})"
    return f"<figure>{picture_tag}<figcaption>{caption}</figcaption></figure>"


def figure_caption(name: str) -> str:
    """What to see in a figure, and what is drawn below it, as its script in figures/ says; empty without a script."""
    if not (REPOSITORY / FIGURES / f"{name}.py").is_file():
        return ""
    script = importlib.import_module(f"{FIGURES}.{name}")
    return " ".join(f"{getattr(script, 'TO_SEE', '')} {getattr(script, 'CAPTION', '')}".split())


def _link(path: pathlib.Path, start: pathlib.Path, text: str) -> str:
    target = pathlib.PurePath(os.path.relpath(path, start)).as_posix()
    address = urllib.parse.quote(target, safe="/,=+ ")  # a folder called A%2FB is none called A/B
    return f'<a href="{html.escape(address)}">{html.escape(text)}</a>'
