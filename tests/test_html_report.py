"""The HTML report of a run: its sentence, its table, its captions, and what must not stand in it."""

import html
import json
import math
import os
import pathlib
import re
import shutil

import nbformat
import pandas
import pytest
from run_folders import TEXTS, write_run
from typer.testing import CliRunner

from fedmrg_core.commands.command_line import app
from fedmrg_core.commands.html_report import figure_caption, write_html_report
from fedmrg_core.commands.measure_names import measure_name
from fedmrg_core.commands.notebook_pages import LEFT_OUT, write_notebook_page
from fedmrg_core.commands.run_summary import DATA_NAMES, summarise
from fedmrg_core.data.sources import sources_of
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.stored_runs import load_run

FROM_ELSEWHERE = r'(?:src|href)\s*=\s*"?\s*(?:https?:)?//|@import|url\(|<script|<link|<iframe'
FOLDER = "/home/somebody/Our hospital"


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    """A good run on the phantom with all floors, with one figure that has a script and one of the user's own."""
    folder = write_run(tmp_path, 0.9)
    table = pandas.read_csv(folder / "metrics.csv")
    nearest = table[table["system"] == "floor_random"].assign(system="floor_nearest")  # made runs have no features
    pandas.concat([table, nearest]).to_csv(folder / "metrics.csv", index=False)
    return with_figures(folder)


def with_figures(folder: pathlib.Path) -> pathlib.Path:
    (folder / "figures").mkdir()
    for name in ("convergence", "report_page", "my_own"):
        (folder / "figures" / f"{name}.png").write_bytes(b"png of " + name.encode())
    return folder


def executed(path: pathlib.Path) -> pathlib.Path:
    """An executed notebook that says what it should not: paths, widgets, markup, a real report."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata = {"papermill": {"parameters": {"data_root": FOLDER}}, "widgets": {"x": {"state": {}}}}
    code = nbformat.v4.new_code_cell(f'data_root = "{FOLDER}"')
    code.metadata["tags"] = ["injected-parameters"]
    printed = nbformat.v4.new_output("stream", text=f"{os.getcwd()}/x {FOLDER}/a.png <b>bold</b>\n{TEXTS[3]}\n")
    table = nbformat.v4.new_output("execute_result", {"text/html": "<table><tr><td>0.25</td></tr></table>"})
    notebook.cells = [
        nbformat.v4.new_markdown_cell(
            "# 07 · Evaluation\n\nThe loss is $$ \\frac1B\\big(x\\big) < \\text{one} $$ or $x"
        ),
        code,
        nbformat.v4.new_code_cell("print(1 < 2)", outputs=[printed, table]),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def written(run: pathlib.Path, folder: pathlib.Path, *notebooks: pathlib.Path) -> str:
    write_html_report(run, notebooks, folder / "report" / "index.html")
    return (folder / "report" / "index.html").read_text()


def set_values(run: pathlib.Path, metric: str, **values: float) -> None:
    """Set a measure of systems at home."""
    table = pandas.read_csv(run / "metrics.csv", keep_default_na=False, na_values=[""])
    for system, value in values.items():
        rows = (table["scope"] == "home") & (table["system"] == system) & (table["metric"] == metric)
        table.loc[rows, "value"] = value
    table.to_csv(run / "metrics.csv", index=False)


F1 = "clinical_f1_example_14_uncertain_negative"


def test_the_report_begins_with_what_was_run_and_how_well(run, tmp_path):
    set_values(run, "bleu_4", model=0.3004, floor_constant=0.1, floor_random=0.3001, floor_nearest=0.4)
    set_values(run, F1, model=0.9, floor_constant=0.1, floor_random=0.2, floor_nearest=0.3)
    page = written(run, tmp_path)
    sentence = (
        "FedMRG, trained for 10 rounds at 3 hospitals of PhantomCXR (synthetic data, profile smoke, seed 0), reaches "
        "BLEU-4 0.300 (above the constant report, level with the random report, below the nearest report) and clinical "
        "F1 (mean over studies, 14 findings) 0.900 (above all floors: constant, random and nearest report)."
    )
    body = page[page.index("</h1>") :]
    assert re.sub("<[^>]*>", "", body).strip().splitlines()[0] == sentence
    first_table = body[: body.index("</table>")]
    assert first_table.count("<tr>") - 1 == 4  # METEOR was not computed; never more than five
    assert body.index("<table>") < body.index("<figure>") < body.index("<details>")
    assert "bleu_4" not in page and "uncertain_negative" not in page and "floor_" not in page
    assert "say nothing about patients" in page


def test_numbers_and_names_come_from_the_stored_tables(tmp_path):
    folder = write_run(
        tmp_path, studies=16, data="iu_xray", method="local", partition="style", seed=3, variant="federation.rounds=4"
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "rounds": 1}))
    summary = summarise(load_run(folder))
    assert summary.sentence.startswith(
        "local with federation.rounds=4, trained for 1 round at 3 clients of IU X-ray (real data, setting "
        "iu_xray,style, profile smoke, seed 3), each alone, reaches BLEU-4 0."
    )
    assert "patients" not in summary.note and "12 studies" in summary.note
    assert summary.name.endswith("local,federation.rounds=4 / seed-3")
    assert set(DATA_NAMES) == set(sources_of())


def test_what_is_blank_or_has_collapsed_is_said(run):
    set_values(run, "bleu_4", model=math.nan)
    set_values(run, F1, floor_nearest=math.nan)
    set_values(run, "most_frequent_share", model=0.97)
    summary = summarise(load_run(run))
    assert "reaches no BLEU-4 that can be said and clinical F1" in summary.sentence
    assert "nearest" not in summary.sentence
    assert summary.sentence.endswith("97% of the generated reports are the same text. So its measures mean little.")
    assert summary.rows[0][1] == ""


def test_a_folder_called_otherwise_is_told_without_its_path(run, tmp_path):
    elsewhere = shutil.copytree(run, tmp_path / "elsewhere")
    assert summarise(load_run(elsewhere)).name == "smoke / phantom / fedmrg / seed-0"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("clinical_f1_micro_14_uncertain_negative", "clinical F1 (micro, 14 findings)"),
        ("clinical_recall_macro_5_uncertain_positive", "clinical recall (macro, 5 findings, uncertain as positive)"),
        ("worst_client_bleu_4", "BLEU-4, worst client"),
        ("empty_share", "share of empty reports"),
        ("something_new", "something new"),
    ],
)
def test_measures_have_names(key, name):
    assert measure_name(key) == name


def test_every_name_is_text_and_nothing_comes_from_elsewhere(run, tmp_path):
    text = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(text.replace("centre-a,", "<b>&,"))
    notebook = executed(tmp_path / "07_<i>.ipynb")
    page = written(run, tmp_path, notebook)
    (other,) = (tmp_path / "report" / "notebooks").glob("*.html")
    assert html.escape("<b>&") in page and "<b>&," not in page and "<i>" not in page
    for text in (page, other.read_text()):
        assert not re.search(FROM_ELSEWHERE, text), re.search(FROM_ELSEWHERE, text)
        for place in (str(tmp_path), os.getcwd(), FOLDER):
            assert place not in text, place
    notebook_page = other.read_text()
    assert "&lt;b&gt;bold" in notebook_page and "<b>bold" not in notebook_page
    assert ".../Our hospital" in notebook_page
    assert "data:image/svg+xml" in notebook_page and "or $x" in notebook_page  # a formula, and a dollar
    assert "07 · Evaluation" in page and TEXTS[3] in html.unescape(notebook_page)


HOSTILE = (
    "<style>#T th{color:red}</style><table onclick='a()'><tr><td style='color: red; background: url(http://x)'>4</td>"
    "</tr></table><script>alert(1)</script><img src=x onerror=alert(2)><iframe src='http://x'></iframe>"
    "<a href='javascript:alert(3)'>b</a><svg onload=alert(4)></svg><script>alert(5)"
)


def test_html_of_cells_is_sanitised_and_pages_run_nothing(tmp_path):
    notebook = nbformat.v4.new_notebook()
    data = {"text/html": HOSTILE, "application/javascript": "alert(6)", "image/svg+xml": "<svg onload='alert(7)'/>"}
    cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("display_data", data=data)])
    notebook.cells = [nbformat.v4.new_markdown_cell("# A page"), cell]
    write_notebook_page(notebook, tmp_path / "page.html", private=False)
    page = (tmp_path / "page.html").read_text()
    body = page[page.index("<body>") :]
    for forbidden in ("alert", "onclick", "onerror", "<iframe", "<svg", "<script", "javascript", "#T th", "url("):
        assert forbidden not in body, forbidden
    assert re.search(r"<table>(<tbody>)?<tr><td[^>]*>4</td>", body)
    assert "default-src 'none'" in page and "script-src" not in page


def test_figures_have_captions_of_their_scripts(run, tmp_path):
    page = html.unescape(written(run, tmp_path))
    assert page.count("<figure>") == 3
    assert figure_caption("convergence") in page and "flattens" in figure_caption("convergence")
    assert figure_caption("my_own") == ""


def test_every_figure_of_notebook_08_says_what_to_see(repository):
    drawn = re.findall(r"^from figures import (\w+)$", (repository / "notebooks/08_figures.py").read_text(), re.M)
    assert len(drawn) == 6
    for name in drawn:
        assert figure_caption(name).count(". ") >= 2, name


def test_what_must_not_be_published_stays_out(tmp_path):
    run = with_figures(write_run(tmp_path, studies=16, data="iu_xray"))
    (run / "figures" / "feature_map.png").write_bytes(b"a point for each study")
    page = written(run, tmp_path, executed(tmp_path / "07_evaluation.ipynb"))
    notebook_page = (tmp_path / "report" / "notebooks" / "07_evaluation.html").read_text()
    assert page.count("<figure>") == 1 and "Convergence" in page
    assert "must not be published" in page and "predictions.csv" not in page and "pass this page on" not in page
    for text in TEXTS:
        assert text not in page and text not in html.unescape(notebook_page)
    assert LEFT_OUT.strip() in notebook_page and "0.25" not in notebook_page


def test_a_page_with_numbers_of_few_studies_says_that_it_stays_at_home(tmp_path):
    for studies, said in ((60, False), (16, True)):
        run = with_figures(write_run(tmp_path / str(studies), studies=studies, data="folder"))
        page = written(run, tmp_path / str(studies))
        assert ("Do not pass this page on: some of its numbers are of fewer than 10 studies" in page) is said
    rounds = pandas.read_csv(run / "rounds.csv").assign(validation_examples=9)
    run = with_figures(write_run(tmp_path / "validation", data="folder"))
    rounds.to_csv(run / "rounds.csv", index=False)
    assert "Do not pass this page on" in written(run, tmp_path / "validation")


def test_a_run_without_measures_or_a_missing_notebook_leaves_no_page(run, tmp_path):
    output = tmp_path / "report" / "index.html"
    for notebook, sentence in ((tmp_path / "none.ipynb", "no such executed"), (run / "config.yaml", "not an executed")):
        with pytest.raises(InputError, match=sentence):
            write_html_report(run, [executed(tmp_path / "01_data.ipynb"), notebook], output)
    (run / "metrics.csv").unlink()
    with pytest.raises(InputError, match="score the predictions with notebook 07"):
        write_html_report(run, [], output)
    assert not output.parent.exists()


def test_the_command_ends_with_the_same_sentence_and_where_the_report_lies(run, tmp_path):
    output = tmp_path / "report" / "index.html"
    done = CliRunner().invoke(app, ["report", str(run), "--output", str(output)])
    assert done.exit_code == 0, done.output
    sentence = summarise(load_run(run)).sentence
    assert " ".join(done.output.split()).startswith(" ".join(sentence.split()))
    assert done.output.splitlines()[-1] == f"Figures and report: {output}"
    assert len(done.output.splitlines()) <= 12
