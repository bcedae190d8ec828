"""A comparison's long table as CSV, and as Markdown and LaTeX pages with one table for each setting and role."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Sequence

import pandas

from fedmrg_core.data.sources import corpus_name
from fedmrg_core.evaluation.stored_runs import is_synthetic, synthetic_note
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.metrics.statistics import CONFIDENCE
from fedmrg_core.runs.measures import Measures

SIGNIFICANT = 1 - CONFIDENCE
ROLES = {"home": "all clients' own test studies together", "unseen": "the centre that never trained"}
_ORDER = {"federated": 0, "local": 1, "centralised": 2, "floor": 3}
_UNITS = ((1024**2, "MiB"), (1024, "KiB"), (1, "B"))
EMPTY = "–"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number as a table shows it."""

    text: str
    interval: str = ""  # shown small
    bold: bool = False
    mark: str = ""


@dataclasses.dataclass(frozen=True)
class Page:
    """One setting and role, ready to be written."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    rules: frozenset[int]  # rows that a rule stands above


def write_comparison(
    table: pandas.DataFrame,
    out_folder: pathlib.Path | str,
    name: str,
    *,
    measures: Measures,
    notes: Sequence[str] = (),
    against: str | None = None,
    differences: bool = False,
) -> list[pathlib.Path]:
    """Write NAME.csv (the long table, every number), NAME.md and NAME.tex.

    Args:
        table: of `comparison.main_table` or `comparison.ablation_table`.
        out_folder: where to.
        name: of the files.
        measures: `Runs.measures`: what its columns are called, and which there are.
        notes: sentences that go below the tables, e.g. `Runs.notes`.
        against: the method the others were tested against; None: the one that the task declares.
        differences: also show what `against` is ahead by, with its paired interval.

    Returns:
        The three paths.
    """
    pages = [
        _page(part, measures, str(setting), str(role), differences)
        for (setting, role), part in table.groupby(["setting", "role"], sort=False)
    ]
    against = measures.against if against is None else against
    below = [*_explanations(table, measures, against, differences), *notes]
    return write_pages(table, out_folder, name, pages, below)


def write_pages(
    table: pandas.DataFrame, out_folder: pathlib.Path | str, name: str, pages: Sequence[Page], below: Sequence[str]
) -> list[pathlib.Path]:
    """Write NAME.csv (the whole table), and its pages as NAME.md and NAME.tex with the sentences that go below them.

    Returns:
        The three paths.
    """
    folder = pathlib.Path(out_folder)
    texts = {
        ".csv": table.to_csv(index=False, lineterminator="\n"),
        ".md": _markdown(pages, below),
        ".tex": _latex(pages, below),
    }
    for ending, text in texts.items():
        write_text(folder / f"{name}{ending}", text)
    return [folder / f"{name}{ending}" for ending in texts]


def _page(part: pandas.DataFrame, measures: Measures, setting: str, role: str, differences: bool) -> Page:
    names, tested = measures.names, measures.tested
    metrics = [key for key in measures.shown if key in set(part["metric"])]
    by_method = {method: rows.set_index("metric") for method, rows in part.groupby("method", sort=False)}
    order = sorted(by_method, key=lambda method: _ORDER[by_method[method]["exchange"].iloc[0]])
    columns = [(names[key], _value_column(by_method, key, min if key in measures.lower else max)) for key in metrics]
    if differences:
        columns += [(f"Δ {names[key]}", _difference_column(key)) for key in tested if key in metrics]
    if role == "home":
        columns += [
            (f"{title}, {names[key]}", _plain_column(key, name))
            for name, title in (("worst_client", "Worst client"), ("harmonic_mean", "Harmonic mean"))
            for key in tested
            if key in metrics
        ]
    columns += [("Up", _bytes_column("bytes_up")), ("Down", _bytes_column("bytes_down"))]
    columns += [("Parameters sent", _count)]
    seeds, studies = part.loc[part["system"] == "model", "seeds"], int(part["studies"].max())
    if seeds.min() != seeds.max():
        columns = [("Seeds", _seeds), *columns]
    rows = tuple((Cell(method), *(make(by_method[method]) for _, make in columns)) for method in order)
    kinds = [_ORDER[by_method[method]["exchange"].iloc[0]] for method in order]
    rules = frozenset(row for row in range(1, len(kinds)) if kinds[row] != kinds[row - 1] and kinds[row] != 2)
    number = f"{seeds.min():.0f}" if seeds.min() == seeds.max() else f"{seeds.min():.0f} to {seeds.max():.0f}"
    title = f"{setting}, {ROLES[role]}: {studies} studies, {number} seed{'' if number == '1' else 's'}"
    return Page(title, ("Method", *(title for title, _ in columns)), rows, rules)


Column = Callable[[pandas.DataFrame], Cell]


def _value_column(by_method: dict[str, pandas.DataFrame], key: str, best_of: Callable[..., float]) -> Column:
    federated = [rows.loc[key, "value"] for rows in by_method.values() if _known(rows, key) and _federated(rows)]
    best = best_of(federated, default=float("nan"))

    def cell(rows: pandas.DataFrame) -> Cell:
        if not _known(rows, key):
            return Cell(EMPTY)
        row = rows.loc[key]
        mark = "*" if row["p_holm"] < SIGNIFICANT else ""
        interval = "" if pandas.isna(row["low"]) else f"[{row['low']:.3f}, {row['high']:.3f}]"
        return Cell(
            f"{row['value']:.3f}",
            interval,
            bool(_federated(rows) and best_of(row["value"], best) == row["value"]),
            mark,
        )

    return cell


def _difference_column(key: str) -> Column:
    def cell(rows: pandas.DataFrame) -> Cell:
        if not _has(rows, key) or pandas.isna(rows.loc[key, "difference"]):
            return Cell(EMPTY)
        return difference_cell(rows.loc[key])

    return cell


def _plain_column(key: str, name: str) -> Column:
    def cell(rows: pandas.DataFrame) -> Cell:
        known = _has(rows, key) and pandas.notna(rows.loc[key, name])
        return Cell(f"{rows.loc[key, name]:.3f}") if known else Cell(EMPTY)

    return cell


def _bytes_column(name: str) -> Column:
    def cell(rows: pandas.DataFrame) -> Cell:
        return bytes_cell(rows[name].iloc[0])

    return cell


def bytes_cell(number: float) -> Cell:
    """A number of bytes in the largest unit that it fills."""
    if pandas.isna(number):
        return Cell(EMPTY)
    size, unit = next((s, u) for s, u in _UNITS if number >= s or s == 1)
    return Cell(f"{number / size:.2f} {unit}" if size > 1 else f"{number:.0f} {unit}")


def count_cell(number: float) -> Cell:
    """A number of parameters in millions."""
    return Cell(EMPTY if pandas.isna(number) else f"{number / 1e6:.3f} M")


def difference_cell(row: pandas.Series) -> Cell:
    """A difference of `comparison.paired_differences` with its interval, and a star where it is clear."""
    low, high = row["difference_low"], row["difference_high"]
    interval = "" if pandas.isna(low) else f"[{low:+.3f}, {high:+.3f}]"
    return Cell(f"{row['difference']:+.3f}", interval, mark="*" if row["p_holm"] < SIGNIFICANT else "")


def _seeds(rows: pandas.DataFrame) -> Cell:
    return Cell(f"{rows['seeds'].iloc[0]:.0f}")


def _count(rows: pandas.DataFrame) -> Cell:
    return count_cell(rows["parameters_sent"].iloc[0])


def _has(rows: pandas.DataFrame, key: str) -> bool:
    return key in rows.index


def _known(rows: pandas.DataFrame, key: str) -> bool:
    """Whether the measure is there and not blank."""
    return _has(rows, key) and pandas.notna(rows.loc[key, "value"])


def _federated(rows: pandas.DataFrame) -> bool:
    return rows["exchange"].iloc[0] == "federated"


def _explanations(table: pandas.DataFrame, measures: Measures, against: str, differences: bool) -> list[str]:
    models = table[table["system"] == "model"]
    lines = data_notes(models["setting"])
    lines.append(
        f"Means over seeds; brackets: {CONFIDENCE:.0%} bootstrap intervals over seeds and studies. Bold: best "
        "federated method."
    )
    rough = [measures.names[key] for key in dict.fromkeys(models[models["interval"] == "approximate"]["metric"])]
    if (table[table["exchange"] == "floor"]["interval"] == "approximate").any():
        rough.append("all of the floors")
    if rough:
        seeds = "the single seeds, where there are several," if (table["seeds"] == 1).any() else "the single seeds"
        lines.append(f"Intervals put together from those of {seeds} and their spread: {', '.join(rough)}.")
    if models["p_holm"].notna().any():
        lines.append(
            f"*: differs from {against} (paired exchange test on the same studies and seeds, p < {SIGNIFICANT:.2f} "
            "after Holm's correction for the number of methods)."
        )
    if differences:
        lines.append(f"Δ: {against} minus the row, with its paired interval; above zero, {against} is ahead.")
    if models["p_holm"].notna().any():
        where = "" if differences else " (all are in the CSV)"
        lines.append(
            f"A difference{where} is over the seeds that both rows have, so it is not always that of the two cells. "
            "Its interval resamples seeds and studies, the test takes the seeds as given: call a difference clear only "
            "when both agree."
        )
    lines.append("Up, down: bytes on the wire of one client in one round that it trained in, training and validation.")
    if models.loc[models["exchange"] == "federated", "parameters_sent"].isna().any():
        lines.append(
            f"Parameters sent: {EMPTY} where something else travels in place of the shared parameters or beside them "
            "(low-rank factors, SCAFFOLD's controls)."
        )
    lines += measures.notes
    if (table["exchange"] == "floor").any():
        lines += [note.format(against=against) for note in measures.floor_notes]
    return lines


def data_notes(settings: Iterable[str]) -> list[str]:
    """A sentence on which settings are synthetic data, if any are."""
    names = dict.fromkeys(setting.partition(",")[0] for setting in settings)
    made = [name for name in names if is_synthetic(name)]
    if len(made) < len(names):
        corpora = dict.fromkeys(map(corpus_name, made))
        return [f"Settings whose name begins with {corpus} are synthetic data." for corpus in corpora]
    return [f"{note}." for note in dict.fromkeys(map(synthetic_note, made))]


def _markdown(pages: Sequence[Page], below: Sequence[str]) -> str:
    lines: list[str] = []
    for page in pages:
        lines += [f"**{page.title}**", "", f"| {' | '.join(page.header)} |"]
        lines += [f"|{'|'.join(['---', *['---:'] * (len(page.header) - 1)])}|"]
        lines += [f"| {' | '.join(map(_markdown_cell, row))} |" for row in page.rows]
        lines.append("")
    return "\n".join([*lines, *(f"- {line}" for line in below)]) + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = cell.text.replace("|", "\\|")
    text = f"**{text}**" if cell.bold else text
    small = f" <small>{cell.interval}</small>" if cell.interval else ""
    return text + cell.mark.replace("*", "\\*") + small


_LATEX = {"\\": r"\textbackslash{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "~": r"\textasciitilde{}",
          "^": r"\textasciicircum{}", "Δ": r"$\Delta$", "–": "--", "−": "$-$", "±": r"$\pm$"}  # fmt: skip


def escape_latex(text: str) -> str:
    """Text as LaTeX sets it literally."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _latex(pages: Sequence[Page], below: Sequence[str]) -> str:
    r"""A table environment a page; needs \usepackage{booktabs,graphicx} and UTF-8."""
    parts = ["% needs \\usepackage{booktabs,graphicx}"]
    for page in pages:
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(page.title)}.}}"]
        lines += [r"\resizebox{\linewidth}{!}{%", rf"\begin{{tabular}}{{l{'r' * (len(page.header) - 1)}}}", r"\toprule"]
        lines += [" & ".join(map(escape_latex, page.header)) + r" \\", r"\midrule"]
        for number, row in enumerate(page.rows):
            lines += [r"\midrule"] if number in page.rules else []
            lines.append(" & ".join(map(_latex_cell, row)) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}}"]
        lines += [r"\par\smallskip\footnotesize\raggedright", *map(escape_latex, below), r"\end{table}"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.bold else text
    mark = rf"$^{{{cell.mark}}}$" if cell.mark else ""
    return text + mark + (rf" {{\scriptsize {escape_latex(cell.interval)}}}" if cell.interval else "")
