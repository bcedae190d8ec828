"""The one Flower ClientApp. What leaves a hospital is declared by its task and held against every reply.

How the shared tensors travel is the mod's business: `fedmrg_core.federation.model_exchange`.
"""

from __future__ import annotations

import logging
import pathlib
import time

from flwr.app import ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from torch import Tensor

from fedmrg_core.federation.gate import identity_part
from fedmrg_core.federation.hospital import write_failure
from fedmrg_core.federation.joined_arrays import join_arrays
from fedmrg_core.federation.messages import (
    ARRAYS,
    BEST_ROUND,
    CLIENT,
    CONFIG,
    EXAMPLES,
    FINGERPRINT,
    METRICS,
    PROTOTYPES,
    SECONDS,
    SERVER_ROUND,
    STATE_ROUND,
    TEST,
    TRAINING_STUDIES,
    digest_of,
    error_reply,
    from_record,
    to_record,
)
from fedmrg_core.federation.model_exchange import exchange_model, open_hospital, run_folder_of
from fedmrg_core.federation.task import load_task
from fedmrg_core.files.tensor_files import read_tensors
from fedmrg_core.training.client_state import without_controls

logger = logging.getLogger(__name__)


def report_errors(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod: an exception becomes a reply that names its class; what it says stays on the hospital's disk."""
    try:
        return call_next(message, context)
    except Exception as error:  # whatever it is, it must not end the other hospitals' round
        partition = context.node_config.get("partition-id", "here")
        log = write_failure(run_folder_of(context), str(partition), error)
        logger.warning("partition %s: %s (%s)", partition, error, log.name)
        return error_reply(error, message)


def only_declared(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod: a reply with anything that the task has not declared is not sent."""
    reply = call_next(message, context)
    if reply.has_content():
        task, _, _ = open_hospital(context)
        declared = task.leaving()
        metrics = {MessageType.TRAIN: declared.training, MessageType.EVALUATE: declared.validation}
        declared.check(reply.content, metrics.get(message.metadata.message_type, declared.testing))
    return reply


def vouch(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod: the hospital checks the model and signs its update, where the run asks so."""
    if load_task(run_folder_of(context)).configuration.identities is None:
        return call_next(message, context)
    return identity_part("vouching").vouch(message, context, call_next)


def identify(message: Message, context: Context) -> Message:
    """Tell the server which client this node is; opens its folder, so that what is missing shows before round 1."""
    _, hospital, _ = open_hospital(context)
    client = hospital.client
    answer = {CLIENT: client.name, TRAINING_STUDIES: client.train, FINGERPRINT: client.fingerprint}
    return Message(RecordDict({CONFIG: ConfigRecord(answer)}), reply_to=message)


def train(message: Message, context: Context) -> Message:
    """Train on the shared tensors that came; send the new ones. Personal modules and optimiser go to the disk."""
    _, hospital, disk = open_hospital(context)
    config = message.content[CONFIG]
    round_number, state_round = int(config[SERVER_ROUND]), int(config[STATE_ROUND])
    shared = from_record(message.content[ARRAYS])
    state = disk.load(state_round)
    started = time.perf_counter()
    update = hospital.train(
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
    disk.keep({state_round, int(config[BEST_ROUND]), round_number})
    content = RecordDict(
        {
            ARRAYS: to_record(update.shared),
            METRICS: MetricRecord({**update.metrics, EXAMPLES: update.examples, SECONDS: seconds}),
        }
    )
    if update.prototype is not None:
        content[PROTOTYPES] = to_record({hospital.client.name: update.prototype})
    return Message(content, reply_to=message)


def evaluate(message: Message, context: Context) -> Message:
    """Validate the aggregated tensors, with the hospital's own personal modules, on its validation part.

    Those of this round, or of the last in which it trained. What validation changes is kept in the first case only: a
    round may be run again after a crash, and must not change what an earlier one has left.
    """
    _, hospital, disk = open_hospital(context)
    config = message.content[CONFIG]
    state_round = int(config[STATE_ROUND])
    shared = from_record(message.content[ARRAYS])
    trained = disk.load(state_round)
    started = time.perf_counter()
    measures, validated, examples = hospital.validate(shared, trained)
    seconds = time.perf_counter() - started
    if state_round == int(config[SERVER_ROUND]):
        disk.save_validated(state_round, trained, validated)
    metrics = MetricRecord({**measures, EXAMPLES: examples, SECONDS: seconds})
    return Message(RecordDict({METRICS: metrics}), reply_to=message)


def finish(message: Message, context: Context) -> Message:
    """Save the chosen model with the hospital's own part of it, and test it on its own studies where asked."""
    task, hospital, disk = open_hospital(context)
    config, run_folder = message.content[CONFIG], run_folder_of(context)
    shared, state = from_record(message.content[ARRAYS]), disk.load(int(config[STATE_ROUND]))
    started = time.perf_counter()
    folder = run_folder / "model"
    if not _holds(folder / "shared.safetensors", shared):  # on one machine the server has just written it
        folder.mkdir(parents=True, exist_ok=True)
        task.save_shared(folder, shared)
    hospital.finish(folder, shared, state)
    measures, examples = hospital.test(run_folder) if config[TEST] else ({}, hospital.client.train)
    metrics = MetricRecord({**measures, EXAMPLES: examples, SECONDS: time.perf_counter() - started})
    return Message(RecordDict({METRICS: metrics}), reply_to=message)


def make_app(*innermost: Mod) -> ClientApp:
    """The app, with further mods between it and the check of what is declared.

    The first is outermost: what is declared is looked at before the exchange packs it, and what is packed is signed.
    """
    made = ClientApp(mods=[report_errors, join_arrays, vouch, exchange_model, only_declared, *innermost])
    made.query()(identify)
    made.train()(train)
    made.evaluate()(evaluate)
    made.query("finish")(finish)
    return made


def _holds(path: pathlib.Path, shared: dict[str, Tensor]) -> bool:
    """Whether a file has the model's own tensors of a message (not a rule's, such as SCAFFOLD's controls)."""
    if not path.is_file():
        return False
    model = without_controls(shared)
    stored = read_tensors(path)
    return stored.keys() == model.keys() and digest_of(stored) == digest_of(model)


app = make_app()
