"""Method overview: the modules of one hospital, who owns them, and what travels, with the bytes that were measured."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
import seaborn
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.evaluation.stored_runs import Run
from fedmrg_core.runs.methods import Ownership
from figures import common

# Centre (x, y) and label of each module; what a method lacks is not drawn.
PLACES = {
    "encoder": (2.75, 3.0, "Encoder"),
    "projection": (4.8, 3.0, "Projection"),
    "diagnosis_head": (4.8, 1.6, "Diagnosis head"),
    "prompt_table": (6.85, 1.6, "Prompt table"),
    "static_book": (6.85, 2.24, "Static prompts"),
    "prompt_wise_network": (4.8, 2.24, "Affine network"),
    "prompt_wise_book": (6.85, 2.24, "Prompts, one by one"),
    "promptbook_wise_network": (4.8, 2.24, "Affine network"),
    "promptbook_wise_book": (6.85, 2.24, "Prompts, as a book"),
    "generator_block": (4.8, 2.24, "Cross-attention"),
    "generator_queries": (6.85, 2.24, "Prompts, as queries"),
    "generic_adapter": (8.9, 3.75, "Generic adapter"),
    "generic_adapter_a": (8.9, 4.0, "Adapter, factor A"),
    "generic_adapter_b": (8.9, 3.5, "Adapter, factor B"),
    "specialised_adapter": (8.9, 1.45, "Specialised adapter"),
    "decoder": (7.6, 3.0, "Decoder"),
}
# What the contrast between and within clients compares: their projected features with what the server sent.
CONTRAST = {
    "prototypes": (2.75, 4.15, "Prototypes of\nall clients"),
    "contrast": (4.8, 4.15, "Contrast"),
    "arrived": (6.85, 4.15, "Encoder as it\narrived"),
}
FIXED = {"image": (0.75, 3.0, "Chest X-ray"), "report": (11.3, 2.6, "Report")}
LLM = (8.9, 2.6, "Language model")
FLOWS = (
    ("image", "encoder"),
    ("encoder", "projection"),
    ("encoder", "diagnosis_head"),
    ("diagnosis_head", "prompt_table"),
    *(("projection", module) for module in ("prompt_wise_network", "promptbook_wise_network", "generator_block")),
    ("prompt_wise_network", "prompt_wise_book"),
    ("promptbook_wise_network", "promptbook_wise_book"),
    ("generator_block", "generator_queries"),
    *((book, "llm") for book in ("static_book", "prompt_wise_book", "promptbook_wise_book", "generator_queries")),
    ("projection", "llm"),
    ("prompt_table", "llm"),
    ("encoder", "decoder"),
    ("llm", "report"),
    ("decoder", "report"),
)
SERVER_HEIGHT, HALF_WIDTH, HALF_HEIGHT = 6.1, 0.82, 0.27
NAMES = {
    Ownership.SHARED: "shared: travels every round",
    Ownership.PERSONAL: "personal: never leaves the hospital",
    Ownership.FROZEN: "frozen",
}
KIBIBYTE = 1024
_ARROW = {"arrowstyle": "-|>", "mutation_scale": 9, "color": "0.3", "lw": 1, "zorder": 1, "shrinkA": 0, "shrinkB": 0}


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """One diagram a run: modules and their owners from config.yaml, bytes of a message up and down from ledger.csv.

    Raises:
        InputError: see `load_runs`.
    """
    folders = common.check_runs(run_folders)
    return [path for folder in folders for path in _draw_run(load_runs([folder])[0], folders, out_folder)]


def modules_table(run: Run) -> pandas.DataFrame:
    """Columns module, ownership, bytes_up and bytes_down: means over the messages that hold the module; 0 if none does.

    "prototypes": up a client's own, down those of all clients.
    """
    means = {way: rows.groupby("module")["bytes"].mean() for way, rows in run.ledger.groupby("direction")}
    owners = {name: owner.value for name, owner in run.configuration.method.modules.items()}
    owners |= {"prototypes": "shared"} if "prototypes" in means.get("up", ()) else {}
    rows = [
        (name, owner, *(float(means[way].get(name, 0.0)) if way in means else 0.0 for way in ("up", "down")))
        for name, owner in owners.items()
    ]
    return pandas.DataFrame(rows, columns=["module", "ownership", "bytes_up", "bytes_down"])


def _draw_run(run: Run, runs: Sequence[pathlib.Path], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    data = modules_table(run)
    first, second = seaborn.color_palette(common.PALETTE)[:2]
    colours = {
        Ownership.SHARED: _pale(first),
        Ownership.PERSONAL: _pale(second),
        Ownership.FROZEN: (0.88, 0.88, 0.88),
    }
    figure, (axis,) = common.new_figure(1, 1, 8.6, 4.9)
    axis.set(xlim=(-0.3, 12.3), ylim=(0.7, 6.5))
    axis.axis("off")
    _frame(axis, -0.15, 0.85, 12.3, 4.0, f"Hospital k: {run.method}")
    places = {name: PLACES[name] for name in run.configuration.method.modules if name in PLACES} | FIXED
    if "decoder" not in places:
        places["llm"] = LLM
    owners = run.configuration.method.modules
    for start, end in FLOWS:
        if start in places and end in places:
            _arrow(axis, places[start], places[end])
    for name, place in places.items():
        colour = "white" if name in FIXED else colours[owners.get(name, Ownership.FROZEN)]
        _box(axis, place, colour)
    if {"generic_adapter", "specialised_adapter"} <= owners.keys():
        _teach(axis, *(run.content()[f"losses.{way}"] for way in ("generic_to_specialised", "specialised_to_generic")))
    _contrast(axis, run, colours)
    _server(axis, data, first)
    shown = [Patch(facecolor=colours[owner], edgecolor="0.4", label=text) for owner, text in NAMES.items()]
    figure.legend(handles=shown, loc="outside upper center", ncols=3)
    common.caption(figure, "Bytes: one client, one round, measured on the wire.", [run.folder])
    return common.save_figure(figure, common.figure_name("method_overview", run.folder, runs), data, out_folder)


def _pale(colour: tuple[float, float, float]) -> tuple[float, ...]:
    return tuple(0.55 + 0.45 * part for part in colour)


def _frame(axis: Axes, x: float, y: float, width: float, height: float, title: str) -> None:
    axis.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.05", fill=False, ec="0.6", ls="--"))
    axis.text(x + 0.15, y + height - 0.05, title, ha="left", va="top", fontsize=8, color="0.3")


def _box(axis: Axes, place: tuple[float, float, str], colour: object) -> None:
    x, y, text = place
    corner = (x - HALF_WIDTH, y - HALF_HEIGHT)
    shape = FancyBboxPatch(
        corner, 2 * HALF_WIDTH, 2 * HALF_HEIGHT, boxstyle="round,pad=0.03", fc=colour, ec="0.4", zorder=2
    )
    axis.add_patch(shape)
    axis.text(x, y, text, ha="center", va="center", fontsize=7, zorder=3)


def _arrow(axis: Axes, start: tuple[float, float, str], end: tuple[float, float, str]) -> None:
    (x, y, _), (to_x, to_y, _) = start, end
    ends = (x + HALF_WIDTH + 0.05, y), (to_x - HALF_WIDTH - 0.05, to_y)
    if x == to_x:  # straight down
        ends = (x, y - HALF_HEIGHT), (x, to_y + HALF_HEIGHT + 0.03)
    axis.add_patch(FancyArrowPatch(*ends, **_ARROW))


def _teach(axis: Axes, generic_to_specialised: float, specialised_to_generic: float) -> None:
    """The two adapters teach each other, past the language model."""
    (x, top, _), (_, bottom, _) = PLACES["generic_adapter"], PLACES["specialised_adapter"]
    sides = ((-0.55, top, bottom, generic_to_specialised, r"$L_{g2l}$"),
             (0.55, bottom, top, specialised_to_generic, r"$L_{l2g}$"))  # fmt: skip
    for shift, start, end, weight, name in sides:
        if weight > 0:
            step = HALF_HEIGHT if start > end else -HALF_HEIGHT
            ends = ((x + shift, start - step), (x + shift, end + step + (0.05 if start > end else -0.05)))
            axis.plot(*zip(*ends, strict=True), color="0.1", ls=":", zorder=1)
            short = (ends[1][0], ends[1][1] + 0.01 * (1 if start > end else -1)), ends[1]  # a head that is not dotted
            axis.add_patch(
                FancyArrowPatch(*short, arrowstyle="-|>", mutation_scale=9, color="0.1", shrinkA=0, shrinkB=0)
            )
            axis.text(
                x + shift + 0.08, (PLACES["generic_adapter"][1] + LLM[1]) / 2, name, fontsize=7, va="center", zorder=4
            )


def _server(axis: Axes, data: pandas.DataFrame, colour: object) -> None:
    """The server above, and what goes up to it."""
    _box(axis, (6.0, SERVER_HEIGHT, "Server: average"), "white")
    axis.text(12.0, 1.0, "images and reports stay here", fontsize=7, va="bottom", ha="right", color="0.3")
    sent = data[data["bytes_up"] > 0]
    foot, head = 5.0, SERVER_HEIGHT - 0.35
    middle = (foot + head) / 2
    if sent.empty:
        axis.text(6.0, middle, "nothing travels", ha="center", va="center", fontsize=7, color="0.3")
        return
    for x, ends in ((5.7, (foot, head)), (6.3, (head, foot))):
        style = {"arrowstyle": "-|>", "mutation_scale": 10, "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
        axis.add_patch(FancyArrowPatch((x, ends[0]), (x, ends[1]), **style))
    words = [f"{_words(row.module)} {_size(row.bytes_up)}" for row in sent.itertuples()]
    lines = [", ".join(words[first : first + 2]) for first in range(0, len(words), 2)]
    axis.text(5.45, middle, "\n".join(["up:", *lines]), fontsize=7, va="center", ha="right", multialignment="left")
    model, prototypes = sent["module"] != "prototypes", sent["module"] == "prototypes"
    down = [f"the new shared model {_size(sent.loc[model, 'bytes_down'].sum())}"]
    down += [f"the prototypes of all clients {_size(size)}" for size in sent.loc[prototypes, "bytes_down"]]
    axis.text(6.55, middle, "\n".join(["down:", *down]), fontsize=7, va="center")


def _words(module: str) -> str:
    return "own prototype" if module == "prototypes" else module.replace("_", " ")


def _contrast(axis: Axes, run: Run, colours: dict[Ownership, object]) -> None:
    """What draws a client's features to its own prototype, and to those of the encoder as it arrived."""
    losses, projection = run.configuration.method.losses, PLACES["projection"]
    terms = [name for name, weight in ((r"$L_{inter}$", losses.contrast_inter), (r"$L_{intra}$", losses.contrast_intra))
             if weight > 0]  # fmt: skip
    if not terms:
        return
    x, y, text = CONTRAST["contrast"]
    _box(axis, (x, y, f"{text} {', '.join(terms)}"), "white")
    axis.add_patch(FancyArrowPatch((x, projection[1] + HALF_HEIGHT), (x, y - HALF_HEIGHT - 0.05), **_ARROW))
    if losses.contrast_inter > 0:
        _box(axis, CONTRAST["prototypes"], colours[Ownership.SHARED])
        _arrow(axis, CONTRAST["prototypes"], CONTRAST["contrast"])
    if losses.contrast_intra > 0:
        _box(axis, CONTRAST["arrived"], colours[Ownership.FROZEN])
        ends = ((CONTRAST["arrived"][0] - HALF_WIDTH, y), (x + HALF_WIDTH + 0.05, y))
        axis.add_patch(FancyArrowPatch(*ends, **_ARROW))


def _size(number: float) -> str:
    return f"{number / KIBIBYTE**2:.2f} MiB" if number >= KIBIBYTE**2 else f"{number / KIBIBYTE:.1f} KiB"


if __name__ == "__main__":
    common.run_script(draw, __doc__)
