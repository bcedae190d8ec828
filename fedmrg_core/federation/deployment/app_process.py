"""The process that runs one of Flower's apps once: a hospital's for one message, a server's for one run."""

from __future__ import annotations

import importlib
import os
import sys

# What Flower's executor would start as a program of its own: where its function, of the same name, lies.
PROGRAMS = {
    "flwr-clientapp": "flwr.supernode.cli.flwr_clientapp",
    "flwr-serverapp": "flwr.superlink.cli.flwr_serverapp",
}


def run_app(words: list[str], silent: bool) -> None:
    """Do what the command line `words` does, in this process.

    Args:
        words: the program's name and its arguments.
        silent: what it prints goes nowhere; Flower sends a server app's log to the SuperLink besides.
    """
    sys.argv = words
    if silent:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
    program = words[0].replace("-", "_")
    getattr(importlib.import_module(PROGRAMS[words[0]]), program)()
