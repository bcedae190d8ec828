"""The table of findings that come back from one update of FedMRG's diagnosis prompts, beside the floors.

Two parts of what travels speak of findings, and neither needs a search [ours]:

    table of prompts   dL/dT[n, s] = 0 unless finding n has state s in a study of the batch: only its prompts are read
    bias of the head   dL/db[n, s] = w / (14 B) sum over studies of (p[n, s] - 1[finding n has state s])

So rows that moved name the states that occur. Of one study the bias has one negative entry a finding, its state
[related: iDLG 2020]. Of several it says how many have each state, once p is guessed: as the mean over another
hospital's studies.
On the benchmark's machine, which holds the studies of all.
"""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Iterator, Sequence

import pandas
import torch
from torch import Tensor
from torch.nn import functional

from fedmrg_core.data.findings import FINDINGS, POSITIVE, STATES
from fedmrg_core.errors import InputError
from fedmrg_core.federation.curious.defences import Defence, check_defences, errors
from fedmrg_core.federation.curious.recomputed import recomputed_update, sent_by
from fedmrg_core.report_generator import ReportGenerator
from fedmrg_core.tasks.reports.attacks.attacked import (
    KNOWN_STUDIES,
    Attacked,
    BatchLoss,
    Case,
    means_over_draws,
    open_attacked,
)

TABLE, HEAD = "table of prompts", "bias of the head"
AVERAGE, RANDOM = "mean of another hospital", "random studies"
TABLE_KEY, BIAS_KEY = "prompt_table/weight", "diagnosis_head/bias"
ABOVE_NOISE = 3.0  # deviations that a row's length must lie above what noise alone gives it
COLUMNS = ("method", "defence", "batch", "steps", "rebuilt_by", "occurring", "counted")


def attack_findings(
    run_folder: pathlib.Path,
    batches: Sequence[int] = (1, 4, 16),
    steps: Sequence[int] = (1,),
    draws: int = 8,
    seed: int = 0,
    defences: Sequence[str] = ("none",),
    pace: float = 0.01,
) -> pandas.DataFrame:
    """Attack the first hospital of a run, whose model is the chosen one.

    Args:
        run_folder: finished.
        batches: numbers of studies of an update.
        steps: numbers of local steps.
        draws: different batches of each size.
        seed: draws studies, noise and floors.
        defences: names in `DEFENCES`: what the hospital does to its update.
        pace: of a local step.

    Returns:
        `COLUMNS`: means over the draws. `occurring`: F1 of the findings that are positive in a study of the batch;
        `counted`: the same of how many studies have each, blank for the table of prompts, which does not count.

    Raises:
        InputError: see `open_attacked`; a defence is unknown, a batch is larger than a hospital, or no diagnosis
            prompts travel.
    """
    check_defences(defences)
    attacked = open_attacked(run_folder)
    _check_sent(attacked.model)
    attacked.check_batches(batches)
    table = means_over_draws(
        functools.partial(finding_rows, attacked), ("occurring", "counted"),
        batches=batches, steps=steps, draws=draws, seed=seed, defences=defences, pace=pace,
    )  # fmt: skip
    return table.assign(method=attacked.task.configuration.method.name).reindex(columns=list(COLUMNS))


def finding_rows(attacked: Attacked, case: Case, defence: Defence) -> Iterator[dict[str, object]]:
    """One row each of the two attacks and the two floors."""
    batch, model = case.studies(attacked), attacked.model
    update = recomputed_update(BatchLoss(attacked), sent_by(model), (batch,), case.steps, case.pace)
    received = defence.sent(update, case.noise())
    true = state_counts(batch.states)[:, POSITIVE]
    noise = errors(update, received)[TABLE_KEY] if defence.noise else 0.0  # rounding leaves zeros as they are
    yield {"rebuilt_by": TABLE, "occurring": agreement(true > 0, states_read(received[TABLE_KEY], noise)[:, POSITIVE])}
    guessed = _guessed_probabilities(attacked)
    bias = received[BIAS_KEY] / case.steps / attacked.task.configuration.method.losses.classification
    chosen = case.numbers("floor").choice(len(attacked.known), case.batch, replace=False)
    known = attacked.known.studies.states
    for name, counts in {
        HEAD: counted_states(bias, guessed, case.batch),
        AVERAGE: (case.batch * state_counts(known) / len(known)).round(),
        RANDOM: state_counts(known[torch.as_tensor(chosen)]),
    }.items():
        found = counts[:, POSITIVE]
        yield {"rebuilt_by": name, "occurring": agreement(true > 0, found > 0), "counted": agreement(true, found)}


def states_read(change: Tensor, noise: float = 0.0) -> Tensor:
    """Which states occurred, (14, 4) of booleans.

    Args:
        change: (56, D), of the table of prompts.
        noise: standard deviation of what a defence has changed in each number.
    """
    lengths = change.norm(dim=1)
    # The length of D numbers of noise is near its root, give or take a deviation of less than one.
    floor = noise * (math.sqrt(change.shape[1]) + ABOVE_NOISE) + 1e-6 * lengths.max()
    return (lengths > floor).unflatten(0, (len(FINDINGS), len(STATES)))


def counted_states(bias: Tensor, guessed: Tensor, count: int) -> Tensor:
    """How many studies of the batch have each state, (14, 4).

    Args:
        bias: (56,), the gradient of the cross-entropy by the head's bias.
        guessed: (14, 4), the head's mean probabilities, as the attacker takes them to be.
        count: of studies.
    """
    gradient = bias.unflatten(0, (len(FINDINGS), len(STATES)))
    if count == 1:  # p - 1 is negative, and p of every other state is not: no guess is needed
        return functional.one_hot(gradient.argmin(dim=1), len(STATES)).float()
    found = (count * (guessed - len(FINDINGS) * gradient)).clamp(min=0)
    return (count * found / found.sum(dim=1, keepdim=True).clamp(min=1e-12)).round()


def state_counts(states: Tensor) -> Tensor:
    """How many of (N, 14) studies have each state, (14, 4)."""
    return functional.one_hot(states, len(STATES)).sum(dim=0).float()


def agreement(true: Tensor, found: Tensor) -> float:
    """F1 of what occurs, or of how often: twice what both have over the sum of both; 1 where both are empty."""
    both, sum_of_both = torch.minimum(true.float(), found.float()).sum(), true.sum() + found.sum()
    return float(2 * both / sum_of_both) if sum_of_both else 1.0


@torch.no_grad()
def _guessed_probabilities(attacked: Attacked) -> Tensor:
    """(14, 4), the head's mean probabilities of the known studies."""
    batch = attacked.known.batch(range(min(KNOWN_STUDIES, len(attacked.known))))
    logits = attacked.model.prefix(batch.images, batch.states).prompts.auxiliary["state_logits"]
    return logits.softmax(dim=-1).mean(dim=0)


def _check_sent(model: ReportGenerator) -> None:
    """Raises InputError unless table and head travel."""
    if not {TABLE_KEY, BIAS_KEY} <= sent_by(model).keys():
        raise InputError(f"method {model.method.name!r} shares no diagnosis prompts, so no update shows its findings.")
