"""The command line as people call it."""

import subprocess
import sys


def fedmrg(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the command line in a process of its own and take in what it writes."""
    command = [sys.executable, "-m", "fedmrg_core.commands.command_line", *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
