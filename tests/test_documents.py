"""The numbers that README shows are those of the stored benchmark."""

import re

import pandas
import pytest

from fedmrg_core.paths import REPOSITORY

BENCHMARK = REPOSITORY / "figures" / "reference" / "standard" / "benchmark"
F1 = "clinical_f1_example_14_uncertain_negative"
# Of each column of README's table after the method: role, metric, what of it.
COLUMNS = (
    ("home", "bleu_4", "seeds"),
    ("home", "bleu_4", "value"),
    ("home", "bleu_4", "difference"),
    ("home", F1, "value"),
    ("home", F1, "difference"),
    ("unseen", "bleu_4", "value"),
    ("unseen", F1, "value"),
    ("unseen", F1, "difference"),
    ("home", "bleu_4", "bytes_up"),
)


def stored() -> pandas.DataFrame:
    """The main table's rows, and of the other tables those of methods that it has not."""
    tables = [pandas.read_csv(BENCHMARK / f"{name}.csv") for name in ("main", "prompts", "payload")]
    table = pandas.concat(tables).drop_duplicates(["role", "method", "metric"])
    # "transformer training.learning_rate=3x" is README's transformer.
    table["method"] = table["method"].str.split(" ").str[0].str.replace("floor_", "floor: ")
    return table.set_index(["method", "role", "metric"])


def shown() -> dict[str, list[str]]:
    """README's main table: the cells after the method, by method."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = re.search(r"^\| method \| seeds \|.*?\n\n", text, re.MULTILINE | re.DOTALL).group().splitlines()[2:-1]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {name.strip("*"): rest for name, *rest in cells if any(rest)}


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]?\d*\.?\d+", text)]


@pytest.mark.parametrize("method", shown())
def test_a_row_of_the_main_table(method):
    table, cells = stored(), shown()[method]
    assert len(cells) == len(COLUMNS)
    for cell, (role, metric, part) in zip(cells, COLUMNS, strict=True):
        if (method, role, metric) not in table.index:
            assert cell == "" and method == "local"  # it shares no model
            continue
        row = table.loc[(method, role, metric)]
        if part == "difference":
            expected = [row["difference"], row["difference_low"], row["difference_high"]]
            clear = row["p_holm"] < 0.05 and row["difference_low"] * row["difference_high"] > 0
            assert cell.endswith("*") == clear
        elif part == "bytes_up":
            expected = [row[part] / 2**20]
        else:
            expected = [row[part]]
        if cell:
            assert numbers(cell) == pytest.approx(expected, abs=5.01e-3 if part == "bytes_up" else 5.01e-4), part
        else:
            assert part == "bytes_up" or pandas.isna(expected).all()


def test_every_method_of_the_main_table_is_shown():
    main = pandas.read_csv(BENCHMARK / "main.csv")["method"].str.split(" ").str[0].str.replace("floor_", "floor: ")
    assert set(main) <= set(shown())
