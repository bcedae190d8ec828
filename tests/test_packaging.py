"""Environment files, package and notebooks agree with one another."""

import importlib.metadata
import pathlib
import re
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from fedmrg_core.commands.committed_notebooks import differing_cells

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


def test_the_browser_is_pinned_apart_from_the_lock():
    """It has a file of its own, because it is large and for tests alone."""
    lines = [line for line in (ROOT / "tests" / "browser.lock").read_text().splitlines() if not line.startswith("#")]
    assert lines and all(PINNED.match(line) for line in lines)
    assert not {canonicalize_name(line.split("==")[0]) for line in lines} & set(lock())


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
    waiting += [("setuptools", set()), ("pip", set())]  # build and install this package
    while waiting:
        name, extras = waiting.pop()
        if (name, frozenset(extras)) in reached or name not in locked:
            continue
        reached.add((name, frozenset(extras)))
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": x}) for x in ("", *extras)):
                waiting.append((canonicalize_name(requirement.name), requirement.extras))
    assert not set(locked) - {name for name, _ in reached}


def test_every_locked_package_has_digests():
    """But torch, of which several builds have one version."""
    text = (ROOT / "requirements.hashes").read_text()
    entries = re.findall(
        r"^([A-Za-z0-9._-]+)==([A-Za-z0-9.]+) ?((?:\\\n    --hash=sha256:[0-9a-f]{64} ?)+)$", text, re.MULTILINE
    )
    assert {canonicalize_name(name): version for name, version, _ in entries} == {
        name: version for name, version in lock().items() if name != "torch"
    }
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == sum(1 + hashes.count("--hash") for *_, hashes in entries)  # no address, no option


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


def test_figures_are_installed_and_nothing_changes_the_path_of_imports():
    from setuptools import find_packages

    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "figures" in find_packages(str(ROOT), include=setuptools["packages"]["find"]["include"])
    folders = ("fedmrg_core", "notebooks", "figures", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    changing = re.compile(r"\bsys\.path\.(append|insert|extend)\(")
    assert len(files) > 100
    assert not [str(path) for path in files if changing.search(path.read_text(encoding="utf-8"))]


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


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebook_has_the_cells_of_its_source(source):
    assert not differing_cells(source), "run `fedmrg notebook sync`"
