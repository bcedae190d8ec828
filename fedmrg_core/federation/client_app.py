"""The one Flower ClientApp. What leaves a hospital is written in `train`: shared tensors, a prototype, metrics."""

from __future__ import annotations

import logging
import pathlib
import time

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedmrg_core.federation.experiment import Experiment, load_experiment
from fedmrg_core.federation.hospital import HospitalDisk
from fedmrg_core.federation.payload import (
    ARRAYS,
    CONFIG,
    EXAMPLES,
    METRICS,
    PROTOTYPES,
    SECONDS,
    error_reply,
    from_record,
    to_record,
)

logger = logging.getLogger(__name__)


def report_errors(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod: an exception becomes a reply of one line, the same in every engine; the traceback stays here."""
    try:
        return call_next(message, context)
    except Exception as error:  # whatever it is, it must not end the other hospitals' round
        logger.debug("partition %s", context.node_config.get("partition-id"), exc_info=True)
        return error_reply(error, message)


app = ClientApp(mods=[report_errors])


def _open(context: Context) -> tuple[Experiment, str, HospitalDisk]:
    """The experiment, which of its clients this node is, and that hospital's disk."""
    # In a real federation each hospital has a run folder of its own, named in its node's configuration.
    run_folder = pathlib.Path(context.node_config.get("run-folder", context.run_config["run-folder"]))
    experiment = load_experiment(run_folder)
    torch.set_num_threads(experiment.configuration.threads)
    client = experiment.clients[int(context.node_config["partition-id"])]
    return experiment, client, HospitalDisk(run_folder, client)


@app.query()
def identify(message: Message, context: Context) -> Message:
    """Tell the server which client this node is; loads model and data, so that what is missing shows before round 1."""
    _, client, _ = _open(context)
    return Message(RecordDict({CONFIG: ConfigRecord({"client": client})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train on the shared tensors that came; send the new ones. Personal modules and optimiser go to the disk."""
    experiment, client, disk = _open(context)
    config = message.content[CONFIG]
    round_number, state_round = int(config["server-round"]), int(config["state-round"])
    shared = from_record(message.content[ARRAYS])
    state = disk.load(state_round)
    started = time.perf_counter()
    update = experiment.train(
        client,
        round_number,
        shared,
        state,
        from_record(message.content[PROTOTYPES]),
        bool(context.run_config["progress"]),
    )
    seconds = time.perf_counter() - started
    if set(update.shared) != set(shared):
        different = sorted(set(update.shared) ^ set(shared))[0]
        raise ValueError(f"the update and the shared model differ in {different}")  # nothing else may leave
    disk.save_trained(round_number, update.state)
    disk.keep({state_round, int(config["best-round"]), round_number})
    content = RecordDict(
        {
            ARRAYS: to_record(update.shared),
            METRICS: MetricRecord({**update.metrics, EXAMPLES: update.examples, SECONDS: seconds}),
        }
    )
    if update.prototype is not None:
        content[PROTOTYPES] = to_record({client: update.prototype})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Validate the aggregated tensors, with this round's personal modules, on the hospital's validation part."""
    experiment, client, disk = _open(context)
    round_number = int(message.content[CONFIG]["server-round"])
    shared = from_record(message.content[ARRAYS])
    trained = disk.load(round_number)
    started = time.perf_counter()
    measures, validated, examples = experiment.validate(client, shared, trained)
    seconds = time.perf_counter() - started
    disk.save_validated(round_number, trained, validated)
    metrics = MetricRecord({**measures, EXAMPLES: examples, SECONDS: seconds})
    return Message(RecordDict({METRICS: metrics}), reply_to=message)
