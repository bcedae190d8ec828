"""A hospital's SuperExec: the command line is Flower's, and a message is answered by a fork of what has imported."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import subprocess_executor
from flwr.supercore.superexec.executor.types import ExecutionSpec

from fedmrg_core.federation.deployment import superexec, superlink


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


@pytest.mark.parametrize(("task", "module"), [("reports", "peft"), ("unknown", "fedmrg_core.federation.client_app")])
def test_what_a_task_needs_is_imported_and_an_unknown_one_is_no_error(task, module):
    code = "import sys, fedmrg_core.federation.deployment.imported_task; print(sys.argv[1] in sys.modules)"
    variables = os.environ | {superlink.TASK: task}
    said = subprocess.run(
        [sys.executable, "-c", code, module], env=variables, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "True"
