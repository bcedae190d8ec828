"""Reports and medical questions with identities: the notebooks' parameter, the same bytes, a clean audit."""

from __future__ import annotations

import pathlib

import pytest

pytest.importorskip("web3", reason="needs the optional group identity")

from small_model import PROFILE  # noqa: E402
from small_questions import small_inputs, small_run  # noqa: E402

from fedmrg_core.errors import InputError  # noqa: E402
from fedmrg_core.federation.run import configure_run, run_federation  # noqa: E402
from fedmrg_core.identity.audit import audit_run  # noqa: E402
from fedmrg_core.runs.experiments import RunSettings  # noqa: E402
from fedmrg_core.runs.methods import load_method  # noqa: E402
from fedmrg_core.runs.run_configuration import Identities, RunConfiguration, write_configuration  # noqa: E402


def models(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "model").rglob("*.safetensors"))
    }


def run_both(root: pathlib.Path, settings: RunConfiguration) -> None:
    for name, identities in (("without", None), ("with", Identities())):
        (root / name).mkdir()
        run_federation(root / name, settings.model_copy(update={"identities": identities}), progress=False)
    assert models(root / "with") == models(root / "without") != {}
    found = audit_run(root / "with")
    assert found.problems == [] and len(found.rows) >= 2


def test_reports_with_identities(workspace, tmp_path):
    settings = configure_run(
        tmp_path / "run", profile=PROFILE, method=load_method("fedmrg"), data="phantom", partition="random", clients=2,
        prepared=workspace / "prepared", base_models=workspace / "base_models", threads=1,
    )  # fmt: skip
    run_both(tmp_path, settings)


def test_questions_with_identities(tmp_path):
    inputs = small_inputs(tmp_path / "inputs")
    run_both(tmp_path, small_run(inputs, tmp_path / "run", "fed-lora"))


def test_a_notebooks_parameter_names_the_chain(tmp_path):
    settings = RunSettings()
    assert settings.configuration(tmp_path).identities is None
    with_chain = settings.configuration(tmp_path, identities="embedded")
    assert with_chain.identities == Identities()
    with pytest.raises(InputError, match="'chain.example' is no chain; expected embedded or a node's URL"):
        settings.configuration(tmp_path, identities="chain.example")
    (tmp_path / "run").mkdir()
    write_configuration(tmp_path / "run", settings.configuration(tmp_path))
    with pytest.raises(InputError, match="holds a run with another identities; choose another run folder or delete"):
        write_configuration(tmp_path / "run", with_chain)
