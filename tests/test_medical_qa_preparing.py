"""Questions prepared once, base models taken or refused, and client folders that hold what they should."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

import filelock
import pandas
import pytest
from small_questions import PROFILE, small_inputs, small_run

from fedmrg_core.data.questions.question import Question
from fedmrg_core.data.questions.question_files import read_questions, write_questions
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError
from fedmrg_core.files.described_folders import copy_described
from fedmrg_core.files.digests import file_digest
from fedmrg_core.paths import STORED_BASE_MODELS
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.tasks.medical_qa import question_folders
from fedmrg_core.tasks.medical_qa.preparing import prepare_base_model, prepare_questions, prepared_questions
from fedmrg_core.tasks.medical_qa.question_folders import open_questions, write_client_folder
from fedmrg_core.training.language_models import load_language_model

SUBJECTS = ("Anatomy", "Surgery")
FILES = json.dumps({"files": {"all": "questions.jsonl"}, "smallest": 5})


def medmcqa_file(folder: pathlib.Path, count: int = 12) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    words = "amber birch cedar delta ember fjord grove heath islet jetty knoll ledge marsh nadir oasis".split()
    rows = [
        {"id": f"{subject}-{number}", "question": f"Which {words[number]} belongs to {subject} in case {number}?",
         **{f"op{letter}": f"{letter} {words[(number + place) % 15]}" for place, letter in enumerate("abcd")},
         "cop": number % 4 + 1, "subject_name": subject, "choice_type": "single"}
        for subject in SUBJECTS for number in range(count)
    ]  # fmt: skip
    rows[3] |= {"opa": "equal", "opb": "Equal"}
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_a_public_set_is_prepared_and_what_is_left_out_is_listed(tmp_path):
    root = medmcqa_file(tmp_path / "root")
    summary = prepare_questions(tmp_path / "prepared", "medmcqa", PROFILE, str(root), FILES)
    assert set(summary["questions"]) == set(SUBJECTS) and not summary["synthetic"]
    questions = prepared_questions(tmp_path / "prepared")
    assert len(questions) == sum(sum(row.values()) for row in summary["questions"].values()) == 23
    left_out = pandas.read_csv(tmp_path / "prepared" / "left_out.csv")
    assert len(left_out) == summary["left_out"] == 1 and "equal" in left_out.loc[0, "reason"]


def test_a_public_set_is_prepared_once_for_the_same_files(tmp_path):
    root, folder = medmcqa_file(tmp_path / "root"), tmp_path / "prepared"
    summary = prepare_questions(folder, "medmcqa", PROFILE, str(root), FILES)
    before = (folder / "questions.jsonl.gz").stat()
    assert prepare_questions(folder, "medmcqa", PROFILE, str(root), FILES) == summary
    assert (folder / "questions.jsonl.gz").stat() == before
    medmcqa_file(tmp_path / "root", 11)
    assert prepare_questions(folder, "medmcqa", PROFILE, str(root), FILES)["files"] != summary["files"]
    assert len(prepared_questions(folder)) == 21


def test_what_was_moved_and_kept_is_listed_and_known_answers_are_counted(tmp_path):
    words = "amber birch cedar delta ember fjord grove heath islet jetty knoll ledge marsh nadir oasis".split()
    asked = [f"What is the {one} of {other}?" for one in words[:6] for other in words] + ["Who is it, mostly?"] * 9
    rows = [
        {"source": "s", "focus": "f", "qtype": "q", "question": text, "answer": f"It is {number}."}
        for number, text in enumerate(asked)
    ]
    for row in rows[:30]:
        row["answer"] = "Nobody knows."
    (tmp_path / "medquad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = json.dumps({"smallest": 5})
    summary = prepare_questions(tmp_path / "prepared", "medquad", PROFILE, str(tmp_path), options)
    moved = pandas.read_csv(tmp_path / "prepared" / "moved.csv")
    by_id = {question.question_id: question for question in prepared_questions(tmp_path / "prepared")}
    assert len(moved) == summary["moved"] > 0
    assert all(by_id[row.question_id].split == row.split != row.drawn for row in moved.itertuples())
    parts = pandas.read_csv(tmp_path / "prepared" / "parts.csv").set_index("split")
    assert parts["moved"].sum() == len(moved) and parts[["kept", "moved"]].to_numpy().sum() == len(by_id)
    test = [question for question in by_id.values() if question.split == "test"]
    known = sum(question.answer == "Nobody knows." for question in test)
    assert summary["open_test_answers"] == {"all": len(test), "in_training": known} and known


def test_a_profile_says_how_many_questions_of_a_client_are_used_and_options_may_say_otherwise(tmp_path):
    root = medmcqa_file(tmp_path / "root")
    profile = PROFILE.model_copy(update={"questions": PROFILE.questions.model_copy(update={"largest_client": 10})})
    summary = prepare_questions(tmp_path / "prepared", "medmcqa", profile, str(root), FILES)
    assert all(sum(row.values()) == 10 for row in summary["questions"].values())
    assert any(note.startswith("Of each of these clients 10 questions were drawn") for note in summary["notes"])
    options = json.dumps(json.loads(FILES) | {"largest": None})
    summary = prepare_questions(tmp_path / "prepared", "medmcqa", profile, str(root), options)
    assert sum(sum(row.values()) for row in summary["questions"].values()) == 23


def test_the_small_model_of_a_public_set_reads_the_other_sets_beside_it(tmp_path):
    root = medmcqa_file(tmp_path / "root")
    quad = {"source": "s", "focus": "f", "qtype": "q", "question": "What is a fjord?", "answer": "Water in the hills."}
    (root / "medquad.jsonl").write_text(json.dumps(quad) + "\n")
    prepare_questions(tmp_path / "prepared", "medmcqa", PROFILE, str(root), FILES)
    base = PROFILE.base_models.model_copy(update={"llm_steps": 2, "public_studies": 30})
    profile = PROFILE.model_copy(update={"base_models": base})

    def prepare() -> dict:
        return prepare_base_model(
            tmp_path / "base", "medmcqa", profile, progress=False, data_root=str(root), prepared=tmp_path / "prepared"
        )

    description = prepare()
    assert description["texts"] == 1 and description["sources"]["medquad.jsonl"]["set"] == "medquad"
    assert description["sets"] == {"medquad.jsonl": "medquad"} and description["left_out"] == 0
    assert str(tmp_path) not in json.dumps(description)
    assert load_language_model(tmp_path / "base" / "llm")[1].decode([0]) == "<s>"
    before = (tmp_path / "base" / "description.json").stat().st_mtime_ns
    assert prepare().items() <= json.loads((tmp_path / "base" / "description.json").read_text()).items()
    assert (tmp_path / "base" / "description.json").stat().st_mtime_ns == before
    other = {**quad, "question": "What is an islet?"}
    (root / "more.jsonl").write_text(json.dumps(other) + "\n")
    assert prepare()["texts"] == 2
    (root / "more.jsonl").write_text(json.dumps(other | {"answer": "A small island."}) + "\n")
    changed = prepare()["sources"]["more.jsonl"]["sha256"]
    assert changed == file_digest(root / "more.jsonl")[:16]  # the same name, another file


def test_the_world_is_prepared_once(tmp_path):
    summary = prepare_questions(tmp_path, "medical_world", load_profile("smoke", "medical_world"))
    assert summary["synthetic"] and len(summary["questions"]) == 3
    before = (tmp_path / "questions.jsonl.gz").stat().st_mtime_ns
    assert prepare_questions(tmp_path, "medical_world", load_profile("smoke", "medical_world")) == summary
    assert (tmp_path / "questions.jsonl.gz").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("phantom", ""), "data 'phantom' is for the task reports, and this notebook for medical_qa"),
        (("medmcqa", ""), "data_root is empty"),
        (("medical_world", "."), "reads no folder"),
    ],
)
def test_data_that_do_not_fit_are_refused(given, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        prepare_questions(tmp_path / "prepared", given[0], PROFILE, given[1])
    assert not (tmp_path / "prepared").exists()


def test_the_stored_base_model_is_the_profile_s_and_whole(tmp_path):
    profile = load_profile("smoke", "medical_world")
    assert (
        prepare_base_model(tmp_path / "base", "medical_world", profile)["texts"] == profile.base_models.public_studies
    )
    assert (tmp_path / "base" / "llm" / "model.safetensors").is_file()
    damaged = tmp_path / "damaged"
    shutil.copytree(STORED_BASE_MODELS / "smoke" / "medical_world", damaged)
    (damaged / "llm" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config.json is not the file that description.json names"):
        copy_described(damaged, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_base_model_that_cannot_be_had_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"data_root is empty but data 'medquad' is read from a folder"):
        prepare_base_model(tmp_path / "base", "medquad", PROFILE)
    root = str(medmcqa_file(tmp_path / "root"))
    with pytest.raises(InputError, match=r"apart from the clients' questions; give prepared"):
        prepare_base_model(tmp_path / "base", "medquad", PROFILE, data_root=root)
    prepare_questions(tmp_path / "prepared", "medmcqa", PROFILE, root, FILES)
    with pytest.raises(InputError, match=r"holds no other public set .* or name a model in the profile"):
        prepare_base_model(tmp_path / "base", "medmcqa", PROFILE, data_root=root, prepared=tmp_path / "prepared")
    assert not (tmp_path / "base").exists()
    with pytest.raises(InputError, match="base_models is 'old'; expected stored or fresh"):
        prepare_base_model(tmp_path / "base", "medical_world", PROFILE, "old")


def test_runs_that_start_together_deal_one_after_the_other(tmp_path, monkeypatch):
    written = []

    def write(folder: pathlib.Path, *arguments: object) -> pathlib.Path:
        with pytest.raises(filelock.Timeout), filelock.FileLock(folder.parent / question_folders.LOCK, timeout=0):
            pass
        written.append(folder)
        return write_client_folder(folder, *arguments)

    monkeypatch.setattr(question_folders, "write_client_folder", write)
    inputs = small_inputs(tmp_path)
    roster = question_folders.deal_questions(tmp_path / "run", small_run(inputs, tmp_path / "run", "fed-lora"))
    assert len(written) == len(roster.clients) == 3


def question(client: str, split: str, number: int) -> Question:
    return Question(f"{client}-{split}-{number}", client, split, "open", f"What is {number}?", f"It is {number}.")


def test_a_client_folder_holds_its_own_and_is_not_given_to_another(tmp_path):
    own = [question("north", split, number) for split in ("train", "validation", "test") for number in range(2)]
    folder = write_client_folder(tmp_path / "north", "north", own)
    assert [q.question_id for q in open_questions(folder, "test")] == ["north-test-0", "north-test-1"]
    with pytest.raises(InputError, match=r"client 'south' has no validation question"):
        write_client_folder(tmp_path / "south", "south", [question("south", "train", 0), question("south", "test", 0)])
    with pytest.raises(InputError, match=r"holds the questions of 'north'; give 'south' another folder"):
        write_client_folder(tmp_path / "north", "south", [question("south", q.split, 1) for q in own[::2]])
    (folder / "questions.jsonl").unlink()
    with pytest.raises(InputError, match=r"expected a client folder"):
        open_questions(folder, "train")


def test_questions_are_dealt_at_random_and_stay_the_same_data(tmp_path):
    inputs = small_inputs(tmp_path)
    by_client = small_run(inputs, tmp_path / "run", "fed-lora")
    at_random = by_client.model_copy(update={"partition": "random", "clients": 4, "dealt": f"{by_client.dealt}-random"})
    with pytest.raises(InputError, match="these hospitals know different facts"):
        question_folders.deal_questions(tmp_path / "run", at_random)
    prepared = (tmp_path / "run" / by_client.prepared).resolve() / question_folders.PREPARED
    known = [dataclasses.replace(question, held_by=()) for question in read_questions(prepared)]
    write_questions(prepared, known)
    rosters = [question_folders.deal_questions(tmp_path / "run", each) for each in (by_client, at_random)]
    assert rosters[0].fingerprints == rosters[1].fingerprints
    assert [client.name for client in rosters[1].clients] == ["part-1", "part-2", "part-3", "part-4"]
    assert sum(client.train for client in rosters[1].clients) == sum(client.train for client in rosters[0].clients)
    for split in SPLITS:
        parts = [
            [question.question_id for question in open_questions(tmp_path / "run" / folder, split)]
            for client in rosters[1].clients
            for folder in client.folders
        ]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert sorted(sum(parts, [])) == sorted(question.question_id for question in known if question.split == split)
