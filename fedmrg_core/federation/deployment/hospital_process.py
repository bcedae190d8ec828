"""The process that answers one message at a hospital."""

from __future__ import annotations

import sys

from flwr.supernode.cli.flwr_clientapp import flwr_clientapp


def answer(words: list[str]) -> None:
    """Do what the command line `words` does, in this process: pull one message, run the app on it, push the reply."""
    sys.argv = words
    flwr_clientapp()
