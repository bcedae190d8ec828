"""What hospitals and the server of a real federation prepare, and what is said of wrong input, before it begins."""

from __future__ import annotations

import datetime
import json
import pathlib
import re
import socket

import pytest
from deployed import call, make_places
from linear_runs import configuration
from linear_task import CLIENTS

from fedmrg_core.errors import InputError
from fedmrg_core.federation.deployment import certificates, folders, nodes, program_environment, running, superlink
from fedmrg_core.federation.task import load_task
from fedmrg_core.runs.run_configuration import read_configuration, write_configuration


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run folder whose data are dealt."""
    folder = tmp_path_factory.mktemp("in-process") / "run"
    folder.mkdir()
    write_configuration(folder, configuration("plain", 2))
    load_task(folder).deal(folder, configuration("plain", 2))
    return folder


@pytest.fixture
def places(in_process: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return make_places(tmp_path, in_process, {name: in_process / "clients" / name for name in CLIENTS})


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
    folders.init_federation(places / "server", settings, in_process)
    assert (places / "server" / certificates.AUTHORITY).read_bytes() == before
    assert (places / "server" / certificates.CERTIFICATE).read_bytes() != certificate
    with pytest.raises(InputError, match="holds a run with another"):
        write_configuration(places, configuration("plain", 3))
        folders.init_federation(places / "server", settings, places)


def test_a_server_on_all_addresses_is_called_by_a_name_of_its_certificate(in_process, tmp_path):
    settings = folders.FederationFolder(name="ours", host="fed.example.org", port=8000, listen="0.0.0.0")
    folders.init_federation(tmp_path, settings, in_process)
    superlink.write_connection(tmp_path)
    called = re.search(r'address = "(.*):8000"', (tmp_path / program_environment.HOME / "config.toml").read_text())[1]
    certificates.check_certificate(tmp_path / certificates.CERTIFICATE, called)
    certificates.check_certificate(tmp_path / certificates.CERTIFICATE, "fed.example.org")


def test_no_private_key_and_no_study_is_handed_over(places):
    for path in (places / "server" / "invitation.json", places / "a" / "application.json"):
        assert "PRIVATE" not in path.read_text() and len(path.read_text()) < 20_000


def test_a_run_without_hospitals_is_refused(in_process, tmp_path):
    call("federation", "init", "server", "--configuration", in_process, cwd=tmp_path)
    with pytest.raises(InputError, match="clients.json does not exist"):
        running.run(tmp_path / "server")


def test_the_configuration_written_at_a_site_is_the_servers(places):
    server, site = (read_configuration(places / name / "run") for name in ("server", "a"))
    assert server.identity() == site.identity()
    write_configuration(places / "a" / "run", site)
