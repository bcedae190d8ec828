"""Before a run: the questions of a data set with their splits, and the base model, each made once."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

import pandas

from fedmrg_core.data.questions.loading import FILES, files_read
from fedmrg_core.data.questions.public_texts import public_sets, short_digest
from fedmrg_core.data.questions.question import LeftOutQuestion, LoadedQuestions, MovedQuestion, PartRow, Question
from fedmrg_core.data.questions.question_files import fingerprint, read_questions, write_questions
from fedmrg_core.data.questions.world import SIZES
from fedmrg_core.data.sources import MEDICAL_QA, check_data_parameters, data_source
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError
from fedmrg_core.files.described_folders import copy_described, read_description
from fedmrg_core.files.digests import file_digest
from fedmrg_core.files.stored_tables import table_text
from fedmrg_core.files.whole_files import partial_folder, replace_folder, write_text
from fedmrg_core.paths import STORED_BASE_MODELS
from fedmrg_core.runs.configuration import Profile, Questions
from fedmrg_core.tasks.medical_qa.base_model import pretrain, save_base_model
from fedmrg_core.tasks.medical_qa.question_folders import PREPARED

DATA_SEED = 0  # one world, and one way to split, for all seeds of a run: they differ in training alone
SUMMARY = "summary.json"
# What became of questions, as tables beside them: a column a field.
TABLES = {"left_out": LeftOutQuestion, "moved": MovedQuestion, "parts": PartRow}


def prepare_questions(
    folder: pathlib.Path, data: str, profile: Profile, data_root: str = "", options: str = "{}"
) -> dict[str, Any]:
    """Read or make a data set's questions and write them with their splits, unless the folder holds these.

    A folder that holds them stays as it is, as other runs may be reading it.

    Args:
        folder: becomes the prepared folder: questions, summary.json, left_out.csv with a reason for each, moved.csv,
            and parts.csv with the counts of each client and part.
        data: a data set of this task.
        profile: the size of the embedded world; of a public set the most questions of a client.
        data_root: the folder of a public set.
        options: the loader's own, as JSON or YAML.

    Returns:
        The summary: questions by client and split, fingerprint, notes.

    Raises:
        InputError: the parameters do not fit, or whatever the loader finds in the files.
    """
    given = check_data_parameters(data, data_root, options, MEDICAL_QA)
    source, numbers = data_source(data), profile.questions or Questions()
    if data_root and numbers.largest_client is not None:
        given = {"largest": numbers.largest_client, **given}
    request = {"data": data, "version": source.version, "options": given}
    root = pathlib.Path(data_root)
    request |= {"root": root.name, "files": _digests(data, root, given)} if data_root else {"world": numbers.world}
    there = _stored(folder)
    if there is not None and {key: there.get(key) for key in request} == request:
        return there
    load = pkgutil.resolve_name(source.loader)
    where = {"root": root} if data_root else {"size": numbers.world}
    loaded: LoadedQuestions = load(**where, seed=DATA_SEED, **given)
    summary = {**request, "synthetic": source.synthetic, **_summary(loaded)}
    _write(folder, loaded, summary)
    return summary


def _digests(data: str, root: pathlib.Path, options: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the files that are read, by part; one that is missing has none, and its loader says so."""
    paths = files_read(root, options.get("files", FILES[data]))
    return {part: file_digest(path) for part, path in paths.items() if path.is_file()}


def _write(folder: pathlib.Path, loaded: LoadedQuestions, summary: Mapping[str, Any]) -> None:
    partial = partial_folder(folder)
    write_questions(partial / PREPARED, loaded.questions)
    for name, kind in TABLES.items():
        columns = [field.name for field in dataclasses.fields(kind)]
        rows = [dataclasses.asdict(row) for row in getattr(loaded, name)]
        write_text(partial / f"{name}.csv", table_text(pandas.DataFrame(rows, columns=columns)))
    write_text(partial / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    replace_folder(partial, folder)


def prepared_questions(folder: pathlib.Path) -> list[Question]:
    """The questions of a prepared folder.

    Raises:
        InputError: it holds none.
    """
    return read_questions(folder / PREPARED)


def prepare_base_model(
    folder: pathlib.Path,
    data: str,
    profile: Profile,
    choice: str = "stored",
    progress: bool = True,
    data_root: str = "",
    prepared: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Take or pretrain the small LLM of a data set unless the folder holds it, or the profile names another.

    The world's reads texts made for it. A public set's reads the other public sets in its folder, see `public_texts`.

    Args:
        folder: of the base models.
        data: a data set of this task.
        profile: names an LLM, or has the sizes of the one to build.
        choice: stored: the one that the repository has of this profile, if it has one; fresh: built here.
        progress: show a bar.
        data_root: the folder of a public set.
        prepared: the prepared folder of a public set: no text is near-equal to one of its questions.

    Returns:
        What it was made from, with the training loss of the last steps; of a named one its name.

    Raises:
        InputError: the profile names none, and there are no texts to pretrain one on; or the choice is unknown.
    """
    if choice not in ("stored", "fresh"):
        raise InputError(f"base_models is {choice!r}; expected stored or fresh.")
    sizes, numbers, source = profile.base_models, profile.questions or Questions(), data_source(data)
    if sizes.llm is not None:
        return {"llm": sizes.llm}
    wanted = {"sizes": sizes.model_dump(mode="json"), "version": source.version}
    digests, beside = {}, ()
    if source.corpus_needs_root:
        root, questions = _beside(data, data_root, prepared)
        sets = public_sets(root, data)
        wanted |= {"sets": {path.name: name for path, name in sets.items()}, "apart_from": fingerprint(questions)}
        digests, beside = {path.name: short_digest(path) for path in sets}, (root, data, questions)
    else:
        wanted["world"] = numbers.world
    if (there := _made_from(folder, wanted, digests)) is not None:
        return there
    stored = STORED_BASE_MODELS / profile.name / data
    if choice == "stored" and (there := _made_from(stored, wanted, digests)) is not None:
        copy_described(stored, folder)
        return there
    corpus, about = pkgutil.resolve_name(source.public_corpus), {}
    if beside:
        found = corpus(sizes.public_studies, DATA_SEED, *beside)
        texts, about = found.texts, {"sources": found.sources, "left_out": found.left_out}
    else:
        texts = corpus(sizes.public_studies, DATA_SEED, SIZES[numbers.world])
    llm, tokenizer, losses = pretrain(texts, sizes, DATA_SEED, progress)
    last = losses[-50:]
    description = {**wanted, **about, "texts": len(texts), "loss": round(sum(last) / len(last), 4)}
    save_base_model(folder, llm, tokenizer, description)
    return description


def _made_from(folder: pathlib.Path, wanted: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any] | None:
    """The description of a base model if it was made from just this, and from files with these digests; else None."""
    there = read_description(folder)
    if there is None or {key: there.get(key) for key in wanted} != wanted:
        return None
    read = {name: about["sha256"] for name, about in there.get("sources", {}).items()}
    return there if read == digests else None


def _beside(data: str, data_root: str, prepared: pathlib.Path | None) -> tuple[pathlib.Path, list[Question]]:
    """The folder of a public set, and the clients' questions.

    Raises:
        InputError: one of them is not given.
    """
    check_data_parameters(data, data_root, task=MEDICAL_QA)
    if prepared is None:
        raise InputError(
            f"data {data!r}: the small model reads the other sets in data_root apart from the clients' questions; give "
            "prepared, their folder, or name a model in the profile (base_models.llm)."
        )
    return pathlib.Path(data_root), prepared_questions(prepared)


def _summary(loaded: LoadedQuestions) -> dict[str, Any]:
    frame = pandas.DataFrame([(q.client, q.split) for q in loaded.questions], columns=["client", "split"])
    counts = frame.value_counts().unstack(fill_value=0).reindex(columns=list(SPLITS), fill_value=0).sort_index()
    return {
        "fingerprint": fingerprint(loaded.questions),
        "left_out": len(loaded.left_out),
        "moved": len(loaded.moved),
        "open_test_answers": _open_answers(loaded.questions),
        "notes": loaded.notes,
        "questions": {client: {split: int(count) for split, count in row.items()} for client, row in counts.iterrows()},
    }


def _open_answers(questions: Sequence[Question]) -> dict[str, int]:
    """How many open test questions there are, and how many of their answers stand in training, word for word."""
    opened = [question for question in questions if question.kind == "open"]
    known = {question.answer for question in opened if question.split == "train"}
    answers = [question.answer for question in opened if question.split == "test"]
    return {"all": len(answers), "in_training": sum(answer in known for answer in answers)}


def _stored(folder: pathlib.Path) -> dict[str, Any] | None:
    path = folder / SUMMARY
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
