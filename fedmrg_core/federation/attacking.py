"""A synthetic attack in the in-process engine: the client app once more, with a mod that some clients lie by.

The app of `client_app`, which a hospital runs, has no such mod. An attack is refused wherever another engine would run.

Attackers train, answer validations and keep their state as the others do, and count their examples truly. What they
change is the parameters of their update, before it is packed and signed. Buffers stay as they are [ours]: a flipped
variance would be below zero, and refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from flwr.app import Context, Message, MessageType
from flwr.clientapp.typing import ClientAppCallable
from torch import Tensor

from fedmrg_core.errors import InputError
from fedmrg_core.federation.client_app import make_app
from fedmrg_core.federation.messages import ARRAYS, CONFIG, SERVER_ROUND, from_record, to_record
from fedmrg_core.federation.model_exchange import open_hospital, run_folder_of
from fedmrg_core.federation.roster import Roster, read_roster
from fedmrg_core.federation.task import Task
from fedmrg_core.runs.attack import Attack, attackers
from fedmrg_core.seeds import torch_stream


def check_attack(task: Task, roster: Roster, engine: str) -> None:
    """Hold a planned attack against the run, before it begins.

    Raises:
        InputError: it is to run in another engine, nothing is shared, or no honest client would be left.
    """
    attack = task.configuration.profile.attack
    if not attack.planned:
        return
    if engine != "in-process":
        raise InputError(f"attack.kind is {attack.kind}: a synthetic attack runs in the in-process engine alone.")
    if not task.initial_shared():
        raise InputError(f"attack.kind is {attack.kind}, and method {task.configuration.method.name!r} shares nothing.")
    if attack.clients >= len(roster.names):
        raise InputError(
            f"attack.clients is {attack.clients} and there are {len(roster.names)} clients; leave some honest."
        )


def attack(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod: what an attacker's training reply becomes."""
    reply = call_next(message, context)
    if message.metadata.message_type != MessageType.TRAIN or not reply.has_content():
        return reply
    task, hospital, _ = open_hospital(context)
    planned, seed, name = task.configuration.profile.attack, task.configuration.seed, hospital.client.name
    if name in attackers(read_roster(run_folder_of(context)).names, planned, seed):
        shared, update = (from_record(content[ARRAYS]) for content in (message.content, reply.content))
        generator = torch_stream(seed, "attack", name, int(message.content[CONFIG][SERVER_ROUND]))
        parameters = update.keys() - set(task.shared_buffers())
        changed = attacked(shared, {key: update[key] for key in sorted(parameters)}, planned, generator)
        reply.content[ARRAYS] = to_record(update | changed)
    return reply


def attacked(
    shared: Mapping[str, Tensor], update: Mapping[str, Tensor], planned: Attack, generator: torch.Generator
) -> dict[str, Tensor]:
    """An update as an attacker sends it.

    Args:
        shared: the model that it was trained from.
        update: the model after training; its keys are changed.
        planned: how.
        generator: of the noise.
    """
    found = {}
    for key, tensor in update.items():
        step = tensor - shared[key]
        if planned.kind == "noise":  # the root mean square, and not the deviation: a single number has none
            step = step.square().mean().sqrt() * torch.randn(step.shape, generator=generator)
        found[key] = shared[key] + (-planned.strength if planned.kind == "sign" else planned.strength) * step
    return found


app = make_app(attack)
