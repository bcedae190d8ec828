"""The workflow: what it plans, what it refuses before anything is computed, what it makes again."""

import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from fork_server import run_module

from fedmrg_core.commands.notebooks import known_parameters, parse_parameter, read_notebook, read_parameters
from fedmrg_core.data.site_names import read_sites
from fedmrg_core.errors import InputError
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.run_configuration import write_configuration
from fedmrg_core.runs.task_notebooks import NOTEBOOKS as NOTEBOOKS_OF_TASKS
from fedmrg_core.runs.task_notebooks import notebooks_of
from fedmrg_core.runs.task_registry import TASKS

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))

WORKFLOW = (
    "Snakefile", "notebooks", "profiles", "methods.yaml", "experiments.yaml", "fedmrg_core", "figures",
    "workflow_profiles",
)  # fmt: skip


def snakemake(folder: pathlib.Path, *arguments: str, anew: bool = False) -> subprocess.CompletedProcess[str]:
    """Snakemake in a folder without any result; what the workflow needs and the folder lacks is linked there.

    With code or plugins of its own it starts `anew`, elsewhere as a fork that has imported already.
    """
    for name in WORKFLOW:
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    code = (folder / "fedmrg_core").resolve().parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(code), str(folder)])}
    if code == ROOT and not anew:
        return run_module("snakemake", ["--nolock", *arguments], folder, environment)
    command = [sys.executable, "-m", "snakemake", "--nolock", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def dry_run(folder: pathlib.Path, *settings: str, target: str = "all") -> subprocess.CompletedProcess[str]:
    """A dry run of the workflow from nothing."""
    given = ["--config", *settings] if settings else []
    return snakemake(folder, "--dry-run", "--printshellcmds", "--cores", "2", target, *given)


@pytest.fixture(scope="module")
def planned_commands(tmp_path_factory) -> list[list[str]]:
    """The commands that the workflow would run with its defaults."""
    done = dry_run(tmp_path_factory.mktemp("workflow"))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    return [
        shlex.split(line[line.index("fedmrg ") :]) for line in lines if "fedmrg run " in line or "fedmrg rep" in line
    ]


def test_the_workflow_runs_every_notebook_with_parameters_it_knows(planned_commands):
    runs = {pathlib.Path(words[2]).stem: words for words in planned_commands if words[1] == "run"}
    assert sorted(runs) == [path.stem for path in NOTEBOOKS if path.stem[:2] <= "08"]
    assert len(runs) == 10
    for path in NOTEBOOKS[:10]:
        words = runs[path.stem]
        written = dict(parse_parameter(words[at + 1]) for at, word in enumerate(words) if word == "-p")
        assert written["profile"] == "smoke"
        read_parameters(read_notebook(path), path.name, written)


def test_the_report_collects_every_notebook(planned_commands):
    (report,) = [words for words in planned_commands if words[1] == "report"]
    assert report[2] == "results/smoke/phantom/fedmrg/seed-0"
    given, (sign, result) = report[5:-2], report[-2:]
    assert [pathlib.Path(word).stem for word in given] == [path.stem for path in NOTEBOOKS[:10]]
    assert (sign, result) == (">", "report/result.txt")  # what make figures ends with


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("metod=fedmrg", "metod: no such setting"),
        ("seed=one", "seed: expected int, not 'one'"),
        ("method=nothing", "nothing"),
        ("profile=nothing", "nothing"),
        ("clients=-1", "run: clients: Input should be greater than or equal to 0"),
        ("unseen=centre-z", "unseen names 'centre-z'"),
        ("unseen=5", """unseen: expected str, not 5; in a list every name is as written, e.g. unseen='["10","""),
        ("variant=adapter.rank=1000", "adapter.rank: 1000 is above 128"),
    ],
)
def test_a_wrong_setting_stops_the_workflow_before_anything_is_computed(tmp_path, setting, sentence):
    done = dry_run(tmp_path, setting)
    assert done.returncode != 0
    assert sentence in done.stdout + done.stderr
    assert "fedmrg run" not in done.stdout + done.stderr


def test_an_experiment_is_planned_run_by_run(tmp_path):
    """Every missing run of an experiment once, on one thread, each with parameters that its notebook knows."""
    done = dry_run(tmp_path, "experiment=ablation,participation", "rerun=True", target="runs")
    assert done.returncode == 0, done.stdout + done.stderr
    output = (done.stdout + done.stderr).splitlines()
    assert not [line for line in output if line.strip().startswith("threads:")]  # base models and evaluation too
    lines = [shlex.split(line[line.index("fedmrg run") :]) for line in output if "fedmrg run" in line]
    federated = [words for words in lines if "notebooks/06_federated_run.py" in words]
    assert len(federated) == len({" ".join(words) for words in federated}) == 8 * 3 + 3 * 3
    assert all("threads=1" in words for words in federated)
    for words in lines:
        written = dict(parse_parameter(words[at + 1]) for at, word in enumerate(words) if word == "-p")
        read_parameters(read_notebook(ROOT / words[2]), words[2], written)


def test_runs_of_an_experiment_take_the_gpus_in_turn(tmp_path, monkeypatch):
    """Of several GPUs a process would see them all and compute on the first; a run keeps its own from rule to rule."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5")
    done = dry_run(tmp_path, "experiment=participation", "rerun=True", target="runs")
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    pattern = r"CUDA_VISIBLE_DEVICES=(\S+) fedmrg run .* --output '?results/(.*)/notebooks/0[67]"
    taken: dict[str, set[str]] = {}
    for gpu, run in re.findall(pattern, output):
        taken.setdefault(run, set()).add(gpu)
    assert len(taken) == 12 and all(len(gpus) == 1 for gpus in taken.values())
    assert sorted(gpu for gpus in taken.values() for gpu in gpus) == ["2"] * 6 + ["GPU-5"] * 6


def test_what_adaptation_lacks_is_planned_and_nothing_else(tmp_path):
    """A reference without adaptation.csv is trained again for it, notebook 09 is for that experiment's runs alone; and
    a reference whose numbers are no longer the row's does not count."""
    shutil.copytree(ROOT / "fedmrg_core", tmp_path / "fedmrg_core", ignore=shutil.ignore_patterns("__pycache__"))
    references = tmp_path / "figures" / "reference" / "smoke" / "phantom"
    for path, names in {
        "fedmrg/seed-0": [],
        "fed-lora/seed-0": ["adaptation.csv"],
        "local/seed-0": [],
    }.items():
        settings = RunSettings.from_name(f"smoke/phantom/{path}")
        (references / path).mkdir(parents=True)
        write_configuration(references / path, settings.configuration(tmp_path))
        for name in ["manifest.json", "metrics.csv", *names]:
            (references / path / name).touch()
    stale = references / "fedpara/seed-0"  # its row has other numbers since
    shutil.copytree(references / "local/seed-0", stale)
    done = dry_run(tmp_path, "experiment=main,adaptation", target="runs")
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    planned = {
        number: set(re.findall(rf"--output results/smoke/phantom/(\S+)/notebooks/{number}_", output))
        for number in ("06", "07", "09")
    }
    adapted = {f"{method}/seed-{seed}" for method in ("fedmrg", "fed-lora") for seed in range(3)} - {"fed-lora/seed-0"}
    assert planned["09"] == adapted
    assert planned["06"] == planned["07"] >= adapted | {"local/seed-1", "fedpara/seed-0"}
    assert not planned["06"] & {"fed-lora/seed-0", "local/seed-0"}


def test_runs_of_another_task_are_made_by_its_notebook(tmp_path):
    """One run of each, and the experiment that continuous integration verifies, which has runs of several tasks."""
    reports, questions, pictures = ("06_federated_run", "07_evaluation"), "11b_medical_qa_run", "12b_visual_prompts_run"
    own_runs = {questions: "medical_world/fed-lora", pictures: "phantom_masks/static"}
    for target, settings, expected in (
        ("all", ("data=medical_world", "method=fed-lora"), [questions]),
        ("all", ("data=phantom_masks", "method=static"), [pictures]),
        ("runs", ("experiment=smoke", "rerun=True"), [*reports, questions, pictures]),
    ):
        done = dry_run(tmp_path, *settings, target=target)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        lines = [shlex.split(line[line.index("fedmrg run") :]) for line in output.splitlines() if "fedmrg run" in line]
        runs = [words for words in lines if words[-1].startswith("results/")]
        assert sorted({pathlib.Path(words[2]).stem for words in runs}) == expected
        own = runs[-1] if target == "all" else next(words for words in runs if questions in words[2])
        name = pathlib.Path(own[2]).stem
        assert own[-1] == f"results/smoke/{own_runs[name]}/seed-0/notebooks/{name}.ipynb"
        written = dict(parse_parameter(own[at + 1]) for at, word in enumerate(own) if word == "-p")
        read_parameters(read_notebook(ROOT / own[2]), own[2], written)


@pytest.mark.parametrize("data, notebook", [("polyps", "12b_visual_prompts_run"), ("folder", "01_data")])
def test_how_a_folder_is_read_reaches_the_notebook_that_reads_it(data, notebook, tmp_path):
    (tmp_path / "mine").mkdir()
    method = "static" if data == "polyps" else "fedmrg"
    given = (f"data={data}", f"data_root={tmp_path / 'mine'}", f"method={method}", 'options={"threshold": 127}')
    done = dry_run(tmp_path, *given)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    lines = [shlex.split(line[line.index("fedmrg run") :]) for line in output.splitlines() if "fedmrg run" in line]
    told = {pathlib.Path(words[2]).stem: dict(parse_parameter(w) for w in words if "=" in w) for words in lines}
    assert json.loads(told[notebook].pop("options")) == {"threshold": "127"}  # the loader takes it for a number
    assert not [name for name, written in told.items() if "options" in written and name != notebook]
    refused = dry_run(tmp_path, f"data={data}", "options=127")
    assert "--config options: expected dict, not 127" in refused.stdout + refused.stderr


def test_every_task_names_notebooks_that_take_the_settings_of_a_run():
    assert NOTEBOOKS_OF_TASKS.keys() <= TASKS.keys()
    for task in NOTEBOOKS_OF_TASKS.values():
        for name in task.runs:
            known = known_parameters(read_notebook(ROOT / "notebooks" / f"{name}.py"), name)
            further = set() if task.own_rules else {"data_root", "base_models", "threads"}
            assert {*RunSettings.model_fields, "workers", *further} <= known.keys()
    with pytest.raises(InputError, match="task 'linear' has no notebook that makes its runs"):
        notebooks_of("linear")


STAND_IN = """#!/bin/sh
case $1 in
check-partition) echo "$@" ;;
*) while [ "$1" != --output ]; do shift; done; mkdir -p "$(dirname "$2")"; touch "$2" ;;
esac
"""


def test_another_run_is_made_whole_and_leaves_base_models_as_they_are(tmp_path, monkeypatch):
    """Base models wait for the check of the partition, and are not made again when another run is asked for."""
    command = tmp_path / "bin" / "fedmrg"
    command.parent.mkdir()
    command.write_text(STAND_IN)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
    triggers = ("--rerun-triggers", "mtime", "params", "input")  # as in the Makefile
    name = "results/smoke/phantom/{}/seed-0/notebooks/07_evaluation.ipynb"
    first = snakemake(tmp_path, "--cores", "2", name.format("fedmrg"), *triggers)
    assert first.returncode == 0, first.stdout + first.stderr
    checked = tmp_path / "prepared/smoke/notebooks/phantom/partitions.tsv"
    assert checked.read_text() == "check-partition smoke/phantom/fedmrg/seed-0\n"
    other = snakemake(tmp_path, "--cores", "2", name.format("local"), *triggers, "--config", "method=local")
    assert other.returncode == 0, other.stdout + other.stderr
    assert (tmp_path / name.format("local")).is_file()
    assert "rule base_models" not in other.stdout + other.stderr


COUNTING = """#!/bin/sh
case $1 in
check-partition) exit ;;
esac
while [ "$1" != --output ]; do shift; done
mkdir -p "$(dirname "$2")"
echo +1 >> COUNTED; sleep 0.05; echo -1 >> COUNTED
touch "$2"
"""


def test_no_more_run_at_a_time_than_there_are_cores(tmp_path, monkeypatch):
    """Snakemake 9.10 to 9.16 has a core more after every step that was the only one (its issue 3815)."""
    command, counted = tmp_path / "bin" / "fedmrg", tmp_path / "counted"
    command.parent.mkdir()
    command.write_text(COUNTING.replace("COUNTED", str(counted)))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
    done = snakemake(tmp_path, "runs", "--cores", "1", "--config", "experiment=participation", "rerun=True")
    assert done.returncode == 0, done.stdout + done.stderr
    running = list(itertools.accumulate(map(int, counted.read_text().split())))
    assert max(running) == 1 and running[-1] == 0 and len(running) > 40


def test_quiet_leaves_the_steps_and_what_is_wrong(tmp_path, monkeypatch):
    """As `make figures` asks for: no words of the machinery around a step, every word of a failure."""
    command = tmp_path / "bin" / "fedmrg"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho STEP $1 >&2\n[ $1 = run ] && { echo 'fedmrg: no disk.' >&2; exit 1; }\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
    (quiet,) = re.findall(r"^STEPS_ALONE := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    done = snakemake(tmp_path, "--cores", "1", *quiet.split(), "--config", "seed=0")
    output = done.stdout + done.stderr
    assert done.returncode != 0 and "fedmrg: no disk." in output and "STEP run" in output
    assert "notebooks/01_data.py" in output  # the command that failed
    for word in ("Select jobs", "Execute 1", "Building DAG", "host:", "jobid", "resources"):
        assert word not in output, word
    refused = snakemake(tmp_path, "--cores", "1", *quiet.split(), "--config", "method=nothing")
    assert "nothing" in refused.stdout + refused.stderr and refused.returncode != 0


REMOTE = """
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor as Executor
from snakemake_interface_executor_plugins.settings import CommonSettings

common_settings = CommonSettings(
    non_local_exec=True, implies_no_shared_fs=False, job_deploy_sources=False, pass_default_storage_provider_args=True,
    pass_default_resources_args=True, pass_envvar_declarations_to_cmd=False, auto_deploy_default_storage_provider=False,
)
"""


def test_the_slurm_profile_says_minutes_and_needs_no_cores(tmp_path):
    """With a stand-in for the plugin, which is not among the requirements."""
    plugin = tmp_path / "snakemake_executor_plugin_slurm" / "__init__.py"
    plugin.parent.mkdir()
    plugin.write_text(REMOTE)
    profile = ("--profile", "workflow_profiles/slurm", "--config", "profile=paper", "threads=8")
    planned = snakemake(tmp_path, "--dry-run", *profile, anew=True)
    output = planned.stdout + planned.stderr
    assert planned.returncode == 0, output
    minutes = {
        rule: re.search(rf"rule {rule}:.*?runtime=(\d+)", output, re.DOTALL)[1] for rule in ("data", "federated_run")
    }
    assert minutes == {"data": "120", "federated_run": "2880"}


def test_real_data_go_to_every_notebook_that_reads_them(tmp_path):
    """With a data set of one's own, every notebook of the run still knows each parameter that it is given."""
    sites = ("A/B", "C, D", "NO", "O'N {x} $y", "ก" * 31)
    unseen = f"unseen={json.dumps(sites)}"
    done = dry_run(tmp_path, "data=folder", "data_root=some 'where", "partition=random", "seed=3", unseen)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [
        line[line.index("fedmrg run") :] for line in (done.stdout + done.stderr).splitlines() if "fedmrg run" in line
    ]
    assert any("seed-3" in line and "folder,random" in line for line in lines)
    for words in map(shlex.split, lines):
        written = dict(parse_parameter(words[at + 1]) for at, word in enumerate(words) if word == "-p")
        given = read_parameters(read_notebook(ROOT / words[2]), words[2], written)
        assert read_sites(given["unseen"]) == sites if words[2][10:12] in ("06", "07", "08") else "unseen" not in given
        assert given.get("data_root", "some 'where") == "some 'where"
