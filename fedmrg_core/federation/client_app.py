"""The one Flower ClientApp. What leaves a hospital is declared by its task and held against every reply.

How the shared tensors travel is the mod's business: `fedmrg_core.federation.model_exchange`.
"""

from __future__ import annotations

import logging
import time

from flwr.app import ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedmrg_core.federation.hospital import write_failure
from fedmrg_core.federation.model_exchange import exchange_model, open_hospital, run_folder_of
from fedmrg_core.federation.payload import (
    ARRAYS,
    BEST_ROUND,
    CONFIG,
    EXAMPLES,
    METRICS,
    PROTOTYPES,
    SECONDS,
    SERVER_ROUND,
    STATE_ROUND,
    error_reply,
    from_record,
    to_record,
)

logger = logging.getLogger(__name__)


def report_errors(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod: an exception becomes a reply that names its class; what it says stays on the hospital's disk."""
    try:
        return call_next(message, context)
    except Exception as error:  # whatever it is, it must not end the other hospitals' round
        log = write_failure(run_folder_of(context), int(context.node_config["partition-id"]), error)
        logger.warning("partition %s: %s (%s)", context.node_config["partition-id"], error, log.name)
        return error_reply(error, message)


def only_declared(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod: a reply with anything that the task has not declared is not sent."""
    reply = call_next(message, context)
    if reply.has_content():
        experiment, _, _ = open_hospital(context)
        declared = experiment.leaving()
        trained = message.metadata.message_type == MessageType.TRAIN
        declared.check(reply.content, declared.training if trained else declared.validation)
    return reply


# The first one is outermost: what is declared is looked at before the exchange packs it.
app = ClientApp(mods=[report_errors, exchange_model, only_declared])


@app.query()
def identify(message: Message, context: Context) -> Message:
    """Tell the server which client this node is; loads model and data, so that what is missing shows before round 1."""
    _, client, _ = open_hospital(context)
    return Message(RecordDict({CONFIG: ConfigRecord({"client": client})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train on the shared tensors that came; send the new ones. Personal modules and optimiser go to the disk."""
    experiment, client, disk = open_hospital(context)
    config = message.content[CONFIG]
    round_number, state_round = int(config[SERVER_ROUND]), int(config[STATE_ROUND])
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
    disk.keep({state_round, int(config[BEST_ROUND]), round_number})
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
    """Validate the aggregated tensors, with the hospital's own personal modules, on its validation part.

    Those of this round, or of the last in which it trained. What validation changes is kept in the first case only: a
    round may be run again after a crash, and must not change what an earlier one has left.
    """
    experiment, client, disk = open_hospital(context)
    config = message.content[CONFIG]
    state_round = int(config[STATE_ROUND])
    shared = from_record(message.content[ARRAYS])
    trained = disk.load(state_round)
    started = time.perf_counter()
    measures, validated, examples = experiment.validate(client, shared, trained)
    seconds = time.perf_counter() - started
    if state_round == int(config[SERVER_ROUND]):
        disk.save_validated(state_round, trained, validated)
    metrics = MetricRecord({**measures, EXAMPLES: examples, SECONDS: seconds})
    return Message(RecordDict({METRICS: metrics}), reply_to=message)
