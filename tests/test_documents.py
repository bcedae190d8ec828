"""The pages: their tables are those of the stored benchmark, their links lead somewhere, their sentences are short."""

from __future__ import annotations

import pathlib
import re

import nbformat
import pandas
import pytest

from fedmrg_core.federation import replies
from fedmrg_core.paths import REPOSITORY
from fedmrg_core.runs.methods import load_method
from fedmrg_core.tasks.reports.leaving import leaving

BENCHMARK = REPOSITORY / "figures" / "reference" / "standard" / "benchmark"
README, RESULTS = REPOSITORY / "README.md", REPOSITORY / "docs" / "results.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]
CARDS = sorted((REPOSITORY / "data_cards").glob("*.md"))
MODULES = sorted((REPOSITORY / "fedmrg_core").rglob("*.md"))
EVERY_PAGE = [*PAGES, *CARDS, *MODULES, REPOSITORY / "figures" / "reference" / "README.md"]
F1 = "clinical_f1_example_14_uncertain_negative"
# Of each column of a page's main table after the method: role, metric, what of it.
COLUMNS = {
    README: (
        ("home", "bleu_4", "value"),
        ("home", F1, "value"),
        ("unseen", "bleu_4", "value"),
        ("unseen", F1, "value"),
        ("home", "bleu_4", "bytes_up"),
    ),
    RESULTS: (
        ("home", "bleu_4", "seeds"),
        ("home", "bleu_4", "value"),
        ("home", "bleu_4", "difference"),
        ("home", F1, "value"),
        ("home", F1, "difference"),
        ("unseen", "bleu_4", "value"),
        ("unseen", F1, "value"),
        ("unseen", F1, "difference"),
        ("home", "bleu_4", "bytes_up"),
    ),
}
STARRED = {README: "value", RESULTS: "difference"}  # which cells carry the star of a clear difference

LONGEST_README = 130  # lines
MOST_WORDS, MOST_NUMBERS = 30, 2  # of a sentence
# Numbers that are names: dates, versions, notebooks.
NAMES = r"\d{4}-\d{2}-\d{2}|\b(?:Python|torch|CUDA|arXiv|QEMU|notebooks?)\s[\d.]+(?:(?:,| to| and) \d{2}\b)*"
NUMBER = r"(?<![\w.])(?<!\w-)[+-]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?![\w-]*[A-Za-z])"
ITEM = r" *(?:[-*+]|\d+[.)]) "  # how an item of a list begins: it is a sentence of its own, also without a full stop
ENDS = r"(?<=[.!?])[)\"]?\s+(?=[A-Z\"'(\[]|code\b|\d)"  # what lies between two sentences


# ---- tables ----


def stored() -> pandas.DataFrame:
    """The main table's rows, and of the other tables those of methods that it has not."""
    tables = [pandas.read_csv(BENCHMARK / f"{name}.csv") for name in ("main", "prompts", "payload")]
    table = pandas.concat(tables).drop_duplicates(["role", "method", "metric"])
    # "transformer training.learning_rate=3x" is the pages' transformer.
    table["method"] = table["method"].str.split(" ").str[0].str.replace("floor_", "floor: ")
    return table.set_index(["method", "role", "metric"])


def shown(page: pathlib.Path) -> dict[str, list[str]]:
    """A page's main table: the cells after the method, by method."""
    text = page.read_text(encoding="utf-8")
    rows = re.search(r"^\| method \|.*home BLEU-4.*?\n\n", text, re.MULTILINE | re.DOTALL).group().splitlines()[2:-1]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {name.strip("*"): rest for name, *rest in cells if any(rest)}


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]?\d*\.?\d+", text)]


@pytest.mark.parametrize(
    ("page", "method"), [(page, method) for page in COLUMNS for method in shown(page)], ids=lambda part: str(part)[-20:]
)
def test_a_row_of_the_main_table(page, method):
    table, cells = stored(), shown(page)[method]
    assert len(cells) == len(COLUMNS[page])
    for cell, (role, metric, part) in zip(cells, COLUMNS[page], strict=True):
        if (method, role, metric) not in table.index:
            assert cell == "" and method == "local"  # it shares no model
            continue
        row = table.loc[(method, role, metric)]
        if part == STARRED[page]:
            clear = row["p_holm"] < 0.05 and row["difference_low"] * row["difference_high"] > 0
            assert cell.endswith("*") == clear
        if part == "difference":
            expected = [row["difference"], row["difference_low"], row["difference_high"]]
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
    assert set(main) <= set(shown(RESULTS))
    assert len(shown(README)) <= 8


def test_the_table_of_prompt_sources_is_the_stored_one():
    stored = pandas.read_csv(BENCHMARK / "mrg-llm.csv").set_index(["besides", "source"])
    one, federation, adapters = "nothing more, centralised", "nothing more", "FedMRG's two"
    columns = (
        (one, "bleu_4"),
        (one, "cider"),
        (federation, "bleu_4"),
        (federation, F1),
        (adapters, "bleu_4"),
        (adapters, F1),
    )
    table = re.search(r"^\| source of prompts \|.*?\n\n", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.group().splitlines()[2:-1]]
    assert 1 <= len(rows) <= 6 and (stored["seeds"] == 3).all()
    for source, *cells in rows:
        for cell, (place, metric) in zip(cells, columns, strict=True):
            if (place, source) not in stored.index:
                assert cell == ""
            else:
                assert numbers(cell) == pytest.approx([stored.loc[(place, source), f"home_{metric}"]], abs=5.01e-4)


CURVES = {  # rows of the page's table, and the variants that they show
    "4": "prompt_settings.count=4", "8": "prompt_settings.count=8", "16": "", "32": "prompt_settings.count=32",
    "64": "prompt_settings.count=64",
    "16, width 8": "prompt_settings.width=8", "16, width 128": "prompt_settings.width=128",
    "16, a quarter of the studies": "training.study_share=0.25", "16, a twentieth": "training.study_share=0.05",
}  # fmt: skip


def test_the_table_of_numbers_of_prompts_is_the_stored_one():
    lines = (
        re.search(r"^\| prompts \| static.*?\n\n", RESULTS.read_text(), re.MULTILINE | re.DOTALL).group().splitlines()
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:-1]]
    assert [label for label, *_ in rows] == list(CURVES)
    columns = [
        (f"mrg-llm-{source}", metric)
        for source in ("static", "prompt-wise", "promptbook-wise")
        for metric in ("bleu_4", F1)
    ]
    for label, *cells in rows:
        for cell, (method, metric) in zip(cells, columns, strict=True):
            name = ",".join(filter(None, (method, CURVES[label])))
            path = BENCHMARK.parent / "phantom" / name / "seed-0" / "metrics.csv"
            assert path.is_file() == bool(cell), name
            if cell:
                table = pandas.read_csv(path).set_index(["scope", "adapter", "system", "metric"])["value"]
                assert float(cell) == pytest.approx(table["home", "generic", "model", metric], abs=0.0006), (
                    name,
                    metric,
                )


def test_the_gas_table_is_that_of_the_committed_notebook():
    """Digests differ from run to run, and with them a few units of gas."""
    notebook = nbformat.read(REPOSITORY / "notebooks" / "13_identity.ipynb", 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output["data"].get("text/plain", "") for output in outputs if "data" in output]
    printed = [
        row for text in texts if "gas a transaction" in text for row in re.findall(r"(?m)^(\w+) .* (\d+)$", text)
    ]
    page = (REPOSITORY / "docs" / "identity.md").read_text(encoding="utf-8")
    table = re.findall(r"(?m)^\| `(\w+)` \|.*\| ([\d,]+,\d{3}) \|$", page)
    told = {name: int(gas.replace(",", "")) for name, gas in table}
    assert len(told) == 11 and told == pytest.approx({name: int(gas) for name, gas in printed}, rel=1e-3)


def test_the_table_of_modules_names_files_that_are_there():
    text = README.read_text(encoding="utf-8")
    table = re.search(r"^\| you look for \|.*?\n\n", text, re.MULTILINE | re.DOTALL).group()
    named = re.findall(r"`([\w/*.]+)`", "\n".join(row.split("|")[2] for row in table.splitlines()[2:] if row))
    assert len(named) >= 20
    for name in named:
        assert any(list(folder.glob(name)) for folder in (REPOSITORY, REPOSITORY / "fedmrg_core")), name


# ---- links ----


def name(page: pathlib.Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def anchors(page: pathlib.Path) -> set[str]:
    """What a link may name after #: headings in lower case, without signs, with dashes."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", EVERY_PAGE, ids=name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if link.startswith("https:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_another():
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in re.findall(r"\]\(([^)\s]+\.md[^)\s]*)\)", page.read_text(encoding="utf-8"))
    }
    assert set(PAGES[1:]) <= linked


def test_every_contract_that_a_docstring_cites_is_defined():
    cited = {
        number
        for path in (REPOSITORY / "fedmrg_core").rglob("*.py")
        for number in re.findall(r"\bcontract (\d)", path.read_text(encoding="utf-8"))
    }
    text = (REPOSITORY / "docs" / "contracts.md").read_text(encoding="utf-8")
    assert cited and cited <= set(re.findall(r"^## (\d)\. ", text, re.MULTILINE))


# ---- sentences ----


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


def sentences(text: str) -> list[str]:
    """The sentences of a page, without code, tables, pictures and addresses; a piece of code is one word."""
    text = re.sub(r"^ *\|.*$", "", without_code(text), flags=re.MULTILINE)
    text = re.sub(r"!\[.*?\]\(.*?\)", "", text)
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    blocks = re.split(rf"\n\s*\n|\n(?={ITEM})|\n(?=#)", re.sub(r"(?m)^(#.*)$", r"\1\n", text))
    plain = [" ".join(re.sub(rf"^\s*(?:#+ |{ITEM})", "", block).replace("*", "").split()) for block in blocks]
    return [part for block in plain for part in re.split(ENDS, block) if part]


def numbers_said(sentence: str) -> list[str]:
    """Its numbers, without those that are names."""
    return re.findall(NUMBER, re.sub(NAMES, "", sentence))


def test_sentences_are_told_apart():
    told = sentences(
        "# Heading\nOne of .305 and [.2, .3]. Two is `a. b`!\n\n- a point\n- Python 3.11, F1\n\n| a. B |\n"
    )
    assert told == ["Heading", "One of .305 and [.2, .3].", "Two is code!", "a point", "Python 3.11, F1"]
    assert [len(numbers_said(sentence)) for sentence in told] == [0, 3, 0, 0, 0]
    assert numbers_said("on 2026-11-28: 5 to 6.5 minutes, +1, 1,200, ResNet-101, 4-bit x86") == [
        "5",
        "6.5",
        "+1",
        "1,200",
    ]


def test_an_item_of_a_list_is_a_sentence():
    text = "These:\n- one\n  goes on\n* two **bold**\n+ three\n\n1. four\n2) five\n   - six, 7 and 8\nA - dash"
    told = ["These:", "one goes on", "two bold", "three", "four", "five", "six, 7 and 8 A - dash"]
    assert sentences(text) == told


@pytest.mark.parametrize("page", EVERY_PAGE, ids=name)
def test_sentences_are_short_and_leave_numbers_to_tables(page):
    told = sentences(page.read_text(encoding="utf-8"))
    assert told
    full = [sentence for sentence in told if len(numbers_said(sentence)) > MOST_NUMBERS]
    assert not full, f"more than {MOST_NUMBERS} numbers, make a table of it: {full[0]}"
    long = [sentence for sentence in told if len(sentence.split()) > MOST_WORDS]
    assert not long, f"more than {MOST_WORDS} words, make two sentences or a table of it: {long[0]}"


def test_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_the_page_of_what_leaves_a_hospital_is_the_declared_list() -> None:
    rows = leaving(load_method("fedmrg"), ("generic_adapter", "specialised_adapter"), 160).rows()
    table = "\n".join(f"| {row['when']} | {row['what']} | {row['names']} |" for row in rows)
    assert table in (REPOSITORY / "docs" / "what_leaves_a_hospital.md").read_text(encoding="utf-8")


def test_the_page_of_promises_has_every_code_and_names_tests_that_are_there() -> None:
    page = (REPOSITORY / "docs" / "promised.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z]+)` \|", page, re.MULTILINE) == list(replies.CODES)
    named = set(re.findall(r"`(tests/\w+\.py)`", page))
    assert named and all((REPOSITORY / name).is_file() for name in named)
    assert (
        f"above {replies.LARGEST:.0e}".replace("e+0", "e") in page
        and f"more than {replies.NORM_FACTOR:g} times" in page
    )
