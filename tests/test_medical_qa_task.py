"""Medical questions through the federation: every row, side by side, killed and resumed, answered and scored."""

from __future__ import annotations

import json
import pathlib
import shutil

import pandas
import peft
import pytest
import torch
import transformers
from federation_fake import everything
from small_questions import PROFILE, small_inputs, small_run

from fedmrg_core.errors import InputError
from fedmrg_core.federation.hospital import HospitalDisk
from fedmrg_core.federation.run import run_federation
from fedmrg_core.federation.task import forget_tasks
from fedmrg_core.files.tensor_files import read_tensors, write_tensors
from fedmrg_core.runs.methods import load_methods
from fedmrg_core.runs.run_configuration import read_configuration
from fedmrg_core.tasks.medical_qa import evaluating
from fedmrg_core.tasks.medical_qa.evaluating import evaluate_run
from fedmrg_core.tasks.medical_qa.kept_adapters import keep_adapters, load_kept
from fedmrg_core.tasks.medical_qa.measures import BASE_FLOOR, DECLARED, MAIN, MATRIX, MATRIX_BY_ROUND
from fedmrg_core.tasks.medical_qa.question_folders import open_questions
from fedmrg_core.tasks.medical_qa.task import QuestionHospital, QuestionTask
from fedmrg_core.training.client_state import HospitalState

ROWS = tuple(load_methods(task="medical_qa"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return small_inputs(tmp_path_factory.mktemp("questions"))


def run(inputs: pathlib.Path, folder: pathlib.Path, method: str, **options: object) -> dict[str, bytes]:
    run_federation(folder, small_run(inputs, folder, method), progress=False, **options)
    return everything(folder)


@pytest.fixture(scope="module")
def finished(inputs) -> dict[str, pathlib.Path]:
    """Every row, undisturbed in one process; config.yaml holds relative paths, so all lie equally deep."""
    folders = {method: inputs / "undisturbed" / method for method in ROWS}
    for method, folder in folders.items():
        run(inputs, folder, method, test=True)
    return folders


@pytest.mark.parametrize("method", ROWS)
def test_a_row_is_trained_answered_and_scored(method, finished):
    folder = finished[method]
    metrics = evaluate_run(folder)
    DECLARED.check_metrics(metrics, "metrics.csv")
    home = metrics[(metrics["scope"] == "home") & (metrics["metric"] == MAIN)].set_index(["system", "adapter"])["value"]
    assert ("floor_base", "none") in home.index and home.between(0, 1).all()
    expected = {"dual": {"generic", "specialised", "both"}}.get(method, {"generic"})
    assert {adapter for system, adapter in home.index if system == "model"} == expected
    answers = pandas.read_csv(folder / "predictions.csv")
    assert set(answers["system"]) == {"model", *DECLARED.floors} and set(answers["fact_held"]) == {"here", "elsewhere"}
    assert len(answers[answers["system"] == BASE_FLOOR]) == answers["study_id"].nunique()


def test_the_matrix_has_every_adapter_on_every_client(finished):
    for method, count in {"fed-lora": 1, "local": 3, "dual": 4}.items():
        evaluate_run(finished[method], workers=2 if method == "dual" else 1)
        by_round = pandas.read_csv(finished[method] / MATRIX_BY_ROUND, keep_default_na=False)
        assert by_round.groupby("round").size().to_dict() == {1: 3 * count, 2: 3 * count}
        matrix = pandas.read_csv(finished[method] / MATRIX, keep_default_na=False)
        adapters = matrix[matrix["adapter"] != "base"]
        assert len(adapters) == 3 * count and len(matrix) == 3 * (count + 1)
        assert adapters.groupby("on").size().eq(count).all()


def test_a_kept_round_has_the_adapters_that_validation_saw(finished, inputs):
    folder = inputs / "stopped" / "dual"
    run(inputs, folder, "dual", stop_after_round=1)
    kept = finished["dual"] / "adapters_by_round" / "round-0001"
    assert (kept / "shared.safetensors").read_bytes() == (
        folder / "checkpoint/round-0001/shared.safetensors"
    ).read_bytes()
    for client in ("hospital-1", "hospital-2", "hospital-3"):
        own = HospitalDisk(folder, client).load(1).part("personal")
        there = read_tensors(kept / "personal" / f"{client}.safetensors")
        assert own.keys() == there.keys() and all(torch.equal(own[key], there[key]) for key in own)


def selected_round(folder: pathlib.Path) -> int:
    return json.loads((folder / "manifest.json").read_text())["selected_round"]


def test_the_last_round_is_read_from_the_checkpoints(finished):
    """Where the last round is the chosen one, both matrices say the same of it."""
    last = [m for m in ("fed-lora", "dual", "local") if selected_round(finished[m]) == 2]
    assert last
    for method in last:
        evaluate_run(finished[method])
        matrix = pandas.read_csv(finished[method] / MATRIX).query("adapter != 'base'").reset_index(drop=True)
        by_round = pandas.read_csv(finished[method] / MATRIX_BY_ROUND).query("round == 2").drop(columns="round")
        pandas.testing.assert_frame_equal(matrix, by_round.reset_index(drop=True))


class Federation:
    """A client that trains in some rounds: its one tensor of its own then has the round's number, as the shared one."""

    def __init__(self, folder: pathlib.Path, kept: tuple[int, ...], trained: tuple[int, ...], last: int) -> None:
        self.folder, self.last, self.loaded = folder, last, {}
        self.initial_personal = {"m/own": torch.tensor([0.0])}
        own = self.initial_personal
        for number in range(1, last + 1):
            shared = {"m/w": torch.tensor([number - 1.0])}
            keep_adapters(folder, kept, number, "always", shared, {})
            if number in trained:
                keep_adapters(folder, kept, number, "a", shared, own)
                own = {"m/own": torch.tensor([float(number)])}
                HospitalDisk(folder, "a").save_trained(number, HospitalState({"personal/m/own": own["m/own"]}))
                HospitalDisk(folder, "a").keep([number])
        write_tensors(folder / "checkpoint" / f"round-{last:04d}" / "shared.safetensors", {"m/w": torch.tensor([last])})

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        self.loaded = {key: int(tensor.item()) for key, tensor in tensors.items()}

    def after(self, number: int, client: str | None = "a") -> dict[str, int]:
        load_kept(self, self.folder, number, self.last, client)
        return self.loaded


@pytest.mark.parametrize(
    ("trained", "own"),
    [
        ((1, 2, 4), {1: 1, 2: 2, 4: 4, 6: 4}),  # it paused in round 3, and after round 4
        ((3, 5), {1: 0, 2: 0, 4: 3, 6: 5}),  # it began late
        ((1, 6), {1: 1, 2: 1, 4: 1, 6: 6}),
        ((), {1: 0, 2: 0, 4: 0, 6: 0}),
    ],
)
def test_a_client_that_pauses_has_what_it_had_when_it_last_trained(tmp_path, trained, own):
    federation = Federation(tmp_path, (1, 2, 4, 6), trained, last=6)
    assert {number: federation.after(number)["m/own"] for number in own} == own
    assert [federation.after(number)["m/w"] for number in own] == list(own)
    assert federation.after(4, None) == {"m/w": 4, "m/own": 0}


def test_a_folder_of_another_dealing_is_not_scored(finished, tmp_path):
    for method in ("fed-lora", "centralised"):
        places = [place.client for place in evaluating.test_sets(finished[method])]
        assert places == ["hospital-1", "hospital-2", "hospital-3"]
        dealt = (finished[method] / read_configuration(finished[method]).dealt).resolve()
        stale = dealt / "hospital-0"
        shutil.copytree(dealt / "hospital-1", stale)
        about = json.loads((stale / "client.json").read_text()) | {"name": "hospital-0"}
        (stale / "client.json").write_text(json.dumps(about))
        try:
            assert [place.client for place in evaluating.test_sets(finished[method])] == places
        finally:
            shutil.rmtree(stale)


def test_questions_are_not_dealt_otherwise(inputs, tmp_path):
    for change in ({"partition": "style"}, {"clients": 3}, {"unseen_sites": ("hospital-1",)}):
        configuration = small_run(inputs, tmp_path, "fed-lora").model_copy(update=change)
        with pytest.raises(InputError, match="questions lie with the clients that the data name"):
            run_federation(tmp_path / next(iter(change)), configuration, progress=False)


def test_the_base_model_stays_as_it_was(finished, inputs):
    metrics = [evaluate_run(finished[method]).query("system == 'floor_base'") for method in ("fed-lora", "dual")]
    pandas.testing.assert_frame_equal(*(each.reset_index(drop=True) for each in metrics))
    adapter = finished["fed-lora"] / "model" / "generic_adapter"
    llm = transformers.AutoModelForCausalLM.from_pretrained(inputs / "base" / "llm")
    before = {key: tensor.clone() for key, tensor in llm.state_dict().items()}
    opened = peft.PeftModel.from_pretrained(llm, adapter)
    shared = read_tensors(finished["fed-lora"] / "model" / "shared.safetensors")
    assert any(tensor.abs().max() > 0 for key, tensor in shared.items() if key.endswith("lora_B"))
    after = opened.unload().state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


@pytest.mark.parametrize("method", ["fed-lora", "dual", "exact-lora"])
def test_side_by_side_it_ends_with_the_same_bytes(method, finished, inputs):
    there = {name: content for name, content in everything(finished[method]).items() if "predictions" not in name}
    found = run(inputs, inputs / "side-by-side" / method, method, workers=2, test=True)
    assert found.keys() <= there.keys()
    assert [name for name, content in found.items() if there[name] != content] == []


def test_killed_and_taken_up_again_it_ends_with_the_same_bytes(finished, inputs, monkeypatch):
    original, calls = QuestionHospital.train, []

    def then_die(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(QuestionHospital, "train", then_die)
        with pytest.raises(KeyboardInterrupt):
            run(inputs, inputs / "killed" / "dual", "dual")
    forget_tasks()
    found, there = run(inputs, inputs / "killed" / "dual", "dual", test=True), everything(finished["dual"])
    assert [name for name, content in found.items() if there[name] != content] == []


def test_hospitals_say_how_many_questions_they_answer_rightly(finished):
    rounds = pandas.read_csv(finished["dual"] / "rounds.csv")
    for adapter in ("generic", "specialised"):
        assert rounds[f"validation_accuracy_{adapter}"].between(0, 1).all()
    tests = pandas.read_csv(finished["dual"] / "hospital_tests.csv")
    assert {"accuracy_sum", "accuracy_per_token", "accuracy_per_character"} <= set(tests.iloc[:, 1])


def test_a_chat_template_that_is_not_there_is_refused(inputs, tmp_path):
    with pytest.raises(
        InputError, match="questions.chat asks for a chat template and the model's tokenizer has none .*llm"
    ):
        run_federation(tmp_path, small_run(inputs, tmp_path, "fed-lora", chat=True), progress=False)


@pytest.mark.parametrize("numbers", [{"longest": 513}, {"longest": 64, "new_tokens": 512}])
def test_an_llm_with_too_few_positions_is_refused_before_any_training(numbers, inputs, tmp_path):
    with pytest.raises(InputError, match=r"it has 512 positions .* reads 513 tokens .* make questions\.longest"):
        run_federation(tmp_path, small_run(inputs, tmp_path, "fed-lora", **numbers), progress=False)
    assert not (tmp_path / "rounds.csv").exists()


@pytest.mark.parametrize("method", ["fed-lora", "centralised"])
def test_a_share_of_the_training_questions_is_used(method, finished, inputs, tmp_path):
    half = small_run(inputs, tmp_path, method)
    training = half.profile.training.model_copy(update={"study_share": 0.5})
    half = half.model_copy(update={"profile": half.profile.model_copy(update={"training": training})})
    roster = QuestionTask.deal(tmp_path, half)
    for whole in (False, True):
        task = QuestionTask(tmp_path, small_run(inputs, tmp_path, method) if whole else half)
        hospitals = [task.hospital(c, [tmp_path / folder for folder in c.folders]) for c in roster.clients]
        used = [question.question_id for each in hospitals for question in each.questions("train")]
        every = [
            q.question_id for c in roster.clients for f in c.folders for q in open_questions(tmp_path / f, "train")
        ]
        parts = [open_questions(tmp_path / folder, "train") for c in roster.clients for folder in c.folders]
        assert len(used) == (len(every) if whole else sum(-(-len(part) // 2) for part in parts))
        assert used == [name for name in every if name in used]
        assert sum(len(each.batches("train")) for each in hospitals) == len(used)
        assert all(len(each.questions("test")) for each in hospitals)


def test_runs_of_reports_do_not_mention_questions(tmp_path):
    assert "questions" not in PROFILE.model_copy(update={"questions": None}).model_dump(mode="json")


def test_the_configuration_is_read_back(finished):
    configuration = read_configuration(finished["dual"])
    assert configuration.task == "medical_qa" and configuration.profile.questions.layout == "cloze"
