"""Before programs start and when they end: whom a hospital calls, what a SuperLink knows, keys, versions, locks."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from types import SimpleNamespace

import filelock
import pandas
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from federation_fake import fake_configuration
from flwr.app import Message, MessageType
from flwr.superlink.grid import http_grid
from linear_task import CLIENTS
from test_deployment import in_process, places, spoilt  # noqa: F401

from fedmrg_core.errors import InputError
from fedmrg_core.federation import run, server_app
from fedmrg_core.federation.deployment import certificates, folders, nodes, program_environment, running, superlink
from fedmrg_core.federation.deployment.reach import check_server
from fedmrg_core.federation.grid import FIRST_CLIENT_NODE, InProcessGrid
from fedmrg_core.federation.run import run_federation

NOW = datetime.datetime.now(datetime.UTC)
HOUR = datetime.timedelta(hours=1)


@contextlib.contextmanager
def answering(folder: pathlib.Path) -> Iterator[int]:
    """A server on loopback with the certificate of a folder; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    class Quiet(http.server.HTTPServer):
        def handle_error(self, *_: object) -> None:
            """Whoever is called does not trust the certificate: that is the test."""

    server = Quiet(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / certificates.CERTIFICATE, folder / certificates.CERTIFICATE_KEY)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def authority(tmp_path: pathlib.Path) -> pathlib.Path:
    certificates.make_authority(tmp_path, "ours")
    certificates.issue_certificate(tmp_path, ["localhost", "127.0.0.1"])
    return tmp_path / certificates.AUTHORITY


def test_the_right_server_passes_and_clocks_are_compared(authority, tmp_path):
    with answering(tmp_path) as port:
        assert check_server("127.0.0.1", port, authority) and check_server("localhost", port, authority)
        with pytest.raises(InputError, match=r"clock is 3\d\d\d s ahead of that of localhost.*set both right"):
            check_server("localhost", port, authority, datetime.datetime.now(datetime.UTC) + HOUR)
        with pytest.raises(InputError, match=r"clock is 3\d\d\d s behind that of localhost"):
            check_server("localhost", port, authority, datetime.datetime.now(datetime.UTC) - HOUR)
    assert not check_server("localhost", port, authority)  # nobody is there any more


def test_a_wrong_certificate_is_told_in_a_sentence(authority, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    certificates.make_authority(other, "ours")  # the same name is not the same authority
    certificates.issue_certificate(other, ["127.0.0.1"])
    with answering(other) as port, pytest.raises(InputError, match="does not pass .*check the server with whoever"):
        check_server("127.0.0.1", port, authority)
    certificates.issue_certificate(tmp_path, ["fed.example.org"])
    with answering(tmp_path) as port, pytest.raises(InputError, match="does not pass .*not valid for"):
        check_server("127.0.0.1", port, authority)
    monkeypatch.setattr(certificates, "_now", lambda: NOW - datetime.timedelta(days=400))
    certificates.issue_certificate(tmp_path, ["127.0.0.1"])
    with answering(tmp_path) as port, pytest.raises(InputError, match="does not pass .*expired"):
        check_server("127.0.0.1", port, authority)


@contextlib.contextmanager
def between(port: int, flips: bool) -> Iterator[int]:
    """Somebody between a hospital and a server on loopback who may flip a bit of what goes up; its port."""

    class Between(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as server:
                down = threading.Thread(target=self.pass_on, args=(server, self.request, False), daemon=True)
                down.start()
                self.pass_on(self.request, server, flips)
                down.join(10)

        def pass_on(self, one: socket.socket, other: socket.socket, alter: bool) -> None:
            with contextlib.suppress(OSError):
                while content := bytearray(one.recv(65536)):
                    if alter and b"\x17\x03\x03" in content:  # a record of data
                        content[-1] ^= 1
                    other.sendall(content)
                other.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Between) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def test_what_is_altered_on_its_way_does_not_arrive(authority, tmp_path):
    for flips in (False, True):
        with answering(tmp_path) as port, between(port, flips) as place:
            assert check_server("127.0.0.1", place, authority) is not flips


# ---- folders ----


def test_a_folder_of_another_version_is_told(places):  # noqa: F811
    spoilt(places / "a" / folders.APPLICATION, versions={"fedmrg": "0", "flwr": "0"})
    with pytest.raises(InputError, match="application.json: it was made with fedmrg 0, here is .*install the same one"):
        nodes.start_site(places / "a")
    spoilt(places / "server" / folders.INVITATION, versions={"fedmrg": "0", "flwr": "0"})
    with pytest.raises(InputError, match="invitation.json: it was made with fedmrg 0"):
        nodes.serve(places / "server")


def another_type() -> bytes:
    plain = serialization.NoEncryption()
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, plain
    )


def test_a_key_that_is_missing_unreadable_or_of_another_type_is_told(places):  # noqa: F811
    key = places / "a" / certificates.NODE_KEY
    whole = key.read_bytes()
    key.unlink()
    with pytest.raises(InputError, match="node.key: the key cannot be read .*restore it, or make a new one with"):
        nodes.start_site(places / "a")
    assert not key.exists()  # a new one would be registered nowhere
    key.mkdir()
    with pytest.raises(InputError, match="node.key: the key cannot be read"):
        nodes.start_site(places / "a")
    key.rmdir()
    key.write_bytes(another_type())
    with pytest.raises(InputError, match="node.key: a key of another type; expected an elliptic-curve key"):
        nodes.start_site(places / "a")
    key.write_bytes(whole)


def test_an_application_with_a_key_of_another_type_is_refused(places):  # noqa: F811
    public = Ed25519PrivateKey.generate().public_key()
    text = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    applications = [places / name / folders.APPLICATION for name in CLIENTS]
    for key, sentence in ((text, "is of another type"), ("no key", "is no OpenSSH key")):
        spoilt(applications[1], public_key=key)
        with pytest.raises(InputError, match=f"b/application.json: public_key {sentence}"):
            folders.admit(places / "server", applications)


def test_the_servers_key_belongs_to_its_certificate(places, tmp_path):  # noqa: F811
    key = places / "server" / certificates.CERTIFICATE_KEY
    other = tmp_path / "other"
    other.mkdir()
    certificates.make_authority(other, "other")
    for content, sentence in (
        ((other / certificates.AUTHORITY_KEY).read_bytes(), "another certificate's key"),
        (another_type(), "not a readable key|of another type"),
        (b"no key", "not a readable key"),
    ):
        key.write_bytes(content)
        with pytest.raises(InputError, match=f"server.key: .*{sentence}.*; make both new with fedmrg federation init"):
            nodes.serve(places / "server")


def test_a_client_folder_that_has_gone_is_told(places):  # noqa: F811
    shutil.rmtree(places / "a-studies")
    with pytest.raises(InputError, match="client.json: not a client's description"):
        nodes.start_site(places / "a")


# ---- what the SuperLink knows ----


class Link:
    """Stands in for a SuperLink behind Flower's commands."""

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self.runs = {"1": "finished:completed", "2": "running", "3": "starting"}

    def ask(self, folder: pathlib.Path, *command: str) -> dict:
        if command[:2] == ("supernode", "list"):
            return {"nodes": [{"node-id": name} for name in self.nodes]}
        if command[:2] == ("supernode", "register"):
            self.nodes.append(f"{pathlib.Path(command[2]).stem}-{len(self.nodes)}")
            return {"node-id": self.nodes[-1]}
        if command[0] == "list":
            return {"runs": [{"run-id": name, "status": status} for name, status in self.runs.items()]}
        assert command[0] == "stop"
        self.runs[command[1]] = "finished:stopped"
        return {}


def test_what_the_superlink_knows_counts_not_what_was_told_to_it(places, monkeypatch):  # noqa: F811
    link = Link()
    monkeypatch.setattr(superlink, "ask", link.ask)
    assert superlink.register(places / "server") == list(CLIENTS)
    assert superlink.register(places / "server") == []
    link.nodes.clear()  # its database was deleted
    assert superlink.register(places / "server") == list(CLIENTS) and len(link.nodes) == 3


def test_runs_that_are_left_are_ended(places, monkeypatch):  # noqa: F811
    link = Link()
    monkeypatch.setattr(superlink, "ask", link.ask)
    superlink.stop_runs(places / "server")
    assert link.runs == {"1": "finished:completed", "2": "finished:stopped", "3": "finished:stopped"}


@pytest.mark.parametrize("ended", [True, False])
def test_a_run_may_end_by_itself_before_it_is_ended(places, monkeypatch, ended):  # noqa: F811
    link = Link()

    def ask(folder: pathlib.Path, *command: str) -> dict:
        if command[:2] != ("stop", "2"):
            return link.ask(folder, *command)
        link.runs["2"] = "finished:failed" if ended else "running"
        raise InputError("Run is already finished." if ended else "it is stuck.")

    monkeypatch.setattr(superlink, "ask", ask)
    if ended:
        superlink.stop_runs(places / "server")
        assert link.runs["3"] == "finished:stopped"
    else:
        with pytest.raises(InputError, match="it is stuck"):
            superlink.stop_runs(places / "server")


def test_flowers_answers_are_read_without_colours(places, monkeypatch):  # noqa: F811
    class Done:
        returncode, stdout, stderr = 0, json.dumps({"success": True, "runs": []}), ""

    given = []
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a notebook's kernel has it
    monkeypatch.setattr(superlink.subprocess, "run", lambda *_, env, **__: given.append(env) or Done)
    superlink.stop_runs(places / "server")
    assert "FORCE_COLOR" not in given[0] and given[0]["NO_COLOR"] == "1"


def test_a_superlink_that_is_not_there_is_told(places, monkeypatch):  # noqa: F811
    class Done:
        returncode, stdout, stderr = 1, json.dumps({"success": False, "error-message": "Connection\nrefused"}), ""

    monkeypatch.setattr(superlink.subprocess, "run", lambda *_, **__: Done)
    with pytest.raises(InputError, match=r"flwr list failed \(Connection refused\); is fedmrg federation"):
        superlink.stop_runs(places / "server")


def test_a_run_whose_superlink_has_ended_says_so(places):  # noqa: F811
    with pytest.raises(InputError, match="the SuperLink has ended; start fedmrg federation serve again, and then"):
        running._wait_for_the_end(places / "server")


# ---- programs ----


class OneSilent(InProcessGrid):
    """Waits as Flower's own grid does; one node takes its messages and answers nothing."""

    send_and_receive = http_grid.HttpGrid.send_and_receive
    silent = FIRST_CLIENT_NODE + 2
    waited = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        kept = []
        for message in messages:
            if message.metadata.dst_node_id == self.silent and message.metadata.message_type == MessageType.TRAIN:
                kept.append("never answered")
            else:
                kept += super().push_messages([message])
        return kept


def test_a_hospital_that_never_answers_costs_one_timeout(tmp_path, monkeypatch):
    clock = iter(range(1000))
    stopped = SimpleNamespace(
        time=lambda: next(clock), sleep=lambda _: setattr(OneSilent, "waited", OneSilent.waited + 1)
    )
    monkeypatch.setattr(http_grid, "time", stopped)
    monkeypatch.setattr(run, "InProcessGrid", OneSilent)
    settings = fake_configuration(1)
    federation = settings.profile.federation.model_copy(update={"round_timeout": 50.0})
    settings = settings.model_copy(update={"profile": settings.profile.model_copy(update={"federation": federation})})
    run_federation(tmp_path, settings, progress=False)
    rows = pandas.read_csv(tmp_path / "rounds.csv").set_index("client")
    assert rows.status.to_dict() == {"a": "ok", "b": "ok", "c": "left_out"}
    assert rows.reason["c"] == "silent: sent nothing" and 40 < OneSilent.waited < 60  # once, and not for each message


def test_a_site_asks_again_until_it_is_told_to_end(places, monkeypatch, capfd):  # noqa: F811
    there, codes, slept = iter((False, True, True, True)), iter((1, 0, None)), []
    monkeypatch.setattr(nodes, "check_server", lambda *_: next(there))
    monkeypatch.setattr(nodes, "_call", lambda *_: next(codes))
    monkeypatch.setattr(nodes.time, "sleep", slept.append)
    assert nodes.start_site(places / "a") == 0
    said = capfd.readouterr().out
    assert said.count("does not answer; asked again in 5 s") == 1  # also where a SuperNode has ended by itself with 0
    assert said.count("did not let a in; asked again in 5 s") == 2 and len(slept) == 3


def test_a_folder_has_one_program_and_what_a_killed_one_left_is_ended(places):  # noqa: F811
    home = (places / "a" / program_environment.HOME).resolve()
    home.mkdir(exist_ok=True)
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={"FLWR_HOME": str(home)})
    try:
        with filelock.FileLock(home / ".lock"), pytest.raises(InputError, match="its program is running already; end"):
            nodes.start_site(places / "a")
        assert left.poll() is None
        with nodes._alone(places / "a"):
            assert left.poll() is not None
    finally:
        left.kill()


def test_a_program_that_is_told_to_end_ends_what_it_has_started(places, monkeypatch):  # noqa: F811
    program = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)"
    (places / "a" / program_environment.HOME).mkdir(exist_ok=True)
    monkeypatch.setattr(nodes, "found", lambda command: [sys.executable, "-c", program])
    assert nodes._call(places / "a", ["flower-supernode"], os.environ) is None


def test_told_to_end_twice_it_ends_once():
    """`timeout` and systemd tell a whole group; the second time, `subprocess` may hold its lock."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        with pytest.raises(KeyboardInterrupt), nodes.ending(process):
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                signal.raise_signal(signal.SIGTERM)
                raise
        assert process.returncode == -signal.SIGTERM


def test_two_server_apps_do_not_write_into_one_run_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(server_app, "PATIENCE", 0.01)
    with filelock.FileLock(tmp_path / server_app.LOCK):
        with pytest.raises(InputError, match="another server app is writing there; end it"):
            run_federation(tmp_path, fake_configuration(1), progress=False)
        assert "another server app" in (tmp_path / server_app.FAILURE_FILE).read_text()
    run_federation(tmp_path, fake_configuration(1), progress=False)
    assert not (tmp_path / server_app.FAILURE_FILE).exists()


def test_a_port_of_its_own_runtime_that_is_taken_is_told(places):  # noqa: F811
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        path = places / "a" / folders.SITE
        path.write_text(path.read_text().replace("runtime_port: 0", f"runtime_port: {taken.getsockname()[1]}"))
        with pytest.raises(InputError, match="site.yaml: runtime_port .* is taken"):
            nodes.start_site(places / "a")
