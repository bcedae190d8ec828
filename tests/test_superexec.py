"""Our SuperExec: the command line is Flower's, and every process is a fork of what has imported."""

from __future__ import annotations

import importlib
import os
import pathlib
import subprocess
import sys

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import subprocess_executor
from flwr.supercore.superexec.executor.types import ExecutionSpec

from fedmrg_core.errors import InputError
from fedmrg_core.federation.deployment import app_process, program_environment, superexec
from fedmrg_core.runs import task_registry

ENVIRONMENTS = {
    "flwr-clientapp": program_environment.hospital_environment,
    "flwr-serverapp": program_environment.server_environment,
}


@pytest.mark.parametrize("task_type", [TaskType.CLIENT_APP, TaskType.SERVER_APP])
@pytest.mark.parametrize("certificates", ["", "authority.pem"])
@pytest.mark.parametrize("parent", [None, 12])
def test_the_command_line_is_the_one_of_flowers_executor(task_type, certificates, parent, monkeypatch):
    spec = ExecutionSpec(
        task_type=task_type, runtime_api_address="127.0.0.1:9094", token="secret", task_id=3,
        insecure=not certificates, root_certificates_path=certificates or None, parent_pid=parent,
        runtime_dependency_install=False, suppress_output=False,
    )  # fmt: skip
    started = []
    monkeypatch.setattr(subprocess_executor.subprocess, "Popen", started.append)
    subprocess_executor.SubprocessExecutor().launch(spec)
    assert started == [superexec._words(spec)]


@pytest.mark.parametrize("program", ENVIRONMENTS)
def test_flowers_programs_find_it_in_place_of_flowers(program, tmp_path):
    found = ENVIRONMENTS[program](tmp_path, "reports")
    first = pathlib.Path(found["PATH"].split(os.pathsep)[0]) / program_environment.SUPEREXEC
    said = subprocess.run([first, "--help"], env=found, capture_output=True, text=True, check=True, timeout=120)
    assert "Run Flower SuperExec" in said.stdout and said.stderr == ""
    assert superexec.__name__ in first.read_text() and program in first.read_text()


@pytest.mark.parametrize("program", ENVIRONMENTS)
def test_the_function_that_a_fork_calls_is_flowers(program):
    module = importlib.import_module(app_process.PROGRAMS[program])
    assert callable(getattr(module, program.replace("-", "_"))) and set(app_process.PROGRAMS) == set(ENVIRONMENTS)


@pytest.mark.parametrize("silent", [True, False])
def test_a_fork_that_is_to_be_silent_prints_nowhere(silent):
    program = (
        "import sys, types; from fedmrg_core.federation.deployment import app_process\n"
        "sys.modules['stand_in'] = types.SimpleNamespace(flwr_clientapp=lambda: print('said', sys.argv))\n"
        "app_process.PROGRAMS['flwr-clientapp'] = 'stand_in'\n"
        f"app_process.run_app(['flwr-clientapp', '--token', 't'], {silent})"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout == ("" if silent else "said ['flwr-clientapp', '--token', 't']\n")


@pytest.mark.parametrize("program", ENVIRONMENTS)
@pytest.mark.parametrize("task", ["medical_qa", "unknown"])
def test_what_an_app_needs_is_imported_and_an_unknown_task_is_no_error(program, task, tmp_path, monkeypatch):
    made = []

    def make_task(name):
        made.append(name)
        if name == "unknown":
            raise InputError("task 'unknown' is unknown")

    monkeypatch.setattr(task_registry, "make_task", make_task)
    found = ENVIRONMENTS[program](tmp_path, task)
    for name in (program_environment.APP, program_environment.TASK):
        monkeypatch.setenv(name, found[name])
    monkeypatch.delitem(sys.modules, superexec.IMPORTED_APP, raising=False)
    importlib.import_module(superexec.IMPORTED_APP)
    assert made == [task] and found[program_environment.APP] in sys.modules
