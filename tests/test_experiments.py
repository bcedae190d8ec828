"""experiments.yaml: which runs it names, where they lie, and that its mistakes are told before anything runs."""

from __future__ import annotations

import pytest
import yaml

from fedmrg_core.errors import InputError
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.runs.experiments import RunSettings, check_run, load_experiments, runs_of, with_variant
from fedmrg_core.runs.methods import load_method
from fedmrg_core.tasks.reports.methods import KINDS_OF_THE_RANK


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


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"clients": -1}, r"run: clients: .* greater than or equal to 0 \(got '-1'\)"),
        ({"seed": "one"}, r"run: seed: .* \(got 'one'\)"),
        ({"seed": -1}, "run: seed: .* greater than or equal to 0"),
        ({"metod": "fedmrg"}, "run: metod is unknown; expected profile, data, partition"),
    ],
)
def test_a_wrong_setting_is_one_sentence(settings, sentence) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        RunSettings(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"profile": "nothing"}, "profile: 'nothing' is unknown"),
        ({"data": "nothing"}, "data is 'nothing'"),
        ({"partition": "nothing"}, "partition is 'nothing'"),
        ({"variant": "adapter.rank=129"}, "adapter.rank: 129 is above 128, the width of a layer"),
        ({"variant": "adapter.rank=129", "method": "ffa-lora"}, "adapter.rank: 129"),
        ({"unseen": "centre-z"}, "unseen names 'centre-z'; the data set has the sites centre-a, .*, centre-f"),
        ({"unseen": "centre-z", "partition": "style", "data": "phantom-image0.5"}, "unseen names 'centre-z'"),
        ({"clients": 6}, "clients is 6 but there are 5 training sites; leave clients out"),
        ({"clients": 5, "unseen": "centre-a,centre-b"}, "clients is 5 but there are 4 training sites"),
        ({"unseen": "centre-a,centre-b,centre-c,centre-d,centre-e"}, "leaves 1 training site"),
        (
            {"method": "transformer", "variant": "losses.contrast_intra=0.5"},
            "losses.contrast_intra is none of model tran",
        ),
        ({"clients": 1, "data": "iu_xray"}, "clients is 1; a federation needs at least 2"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_its_data_are_there(settings, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        check_run(RunSettings(**settings))


def test_every_run_of_the_experiments_passes() -> None:
    for profile in ("smoke", "standard"):
        for run in runs_of(list(load_experiments()), profile):
            check_run(run)


@pytest.mark.parametrize(
    "settings",
    [
        {"clients": 5},
        {"clients": 40, "partition": "random"},
        {"data": "iu_xray", "unseen": "Q", "clients": 9},  # whose sites only the data tell
        {"variant": "adapter.rank=128"},
        {"variant": "adapter.rank=129", "method": "fed-vera"},  # takes no rank
        {"variant": "adapter.rank=129", "method": "r2gengpt"},  # has no adapter
        {"variant": "adapter.rank=4096", "profile": "paper"},  # names its LLM
    ],
)
def test_what_may_be_is_not_refused(settings) -> None:
    check_run(RunSettings(**settings))


def test_the_width_that_a_rank_is_held_against_is_the_llms() -> None:
    """The narrowest of the layers that may be adapted is as wide as the LLM, and the check on the LLM says the same."""
    import torch

    from fedmrg_core.tasks.reports.base_models import train_tokenizer
    from fedmrg_core.training.adapter_kinds import KINDS, VIRTUAL_TOKEN_KINDS, check_layers
    from fedmrg_core.training.small_llm import new_llm

    profile = load_profile("smoke")
    width, layers = profile.base_models.llm_width, profile.adapter.target_modules
    tokenizer = train_tokenizer(["The lungs are clear."], 300)
    with torch.device("meta"):
        llm = new_llm(profile.base_models, tokenizer, 0)
    check_layers(llm, "lora", width, layers)
    with pytest.raises(InputError, match=f"adapter.rank: {width + 1} is above {width}, the width of a layer"):
        check_layers(llm, "lora", width + 1, layers)
    assert set(KINDS_OF_THE_RANK) == KINDS.keys() - {"vera", *VIRTUAL_TOKEN_KINDS}
