"""Visual prompts through the federation: every row, both kinds, side by side, killed and resumed, unseen centre."""

from __future__ import annotations

import json
import pathlib

import numpy
import pandas
import pytest
from federation_fake import everything
from PIL import Image
from small_pictures import DATA, small_inputs, small_profile, small_run

from fedmrg_core.data.client_folders import drawn_share
from fedmrg_core.errors import InputError
from fedmrg_core.federation.run import run_federation
from fedmrg_core.federation.task import forget_tasks
from fedmrg_core.metrics.segmentation import DICE
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.runs.methods import load_methods
from fedmrg_core.runs.run_configuration import read_configuration
from fedmrg_core.tasks.visual_prompts import preparing
from fedmrg_core.tasks.visual_prompts.client_pictures import check_changes, open_pictures, used_pictures
from fedmrg_core.tasks.visual_prompts.evaluating import evaluate_run
from fedmrg_core.tasks.visual_prompts.measures import AREA, DECLARED
from fedmrg_core.tasks.visual_prompts.preparing import prepare_base_model, prepare_pictures
from fedmrg_core.tasks.visual_prompts.task import PictureHospital

ROWS = load_methods(task="visual_prompts")
# What the server does with updates is alike for classes and masks, so its rules are tried on the smaller models.
CASES = [
    (name, data)
    for name, row in ROWS.items()
    for data in DATA
    if data == "phantom_findings" or row.server.rule == "fedavg"
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return small_inputs(tmp_path_factory.mktemp("pictures"))


def run(
    inputs: pathlib.Path, folder: pathlib.Path, data: str, method: str, test: bool = True, **options: object
) -> dict[str, bytes]:
    run_federation(folder, small_run(inputs, folder, data, method), progress=False, test=test, **options)
    return everything(folder)


@pytest.fixture(scope="module")
def finished(inputs: pathlib.Path):
    """A finished run of a data set and row, made when it is first asked for; all lie equally deep."""

    def made(data: str, method: str) -> pathlib.Path:
        folder = inputs / "runs" / data / method
        if not (folder / "manifest.json").is_file():
            run(inputs, folder, data, method)
        return folder

    return made


@pytest.mark.parametrize(("method", "data"), CASES)
def test_a_row_is_trained_answered_and_scored(method, data, finished):
    folder = finished(data, method)
    metrics = evaluate_run(folder)
    DECLARED.check_metrics(metrics, "metrics.csv")
    main = DICE if data == "phantom_masks" else AREA
    found = metrics[metrics["metric"] == main].set_index("scope")["value"]
    expected = {"home", *("centre-a", "centre-b", "centre-c", "centre-d", "centre-e")}
    assert set(found.index) == expected | (set() if method == "local" else {"unseen"})
    assert found.drop("unseen", errors="ignore")["home"] >= 0
    answers = DECLARED.read_answers(folder / "predictions.csv")
    assert len(answers) == 6 * (5 if method == "local" else 6)
    again = DECLARED.score(answers, 0, 50)
    pandas.testing.assert_frame_equal(again, metrics, check_exact=False)
    if data == "phantom_masks":
        assert {f"{DICE}_lungs", f"{DICE}_heart"} <= set(answers)
    rounds = pandas.read_csv(folder / "rounds.csv")
    assert f"validation_{main}" in rounds and rounds["validation_loss"].notna().any()


def test_what_travels_is_what_the_row_shares(finished):
    for method, modules in {"generator": {"global_prompt", "generator", "head"}, "static": {"global_prompt", "head"},
                            "full": {"backbone", "head"}, "lora": {"adapter", "head"}}.items():  # fmt: skip
        ledger = pandas.read_csv(next(finished("phantom_findings", method).glob("*ledger*.csv")))
        up = ledger[(ledger["direction"] == "up") & (ledger["phase"] == "train")]
        assert modules <= set(up["module"]) and not set(up["module"]) & ({"backbone", "generator"} - modules)


def test_hospitals_test_themselves(finished):
    tests = pandas.read_csv(finished("phantom_masks", "generator") / "hospital_tests.csv")
    assert DICE in set(tests.iloc[:, 1])


@pytest.mark.parametrize("data", DATA)
def test_side_by_side_it_ends_with_the_same_bytes(data, finished, inputs):
    there = everything(finished(data, "generator"))
    found = run(inputs, inputs / "beside" / data / "generator", data, "generator", workers=2)
    assert found.keys() <= there.keys()
    assert [name for name, content in found.items() if there[name] != content] == []


def test_killed_and_taken_up_again_it_ends_with_the_same_bytes(finished, inputs, monkeypatch):
    there, original, calls = everything(finished("phantom_masks", "generator")), PictureHospital.train, []

    def then_die(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(*arguments)

    folder = inputs / "killed" / "phantom_masks" / "generator"
    with monkeypatch.context() as patch:
        patch.setattr(PictureHospital, "train", then_die)
        with pytest.raises(KeyboardInterrupt):
            run(inputs, folder, "phantom_masks", "generator")
    forget_tasks()
    found = run(inputs, folder, "phantom_masks", "generator")
    assert [name for name, content in found.items() if there[name] != content] == []


# ---- preparing ----


def test_prepared_pictures_are_made_once(tmp_path):
    profile = small_profile().model_copy(update={"image_size": 32})
    summary = prepare_pictures(tmp_path / "p", "phantom_findings", profile)
    assert summary["unseen"] == ["centre-f"] and summary["pictures"]["centre-a"]["train"] == 10
    before = everything(tmp_path / "p")
    assert prepare_pictures(tmp_path / "p", "phantom_findings", profile) == json.loads(json.dumps(summary))
    assert everything(tmp_path / "p") == before


@pytest.mark.parametrize("data", DATA)
def test_a_small_frozen_model_is_built_kept_and_used(data, inputs, tmp_path):
    profile = small_profile(data)
    sizes = profile.base_models.model_copy(
        update={"public_studies": 4, "backbone_steps": 2, "pretraining_batch_size": 3}
    )
    profile = profile.model_copy(update={"base_models": sizes})
    prepared = inputs / "prepared" / data
    made = prepare_base_model(tmp_path / "base", prepared, data, profile, progress=False)
    assert made["loss"] > 0 and made["task"]
    before = everything(tmp_path / "base")
    assert prepare_base_model(tmp_path / "base", prepared, data, profile)["files"]
    assert everything(tmp_path / "base") == before
    run_folder = tmp_path / "run"
    configuration = small_run(inputs, run_folder, data, "head").model_copy(update={"base_models": "../base"})
    run_federation(run_folder, configuration, progress=False, stop_after_round=1)


def test_a_share_of_the_training_pictures_is_drawn_once(inputs):
    place = inputs / "prepared" / "phantom_findings" / "centre-a"
    ids, tensors = used_pictures(place, "train", 0.3, 0)
    everyone, whole = open_pictures(place, "train")
    chosen = drawn_share(10, 0.3, 0, "centre-a")
    assert ids == [everyone[index] for index in chosen] and len(tensors["pixels"]) == 3
    assert (tensors["truth"] == whole["truth"][chosen]).all()
    assert set(chosen) < set(drawn_share(10, 0.6, 0, "centre-a"))
    assert used_pictures(place, "test", 0.3, 0)[0] == open_pictures(place, "test")[0]


def own_folder(root: pathlib.Path, labels: dict[str, list[str]]) -> pathlib.Path:
    """A hospital's folder: six pictures a site, with these labels."""
    rows = ["picture_id,group,site,split,image,label"]
    for site, named in labels.items():
        for number, label in enumerate(named):
            name = f"{site}{number}"
            split = ("train", "train", "train", "train", "validation", "test")[number]
            rows.append(f"{name},{name},{site},{split},{name}.png,{label}")
            values = numpy.random.default_rng(number).integers(0, 256, (32, 32), dtype=numpy.uint8)
            Image.fromarray(values).save(root / f"{name}.png")
    (root / "pictures.csv").write_text("\n".join(rows) + "\n")
    return root


def test_a_folder_of_one_s_own_is_trained_on(inputs, tmp_path):
    (tmp_path / "own").mkdir()
    labels = {site: ["a", "b", "c", "a", "b", "c"] for site in ("north", "south")} | {"west": ["a"] * 6}
    root, profile = own_folder(tmp_path / "own", labels), small_profile()
    with pytest.raises(InputError, match="site 'west' has one class alone among its training pictures, 'a'"):
        prepare_pictures(tmp_path / "prepared", "picture_classes", profile, str(root))
    options = '{"unseen": ["west"], "classes": ["c", "b", "a"]}'
    summary = prepare_pictures(tmp_path / "prepared", "picture_classes", profile, str(root), options)
    assert summary["unseen"] == ["west"] and summary["subject"]["names"] == ["c", "b", "a"]
    folder = tmp_path / "run"
    configuration = small_run(inputs, folder, "phantom_findings", "generator").model_copy(
        update={"data": "picture_classes", "prepared": "../prepared"}
    )
    run_federation(folder, configuration, progress=False)
    metrics = evaluate_run(folder)
    assert {"north", "south", "home", "unseen"} == set(metrics["scope"])
    accuracy = metrics[(metrics["metric"] == "accuracy") & (metrics["scope"] == "home")]["value"].item()
    assert accuracy in (0, 0.5, 1)


def test_a_folder_that_is_read_again_stays_unless_it_changed(tmp_path):
    """Other runs may be reading what was prepared of it."""
    root, profile = (
        own_folder(tmp_path, {site: ["a", "b", "a", "b", "a", "b"] for site in ("north", "south")}),
        small_profile(),
    )
    prepare_pictures(tmp_path / "p", "picture_classes", profile, str(root))
    first = (tmp_path / "p" / "north").stat().st_ino
    prepare_pictures(tmp_path / "p", "picture_classes", profile, str(root))
    assert (tmp_path / "p" / "north").stat().st_ino == first and not list(tmp_path.glob("*.partial"))
    before = open_pictures(tmp_path / "p" / "south", "test")[1]["pixels"]
    Image.open(root / "south4.png").save(root / "south5.png")
    prepare_pictures(tmp_path / "p", "picture_classes", profile, str(root))
    assert not open_pictures(tmp_path / "p" / "south", "test")[1]["pixels"].equal(before)


def test_a_site_to_hold_out_that_is_not_there_is_refused(tmp_path):
    root = own_folder(tmp_path, {"north": ["a", "b", "a", "b", "a", "b"]})
    with pytest.raises(InputError, match="unseen names 'east'; the data set has the sites north"):
        prepare_pictures(tmp_path / "p", "picture_classes", small_profile(), str(root), '{"unseen": ["east"]}')


# ---- refused ----


def test_pictures_that_were_not_prepared_are_told(inputs, tmp_path):
    configuration = small_run(inputs, tmp_path / "run", "phantom_masks", "head").model_copy(
        update={"prepared": "../nowhere"}
    )
    with pytest.raises(InputError, match="summary.json does not exist; prepare the pictures with notebook 12"):
        run_federation(tmp_path / "run", configuration, progress=False)


def test_another_partition_is_refused(inputs, tmp_path):
    configuration = small_run(inputs, tmp_path / "run", "phantom_masks", "head", partition="random", clients=2)
    with pytest.raises(InputError, match="partition: 'random'; of pictures each site is a client"):
        run_federation(tmp_path / "run", configuration, progress=False)


def test_changes_that_a_mask_cannot_follow_are_refused(inputs, tmp_path):
    profile = small_profile("phantom_masks")
    turned = profile.model_copy(update={"training": profile.training.model_copy(update={"image_rotation": 5.0})})
    with pytest.raises(
        InputError, match="image_rotation, image_stretch and image_gamma are for pictures without masks"
    ):
        folder = tmp_path / "run"
        run_federation(folder, small_run(inputs, folder, "phantom_masks", "head", profile=turned), progress=False)
    moved = profile.training.model_copy(update={"image_shift": 2})
    check_changes(moved, read_subject(inputs))


def read_subject(inputs: pathlib.Path) -> object:
    from fedmrg_core.data.pictures.picture import Subject

    return Subject.read(json.loads((inputs / "prepared/phantom_masks/summary.json").read_text())["subject"])


def test_runs_of_other_tasks_do_not_mention_pictures():
    assert "pictures" not in load_profile("smoke").model_dump(mode="json")
    assert load_profile("smoke", "phantom_masks").pictures.prompts > 0


def test_the_configuration_is_read_back(finished):
    configuration = read_configuration(finished("phantom_masks", "generator"))
    assert configuration.task == "visual_prompts" and configuration.profile.pictures.prompts == 3


@pytest.mark.parametrize("data", DATA)
def test_the_stored_frozen_model_is_the_one_that_the_profile_asks_for(data, inputs, tmp_path, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise AssertionError("the stored model was not taken")

    monkeypatch.setattr(preparing, "pretrain_vit", refuse)
    monkeypatch.setattr(preparing, "pretrain_sam", refuse)
    prepared = inputs / "prepared" / data
    made = prepare_base_model(tmp_path / "base", prepared, data, load_profile("smoke", data), progress=False)
    assert made["loss"] < 0.5 and (tmp_path / "base" / made["model"] / "model.safetensors").is_file()
    with pytest.raises(InputError, match="base_models is 'new'; expected stored or fresh"):
        prepare_base_model(tmp_path / "base", prepared, data, load_profile("smoke", data), "new")
