"""experiments.yaml: which runs it names, where they lie, and that its mistakes are told before anything runs."""

from __future__ import annotations

import pytest
import yaml

from fedmrg_core.configuration import load_method, load_profile
from fedmrg_core.errors import InputError
from fedmrg_core.experiments import RunSettings, load_experiments, runs_of, with_variant


@pytest.mark.parametrize(
    "run",
    [
        RunSettings(),
        RunSettings(profile="standard", data="iu_xray", unseen="A,E", method="fed-lora", seed=3),
        RunSettings(partition="dirichlet-0.1", clients=4, variant="adapter.rank=2,losses.contrast_inter=1.0"),
        RunSettings(data="phantom-image0-wording0.5"),
    ],
)
def test_a_run_folder_tells_its_settings(run: RunSettings) -> None:
    assert RunSettings.from_name(run.name) == run


def test_two_runs_never_share_a_folder() -> None:
    runs = runs_of(list(load_experiments()), "standard")
    assert len({run.name for run in runs}) == len(runs) > 100
    assert all(RunSettings.from_name(run.name) == run for run in runs)


def test_a_run_that_two_experiments_name_is_made_once() -> None:
    both, alone = runs_of(["main", "ablation"], "smoke"), runs_of(["main"], "smoke")
    assert [run.name for run in both[: len(alone)]] == [run.name for run in alone]
    assert sum(run.name == alone[0].name for run in both) == 1


def test_settings_reach_the_configuration(tmp_path) -> None:
    run = RunSettings(
        variant="training.contrast_temperature=0.03,losses.contrast_inter=0.1", clients=3, partition="style"
    )
    configuration = run.configuration(tmp_path, threads=1)
    assert configuration.profile.training.contrast_temperature == 0.03
    assert configuration.method.losses.contrast_inter == 0.1
    assert (configuration.clients, configuration.partition, configuration.threads) == (3, "style", 1)
    assert configuration.prepared.endswith("prepared/smoke/phantom")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"mine": {"metod": ["fedmrg"]}}, r"experiment 'mine': metod"),
        ({"mine": {"seed": ["one"]}}, r"experiment 'mine': seed"),
    ],
)
def test_a_wrong_block_is_named(tmp_path, content, sentence) -> None:
    path = tmp_path / "experiments.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=sentence):
        load_experiments(path)


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ({"method": ["fedmgr"]}, "'fedmgr' is unknown"),
        ({"variant": ["training.temperature=1"]}, "'training.temperature=1' is not understood"),
        ({"variant": ["adapter.rank=0"]}, "adapter.rank"),
    ],
)
def test_a_wrong_run_is_named_before_anything_runs(tmp_path, block, sentence) -> None:
    path = tmp_path / "experiments.yaml"
    path.write_text(yaml.safe_dump({"mine": block}))
    with pytest.raises(InputError, match=sentence):
        runs_of(["mine"], "smoke", load_experiments(path))
    with pytest.raises(InputError, match="'yours' is unknown; expected one of mine"):
        runs_of(["yours"], "smoke", load_experiments(path))


def test_a_multiple_of_what_profile_and_row_have() -> None:
    profile, method = load_profile("smoke"), load_method("fedmrg-compressed")
    changed, row = with_variant(profile, method, "training.learning_rate=3x,payload.rank=0.5x,training.batch_size=4")
    assert changed.training.learning_rate == pytest.approx(3 * profile.training.learning_rate, rel=1e-9)
    assert row.payload.rank == method.payload.rank / 2 and changed.training.batch_size == 4
    for variant in ("training.learning_rate=x", "training.learning_rate=-3x", "training.own_statistics=yx"):
        with pytest.raises(InputError, match=variant.partition("=")[0]):
            with_variant(profile, method, variant)
    with pytest.raises(InputError, match="is not understood"):
        with_variant(profile, method, "training.learning=3x")


def test_no_run_has_such_a_name() -> None:
    for name in ("smoke/phantom/fedmrg", "smoke/phantom,style=/fedmrg/seed-x", "smoke/phantom/fedmrg/seed-1/more"):
        with pytest.raises(InputError, match="is no run"):
            RunSettings.from_name(name)
