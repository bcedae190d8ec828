"""A Chromium without a window, asked through its DevTools protocol: that of `make browser`, or one of this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "microsoft-edge", "chrome")
SECONDS = 60  # to start, and to load a page on a busy machine
FLAGS = "--disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run"

# Qt's Chromium needs an application around it.
QT_APPLICATION = """
import sys
from PySide6.QtWidgets import QApplication
from PySide6.QtWebEngineWidgets import QWebEngineView
application = QApplication(sys.argv)
view = QWebEngineView()
view.resize(1280, 900)
view.setUrl("about:blank")
view.show()
sys.exit(application.exec())
"""


class NoBrowserError(Exception):
    """No browser is installed, or none starts."""


def _free_port() -> int:
    """A port that nobody listens on; Qt takes no 0 for any."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


def _commands(profile: str) -> list[tuple[list[str], dict[str, str]]]:
    """What may be started, with its environment variables, best first; `profile` is a new folder."""
    found: list[tuple[list[str], dict[str, str]]] = []
    # root may not use the sandbox; the pages are our own.
    sandbox = "--no-sandbox " if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
    if importlib.util.find_spec("PySide6") and importlib.util.find_spec("PySide6.QtWebEngineWidgets"):
        variables = {
            "QT_QPA_PLATFORM": "offscreen",
            "QTWEBENGINE_REMOTE_DEBUGGING": f"127.0.0.1:{_free_port()}",
            "QTWEBENGINE_CHROMIUM_FLAGS": sandbox + FLAGS,
            "QTWEBENGINE_DISABLE_SANDBOX": "1" if sandbox else "",
            "XDG_DATA_HOME": profile,
            "XDG_CACHE_HOME": profile,
        }
        found.append(([sys.executable, "-c", QT_APPLICATION], {name: text for name, text in variables.items() if text}))
    options = [*(sandbox + FLAGS).split(), "--headless", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    for program in filter(None, map(shutil.which, PROGRAMS)):
        found.append(([program, *options, "--window-size=1280,900", "about:blank"], {}))
    return found


def _address(process: subprocess.Popen, said: pathlib.Path) -> str | None:
    """Where the browser listens, host:port; None: it ended or said nothing."""
    for _ in range(SECONDS * 10):
        if found := re.search(r"DevTools listening on ws://([\w.:]+)/", said.read_text(errors="replace")):
            return found[1]
        if process.poll() is not None:
            return None
        time.sleep(0.1)
    return None


class Browser:
    """One page of a running browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection, self.numbers = connection, itertools.count(1)
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Network", "Runtime"):
            self.ask(f"{domain}.enable")

    def _next(self) -> dict[str, Any]:
        return json.loads(self.connection.recv(timeout=SECONDS))

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command; events that arrive meanwhile are kept."""
        number = next(self.numbers)
        self.connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := self._next()).get("id") != number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, address: str) -> list[dict[str, Any]]:
        """Load a page; what happened until it was loaded, as events of the protocol."""
        self.events.clear()
        self.ask("Page.navigate", url=address)
        while all(event["method"] != "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        return self.events

    def evaluate(self, script: str) -> Any:
        """The value of an expression of the page, awaited."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A running browser.

    Raises:
        NoBrowserError: see there.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        said = pathlib.Path(folder, "said.txt")
        for command, variables in _commands(folder):
            with said.open("w") as file:
                process = subprocess.Popen(
                    command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=os.environ | variables
                )
            try:
                if (host := _address(process, said)) is None:
                    continue
                with urllib.request.urlopen(f"http://{host}/json/list", timeout=SECONDS) as answer:
                    page = next(target for target in json.load(answer) if target["type"] == "page")
                with connect(page["webSocketDebuggerUrl"], max_size=None, close_timeout=1) as connection:
                    yield Browser(connection)
                    return
            finally:
                process.terminate()
                process.wait(SECONDS)
        last = f" The last one said: {said.read_text(errors='replace')[-500:]}" if said.exists() else ""
    raise NoBrowserError(f"no browser starts: `make browser` installs one, Chromium or Chrome will do.{last}")
