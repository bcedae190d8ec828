"""`fedmrg run`: notebooks as batch jobs with strict parameters, whole outputs or none, errors told in one sentence."""

import os
import pathlib
import shlex

import nbformat
import pytest
from console_calls import fedmrg, fedmrg_alone

from fedmrg_core.commands.committed_notebooks import differing_cells, sync_notebook
from fedmrg_core.commands.notebooks import (
    NotebookFailed,
    check_parameters,
    command_line,
    find_notebook,
    known_parameters,
    parse_parameter,
    read_notebook,
    read_parameters,
    run_notebook,
)
from fedmrg_core.data.sources import read_options
from fedmrg_core.errors import InputError

NOTEBOOK = """\
# %% [markdown]
# # A tiny notebook

# %% tags=["parameters"]
method = "fedmrg"  # a comment
marker = "a # b"
seed = 0
rate = 0.5
shuffle = True
sites = ["a"]
limit: int | None = None

# %%
import os, sys
print(method, seed + 1, rate, sites, limit)
print(os.getcwd())
print("a bar", 10**6 + 7, file=sys.stderr)

# %%
if method == "broken":
    raise KeyError("no such method")
if method == "dead":
    os._exit(1)
if method == "bad input":
    from fedmrg_core.errors import InputError
    raise InputError("method: 'bad input' is unknown.")
seed
"""


@pytest.fixture
def notebook(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).resolve().parent.parent))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "notebooks" / "01_tiny.py"
    path.parent.mkdir()
    path.write_text(NOTEBOOK)
    return path


def test_parameters_are_read_with_their_types(notebook):
    assert known_parameters(read_notebook(notebook), "x") == {
        "method": (str,),
        "marker": (str,),
        "seed": (int,),
        "rate": (float,),
        "shuffle": (bool,),
        "sites": (list,),
        "limit": (int, type(None)),
    }


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"sead": 1}, r"no parameter 'sead'; did you mean 'seed'\? It knows: method, marker, seed"),
        ({"seed": "one"}, r"'seed' must be int, not 'one' \(str\)"),
        ({"seed": True}, r"'seed' must be int, not True \(bool\)"),
        ({"seed": 1.5}, r"'seed' must be int"),
        ({"shuffle": 1}, r"'shuffle' must be bool"),
        ({"method": None}, r"'method' must be str, not null"),
        ({"limit": "x"}, r"'limit' must be int or null"),
    ],
)
def test_unknown_or_ill_typed_parameter_is_refused(notebook, given, sentence):
    with pytest.raises(InputError, match=sentence):
        check_parameters(read_notebook(notebook), notebook.name, given)


def test_a_whole_number_is_a_float_and_null_fits_an_optional(notebook):
    check_parameters(read_notebook(notebook), notebook.name, {"rate": 1, "limit": None, "sites": []})


def test_default_that_is_no_literal_is_refused(notebook):
    notebook.write_text('# %% tags=["parameters"]\nseed = max(1, 2)\n')
    with pytest.raises(InputError, match="'seed' must be a literal"):
        known_parameters(read_notebook(notebook), notebook.name)


def test_run_writes_the_executed_notebook_and_sync_strips_it(notebook, tmp_path):
    output = run_notebook(notebook, {"seed": 4, "sites": ["x", "y"]}, pathlib.Path("out/tiny.ipynb"), progress=False)
    text = output.read_text()
    assert "fedmrg 5 0.5 ['x', 'y'] None" in text
    assert {path.name for path in output.parent.iterdir()} == {"tiny.ipynb", "tiny.log"}

    committed = sync_notebook(notebook, output)
    stripped = committed.read_text()
    assert "fedmrg 5 0.5" in stripped
    for unwanted in (str(tmp_path), "papermill", "1000007", "start_time", "injected"):
        assert unwanted not in stripped, unwanted
    assert not differing_cells(notebook)
    nbformat.validate(nbformat.read(committed, as_version=4))
    assert sync_notebook(notebook).read_text() == stripped  # outputs stay while the cells do

    for missing in (tmp_path / "none.ipynb", notebook):
        with pytest.raises(InputError, match=f"{missing.name}: no executed notebook is there"):
            sync_notebook(notebook, missing)

    notebook.write_text(NOTEBOOK + "\n# %%\nprint('more')\n")
    assert differing_cells(notebook) == [f"{committed} has 4 cells, 01_tiny.py has 5."]
    with pytest.raises(InputError, match="its cells are not those of the source"):
        sync_notebook(notebook, output)
    assert "fedmrg 5 0.5" not in sync_notebook(notebook).read_text()
    assert not differing_cells(notebook)


def test_failing_cell_leaves_the_old_output_and_names_the_partial_notebook(notebook):
    output = pathlib.Path("tiny.ipynb")
    output.write_text("old")
    with pytest.raises(NotebookFailed, match=r"01_tiny.py: cell 4 raised KeyError: 'no such method'. .*tiny.failed"):
        run_notebook(notebook, {"method": "broken"}, output, progress=False)
    assert output.read_text() == "old"
    assert "no such method" in pathlib.Path("tiny.failed.ipynb").read_text()


def test_dead_kernel_is_told(notebook):
    with pytest.raises(NotebookFailed, match="the kernel died"):
        run_notebook(notebook, {"method": "dead"}, pathlib.Path("tiny.ipynb"), progress=False)
    assert not pathlib.Path("tiny.ipynb").exists()


@pytest.mark.skipif(os.name != "posix", reason="socket files")
def test_a_kernel_uses_no_port_that_another_one_could_take(notebook):
    """Two notebooks that started in the same moment had picked the same TCP ports."""
    notebook.write_text(NOTEBOOK + "\n# %%\nprint('by', get_ipython().kernel.parent.transport)\n")
    output = run_notebook(notebook, {}, pathlib.Path("tiny.ipynb"), progress=False)
    assert "by ipc" in output.read_text()
    assert not list(pathlib.Path().glob("*kernel*"))


def test_a_temporary_folder_with_a_long_name_is_no_obstacle(notebook, tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    notebook.write_text(NOTEBOOK + "\n# %%\nprint('by', get_ipython().kernel.parent.transport)\n")
    assert "by tcp" in run_notebook(notebook, {}, pathlib.Path("tiny.ipynb"), progress=False).read_text()


def test_a_kernel_that_does_not_start_is_told(notebook, monkeypatch):
    async def dead(*_, **__):
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr("jupyter_client.asynchronous.client.AsyncKernelClient.wait_for_ready", dead)
    with pytest.raises(NotebookFailed, match=r"the kernel did not start \(Kernel died before .*\); run the notebook"):
        run_notebook(notebook, {}, pathlib.Path("tiny.ipynb"), progress=False)


def test_bad_input_in_a_cell_is_one_sentence_and_exit_code_2(notebook):
    done = fedmrg_alone("run", "01_tiny", "-p", "method=bad input", "--no-progress")
    assert done.returncode == 2
    assert "fedmrg: 01_tiny.py: method: 'bad input' is unknown." in done.stderr
    assert "Traceback" not in done.stderr


def test_the_console_has_steps_and_errors_and_the_log_has_the_rest(notebook):
    said = """warnings.warn("old ways", DeprecationWarning)\nlogging.getLogger("x").warning("round 3: no reply")"""
    notebook.write_text(NOTEBOOK.replace("import os, sys", f"import logging, os, sys, warnings\n{said}"))
    output = pathlib.Path("out/tiny.ipynb")
    done = fedmrg_alone("run", "01_tiny", "-p", "method=broken", "--output", str(output))
    log = output.with_suffix(".log").read_text()
    assert done.returncode == 1 and done.stderr.startswith("A tiny notebook\n")
    assert "| 0/5 [" in done.stderr and "round 3: no reply" in done.stderr
    assert "Traceback" in done.stderr and "KeyError" in done.stderr and "tiny.log" in done.stderr
    assert log.startswith("fedmrg run notebooks/01_tiny.py -p method=broken --output out/tiny.ipynb\n")
    for words in ("DeprecationWarning: old ways", "broken 1 0.5"):
        assert words in log and words not in done.stderr


def test_run_refuses_before_anything_is_computed(notebook):
    for arguments, sentence in {
        ("01_tinny",): "did you mean '01_tiny'?",
        ("01_tiny", "-p", "sead=1"): "has no parameter 'sead'",
        ("01_tiny", "-p", "seed"): "not of the form name=value",
        ("01_tiny", "-p", "seed=[1"): "parameter 'seed': '[1' is not YAML",
        ("01_tiny", "-p", "seed=1", "-p", "seed=2"): "given twice",
    }.items():
        done = fedmrg("run", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert sentence in done.stderr
    assert not pathlib.Path("report").exists()


def test_command_line_can_be_copied(notebook):
    given = {"seed": 1, "sites": ["a b", "NO"], "method": "1", "marker": "it's", "shuffle": True, "limit": None}
    line = command_line(find_notebook("01_tiny"), given, pathlib.Path("o.ipynb"))
    assert line.startswith('fedmrg run notebooks/01_tiny.py -p seed=1 -p \'sites=["a b", "NO"]\' -p method=1 -p ')
    words = shlex.split(line)
    written = dict(parse_parameter(words[at + 1]) for at, word in enumerate(words) if word == "-p")
    assert read_parameters(read_notebook(notebook), notebook.name, written) == given


@pytest.mark.parametrize(
    "text", ["1e5", "NO", "010", "2026-11-01", "12:30", "null", "[a", "'x'", "", "a=b", '{"a": 1}']
)
def test_a_text_parameter_takes_what_is_written(notebook, text):
    name, value = parse_parameter(f"method={text}")
    assert read_parameters(read_notebook(notebook), "x", {name: value}) == {"method": text}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("seed=12", 12), ("seed=-1", -1), ("rate=1e3", 1000.0), ("rate=3", 3), ("shuffle=true", True),
        ("shuffle=False", False), ("limit=null", None), ("sites=[NO, 010, 1]", ["NO", "010", 1]),
    ],
)  # fmt: skip
def test_a_number_is_what_it_looks_like(notebook, written, value):
    name, text = parse_parameter(written)
    assert read_parameters(read_notebook(notebook), "x", {name: text}) == {name: value}


@pytest.mark.parametrize(
    "written",
    ["seed=010", "seed=1_000", "seed=0x10", "seed=1e3", "seed=yes", "seed=on", "seed=12:30", "seed=", "seed=2026-11-01",
     "rate=1:30", "shuffle=yes", "shuffle=on", "shuffle=1", "limit=00"],
)  # fmt: skip
def test_what_only_some_readers_take_for_a_number_is_refused(notebook, written):
    name, text = parse_parameter(written)
    with pytest.raises(InputError, match=f"parameter '{name}' must be"):
        read_parameters(read_notebook(notebook), "x", {name: text})


def test_options_are_a_mapping_as_text_or_as_such(repository):
    source = repository / "notebooks" / "01_data.py"
    known = read_notebook(source)
    written = dict([parse_parameter('options={"test_part": "test", "rescale_16_bit": true}')])
    read = {"test_part": "test", "rescale_16_bit": True}
    assert read_options(read_parameters(known, source.name, written)["options"]) == read == read_options(read)
    check_parameters(known, source.name, {"options": read})
    assert read_options("{}") == {}
    for text in ("layout", "[1]", "{"):
        with pytest.raises(InputError, match="expected a mapping|is not YAML"):
            read_options(text)


def test_a_bare_name_is_found_in_every_folder(tmp_path, monkeypatch, repository):
    monkeypatch.chdir(tmp_path)
    assert find_notebook("06_federated_run") == repository / "notebooks" / "06_federated_run.py"
    with pytest.raises(InputError, match="did you mean '06_federated_run'"):
        find_notebook("06_federated_runs")
    mine = tmp_path / "notebooks" / "06_federated_run.py"
    mine.parent.mkdir()
    mine.touch()
    assert find_notebook("06_federated_run").resolve() == mine


def test_figures_stay_in_the_executed_notebook(tmp_path, monkeypatch):
    """Also where a batch job is told to draw without a screen."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    source = tmp_path / "01_drawing.py"
    source.write_text("# %%\nimport matplotlib.pyplot as plt\n\n_ = plt.plot([1, 2])\n")
    executed = nbformat.read(run_notebook(source, {}, tmp_path / "out.ipynb", progress=False), as_version=4)
    assert any("image/png" in output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", []))
