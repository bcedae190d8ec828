"""Public sets of questions from a folder: read, dealt to clients, and split; near-equal questions share a part."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

from fedmrg_core.data.questions.clients import dealt_at_random, joined_clients, limited_clients
from fedmrg_core.data.questions.duplicates import THRESHOLD
from fedmrg_core.data.questions.public_layouts import read_medmcqa, read_medqa, read_medquad, read_pubmedqa
from fedmrg_core.data.questions.question import LoadedQuestions, check_questions
from fedmrg_core.data.questions.splitting import split_questions
from fedmrg_core.data.study import SPLITS
from fedmrg_core.data.tables import check_root
from fedmrg_core.errors import InputError

SMALLEST_CLIENT = 100  # questions
OTHERS = "other clients"
DEALT_CLIENTS = 4
WHOLE = "all"  # in place of a part's name: a file with questions of no part
# Names of the files as their authors publish them, by part. Each may be compressed, with .gz behind its name.
MEDQUAD_FILES = {WHOLE: "medquad.jsonl"}
MEDMCQA_FILES = {"train": "train.json", "test": "dev.json"}  # test.json has no answers
PUBMEDQA_FILES = {WHOLE: "ori_pqal.json"}
MEDQA_FILES = {
    "train": "phrases_no_exclude_train.jsonl",
    "validation": "phrases_no_exclude_dev.jsonl",
    "test": "phrases_no_exclude_test.jsonl",
}
FILES = {"medquad": MEDQUAD_FILES, "medmcqa": MEDMCQA_FILES, "pubmedqa": PUBMEDQA_FILES, "medqa": MEDQA_FILES}


def load_medquad(
    root: pathlib.Path,
    seed: int,
    files: Mapping[str, str] = MEDQUAD_FILES,
    smallest: int = SMALLEST_CLIENT,
    largest: int | None = None,
    threshold: float = THRESHOLD,
) -> LoadedQuestions:
    """MedQuAD; its sources are the clients.

    Args:
        root: the folder of the files.
        seed: the root seed.
        files: names below `root` by part, or one under `all`.
        smallest: clients with fewer questions are joined, see `joined_clients`.
        largest: most questions of a client, see `limited_clients`; None: all.
        threshold: of near-equal questions, see `near_equal_groups`.

    Raises:
        InputError: a file is missing or of another layout, or a client's part would be empty.
    """
    loaded = joined_clients(_read_files(read_medquad, root, files), smallest, OTHERS)
    return _limited_and_split(loaded, largest, seed, "MedQuAD", threshold)


def load_medmcqa(
    root: pathlib.Path,
    seed: int,
    files: Mapping[str, str] = MEDMCQA_FILES,
    smallest: int = SMALLEST_CLIENT,
    largest: int | None = None,
    threshold: float = THRESHOLD,
) -> LoadedQuestions:
    """MedMCQA; its subjects are the clients. Arguments and errors as `load_medquad`."""
    loaded = joined_clients(_read_files(read_medmcqa, root, files), smallest, OTHERS)
    return _limited_and_split(loaded, largest, seed, "MedMCQA", threshold)


def load_medqa(
    root: pathlib.Path,
    seed: int,
    files: Mapping[str, str] = MEDQA_FILES,
    smallest: int = SMALLEST_CLIENT,
    largest: int | None = None,
    threshold: float = THRESHOLD,
) -> LoadedQuestions:
    """MedQA with four options; the steps of the examination are the clients. Arguments and errors as `load_medquad`."""
    loaded = joined_clients(_read_files(read_medqa, root, files), smallest, OTHERS)
    return _limited_and_split(loaded, largest, seed, "MedQA", threshold)


def load_pubmedqa(
    root: pathlib.Path,
    seed: int,
    files: Mapping[str, str] = PUBMEDQA_FILES,
    clients: int = DEALT_CLIENTS,
    largest: int | None = None,
    threshold: float = THRESHOLD,
) -> LoadedQuestions:
    """PubMedQA, dealt at random to so many clients: it names none. Arguments and errors as `load_medquad`."""
    loaded = _read_files(read_pubmedqa, root, files)
    loaded.questions = dealt_at_random(loaded.questions, clients, seed)
    return _limited_and_split(loaded, largest, seed, "PubMedQA", threshold)


def files_read(root: pathlib.Path, files: Mapping[str, str]) -> dict[str, pathlib.Path]:
    """The files of a set below a folder, by part; a compressed one where the plain one is not there.

    Args:
        root: the folder.
        files: names by part.

    Raises:
        InputError: `root` is no folder, or the parts do not go together.
    """
    root = check_root(root, f"the one that holds {', '.join(files.values())}")
    if set(files) != {WHOLE} and not {"train", "test"} <= set(files) <= set(SPLITS):
        raise InputError(
            f"files has the parts {', '.join(files) or 'none'}; "
            f"expected {WHOLE} alone, or train and test, with or without validation."
        )
    paths = {part: root / name for part, name in files.items()}
    packed = {part: path.with_name(f"{path.name}.gz") for part, path in paths.items()}
    return {
        part: packed[part] if packed[part].is_file() and not path.is_file() else path for part, path in paths.items()
    }


def _read_files(
    read: Callable[[pathlib.Path, str], LoadedQuestions], root: pathlib.Path, files: Mapping[str, str]
) -> LoadedQuestions:
    """All files of a set, one after the other.

    Raises:
        InputError: as `files_read` and `read`; or an id stands in two files.
    """
    loaded, first = LoadedQuestions([]), {}
    for part, path in files_read(root, files).items():
        one = read(path, "" if part == WHOLE else part)
        for question in one.questions:
            if (other := first.setdefault(question.question_id, path)) != path:
                raise InputError(
                    f"{path}: question_id {question.question_id!r} stands in {other.name} already; take the question "
                    "out of one of them, or give it an id of its own."
                )
        loaded.questions += one.questions
        loaded.left_out += one.left_out
    return loaded


def _limited_and_split(
    loaded: LoadedQuestions, largest: int | None, seed: int, source: str, threshold: float
) -> LoadedQuestions:
    """Clients limited, parts drawn or cleaned; what was left out before stays in the list."""
    held = limited_clients(loaded, largest, seed)
    split = split_questions(held.questions, seed, source, threshold)
    check_questions(split.questions, source)
    return dataclasses.replace(split, left_out=held.left_out + split.left_out, notes=held.notes + split.notes)
