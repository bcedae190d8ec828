"""One folder a client, with its questions: what a hospital's process opens, and nothing else.

``questions.jsonl``, in which each says its split, and ``client.json`` with name, counts and fingerprint. On one machine
dealing writes them from the prepared questions of all; a hospital of a real federation brings one of its own.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import filelock

from fedmrg_core.data.client_folders import drawn_share
from fedmrg_core.data.partition_rules import CLIENTS
from fedmrg_core.data.questions.clients import dealt_anew
from fedmrg_core.data.questions.question import Question
from fedmrg_core.data.questions.question_files import fingerprint, read_questions, write_questions
from fedmrg_core.data.site_names import path_part
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError
from fedmrg_core.federation.roster import Client, Roster, pooled, read_client, roster_of_clients, roster_of_folders
from fedmrg_core.files.whole_files import partial_folder, replace_folder, write_text
from fedmrg_core.runs.run_configuration import RunConfiguration

PREPARED = "questions.jsonl.gz"  # in the prepared folder: the questions of all clients, with their splits
OWN = "questions.jsonl"  # in a client folder: its own
LOCK = ".lock"


def deal_questions(run_folder: pathlib.Path, configuration: RunConfiguration) -> Roster:
    """Write a folder for every client, unless that is done.

    Args:
        run_folder: the folders of the configuration are relative to it.
        configuration: of the run.

    Returns:
        Who takes part; where the method is centralised "pooled", which holds the folders of all.

    Raises:
        InputError: the prepared questions are missing, a client has no question of some split, or the configuration
            asks for other clients than the data have, or `dealt_anew` refuses.
    """
    _check_dealing(configuration)
    source = (run_folder / configuration.prepared).resolve() / PREPARED
    if not source.is_file():
        raise InputError(f"{source} does not exist; prepare the questions with notebook 11_medical_qa first.")
    held = questions = read_questions(source)
    if configuration.partition == "random":
        questions = dealt_anew(held, configuration.clients or CLIENTS, configuration.seed)
    folder = (run_folder / configuration.dealt).resolve()
    clients = sorted({question.client for question in questions})
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / LOCK):  # runs that deal alike share the folder, and may start together
        folders = [
            write_client_folder(folder / path_part(client), client, [q for q in questions if q.client == client])
            for client in clients
        ]
    # Equal questions are the same data however they are dealt, so that a table may hold both.
    roster = dataclasses.replace(roster_of_folders(folders, run_folder), fingerprints=_fingerprints(held))
    return pooled(roster) if configuration.method.training == "centralised" else roster


def _fingerprints(questions: Sequence[Question]) -> dict[str, str]:
    clients = sorted({question.client for question in questions})
    held = ([question for question in questions if question.client == client] for client in clients)
    by_name = [Client(client, 0, fingerprint(own)) for client, own in zip(clients, held, strict=True)]
    return roster_of_clients(by_name).fingerprints


def _check_dealing(configuration: RunConfiguration) -> None:
    as_held = configuration.partition == "site" and not configuration.clients
    if configuration.unseen_sites or not (as_held or configuration.partition == "random"):
        raise InputError(
            "questions lie with the clients that the data name, so leave partition, clients and unseen out; "
            "or deal them at random with partition=random, and say to how many clients."
        )


def write_client_folder(folder: pathlib.Path, client: str, questions: Sequence[Question]) -> pathlib.Path:
    """Write one client's folder, unless it is there with these questions.

    Raises:
        InputError: the client has no question of some split, or the folder is another's.
    """
    parts = {split: [question for question in questions if question.split == split] for split in SPLITS}
    for split, part in parts.items():
        if not part:
            raise InputError(f"client {client!r} has no {split} question; give it some, or leave the client out.")
    about = {
        "name": client,
        "studies": {split: len(part) for split, part in parts.items()},
        "fingerprint": fingerprint(questions),
    }
    description = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
    if (folder / "client.json").is_file():
        there = read_client(folder, folder)
        if there.name != client:
            raise InputError(f"{folder} holds the questions of {there.name!r}; give {client!r} another folder.")
        if there.fingerprint == about["fingerprint"]:
            return folder
    partial = partial_folder(folder)
    write_questions(partial / OWN, questions)
    write_text(partial / "client.json", description)
    replace_folder(partial, folder)
    return folder


def open_questions(folder: pathlib.Path, split: str) -> list[Question]:
    """The questions of one split of a client's folder.

    Raises:
        InputError: the file is missing or holds none, or see `read_questions`.
    """
    path = folder / OWN
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a client folder with {OWN} and client.json.")
    questions = [question for question in read_questions(path) if question.split == split]
    if not questions:
        raise InputError(f"{path}: there is no {split} question; put some into that split.")
    return questions


def used_questions(folder: pathlib.Path, split: str, share: float, seed: int) -> list[Question]:
    """As `open_questions`; of the training questions a share, see `drawn_share`.

    A centralised run draws it in each client's folder, as the clients themselves do.
    """
    questions = open_questions(folder, split)
    if split != "train" or share == 1:
        return questions
    return [questions[index] for index in drawn_share(len(questions), share, seed, read_client(folder, folder).name)]
