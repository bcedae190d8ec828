"""The files of a run: whole or not at all, and a manifest of what made it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from fedmrg_core.files.whole_files import atomic_file
from fedmrg_core.runs.run_folder import RunFolder


def test_crash_in_a_writer_leaves_the_old_file(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write_json("a.json", {"old": 1})
    with pytest.raises(ValueError):
        folder.write_json("a.json", {"new": float("nan")})
    with pytest.raises(RuntimeError), atomic_file(folder / "a.json") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert json.loads((folder / "a.json").read_text()) == {"old": 1}
    assert os.listdir(folder.path) == ["a.json"]


def test_killed_writer_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("old\n")
    code = (
        "import os, pathlib, sys\nfrom fedmrg_core.files.whole_files import atomic_file\n"
        "with atomic_file(pathlib.Path(sys.argv[1])) as partial:\n    partial.write_text('half'); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == 9
    assert target.read_text() == "old\n"


def test_writers_round_trip(tmp_path):
    folder = RunFolder(tmp_path)
    rows = [{"round": 1, "loss": 0.5, "reason": None}, {"round": 2, "loss": float("nan"), "reason": "sent NaN, twice"}]
    assert folder.write_csv("rounds.csv", rows).read_text() == 'round,loss,reason\n1,0.5,\n2,,"sent NaN, twice"\n'
    assert folder.write_csv("empty.csv", [], ["a", "b"]).read_text() == "a,b\n"
    with pytest.raises(ValueError, match="columns named"):
        folder.write_csv("none.csv", [])
    with pytest.raises(ValueError):
        folder.write_csv("more.csv", [{"a": 1}, {"a": 1, "b": 2}])
    tensor = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(load_file(folder.write_safetensors("t.safetensors", {"w": tensor.T}))["w"], tensor.T)


def test_manifest_says_what_made_the_run(tmp_path):
    path = RunFolder(tmp_path).write_manifest(
        data_fingerprint="abc", seeds={"root": 0}, wall_seconds=1.23456, engine="x"
    )
    content = json.loads(path.read_text())
    assert content["data_fingerprint"] == "abc" and content["wall_seconds"] == 1.235 and content["engine"] == "x"
    assert torch.__version__.startswith(content["packages"]["torch"])  # "+cu130" stands in the one alone
    assert content["peak_memory_bytes"]["process"] > 10 * 2**20
    assert (content["gpu"] is not None) == torch.cuda.is_initialized()
    assert set(content) >= {"commit", "uncommitted_changes", "seeds", "python", "platform"}
    assert str(pathlib.Path.cwd()) not in path.read_text()


def test_of_two_versions_the_manifest_names_the_one_that_is_imported(tmp_path):
    for place, version in (("first", "2.0"), ("second", "1.0")):
        folder = tmp_path / place / "twice.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: Twice\nVersion: {version}\n")
    code = "from fedmrg_core.runs.run_folder import installed_packages as found; print(found()['twice'])"
    path = os.pathsep.join([str(tmp_path / "first"), str(tmp_path / "second")])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout.strip() == "2.0", done.stderr
