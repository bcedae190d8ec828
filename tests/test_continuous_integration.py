"""`.ci/run`: every step once and in order, and the first that fails ends it with its name."""

import os
import pathlib
import shutil
import subprocess

import pytest

from fedmrg_core.evaluation.reference import reference_runs

# In their order, but for the browser: it comes beside the first ones.
STEPS = ["environment", "lint", "docs", "test", "numerical", "deployment", "runs"]
NOTEBOOKS = ("11_", "12_", "12c_", "12d_report", "13_", "14_")
RUNS = ("figures", "--only smoke/", "--only fedmrg")

PROGRAM = """#!/bin/sh
echo "$*" >> commands
for step; do
    case "$step" in
        --file=*runs.mk) step=runs ;;
        --* | *=*) continue ;;
    esac
    echo "$step" >> called
    if [ "$step" = "$FAILS" ]; then exit 3; fi
    echo "the last words of $step"
    if [ "${0##*/}" != make ]; then break; fi
done
"""


@pytest.fixture
def programs(tmp_path):
    """`make` and `fedmrg` that only write down what they are asked for."""
    for name in ("bin/make", ".venv/bin/fedmrg", ".venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(PROGRAM)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(folder: pathlib.Path, repository: pathlib.Path, fails: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    (folder / ".ci").mkdir()
    shutil.copy(repository / ".ci" / "run", folder / ".ci" / "run")
    variables = os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "FAILS": fails}
    done = subprocess.run(["bash", folder / ".ci" / "run"], env=variables, capture_output=True, text=True, check=False)
    return done, (folder / "called").read_text().split()


def test_every_step_runs_once_and_the_tests_have_the_last_word(programs, repository):
    done, called = run(programs, repository, fails="")
    assert done.returncode == 0, done.stderr
    assert [step for step in called if step in STEPS] == STEPS and called.count("browser") == 1
    assert done.stdout.splitlines()[-1] == "the last words of test"
    assert "CI: make deployment took" in done.stdout and "without a browser" not in done.stdout


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_ends_it_and_is_named(step, programs, repository):
    done, called = run(programs, repository, fails=step)
    assert done.returncode == 3
    assert [name for name in called if name in STEPS] == STEPS[: STEPS.index(step) + 1]
    last = done.stderr.splitlines()[-1]
    assert last.startswith("CI stopped in ") and step in last and last.endswith("(exit code 3).")


def test_without_a_browser_it_goes_on(programs, repository):
    done, called = run(programs, repository, fails="browser")
    assert done.returncode == 0 and [step for step in called if step in STEPS] == STEPS
    assert "CI: without a browser" in done.stdout


def made(folder: pathlib.Path, repository: pathlib.Path, fails: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """The runs, by programs that only write down what they are asked for, and their command lines."""
    command = ["make", f"--file={repository / '.ci' / 'runs.mk'}", f"MAKE={folder / 'bin' / 'make'}", "--keep-going"]
    variables = os.environ | {"FAILS": fails}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    return done, (folder / "commands").read_text().splitlines()


def test_every_notebook_runs_after_what_it_reads(programs, repository):
    done, commands = made(programs, repository, fails="")
    assert done.returncode == 0 and "CI: figures took 0 s" in done.stdout
    place = {name: [n for n, line in enumerate(commands) if name in line] for name in (*NOTEBOOKS, *RUNS)}
    assert {len(lines) for lines in place.values()} == {1} and len(commands) == len(place)
    assert all(place[RUNS[0]] < place[name] for name in ("12d_report", RUNS[2]))
    assert all(place[RUNS[1]] < place[name] for name in ("11_", "12_", "12c_"))


@pytest.mark.parametrize(("fails", "left"), [("figures", ("12d_", RUNS[2])), ("verify", ("11_", "12_", "12c_"))])
def test_where_a_run_fails_nothing_reads_it(fails, left, programs, repository):
    done, commands = made(programs, repository, fails)
    assert done.returncode == 2 and "Error 3" in done.stderr
    assert not [line for line in commands if any(name in line for name in left)]
    assert any("14_" in line for line in commands)


def test_of_every_stored_row_a_run_is_made_again(programs, repository):
    commands = "\n".join(made(programs, repository, fails="")[1]).split()
    asked = {name for word, name in zip(commands, commands[1:], strict=False) if word == "--only"}
    stored = reference_runs(repository / "figures" / "reference", "smoke")
    assert {(run.data, run.method) for run in stored} == {
        (run.data, run.method) for run in stored if asked & {run.method, run.name}
    }


def test_every_step_of_make_is_a_target(repository):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{step}: " in makefile for step in STEPS if step != "runs")
