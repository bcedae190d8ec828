"""What a run keeps on disk: a changed byte, a missing or an older file is named, and nothing is computed with it."""

from __future__ import annotations

import errno
import pathlib
import re
import shutil

import pytest
import safetensors.torch
import torch
from federation_fake import everything, fake_configuration
from fork_server import run_program

from fedmrg_core.errors import InputError
from fedmrg_core.federation.hospital import HospitalDisk
from fedmrg_core.federation.model_files import check_model
from fedmrg_core.federation.run import run_federation
from fedmrg_core.files.digests import INDEX, NotedFolder
from fedmrg_core.files.tensor_files import write_tensors
from fedmrg_core.files.whole_files import writable


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """After two of three rounds."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    run_federation(folder, fake_configuration(), stop_after_round=2, progress=False)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    run_federation(folder, fake_configuration(), progress=False)
    return folder


def flip(path: pathlib.Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def current(folder: pathlib.Path) -> pathlib.Path:
    return folder / "checkpoint" / (folder / "checkpoint" / "current").read_text().split()[0]


@pytest.mark.parametrize("name", ["server.json", "shared.safetensors", "prototypes.safetensors", INDEX])
@pytest.mark.parametrize("spoil", [flip, pathlib.Path.unlink])
def test_a_spoilt_checkpoint_is_named(stopped: pathlib.Path, tmp_path: pathlib.Path, name: str, spoil) -> None:
    folder = pathlib.Path(shutil.copytree(stopped, tmp_path / "run"))
    spoil(current(folder) / name)
    with pytest.raises(InputError, match=rf"round-0002/{name} is .*restore it from a copy, or delete the run folder"):
        run_federation(folder, fake_configuration(), progress=False)


def test_a_checkpoint_of_another_time_is_named(stopped: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Whole in itself, but not the one that was written last."""
    folder = pathlib.Path(shutil.copytree(stopped, tmp_path / "run"))
    path = current(folder) / "server.json"
    path.write_text(path.read_text().replace('"round_number": 2', '"round_number": 1'))
    NotedFolder(path.parent).note(path)
    with pytest.raises(InputError, match=rf"round-0002/{INDEX} is damaged or not the file"):
        run_federation(folder, fake_configuration(), progress=False)


def test_a_hospital_does_not_train_from_a_spoilt_file(stopped: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = pathlib.Path(shutil.copytree(stopped, tmp_path / "run"))
    flip(HospitalDisk(folder, "b").folder / "round-0002.safetensors")
    run_federation(folder, fake_configuration(), progress=False)  # the others go on
    log = next((folder / "hospitals").glob("errors-*.log")).read_text()
    assert "b/round-0002.safetensors is damaged or not the file that was written there" in log
    assert '"client": "b", "status": "left_out"' in (current(folder) / "server.json").read_text()


def test_an_older_file_in_a_hospital_is_not_taken_for_the_last(tmp_path: pathlib.Path) -> None:
    import torch

    from fedmrg_core.training.client_state import HospitalState

    disk = HospitalDisk(tmp_path, "a")
    for round_number in (1, 2):
        disk.save_trained(round_number, HospitalState({"w": torch.full((2,), float(round_number))}))
    shutil.copyfile(disk.folder / "round-0001.safetensors", disk.folder / "round-0002.safetensors")
    with pytest.raises(InputError, match=r"round-0002.safetensors is damaged or not the file that was written there"):
        disk.load(2)
    (disk.folder / "round-0002.safetensors").unlink()
    with pytest.raises(InputError, match=r"round-0002.safetensors is missing; restore it from a copy, or delete the"):
        disk.load(2)


@pytest.mark.parametrize("spoil", [flip, pathlib.Path.unlink, lambda path: shutil.rmtree(path.parent)])
def test_a_run_writes_its_model_again(finished: pathlib.Path, tmp_path: pathlib.Path, spoil) -> None:
    folder = pathlib.Path(shutil.copytree(finished, tmp_path / "run"))
    spoil(folder / "model" / "shared.safetensors")
    with pytest.raises(InputError, match=r"safetensors is .*; go on with the run"):
        check_model(folder)
    run_federation(folder, fake_configuration(), progress=False)
    check_model(folder)
    assert everything(folder) == everything(finished)


# ---- a disk that takes nothing more ----

LIMITED = """
import pathlib, resource, signal, sys
from federation_fake import fake_configuration
from fedmrg_core.federation.run import run_federation
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    run_federation(pathlib.Path(sys.argv[1]), fake_configuration(), progress=False)
finally:  # what is told goes into a file, too
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.parametrize("room", [500, 2000])  # bytes a file may have: too few for the configuration, for a checkpoint
def test_without_room_it_ends_in_a_sentence_and_goes_on_with_room(finished, tmp_path, room):
    done = run_program(LIMITED, tmp_path, room)
    assert done.returncode != 0
    assert re.search(r"InputError: .*: there is no room left to write it; make some, and start the same", done.stderr)
    run_federation(tmp_path, fake_configuration(), progress=False)
    assert everything(tmp_path) == everything(finished)


@pytest.mark.parametrize(("number", "sentence"), [(errno.ENOSPC, "no room left"), (errno.EROFS, "must not be written")])
def test_tensors_name_their_file_where_the_disk_takes_nothing(tmp_path, monkeypatch, number, sentence):
    def refuse(tensors, path):
        raise safetensors.SafetensorError(f"Error while serializing: I/O error: something (os error {number})")

    monkeypatch.setattr(safetensors.torch, "save_file", refuse)
    with pytest.raises(InputError, match=rf"state.safetensors: .*{sentence}.*, and try again"):
        with writable(tmp_path, "try again."):
            write_tensors(tmp_path / "state.safetensors", {"a": torch.zeros(2)})


def test_other_errors_pass(tmp_path):
    with pytest.raises(IsADirectoryError), writable(tmp_path, "try again."):
        tmp_path.read_text()
