"""A SuperExec whose processes are forks of one that has imported already: a hospital's for every message, a server's.

Importing torch, transformers and peft takes a new process seconds, more than many a message's work. So Python's fork
server imports once what the app and its task need, computes nothing and opens nothing, and each process is a clean fork
of it. Like `federation.grid` this depends on what is Flower's own (its executor); flwr is pinned for it.
"""

from __future__ import annotations

import multiprocessing

from flwr.supercore.cli.flower_superexec import flower_superexec
from flwr.supercore.constant import TASK_TYPE_TO_APPIO_API_ADDRESS_ARG, TASK_TYPE_TO_COMMAND
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supercore.superexec.executor.types import ExecutionSpec, LaunchResult

from fedmrg_core.federation.deployment.app_process import PROGRAMS, run_app

IMPORTED_APP = "fedmrg_core.federation.deployment.imported_app"


class ForkingExecutor(SubprocessExecutor):
    """Flower's executor, whose processes are forks; it is made when the fork server has imported.

    No task is taken before: Flower gives a process half a minute to start from then on.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([run_app.__module__, PROGRAMS[program], IMPORTED_APP])
        first = self._context.Process(target=int)
        first.start()
        first.join()

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start the process that runs the app once."""
        words = _words(spec)
        if words[0] != self._program:
            return super().launch(spec)
        multiprocessing.active_children()  # lets go of those that have ended
        self._context.Process(target=run_app, args=(words, spec.suppress_output)).start()
        return LaunchResult.accepted()

    def close(self) -> None:
        """End what is still running; nobody would take its answer."""
        for process in multiprocessing.active_children():
            process.terminate()


def _words(spec: ExecutionSpec) -> list[str]:
    """The command line of an app, as Flower's own executor makes it."""
    words = [TASK_TYPE_TO_COMMAND[spec.task_type], TASK_TYPE_TO_APPIO_API_ADDRESS_ARG[spec.task_type]]
    words += [spec.runtime_api_address, "--token", spec.token]
    if spec.insecure:
        words += ["--insecure"]
    elif spec.root_certificates_path is not None:
        words += ["--root-certificates", spec.root_certificates_path]
    return words if spec.parent_pid is None else [*words, "--parent-pid", str(spec.parent_pid)]


def main(program: str) -> None:
    """Run Flower's SuperExec with the executor above.

    Args:
        program: one of `PROGRAMS`, whose apps it starts as forks.
    """
    run_superexec.get_executor = lambda *_, **__: ForkingExecutor(program)
    flower_superexec()
