"""Runs on a share of the training studies: which they are, what stays whole, and what is stored of them."""

from __future__ import annotations

import pandas
import pytest
from run_folders import write_run
from small_model import PROFILE

from fedmrg_core.data.client_folders import open_client_folder
from fedmrg_core.data.dealing import deal
from fedmrg_core.data.prepared import prepare
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.evaluation.stored_runs import load_run
from fedmrg_core.federation.roster import POOLED
from fedmrg_core.federation.run import configure_run, run_federation
from fedmrg_core.files.strict_yaml import validated
from fedmrg_core.runs.configuration import Profile, apply_variant, load_profile
from fedmrg_core.runs.experiments import RunSettings, check_run
from fedmrg_core.runs.methods import load_method
from fedmrg_core.tasks.reports.finished_run import FinishedRun
from fedmrg_core.tasks.reports.task import ReportTask

TRAINING = 9


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare("phantom", None, tmp_path_factory.mktemp("data") / "p", 32, 0, train=TRAINING, validation=2, test=2)


@pytest.fixture(scope="module")
def folders(prepared, tmp_path_factory):
    return deal(prepared, tmp_path_factory.mktemp("dealt") / "d", "site", None, seed=0).clients


def used(folder, share, seed=0):
    return folder.used("train", share, seed)["study_id"]


def test_a_share_is_rounded_up_and_a_smaller_one_is_part_of_a_larger(folders):
    for folder in folders.values():
        shares = [list(used(folder, share)) for share in (0.001, 0.05, 1 / 3, 0.5, 8 / 9, 1)]
        assert [len(share) for share in shares] == [1, 1, 3, 5, 8, 9]
        for smaller, larger in zip(shares, shares[1:], strict=False):
            assert smaller == [study for study in larger if study in smaller]  # in the folder's order
        assert shares[-1] == list(folder.split("train")["study_id"])


def test_a_share_is_drawn_for_each_seed_and_client(folders):
    def places(folder, seed):
        every = list(folder.split("train")["study_id"])
        return tuple(every.index(study) for study in used(folder, 0.5, seed))

    assert places(folders["centre-a"], 0) == places(open_client_folder(folders["centre-a"].path), 0)
    assert len({places(folders["centre-a"], seed) for seed in range(4)}) > 1
    assert len({places(folder, 0) for folder in folders.values()}) > 1


def test_validation_and_test_stay_whole(folders):
    for split in ("validation", "test"):
        studies = folders["centre-a"].used(split, 0.05, 0)
        assert list(studies["study_id"]) == list(folders["centre-a"].split(split)["study_id"])


@pytest.mark.parametrize("share", ["0", "-0.5", "1.01", ".nan", "half", "true"])
def test_a_share_that_is_none_is_refused_before_anything_runs(share):
    with pytest.raises(InputError, match=r"training\.study_share") as caught:
        check_run(RunSettings(variant=f"training.study_share={share}"))
    assert "\n" not in str(caught.value)


def test_profiles_with_all_studies_are_stored_as_before():
    profile, row = load_profile("smoke"), load_method("mrg-llm-static")
    assert "study_share" not in profile.model_dump(mode="json")["training"]
    part, _ = apply_variant(profile, row, "training.study_share=0.25")
    assert part.model_dump(mode="json")["training"]["study_share"] == 0.25
    assert apply_variant(part, row, "training.study_share=1") == (profile, row)
    assert validated(Profile, part.model_dump(mode="json"), "stored") == part


def test_what_a_row_does_not_mention_can_be_varied_too():
    profile, row = load_profile("smoke"), load_method("mrg-llm-static")
    _, aligned = apply_variant(profile, row, "losses.alignment=0.2")
    assert aligned.losses.alignment == 0.2


def test_runs_of_several_shares_are_told_apart(tmp_path):
    variants = ["", "training.study_share=0.05", "training.study_share=0.25"]
    folders = [write_run(tmp_path, method="mrg-llm-static", variant=variant) for variant in variants]
    for order in (folders, folders[::-1]):  # a profile that does not mention its share is one of all studies
        with pytest.raises(InputError, match=r"different profiles: training\.study_share"):
            load_runs(order)
        runs = load_runs(order, varying=["training.study_share"])
        assert [runs.label(run) for run in sorted(runs, key=lambda run: run.folder)] == [
            "mrg-llm-static", *(f"mrg-llm-static {variant}" for variant in variants[1:])
        ]  # fmt: skip
    assert load_run(folders[0]).content()["training.study_share"] == 1


@pytest.mark.parametrize("method", ["mrg-llm-static", "centralised-mrg-llm-static"])
def test_a_run_trains_on_its_share(method, workspace, tmp_path):
    """The federation's weights and a centralised row's batches are the studies used; so are the floors'."""
    training = PROFILE.training.model_copy(update={"study_share": 0.5})
    profile = PROFILE.model_copy(
        update={"training": training, "federation": PROFILE.federation.model_copy(update={"rounds": 1})}
    )
    configuration = configure_run(
        tmp_path, profile=profile, method=load_method(method), data="phantom", threads=1,
        prepared=workspace / "prepared", base_models=workspace / "base_models",
    )  # fmt: skip
    run_federation(tmp_path, configuration, progress=False)
    run = FinishedRun(tmp_path)
    expected = {name: list(used(folder, 0.5)) for name, folder in run.dealt.clients.items()}
    whole = {name: folder.studies["train"] for name, folder in run.dealt.clients.items()}
    assert all(len(studies) == -(-whole[name] // 2) < whole[name] for name, studies in expected.items())
    assert {name: run.tensors(name, "train").study_ids for name in run.sites} == expected
    if method.startswith("centralised"):
        expected = {POOLED: sum(expected.values(), [])}
    examples = pandas.read_csv(tmp_path / "rounds.csv").set_index("client").num_examples
    assert examples.to_dict() == {name: len(studies) for name, studies in expected.items()}
    task = ReportTask(tmp_path, configuration)
    for client in run.roster.clients:
        hospital = task.hospital(client, [tmp_path / folder for folder in client.folders])
        assert hospital.tensors("train").study_ids == expected[client.name]
