"""The wall between hospitals: what a process could open is not there, and the bytes are the same."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest
from federation_fake import everything
from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from fork_server import connection, start
from small_model import PROFILE

from fedmrg_core.federation import grid
from fedmrg_core.federation.run import configure_run, run_federation
from fedmrg_core.runs.methods import load_method
from fedmrg_core.runs.run_configuration import write_configuration

UNSEEN = ("centre-d", "centre-e", "centre-f")
CLIENTS = ("centre-a", "centre-b", "centre-c")


def configured(workspace: pathlib.Path, name: str, method: str = "fedmrg"):
    federation = PROFILE.federation.model_copy(update={"rounds": 2})
    return configure_run(
        workspace / name,
        profile=PROFILE.model_copy(update={"federation": federation}),
        method=load_method(method),
        data="phantom",
        unseen_sites=UNSEEN,
        threads=1,
        prepared=workspace / "prepared",
        base_models=workspace / "base_models",
    )


@pytest.fixture(scope="module", params=["fedmrg", "fedavg-fine-tuned"])
def method(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def in_one_process(workspace: pathlib.Path, method: str) -> pathlib.Path:
    folder = workspace / method / "run"
    run_federation(folder, configured(workspace, f"{method}/run", method), progress=False, test=True)
    return folder


def places_of(run: pathlib.Path, client: str) -> list[pathlib.Path]:
    """Where a client's studies and its own tensors lie, those that are there."""
    model = run / "model"
    places = [
        run / "clients" / "clients" / client,
        run / "hospitals" / client,
        model / "personal" / f"{client}.safetensors",
    ]
    places += [path / client for path in model.glob("*") if (path / client).exists()]
    return [place for place in places if place.exists()]


@contextlib.contextmanager
def out_of_reach(places: list[pathlib.Path], elsewhere: pathlib.Path) -> Iterator[None]:
    """While this is open nobody can open these; permissions would not keep out the administrator."""
    elsewhere.mkdir(exist_ok=True)
    moved = [(place, elsewhere / f"{number}") for number, place in enumerate(places)]
    for place, hidden in moved:
        os.rename(place, hidden)
    try:
        yield
    finally:
        for place, hidden in moved:
            if place.is_dir():
                shutil.copytree(place, hidden, dirs_exist_ok=True)
                shutil.rmtree(place)
            place.unlink(missing_ok=True)
            os.rename(hidden, place)


def test_in_one_process_nobody_opens_what_is_anothers(
    workspace: pathlib.Path, in_one_process: pathlib.Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a hospital works the others' folders are away; while the server works all are, and the prepared studies."""
    run, elsewhere = workspace / method / "walled", workspace / method / "away"
    inside = grid.InProcessGrid.answer
    outside = grid.InProcessGrid.send_and_receive
    opened: list[str] = []
    watching: set[str] = set()

    def watch(event: str, arguments: tuple) -> None:
        if watching and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | os.PathLike):
            path = str(arguments[0])
            if path.startswith(str(run)) and any(f"/{name}" in path for name in watching):
                opened.append(path)

    def answer(self, node, received):
        client = CLIENTS[self._contexts[node].node_config["partition-id"]]
        others = [place for name in CLIENTS if name != client for place in places_of(run, name)]
        with out_of_reach([*others, workspace / "prepared"], elsewhere):
            watching.update(set(CLIENTS) - {client})
            try:
                return inside(self, node, received)
            finally:
                watching.clear()

    sys.addaudithook(watch)
    monkeypatch.setattr(grid.InProcessGrid, "answer", answer)
    serve = run_server_without(run, workspace, elsewhere.with_name("away-from-server"), monkeypatch, outside)
    run_federation(run, configured(workspace, f"{method}/walled", method), progress=False, test=True)
    assert serve["messages"] > 10 and opened == []
    assert outcome(run) == outcome(in_one_process)


def run_server_without(run, workspace, elsewhere, monkeypatch, outside) -> dict[str, int]:
    """Have the server app work without any studies or personal tensors, except while a message is delivered."""
    from fedmrg_core.federation import server_app

    count = {"messages": 0}
    stack: list[contextlib.AbstractContextManager] = []

    def hide() -> None:
        places = [place for name in CLIENTS for place in places_of(run, name)]
        hidden = out_of_reach([*places, workspace / "prepared"], elsewhere)
        hidden.__enter__()
        stack.append(hidden)

    def show() -> None:
        stack.pop().__exit__(None, None, None)

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        count["messages"] += len(messages)
        show()
        try:
            return outside(self, messages, timeout=timeout)
        finally:
            hide()

    app = server_app.app

    def walled(*arguments):
        hide()
        try:
            return app(*arguments)
        finally:
            show()

    monkeypatch.setattr(grid.InProcessGrid, "send_and_receive", send_and_receive)
    monkeypatch.setattr(server_app, "app", walled)
    return count


def outcome(run: pathlib.Path) -> dict[str, bytes]:
    """What a run leaves, but not which bytes the last messages took and where the clients' folders lie."""
    files = everything(run)
    return {path: content for path, content in files.items() if not path.startswith(("clients", "config.yaml"))}


# ---- every client a process of its own, with a tree of its own ----


def hospital(node: int, tree: str, messages: Connection) -> None:
    """Answer messages, as they are serialised, until the other end is closed."""
    from flwr.app import Context, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    from fedmrg_core.federation.client_app import app

    os.chdir(tree)
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, node
    places = {"run-folder": "run", "client-folder": "studies"}
    run = {"progress": False, "log": False, "run-folder": "nowhere", "last-round": 2, "test": True}
    context = Context(run_id=1, node_id=node, node_config=places, state=RecordDict(), run_config=run)
    with contextlib.suppress(EOFError):
        while True:
            messages.send_bytes(serialised(app(parsed(messages.recv_bytes()), context)))


def serialised(message: Message) -> bytes:
    return message_to_proto(message).SerializeToString()


def parsed(content: bytes) -> Message:
    return message_from_proto(MessageProto.FromString(content))


class ProcessGrid(grid.InProcessGrid):
    """Hands messages to processes that each see one folder tree."""

    pipes: dict[int, Connection]

    def answer(self, node: int, received: Message) -> Message:
        self.pipes[node].send_bytes(serialised(received))
        return parsed(self.pipes[node].recv_bytes())


def test_processes_with_a_tree_of_their_own_end_with_the_same_bytes(
    workspace: pathlib.Path, in_one_process: pathlib.Path, method: str, tmp_path: pathlib.Path, monkeypatch
) -> None:
    """A hospital's tree holds its client folder and the base models; the server's holds no study at all."""
    trees = {name: tmp_path / name for name in ("server", *CLIENTS)}
    for name, tree in trees.items():
        shutil.copytree(workspace / "base_models", tree / "base_models")
        settings = configured(workspace, f"{method}/run", method)
        here = settings.model_copy(update={"base_models": "../base_models", "prepared": "nowhere", "dealt": "nowhere"})
        (tree / "run").mkdir()
        write_configuration(tree / "run", here)
        if name != "server":
            shutil.copytree(in_one_process / "clients" / "clients" / name, tree / "studies")
    shutil.copyfile(in_one_process / "clients.json", trees["server"] / "run" / "clients.json")
    pipes, processes = {}, []
    for node, name in enumerate(CLIENTS, start=grid.FIRST_CLIENT_NODE):
        pipes[node], other_end = connection()
        processes.append(start(hospital, node, str(trees[name]), other_end))
        other_end.close()
    monkeypatch.setattr(ProcessGrid, "pipes", pipes, raising=False)
    try:
        serve(trees["server"] / "run")
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join(30)
    expected = outcome(in_one_process)
    found = outcome(trees["server"] / "run")
    for name in CLIENTS:
        own = outcome(trees[name] / "run")
        assert not any(other in path for path in own for other in CLIENTS if other != name)
        found |= {path: content for path, content in own.items() if name in path}
    assert found.keys() == expected.keys()
    assert [path for path in expected if found[path] != expected[path]] == []


def serve(run: pathlib.Path) -> None:
    """The server's app in this process, as a deployment would start it."""
    from flwr.app import Context, RecordDict

    from fedmrg_core.federation import server_app
    from fedmrg_core.federation.client_app import app
    from fedmrg_core.federation.task import forget_tasks
    from fedmrg_core.seeds import torch_threads

    forget_tasks()
    settings = {"run-folder": str(run), "last-round": 2, "progress": False, "log": False, "test": True}
    nodes = [{"partition-id": number} for number in range(len(CLIENTS))]
    walled = ProcessGrid(app, nodes, settings, run)
    context = Context(grid.RUN_ID, grid.SERVER_NODE, {}, RecordDict(), settings)
    with walled.identity(), torch_threads(1):
        server_app.app(walled, context)
