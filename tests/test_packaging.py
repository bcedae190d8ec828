"""Environment files, package, workflow and notebooks agree with one another."""

import importlib.metadata
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from fedmrg_core.committed_notebooks import differing_cells
from fedmrg_core.notebooks import check_parameters, parse_parameter, read_notebook

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
PINNED = re.compile(r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")


# These read what is installed; elsewhere (a GPU server with its own torch, say) other versions are expected.
made_by_make = pytest.mark.skipif(
    pathlib.Path(sys.prefix).resolve() != ROOT / ".venv", reason="holds for the environment that `make` creates"
)


def lock() -> dict[str, str]:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    wrong = [line for line in lines if not PINNED.match(line)]
    assert not wrong, f"name==version only, no address, no path, no local version: {wrong}"
    pairs = [line.split("==") for line in lines]
    assert len({canonicalize_name(name) for name, _ in pairs}) == len(pairs)
    return {canonicalize_name(name): version for name, version in pairs}


def direct_requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for text in [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]]


def test_direct_dependencies_are_pinned_as_in_the_lock():
    locked = lock()
    for requirement in direct_requirements():
        assert str(requirement.specifier) == f"=={locked[canonicalize_name(requirement.name)]}", requirement


@made_by_make
def test_the_lock_is_complete():
    """What a locked package needs on this machine is locked too, at a version that it accepts."""
    locked, extras = lock(), {canonicalize_name(item.name): item.extras for item in direct_requirements()}
    for name in locked:
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            wanted = [{"extra": extra} for extra in ("", *extras.get(name, ()))]
            if requirement.marker is None or any(requirement.marker.evaluate(each) for each in wanted):
                found = locked.get(canonicalize_name(requirement.name))
                if found is None and sys.platform == "linux" and name == "torch":
                    continue  # the CUDA libraries of one build
                assert found is not None, f"{name} needs {requirement}, which requirements.lock lacks"
                assert requirement.specifier.contains(found, prereleases=True), f"{name} needs {requirement}: {found}"


@made_by_make
def test_every_locked_version_takes_the_first_python_3_11():
    """Debian 12 has 3.11.2: a version that asks for a later one cannot be installed there."""
    for name in lock():
        wanted = importlib.metadata.metadata(name)["Requires-Python"] or ""
        assert SpecifierSet(wanted).contains("3.11.0"), f"{name} needs Python {wanted}"


@made_by_make
def test_the_lock_holds_nothing_that_nothing_needs():
    locked = lock()
    reached, waiting = set(), [(canonicalize_name(item.name), item.extras) for item in direct_requirements()]
    waiting.append(("setuptools", set()))  # builds this package
    while waiting:
        name, extras = waiting.pop()
        if (name, frozenset(extras)) in reached or name not in locked:
            continue
        reached.add((name, frozenset(extras)))
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": x}) for x in ("", *extras)):
                waiting.append((canonicalize_name(requirement.name), requirement.extras))
    assert not set(locked) - {name for name, _ in reached}


def test_conda_environment_is_the_lock():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, from_pip = content["dependencies"]
    assert packages == ["python=3.11", "pip"]
    assert from_pip == {"pip": ["-r requirements.lock"]}
    assert PROJECT["requires-python"] == ">=3.11"


@made_by_make
def test_this_environment_is_the_lock():
    """Tests and figures ran with these versions; another build of torch has a local version behind the plus sign."""
    for name, version in lock().items():
        assert importlib.metadata.version(name).partition("+")[0] == version, name


def test_the_package_takes_all_its_modules_along():
    """Every folder with Python files is a package or lies in one as data that pyproject.toml names."""
    from setuptools import find_packages

    found = {pathlib.Path(name.replace(".", "/")) for name in find_packages(str(ROOT), include=["fedmrg_core*"])}
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "fedmrg_core").rglob("*.py")}
    lost = {folder for folder in folders - found if not any(parent in found for parent in folder.parents)}
    assert not lost
    assert pathlib.Path("fedmrg_core/federation") in found


def test_licence_and_citation():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["license"], PROJECT["license"]) == ("Apache-2.0", "Apache-2.0")
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2506.17562"
    from fedmrg_core import __version__

    assert citation["version"] == __version__


def test_weights_are_never_unpickled():
    unsafe = re.compile(r"\btorch\.load\(|\bpickle\.loads?\(|\bjoblib\.load\(|weights_only=False")
    here = pathlib.Path(__file__)
    files = [path for folder in ("fedmrg_core", "notebooks", "figures") for path in (ROOT / folder).rglob("*.py")]
    assert here not in files and len(files) > 10
    assert not [str(path) for path in files if unsafe.search(path.read_text(encoding="utf-8"))]


WORKFLOW = (
    "Snakefile", "notebooks", "profiles", "methods.yaml", "experiments.yaml", "fedmrg_core", "figures",
    "workflow_profiles",
)  # fmt: skip


def snakemake(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Snakemake in a folder without any result; what the workflow needs and the folder lacks is linked there."""
    for name in WORKFLOW:
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    code = (folder / "fedmrg_core").resolve().parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(code), str(folder)])}
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
    assert len(runs) == 8
    for path in NOTEBOOKS[:8]:
        words = runs[path.stem]
        given = dict(parse_parameter(words[at + 1]) for at, word in enumerate(words) if word == "-p")
        assert given["profile"] == "smoke"
        check_parameters(read_notebook(path), path.name, given)


def test_the_report_collects_every_notebook(planned_commands):
    (report,) = [words for words in planned_commands if words[1] == "report"]
    assert report[2] == "results/smoke/phantom/fedmrg/seed-0"
    assert [pathlib.Path(word).stem for word in report[5:]] == [path.stem for path in NOTEBOOKS[:8]]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("metod=fedmrg", "metod: no such setting"),
        ("seed=one", "seed: expected int, not 'one'"),
        ("method=nothing", "nothing"),
        ("profile=nothing", "nothing"),
        ("clients=-1", "run: clients: Input should be greater than or equal to 0"),
        ("unseen=centre-z", "unseen names 'centre-z'"),
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
    assert len(federated) == len({" ".join(words) for words in federated}) == 8 * 3 + 3
    assert all("threads=1" in words for words in federated)
    for words in lines:
        given = dict(parse_parameter(words[at + 1]) for at, word in enumerate(words) if word == "-p")
        check_parameters(read_notebook(ROOT / words[2]), words[2], given)


def test_what_adaptation_lacks_is_planned_and_nothing_else(tmp_path):
    """A reference without adaptation.csv is trained again for it; notebook 09 is for that experiment's runs alone."""
    shutil.copytree(ROOT / "fedmrg_core", tmp_path / "fedmrg_core", ignore=shutil.ignore_patterns("__pycache__"))
    references = tmp_path / "figures" / "reference" / "smoke" / "phantom"
    for path, names in {
        "fedmrg/seed-0": ["manifest.json"],
        "fed-lora/seed-0": ["manifest.json", "adaptation.csv"],
        "local/seed-0": ["manifest.json"],
    }.items():
        (references / path).mkdir(parents=True)
        for name in names:
            (references / path / name).touch()
    done = dry_run(tmp_path, "experiment=main,adaptation", target="runs")
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    planned = {
        number: set(re.findall(rf"--output results/smoke/phantom/(\S+)/notebooks/{number}_", output))
        for number in ("06", "07", "09")
    }
    adapted = {f"{method}/seed-{seed}" for method in ("fedmrg", "fed-lora") for seed in range(3)} - {"fed-lora/seed-0"}
    assert planned["09"] == adapted
    assert planned["06"] == planned["07"] >= adapted | {"local/seed-1"}
    assert not planned["06"] & {"fed-lora/seed-0", "local/seed-0"}


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
    listed = snakemake(tmp_path, "--list-rules", *profile)
    assert listed.returncode == 0 and "federated_run" in listed.stdout, listed.stdout + listed.stderr
    planned = snakemake(tmp_path, "--dry-run", *profile)
    output = planned.stdout + planned.stderr
    assert planned.returncode == 0, output
    minutes = {
        rule: re.search(rf"rule {rule}:.*?runtime=(\d+)", output, re.DOTALL)[1] for rule in ("data", "federated_run")
    }
    assert minutes == {"data": "120", "federated_run": "2880"}


def test_real_data_go_to_every_notebook_that_reads_them(tmp_path):
    """With a data set of one's own, every notebook of the run still knows each parameter that it is given."""
    done = dry_run(tmp_path, "data=folder", "data_root=some where", "partition=random", "seed=3")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [
        line[line.index("fedmrg run") :] for line in (done.stdout + done.stderr).splitlines() if "fedmrg run" in line
    ]
    assert any("seed-3" in line and "folder,random" in line for line in lines)
    for words in map(shlex.split, lines):
        given = dict(parse_parameter(words[at + 1]) for at, word in enumerate(words) if word == "-p")
        check_parameters(read_notebook(ROOT / words[2]), words[2], given)


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebook_has_the_cells_of_its_source(source):
    assert not differing_cells(source), "run `fedmrg notebook sync`"
