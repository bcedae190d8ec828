"""Real federations on loopback: SuperLink and SuperNodes under TLS, each in a folder of its own, and what they survive.

They take minutes: a message starts a process at its hospital. `make deployment` runs them, `make test` does not.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import textwrap

import pandas
import pytest
from deployed import Running, make_places, make_site, python_path, started, wait_until
from federation_fake import everything
from linear_task import CLIENTS
from test_second_task_runs import configuration

from fedmrg_core.errors import InputError
from fedmrg_core.federation.deployment import nodes
from fedmrg_core.federation.run import run_federation
from fedmrg_core.runs.run_configuration import RunConfiguration

pytestmark = pytest.mark.deployment
# Folders differ, and bytes of the last message.
OTHER = {"config.yaml", "clients.json", "finish.csv"}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process starts imports the tests' tasks."""
    monkeypatch.setenv("PYTHONPATH", python_path())


def undisturbed(folder: pathlib.Path, settings: RunConfiguration, *faults: str) -> pathlib.Path:
    """The same run in one process; in it a hospital that is away raises."""
    folder.mkdir()
    for fault in faults:
        (folder / fault).write_text("raises")
    run_federation(folder, settings, progress=False, test=True)
    for fault in faults:
        (folder / fault).unlink()
    return folder


def client_folders(run: pathlib.Path) -> dict[str, pathlib.Path]:
    return {folder.name: folder for folder in sorted((run / "clients").iterdir())}


def gathered(place: pathlib.Path, clients: list[str]) -> dict[str, bytes]:
    """Every file of the server's run folder, and what is a hospital's of its own, where it lies and nowhere else."""
    found = everything(place / "server" / "run")
    for name in clients:
        own = everything(place / name / "run")
        assert not [path for path in own for other in clients if other != name and f"/{other}" in path]
        found |= {path: content for path, content in own.items() if f"/{name}" in path}
    return found


def assert_equal_bytes(place: pathlib.Path, run: pathlib.Path) -> None:
    clients = list(client_folders(run))
    found = gathered(place, clients)
    expected = {path: content for path, content in everything(run).items() if not path.startswith("clients/")}
    same = set(expected) - OTHER
    assert same <= set(found) and [path for path in sorted(same) if found[path] != expected[path]] == []


def statuses(run_folder: pathlib.Path) -> dict[tuple[int, str], str]:
    path = run_folder / "rounds.csv"
    rows = pandas.read_csv(path) if path.is_file() else pandas.DataFrame()
    return {(row.round, row.client): row.status for row in rows.itertuples()}


def test_a_real_federation_ends_with_the_bytes_of_one_process(tmp_path):
    run = undisturbed(tmp_path / "run", configuration("plain", 2, 2))
    place = make_places(tmp_path, run, client_folders(run))
    with started(place, "server", *CLIENTS):
        nodes.run(place / "server", test=True, progress=False)
    assert_equal_bytes(place, run)
    assert json.loads((place / "server" / "run" / "manifest.json").read_text())["engine"] == "deployment"
    assert set(statuses(place / "server" / "run").values()) == {"ok"}


# ---- faults ----


def full_disk(folder: pathlib.Path) -> pathlib.Path:
    """A hook: while `folder/full` is there, no file of the server's app may have more than a few bytes."""
    folder.mkdir()
    (folder / "full").touch()
    (folder / "sitecustomize.py").write_text(
        textwrap.dedent(
            f"""
            import pathlib, resource, signal, sys
            if "flwr-serverapp" in " ".join(sys.orig_argv) and pathlib.Path({str(folder / "full")!r}).exists():
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            """
        )
    )
    return folder


def test_what_a_federation_survives(tmp_path):
    """One after the other: a full disk, a node killed, the SuperLink killed, once more and its database gone."""
    settings = configuration("plain", 2, 3).model_copy(update={"task": "faulty"})
    run = undisturbed(tmp_path / "run", settings, "fault-c-1")
    place, hooks = make_places(tmp_path, run, client_folders(run)), full_disk(tmp_path / "hooks")
    server = place / "server"
    make_site(place, "stranger", "c-studies")  # its key is registered nowhere
    for client, number in (("c", 1), ("b", 2), ("a", 3)):
        (place / client / "run" / f"fault-{client}-{number}").write_text("hangs")
    with started(place, *CLIENTS, "stranger") as programs:
        wait_until(lambda: "does not answer; asked again" in programs.log("a").read_text())
        programs.start("server", [hooks])

        (place / "c" / "run" / "fault-c-1").rename(tmp_path / "later")
        with pytest.raises(InputError, match="there is no room left to write it; make some, and start the same"):
            nodes.run(server, progress=False)
        (hooks / "full").unlink()
        (tmp_path / "later").rename(place / "c" / "run" / "fault-c-1")
        shutil.rmtree(place / "c" / "run" / "hospitals")  # as if c had never trained

        running = Running(place)
        wait_until(lambda: (place / "c" / "run" / "hanging").exists())
        programs.end("c", signal.SIGKILL)
        wait_until(lambda: (place / "b" / "run" / "hanging").exists())
        assert statuses(server / "run") == {(1, "a"): "ok", (1, "b"): "ok", (1, "c"): "left_out"}
        (place / "c" / "run" / "fault-c-1").unlink()
        programs.start("c")

        programs.end("server", signal.SIGKILL)
        assert isinstance(running.ended(), InputError | RuntimeError)
        (place / "b" / "run" / "fault-b-2").unlink()
        programs.start("server")
        running = Running(place)
        wait_until(lambda: (place / "a" / "run" / "hanging").exists())

        programs.end("server", signal.SIGKILL)
        assert isinstance(running.ended(), InputError | RuntimeError)
        (place / "a" / "run" / "fault-a-3").unlink()
        for path in server.glob("state.db*"):
            path.unlink()
        programs.start("server")
        nodes.run(server, test=True, progress=False)
        assert "did not let c in; asked again" in programs.log("stranger").read_text()
    left_out = {key for key, status in statuses(server / "run").items() if status != "ok"}
    assert left_out == {(1, "c")} and len(statuses(server / "run")) == 9
    found, expected = gathered(place, list(CLIENTS)), everything(run)
    kept = [path for path in expected if path.endswith(".safetensors") and not path.startswith("clients/")]
    assert len(kept) > 10 and [path for path in kept if found.get(path) != expected[path]] == []
