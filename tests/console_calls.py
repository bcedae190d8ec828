"""The command line as people call it."""

import contextlib
import io
import subprocess
import sys
from unittest import mock

from fedmrg_core.commands.command_line import main


def fedmrg(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the command line in this process, which has imported already what takes a new one seconds."""
    written, told, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["fedmrg", *arguments]),
        contextlib.redirect_stdout(written),
        contextlib.redirect_stderr(told),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(arguments, code, written.getvalue(), told.getvalue())


def fedmrg_alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the command line in a process of its own."""
    command = [sys.executable, "-m", "fedmrg_core.commands.command_line", *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
