"""Before a run: the questions of a data set with their splits, and the base model, each made once."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import pkgutil
from typing import Any

import pandas

from fedmrg_core.data.questions.public_texts import public_sets
from fedmrg_core.data.questions.question import LoadedQuestions, Question
from fedmrg_core.data.questions.question_files import fingerprint, read_questions, write_questions
from fedmrg_core.data.questions.world import SIZES
from fedmrg_core.data.sources import MEDICAL_QA, check_data_parameters, data_source
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError
from fedmrg_core.files.described_folders import copy_described, read_description
from fedmrg_core.files.stored_tables import table_text
from fedmrg_core.files.whole_files import partial_folder, replace_folder, write_text
from fedmrg_core.paths import REPOSITORY
from fedmrg_core.runs.configuration import Profile, Questions
from fedmrg_core.tasks.medical_qa.base_model import pretrain, save_base_model
from fedmrg_core.tasks.medical_qa.question_folders import PREPARED

DATA_SEED = 0  # one world, and one way to split, for all seeds of a run: they differ in training alone
STORED = REPOSITORY / "profiles" / "base_models"
SUMMARY, LEFT_OUT = "summary.json", "left_out.csv"


def prepare_questions(
    folder: pathlib.Path, data: str, profile: Profile, data_root: str = "", options: str = "{}"
) -> dict[str, Any]:
    """Read or make a data set's questions and write them with their splits, unless the folder holds these.

    Args:
        folder: becomes the prepared folder: questions, summary.json, and left_out.csv with a reason for each.
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
    request |= {"root": pathlib.Path(data_root).name} if data_root else {"world": numbers.world}
    there = _stored(folder)
    if there is not None and not data_root and {key: there.get(key) for key in request} == request:
        return there
    load = pkgutil.resolve_name(source.loader)
    where = {"root": pathlib.Path(data_root)} if data_root else {"size": numbers.world}
    loaded: LoadedQuestions = load(**where, seed=DATA_SEED, **given)
    summary = {**request, "synthetic": source.synthetic, **_summary(loaded)}
    partial = partial_folder(folder)
    write_questions(partial / PREPARED, loaded.questions)
    left_out = pandas.DataFrame([dataclasses.asdict(row) for row in loaded.left_out], columns=_LEFT_OUT_COLUMNS)
    write_text(partial / LEFT_OUT, table_text(left_out))
    write_text(partial / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    replace_folder(partial, folder)
    return summary


_LEFT_OUT_COLUMNS = ["question_id", "item", "reason"]


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
    if source.corpus_needs_root:
        root, questions = _beside(data, data_root, prepared)
        files = {path.name: name for path, name in public_sets(root, data).items()}
        wanted |= {"sets": files, "apart_from": fingerprint(questions)}
    else:
        wanted["world"] = numbers.world
    there = read_description(folder)
    if there is not None and {key: there.get(key) for key in wanted} == wanted:
        return there
    stored = STORED / profile.name / data
    made_from = read_description(stored) or {}
    if choice == "stored" and {key: made_from.get(key) for key in wanted} == wanted:
        copy_described(stored, folder)
        return made_from
    corpus, about = pkgutil.resolve_name(source.public_corpus), {}
    if source.corpus_needs_root:
        found = corpus(sizes.public_studies, DATA_SEED, root, data, questions)
        texts, about = found.texts, {"sources": found.sources, "left_out": found.left_out}
    else:
        texts = corpus(sizes.public_studies, DATA_SEED, SIZES[numbers.world])
    llm, tokenizer, losses = pretrain(texts, sizes, DATA_SEED, progress)
    last = losses[-50:]
    description = {**wanted, **about, "texts": len(texts), "loss": round(sum(last) / len(last), 4)}
    save_base_model(folder, llm, tokenizer, description)
    return description


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
        "notes": loaded.notes,
        "questions": {client: {split: int(count) for split, count in row.items()} for client, row in counts.iterrows()},
    }


def _stored(folder: pathlib.Path) -> dict[str, Any] | None:
    path = folder / SUMMARY
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
