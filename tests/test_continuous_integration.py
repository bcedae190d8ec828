"""`.ci/run`: every step once and in order, and the first that fails ends it with its name."""

import os
import pathlib
import shutil
import subprocess

import pytest

STEPS = [
    *("environment", "lint", "docs", "browser", "test", "numerical", "deployment", "figures", "verify"),
    *["run"] * 6,
]

PROGRAM = """#!/bin/sh
for step; do
    case "$step" in --*) continue ;; esac
    echo "$step" >> called
    if [ "$step" = "$FAILS" ]; then exit 3; fi
    echo "the last words of $step"
    if [ "${0##*/}" != make ]; then break; fi
done
"""


def run(folder: pathlib.Path, repository: pathlib.Path, fails: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """Run it where `make` and `fedmrg` only write down what they are asked for."""
    (folder / ".ci").mkdir()
    shutil.copy(repository / ".ci" / "run", folder / ".ci" / "run")
    for name in ("bin/make", ".venv/bin/fedmrg"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(PROGRAM)
        (folder / name).chmod(0o755)
    variables = os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "FAILS": fails}
    done = subprocess.run(["bash", folder / ".ci" / "run"], env=variables, capture_output=True, text=True, check=False)
    return done, (folder / "called").read_text().split()


def test_every_step_runs_once_and_the_tests_have_the_last_word(tmp_path, repository):
    done, called = run(tmp_path, repository, fails="")
    assert done.returncode == 0, done.stderr
    assert called == STEPS
    assert done.stdout.splitlines()[-1] == "the last words of test"
    assert "CI: make figures took" in done.stdout


@pytest.mark.parametrize("step", [step for step in dict.fromkeys(STEPS) if step != "browser"])
def test_a_step_that_fails_ends_it_and_is_named(step, tmp_path, repository):
    code, reached = (3, STEPS[: STEPS.index(step) + 1]) if step != "run" else (123, STEPS)  # notebooks run side by side
    done, called = run(tmp_path, repository, fails=step)
    assert done.returncode == code and called == reached
    last = done.stderr.splitlines()[-1]
    assert last.startswith("CI stopped in ") and step in last and last.endswith(f"(exit code {code}).")


def test_without_a_browser_it_goes_on(tmp_path, repository):
    done, called = run(tmp_path, repository, fails="browser")
    assert done.returncode == 0 and called == STEPS and "CI: without a browser" in done.stdout


def test_every_step_of_make_is_a_target(repository):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{step}: " in makefile for step in STEPS if step not in ("verify", "run"))
