"""`fedmrg`: help that names everything, one sentence for bad input, checks of data and partitions, labels."""

import json
import re
import subprocess
import sys

import pytest
import typer
from console_calls import fedmrg
from data_fixtures import make_folder
from typer.testing import CliRunner

from fedmrg_core.commands.command_line import app, label
from fedmrg_core.data.prepared import prepare
from fedmrg_core.data.sources import sources_of
from fedmrg_core.errors import InputError


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
    assert lines["DATA"].split(": ")[1].split() == list(sources_of())


@pytest.mark.parametrize("used", ["commands.command_line", "commands.notebooks", "federation.deployment.nodes"])
def test_what_starts_at_once_does_not_import_torch(used):
    code = f"import sys, fedmrg_core.{used}; print('torch' in sys.modules)"
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
