"""A hospital's SuperExec: the command line is Flower's, and a message is answered by a fork of what has imported."""

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
from fedmrg_core.federation.deployment import superexec, superlink
from fedmrg_core.runs import task_registry

IMPORTED_TASK = "fedmrg_core.federation.deployment.imported_task"


@pytest.mark.parametrize("certificates", ["", "authority.pem"])
@pytest.mark.parametrize("parent", [None, 12])
def test_the_command_line_is_the_one_of_flowers_executor(certificates, parent, monkeypatch):
    spec = ExecutionSpec(
        task_type=TaskType.CLIENT_APP, runtime_api_address="127.0.0.1:9094", token="secret", task_id=3,
        insecure=not certificates, root_certificates_path=certificates or None, parent_pid=parent,
        runtime_dependency_install=False, suppress_output=False,
    )  # fmt: skip
    started = []
    monkeypatch.setattr(subprocess_executor.subprocess, "Popen", started.append)
    subprocess_executor.SubprocessExecutor().launch(spec)
    assert started == [superexec._words(spec)]


def test_a_supernode_finds_it_in_place_of_flowers(tmp_path):
    found = superlink.hospital_environment(tmp_path, "reports")
    first = pathlib.Path(found["PATH"].split(os.pathsep)[0])
    said = subprocess.run(
        [first / superlink.SUPEREXEC, "--help"], env=found, capture_output=True, text=True, check=True, timeout=120
    )
    assert "Run Flower SuperExec" in said.stdout and said.stderr == ""
    assert superexec.__name__ in (first / superlink.SUPEREXEC).read_text()


@pytest.mark.parametrize("task", ["medical_qa", "unknown"])
def test_what_a_task_needs_is_imported_and_an_unknown_one_is_no_error(task, monkeypatch):
    made = []

    def make_task(name):
        made.append(name)
        if name == "unknown":
            raise InputError("task 'unknown' is unknown")

    monkeypatch.setattr(task_registry, "make_task", make_task)
    monkeypatch.setenv(superlink.TASK, task)
    monkeypatch.delitem(sys.modules, IMPORTED_TASK, raising=False)
    importlib.import_module(IMPORTED_TASK)
    assert made == [task] and IMPORTED_TASK in superexec.IMPORTED
    assert "fedmrg_core.federation.client_app" in sys.modules
