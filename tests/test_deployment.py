"""A real federation on loopback: SuperLink and three SuperNodes under TLS, each in a folder of its own."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pandas
import pytest
from federation_fake import everything
from linear_task import CLIENTS
from test_second_task_runs import configuration
from typer.testing import CliRunner

from fedmrg_core.commands.command_line import app
from fedmrg_core.errors import InputError
from fedmrg_core.federation.deployment import certificates, folders, nodes
from fedmrg_core.federation.run import run_federation
from fedmrg_core.federation.simulation import end_processes
from fedmrg_core.runs.run_configuration import read_configuration, write_configuration

HERE = pathlib.Path(__file__).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("in-process") / "run"
    run_federation(folder, configuration("plain", 2), progress=False, test=True)
    return folder


@pytest.fixture
def places(in_process: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """The server's folder and the hospitals', made by the commands as a stranger would make them."""
    call("federation", "init", "server", "--configuration", in_process, "--port", free_port(), cwd=tmp_path)
    for name in CLIENTS:
        shutil.copytree(in_process / "clients" / name, tmp_path / f"{name}-studies")
        given = ["--invitation", "server/invitation.json", "--client-folder", f"{name}-studies"]
        call("site", "init", name, *given, "--runtime-port", free_port(), cwd=tmp_path)
    call("federation", "admit", "server", *(f"{name}/application.json" for name in CLIENTS), cwd=tmp_path)
    return tmp_path


def call(*arguments: object, cwd: pathlib.Path) -> str:
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@contextlib.contextmanager
def started(places: pathlib.Path, *commands: tuple[str, str, str]) -> Iterator[dict[str, subprocess.Popen]]:
    """`fedmrg` programs that run until this is left; their logs stand beside the folders."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    processes = {}
    try:
        for command in commands:
            with (places / f"{command[-1]}.log").open("a") as log:
                processes[command[-1]] = subprocess.Popen(
                    [sys.executable, "-m", "fedmrg_core.commands.command_line", *command],
                    cwd=places, env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
        yield processes
    finally:
        for name, process in processes.items():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            end_processes((places / name / nodes.HOME).resolve())


def wait_for_server(places: pathlib.Path) -> None:
    port, deadline = folders.read_federation(places / "server").port, time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    raise AssertionError((places / "server.log").read_text()[-2000:])


def test_a_real_federation_ends_with_the_bytes_of_one_process(places, in_process, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    with started(places, ("federation", "serve", "server"), *(("site", "start", name) for name in CLIENTS)):
        wait_for_server(places)
        nodes.run(places / "server", test=True, progress=False)
    found = everything(places / "server" / "run")
    expected = {path: content for path, content in everything(in_process).items() if not path.startswith("clients")}
    for name in CLIENTS:  # what is a hospital's lies in its own folder, and nowhere else
        own = everything(places / name / "run")
        assert not [path for path in own for other in CLIENTS if other != name and f"/{other}" in path]
        found |= {path: content for path, content in own.items() if f"/{name}" in path}
    same = set(expected) - {
        "config.yaml",
        "clients.json",
        "finish.csv",
    }  # folders differ, and bytes of the last message
    assert same <= set(found) and [path for path in sorted(same) if found[path] != expected[path]] == []
    assert json.loads((places / "server" / "run" / "manifest.json").read_text())["engine"] == "deployment"
    assert (pandas.read_csv(places / "server" / "run" / "rounds.csv").status == "ok").all()


# ---- what is wrong is told in one sentence ----


def spoilt(path: pathlib.Path, **changes: object) -> pathlib.Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_applications_are_held_against_the_federation(places, tmp_path):
    server, mine = places / "server", [places / name / "application.json" for name in CLIENTS]
    original = mine[0].read_text()
    for changes, sentence in (
        ({"authority": "0" * 64}, "another server; send the right one"),
        ({"versions": {"fedmrg": "0"}}, "it was made with fedmrg 0, here is"),
        ({"public_key": json.loads(mine[1].read_text())["public_key"]}, "another hospital has the same key"),
        ({"client": "b"}, "stands twice"),
        ({"train": "many"}, "not an application"),
    ):
        spoilt(mine[0], **changes)
        with pytest.raises(InputError, match=sentence):
            folders.admit(server, mine)
        mine[0].write_text(original)
    with pytest.raises(InputError, match="1 application was given; a federation needs at least 2"):
        folders.admit(server, mine[:1])
    with pytest.raises(InputError, match="is not an application: federation is missing"):
        folders.admit(server, [places / "server" / "invitation.json", *mine])


def test_a_site_belongs_to_one_federation(places, in_process):
    call("federation", "init", "other", "--configuration", in_process, cwd=places)
    with pytest.raises(InputError, match="a site of another federation; choose another folder"):
        folders.init_site(places / "a", places / "other" / "invitation.json", places / "a-studies", places)
    spoilt(places / "server" / "invitation.json", versions={"fedmrg": "9", "flwr": "9"})
    with pytest.raises(InputError, match="made with fedmrg 9, here is .*; install the same one"):
        folders.init_site(places / "new", places / "server" / "invitation.json", places / "a-studies", places)


def test_certificates_are_held_against_clock_and_host(places):
    path = places / "server" / certificates.CERTIFICATE
    certificates.check_certificate(path, "127.0.0.1")
    now = datetime.datetime.now(datetime.UTC)
    certificates.check_certificate(path, "localhost", now - datetime.timedelta(hours=1))  # a clock an hour off
    certificates.check_certificate(path, "localhost", now + datetime.timedelta(hours=1))
    for host, when, sentence in (
        ("fed.example.org", now, "the certificate is for .*127.0.0.1, not for fed.example.org"),
        ("localhost", now + datetime.timedelta(days=400), "the certificate has expired"),
        ("localhost", now - datetime.timedelta(days=2), "set the clock right"),
    ):
        with pytest.raises(InputError, match=sentence):
            certificates.check_certificate(path, host, when)
    path.write_text("no certificate")
    with pytest.raises(InputError, match="not a readable certificate"):
        nodes.serve(places / "server")


def test_ports_and_keys_are_looked_at_before_anything_starts(places):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", folders.read_federation(places / "server").port))
        taken.listen()
        with pytest.raises(InputError, match="federation.yaml: port .* is taken"):
            nodes.serve(places / "server")
    key = places / "a" / certificates.NODE_KEY
    assert key.stat().st_mode & 0o077 == 0  # nobody else on the machine may read it
    key.write_text("no key")
    with pytest.raises(InputError, match="not a readable OpenSSH key"):
        nodes.start_site(places / "a")


def test_made_again_the_federation_keeps_its_authority(places, in_process):
    before = (places / "server" / certificates.AUTHORITY).read_bytes()
    certificate = (places / "server" / certificates.CERTIFICATE).read_bytes()
    settings = folders.read_federation(places / "server")
    folders.init_federation(places / "server", settings, configuration("plain", 2))
    assert (places / "server" / certificates.AUTHORITY).read_bytes() == before
    assert (places / "server" / certificates.CERTIFICATE).read_bytes() != certificate
    with pytest.raises(InputError, match="holds a run with another"):
        folders.init_federation(places / "server", settings, configuration("plain", 3))


def test_a_server_on_all_addresses_is_called_by_a_name_of_its_certificate(in_process, tmp_path):
    settings = folders.FederationFolder(name="ours", host="fed.example.org", port=8000, listen="0.0.0.0")
    folders.init_federation(tmp_path, settings, configuration("plain", 2))
    assert nodes.register(tmp_path) == []  # nobody is admitted yet; the connection is written
    called = re.search(r'address = "(.*):8000"', (tmp_path / nodes.HOME / "config.toml").read_text())[1]
    certificates.check_certificate(tmp_path / certificates.CERTIFICATE, called)
    certificates.check_certificate(tmp_path / certificates.CERTIFICATE, "fed.example.org")


def test_no_private_key_and_no_study_is_handed_over(places):
    for path in (places / "server" / "invitation.json", places / "a" / "application.json"):
        assert "PRIVATE" not in path.read_text() and len(path.read_text()) < 20_000


def test_a_run_without_hospitals_is_refused(in_process, tmp_path):
    call("federation", "init", "server", "--configuration", in_process, cwd=tmp_path)
    with pytest.raises(InputError, match="clients.json does not exist"):
        nodes.run(tmp_path / "server")


def test_the_configuration_written_at_a_site_is_the_servers(places):
    server, site = (read_configuration(places / name / "run") for name in ("server", "a"))
    assert server.identity() == site.identity()
    write_configuration(places / "a" / "run", site)
