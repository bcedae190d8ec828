"""How the shared model gets into a hospital and its update out of it: a Flower mod around the client app.

The app trains and validates plain tensors. What lies between them and the wire is here:

- The model comes once a round, with the request to validate it, and stays on the hospital's disk. The next request to
  train names it by its digest only. Before round 1 nothing is sent at all: every hospital makes the initial model from
  the seed [ours].
- A hospital that has not that model (a new disk, another machine's initial model) says so, and is sent it in full.
- Where the method compresses, what comes is the difference to the model before, and what goes is the difference to the
  model that came; what that leaves out waits on the hospital's disk.
"""

from __future__ import annotations

import pathlib

import torch
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from torch import Tensor

from fedmrg_core.federation.compression import pack, unpack
from fedmrg_core.federation.hospital import HospitalDisk
from fedmrg_core.federation.messages import (
    ARRAYS,
    CONFIG,
    MODEL_DIGEST,
    MODEL_PACKED,
    MODEL_ROUND,
    NEEDS_MODEL,
    SERVER_ROUND,
    STATE_ROUND,
    digest_of,
    from_record,
    to_record,
)
from fedmrg_core.federation.roster import read_client, read_roster
from fedmrg_core.federation.task import HospitalTask, Task, initial_model, load_task


def open_hospital(context: Context) -> tuple[Task, HospitalTask, HospitalDisk]:
    """The task, the half of it that is this node's, and the hospital's disk.

    In a real federation each node's configuration names its own run folder and its own client folder; on one machine
    clients.json says where the folder of each lies.
    """
    run_folder = run_folder_of(context)
    task = load_task(run_folder)
    torch.set_num_threads(task.configuration.threads)
    if "client-folder" in context.node_config:
        client = read_client(pathlib.Path(str(context.node_config["client-folder"])), run_folder)
    else:
        client = read_roster(run_folder).clients[int(context.node_config["partition-id"])]
    hospital = task.hospital(client, [run_folder / folder for folder in client.folders])
    return task, hospital, HospitalDisk(run_folder, client.name)


def exchange_model(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """The mod: hands on the message with the whole model in it, and packs the update that comes back."""
    if message.metadata.message_type == MessageType.QUERY:
        return call_next(message, context)
    task, _, disk = open_hospital(context)
    model = _received(message, context, task, disk)
    if model is None:
        return Message(RecordDict({CONFIG: ConfigRecord({NEEDS_MODEL: True})}), reply_to=message)
    message.content[ARRAYS] = to_record(model)
    config = message.content[CONFIG]
    reply = call_next(message, context)
    payload = task.configuration.method.payload
    if message.metadata.message_type == MessageType.TRAIN and payload.compressed and reply.has_content():
        update, unsent = from_record(reply.content[ARRAYS]), {}
        if payload.error_feedback:
            unsent = disk.load_unsent(int(config[STATE_ROUND]))
        packed = pack(update, model, unsent, payload, frozenset(task.shared_buffers()))
        if payload.error_feedback:
            disk.save_unsent(int(config[SERVER_ROUND]), packed.unsent)
        reply.content[ARRAYS] = packed.record
    return reply


def run_folder_of(context: Context) -> pathlib.Path:
    """The run folder on this node's machine."""
    return pathlib.Path(context.node_config.get("run-folder", context.run_config["run-folder"]))


def _received(message: Message, context: Context, task: Task, disk: HospitalDisk) -> dict[str, Tensor] | None:
    """The shared model that a message is about, kept on disk; None if it cannot be had from message and disk."""
    config, records = message.content[CONFIG], message.content.array_records
    round_number, digest = int(config[MODEL_ROUND]), config[MODEL_DIGEST]
    if ARRAYS not in records:
        return _kept(round_number, digest, context, disk)
    if not config[MODEL_PACKED]:
        model = from_record(records[ARRAYS])
    else:
        base = _kept(round_number - 1, None, context, disk)
        if base is None:
            return None
        model = unpack(records[ARRAYS], base, task.configuration.method.payload, frozenset(task.shared_buffers()))
    if digest_of(model) != digest:
        return None
    disk.save_model(round_number, model)
    return model


def _kept(round_number: int, digest: str | None, context: Context, disk: HospitalDisk) -> dict[str, Tensor] | None:
    """The model after a round as this hospital has it, if it is the one of that digest."""
    model = disk.load_model(round_number)
    if model is None and round_number == 0:
        model = initial_model(run_folder_of(context))
    fits = model is not None and (digest is None or digest_of(model) == digest)
    return model if fits else None
