"""`fedmrg`: strict parameters, one sentence for bad input, whole files or none."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import nbformat
import pytest
import torch
import typer
from data_fixtures import make_folder
from safetensors.torch import load_file
from typer.testing import CliRunner

from fedmrg_core.commands.command_line import app, label
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
from fedmrg_core.data.prepared import prepare
from fedmrg_core.data.sources import DATA_SOURCES, read_options
from fedmrg_core.errors import InputError
from fedmrg_core.files.whole_files import atomic_file
from fedmrg_core.runs.run_folder import RunFolder

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


def fedmrg(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedmrg_core.commands.command_line", *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


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
    done = fedmrg("run", "01_tiny", "-p", "method=bad input", "--no-progress")
    assert done.returncode == 2
    assert "fedmrg: 01_tiny.py: method: 'bad input' is unknown." in done.stderr
    assert "Traceback" not in done.stderr


def test_the_console_has_steps_and_errors_and_the_log_has_the_rest(notebook):
    said = """warnings.warn("old ways", DeprecationWarning)\nlogging.getLogger("x").warning("round 3: no reply")"""
    notebook.write_text(NOTEBOOK.replace("import os, sys", f"import logging, os, sys, warnings\n{said}"))
    output = pathlib.Path("out/tiny.ipynb")
    done = fedmrg("run", "01_tiny", "-p", "method=broken", "--output", str(output))
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


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("reports", None, "is a folder; expected a text file with one report a line"),
        ("studies.csv", "The heart is enlarged.\n", "is a table; write its column of reports into a text file"),
        ("studies.txt", "study_id,site,findings\ns1,a,The heart is enlarged.\n", "is a table"),
        ("studies.txt", '"study_id"\t"site"\t"findings"\n', "is a table"),
    ],
)
def test_label_takes_lines_and_no_table(tmp_path, monkeypatch, name, content, sentence):
    path = tmp_path / name
    path.mkdir() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=sentence):
        label(path)


def test_label_takes_a_line_with_commas(tmp_path, capsys):
    (tmp_path / "reports.txt").write_text("Heart, lungs, pleura normal.\nNormal, clear.\n")
    label(tmp_path / "reports.txt")
    assert capsys.readouterr().out.count("states") == 2


def test_help_and_version_are_quick():
    """They import nothing that takes its time; how long they take is a matter of the machine and of what else runs."""
    slow = {"datasets", "flwr", "nbclient", "numpy", "pandas", "papermill", "torch", "transformers"}
    for arguments, shown in ((["--help"], "check-data"), (["version"], "0.1.0")):
        command = [sys.executable, "-X", "importtime", "-m", "fedmrg_core.commands.command_line", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert shown in done.stdout
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
        assert "typer" in imported and not slow & imported
    for command in (["run"], ["label"], ["check-data"], ["report"], ["notebook", "sync"], ["notebook", "check"]):
        assert "Usage" in fedmrg(*command, "--help").stdout


def commands(group, *names: str):
    """Every command with the words that call it."""
    for name, command in group.commands.items():
        yield from commands(command, *names, name) if hasattr(command, "commands") else [([*names, name], command)]


@pytest.mark.parametrize(
    ("words", "command"),
    [pytest.param(*found, id=" ".join(found[0])) for found in commands(typer.main.get_command(app))],
)
def test_help_describes_every_argument_and_option(words, command):
    shown = CliRunner().invoke(app, [*words, "--help"], terminal_width=79).output
    for parameter in command.params:
        # A description is wrapped between columns of names and types: its words are there, in their order.
        assert parameter.help, parameter.name
        assert re.search(".*?".join(map(re.escape, parameter.help.split())), shown, re.DOTALL), (parameter.help, shown)


def test_make_help_names_what_may_be_set(repository):
    shown = subprocess.run(["make", "help"], cwd=repository, capture_output=True, text=True, check=True).stdout
    lines = {line.split("=")[0].strip(): line for line in shown.splitlines() if "=" in line}
    assert {"THREADS", "RERUN", "EXPERIMENT", "METHOD"} <= lines.keys()
    profiles = {path.stem for path in (repository / "profiles").glob("*.yaml")}
    assert profiles and profiles <= set(lines["PROFILE"].replace(",", " ").split())
    assert lines["DATA"].split(": ")[1].split() == list(DATA_SOURCES)


def test_command_line_does_not_import_torch():
    code = (
        "import sys, fedmrg_core.commands.command_line, fedmrg_core.commands.notebooks; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_label_prints_one_json_object_a_line(tmp_path):
    file = tmp_path / "reports.txt"
    file.write_text("The heart is enlarged. No pleural effusion.\nThe lungs are clear.\n")
    done = fedmrg("label", str(file))
    first, second = (json.loads(line)["states"] for line in done.stdout.splitlines())
    assert len(first) == 14
    assert (first["cardiomegaly"], first["pleural effusion"]) == ("positive", "negative")
    assert second["no finding"] == "positive"

    missing = fedmrg("label", str(tmp_path / "nothing.txt"))
    assert missing.returncode == 2
    assert "nothing.txt" in missing.stderr and "Traceback" not in missing.stderr


def test_crash_in_a_writer_leaves_the_old_file(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write_json("a.json", {"old": 1})
    with pytest.raises(ValueError):
        folder.write_json("a.json", {"new": float("nan")})
    with pytest.raises(RuntimeError), atomic_file(folder / "a.json") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert json.loads((folder / "a.json").read_text()) == {"old": 1}
    assert os.listdir(folder.path) == ["a.json"]


def test_killed_writer_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("old\n")
    code = (
        "import os, pathlib, sys\nfrom fedmrg_core.runs.run_folder import atomic_file\n"
        "with atomic_file(pathlib.Path(sys.argv[1])) as partial:\n    partial.write_text('half'); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == 9
    assert target.read_text() == "old\n"


def test_writers_round_trip(tmp_path):
    folder = RunFolder(tmp_path)
    rows = [{"round": 1, "loss": 0.5, "reason": None}, {"round": 2, "loss": float("nan"), "reason": "sent NaN, twice"}]
    assert folder.write_csv("rounds.csv", rows).read_text() == 'round,loss,reason\n1,0.5,\n2,,"sent NaN, twice"\n'
    assert folder.write_csv("empty.csv", [], ["a", "b"]).read_text() == "a,b\n"
    with pytest.raises(ValueError, match="columns named"):
        folder.write_csv("none.csv", [])
    with pytest.raises(ValueError):
        folder.write_csv("more.csv", [{"a": 1}, {"a": 1, "b": 2}])
    tensor = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(load_file(folder.write_safetensors("t.safetensors", {"w": tensor.T}))["w"], tensor.T)


def test_manifest_says_what_made_the_run(tmp_path):
    path = RunFolder(tmp_path).write_manifest(
        data_fingerprint="abc", seeds={"root": 0}, wall_seconds=1.23456, engine="x"
    )
    content = json.loads(path.read_text())
    assert content["data_fingerprint"] == "abc" and content["wall_seconds"] == 1.235 and content["engine"] == "x"
    assert torch.__version__.startswith(content["packages"]["torch"])  # "+cu130" stands in the one alone
    assert content["peak_memory_bytes"]["process"] > 10 * 2**20
    assert (content["gpu"] is not None) == torch.cuda.is_initialized()
    assert set(content) >= {"commit", "uncommitted_changes", "seeds", "python", "platform"}
    assert str(pathlib.Path.cwd()) not in path.read_text()


def test_of_two_versions_the_manifest_names_the_one_that_is_imported(tmp_path):
    for place, version in (("first", "2.0"), ("second", "1.0")):
        folder = tmp_path / place / "twice.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: Twice\nVersion: {version}\n")
    code = "from fedmrg_core.runs.run_folder import installed_packages as found; print(found()['twice'])"
    path = os.pathsep.join([str(tmp_path / "first"), str(tmp_path / "second")])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout.strip() == "2.0", done.stderr


def test_check_data_counts_and_lists_what_is_left_out(monkeypatch, capsys):
    import datasets

    from fedmrg_core.commands.command_line import check_data
    from fedmrg_core.data.study import LeftOut, LoadedStudies

    studies = datasets.Dataset.from_dict({"site": ["B", "A", "A"], "split": ["test", "train", "train"]})
    loaded = LoadedStudies(studies, [LeftOut("s4", "s4.png", "The image is truncated.")], ["One report is German."])
    monkeypatch.setattr("fedmrg_core.commands.check_data.load_studies", lambda data, root, profile: loaded)
    check_data("folder", None, "smoke")
    assert capsys.readouterr().out == (
        "A\ttrain\t2\nB\ttest\t1\n3 studies in use, 1 left out.\nleft out\ts4\ts4.png\tThe image is truncated.\n"
        "warning\tOne report is German.\n"
    )


def test_check_partition_says_who_holds_how_many_or_which_run_cannot_be_dealt(tmp_path):
    make_folder(tmp_path / "data")
    prepare("folder", tmp_path / "data", tmp_path / "prepared/smoke/folder", 32, 0)
    by_site = "smoke/folder/fedmrg/seed-0"
    done = fedmrg("check-partition", by_site, "smoke/folder/fed-lora/seed-0", f"--workspace={tmp_path}")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows == [
        ["run", "client", "train", "validation", "test"],
        [by_site, "north", "1", "1", "1"],
        [by_site, "south", "1", "1", "1"],  # Fed-LoRA is dealt alike: not said twice
    ]
    done = fedmrg("check-partition", by_site, "smoke/folder,random,clients=3/fedmrg/seed-0", f"--workspace={tmp_path}")
    assert done.returncode == 2  # the line before is a progress bar of flwr-datasets
    assert done.stderr.splitlines()[-1].startswith("fedmrg: smoke/folder,random,clients=3/fedmrg/seed-0: clients is 3")
    assert not done.stdout  # nothing half written
    done = fedmrg("check-partition", by_site, "smoke/folder/nonsense/seed-0", f"--workspace={tmp_path}")
    assert done.returncode == 2 and "method: 'nonsense' is unknown" in done.stderr and not done.stdout
    done = fedmrg("check-partition", "smoke/iu_xray/fedmrg/seed-0", f"--workspace={tmp_path}")
    assert done.returncode == 2 and "notebook 01" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--data", "nonsense"], "nonsense"), (["--data", "iu_xray", "--root", "no-such-folder"], "no-such-folder")],
)
def test_check_data_names_what_is_wrong(arguments, named):
    done = fedmrg("check-data", *arguments)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr and done.stderr.count("\n") == 1


def test_figures_stay_in_the_executed_notebook(tmp_path, monkeypatch):
    """Also where a batch job is told to draw without a screen."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    source = tmp_path / "01_drawing.py"
    source.write_text("# %%\nimport matplotlib.pyplot as plt\n\n_ = plt.plot([1, 2])\n")
    executed = nbformat.read(run_notebook(source, {}, tmp_path / "out.ipynb", progress=False), as_version=4)
    assert any("image/png" in output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", []))
