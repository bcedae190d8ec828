"""A hospital's SuperExec, which starts a process for every message: a fork of one that has imported already.

Importing torch, transformers and peft takes a new process seconds, more than many a message's work. So Python's fork
server imports once what the hospital's task needs, computes nothing and opens nothing, and each message has a clean
fork of it. Like `federation.grid` this depends on what is Flower's own (its executor); flwr is pinned for it.
"""

from __future__ import annotations

import multiprocessing

from flwr.supercore.cli.flower_superexec import flower_superexec
from flwr.supercore.constant import TASK_TYPE_TO_APPIO_API_ADDRESS_ARG, TASK_TYPE_TO_COMMAND
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supercore.superexec.executor.types import ExecutionSpec, LaunchResult

from fedmrg_core.federation.deployment.hospital_process import answer

IMPORTED = ("fedmrg_core.federation.deployment.hospital_process", "fedmrg_core.federation.deployment.imported_task")


class ForkingExecutor(SubprocessExecutor):
    """Flower's executor, whose processes are forks; it is made when the fork server has imported.

    No message is taken before: Flower gives a process half a minute to start from then on.
    """

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(IMPORTED))
        first = self._context.Process(target=int)
        first.start()
        first.join()

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start the process that answers one message."""
        multiprocessing.active_children()  # lets go of those that have ended
        self._context.Process(target=answer, args=(_words(spec),)).start()
        return LaunchResult.accepted()

    def close(self) -> None:
        """End what is still answering; nobody would take the answer."""
        for process in multiprocessing.active_children():
            process.terminate()


def _words(spec: ExecutionSpec) -> list[str]:
    """The command line of a ClientApp, as Flower's own executor makes it."""
    words = [TASK_TYPE_TO_COMMAND[spec.task_type], TASK_TYPE_TO_APPIO_API_ADDRESS_ARG[spec.task_type]]
    words += [spec.runtime_api_address, "--token", spec.token]
    if spec.insecure:
        words += ["--insecure"]
    elif spec.root_certificates_path is not None:
        words += ["--root-certificates", spec.root_certificates_path]
    return words if spec.parent_pid is None else [*words, "--parent-pid", str(spec.parent_pid)]


def main() -> None:
    """Run Flower's SuperExec with the executor above."""
    run_superexec.get_executor = lambda *_, **__: ForkingExecutor()
    flower_superexec()
