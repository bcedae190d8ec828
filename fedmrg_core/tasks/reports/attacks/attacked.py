"""A finished run of reports, the hospital whose update is attacked, and the one whose studies the attacker has.

On the benchmark's machine, which holds the studies of all. That the attacker has another hospital's studies is [ours].
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy
import pandas
import torch
from torch import Tensor, nn

from fedmrg_core.errors import InputError
from fedmrg_core.federation.curious.defences import DEFENCES, Defence
from fedmrg_core.federation.model_task import load_chosen
from fedmrg_core.federation.roster import read_roster
from fedmrg_core.federation.task import load_task
from fedmrg_core.prompts import initial_disease_weights
from fedmrg_core.report_generator import ReportGenerator
from fedmrg_core.seeds import stream_seed
from fedmrg_core.tasks.reports.attacks.words import Reader, find_readers
from fedmrg_core.tasks.reports.batch import Batch
from fedmrg_core.tasks.reports.client_batches import ClientBatches
from fedmrg_core.tasks.reports.task import ReportTask
from fedmrg_core.training.adapter_names import GENERIC

KNOWN_STUDIES = 64  # whose prefixes and images the attacker averages


@dataclasses.dataclass(frozen=True)
class Attacked:
    """A trained model, the hospital that is attacked, and the one whose studies the attacker has."""

    task: ReportTask
    model: ReportGenerator
    own: ClientBatches
    known: ClientBatches

    @functools.cached_property
    def frequency(self) -> Tensor:
        """(V,), of each token in the known reports, plus a tenth of one occurrence."""
        counts = torch.full((len(self.model.tokenizer),), 0.1)
        ids = torch.tensor([token for row in self.known.report_ids for token in row])
        return counts.index_add(0, ids, torch.ones(len(ids))) / len(ids)

    def check_batches(self, batches: Sequence[int]) -> None:
        """Hold numbers of studies of an update against both hospitals.

        Raises:
            InputError: one has fewer training studies.
        """
        if max(batches) > min(len(self.own), len(self.known)):
            raise InputError(f"attack: a hospital has fewer than {max(batches)} training studies; ask for fewer.")

    @property
    def always_read(self) -> set[int]:
        """Tokens that stand before every report."""
        return {self.model.tokenizer.bos_token_id, *self.model.instruction_ids.tolist()}

    @functools.cached_property
    def readers(self) -> list[Reader]:
        """See `find_readers`."""
        return find_readers(self.model, self.guessed_prefix, adapted_layers(self.model))

    @property
    def guessed_prefix(self) -> Tensor:
        """(P, D), the mean of what stands before the known reports."""
        batch = self.known.batch(range(min(KNOWN_STUDIES, len(self.known))))
        with torch.no_grad():
            return self.model.prefix(batch.images, batch.states).embeddings.mean(dim=0)


def open_attacked(run_folder: pathlib.Path) -> Attacked:
    """The first client of a finished run of reports, with its own adapter if it has one, and the second.

    Raises:
        InputError: its task is another, its model has no frozen LLM, or there is no second client.
    """
    task = load_task(run_folder.resolve())
    if not isinstance(task, ReportTask) or not isinstance(task.model, ReportGenerator):
        raise InputError(f"{run_folder}: expected a finished run of reports whose row has a frozen LLM.")
    clients = read_roster(task.run_folder).clients
    if len(clients) < 2:
        raise InputError(f"{task.run_folder}: it has one client, so no other hospital's studies to begin from.")
    load_chosen(task.model, task.run_folder, clients[0].name)
    task.model.eval()
    hospitals = [task.hospital(each, [task.run_folder / folder for folder in each.folders]) for each in clients[:2]]
    profile = task.configuration.profile
    return Attacked(
        task, task.model, *(ClientBatches(task.model, each.tensors("train"), profile) for each in hospitals)
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """One update that is attacked.

    Attributes:
        batch: number of its reports.
        steps: local steps.
        draw: number of the draw, and `seed` of all: they choose reports, noise and floors.
        pace: of a local step.
    """

    batch: int
    steps: int
    draw: int
    seed: int
    pace: float

    def numbers(self, what: str) -> numpy.random.Generator:
        """A stream of its own."""
        return numpy.random.default_rng(stream_seed(self.seed, "attack", what, self.batch, self.draw))

    def noise(self) -> torch.Generator:
        """Draws a defence's noise."""
        return torch.Generator().manual_seed(int(self.numbers("noise").integers(2**31)))

    def studies(self, attacked: Attacked) -> Batch:
        """Those whose update is seen."""
        chosen = self.numbers("reports").choice(len(attacked.own), self.batch, replace=False)
        return attacked.own.batch(chosen.tolist())


def means_over_draws(
    rows: Callable[[Case, Defence], Iterable[dict[str, object]]],
    values: Sequence[str],
    *,
    batches: Sequence[int],
    steps: Sequence[int],
    draws: int,
    seed: int,
    defences: Sequence[str],
    pace: float,
) -> pandas.DataFrame:
    """The table of an attack on every batch size, number of steps, draw and defence.

    Args:
        rows: of one update: who rebuilt it and how well.
        values: measures; everything else tells rows apart.
        batches: numbers of studies of an update.
        steps: numbers of local steps.
        draws: different batches of each size.
        seed: of all draws.
        defences: names in `DEFENCES`.
        pace: of a local step.

    Returns:
        Columns defence, batch, steps, those of `rows`; the measures are means over the draws.
    """
    table = pandas.DataFrame(
        {"defence": name, "batch": batch, "steps": count, **row}
        for batch in batches
        for count in steps
        for draw in range(draws)
        for name in defences
        for row in rows(Case(batch, count, draw, seed, pace), DEFENCES[name])
    )
    keys = [name for name in table.columns if name not in values]
    return table.groupby(keys, sort=False, as_index=False)[list(values)].mean()


class BatchLoss(nn.Module):
    """The weighted loss of a batch of studies, without the contrast, which reaches no adapter."""

    def __init__(self, attacked: Attacked) -> None:
        super().__init__()
        self.model, self.losses = attacked.model, attacked.task.configuration.method.losses
        self.weights = initial_disease_weights(attacked.own.studies.states)

    def forward(self, batch: Batch) -> Tensor:
        """A scalar."""
        terms = self.model.loss_terms(batch, self.losses, self.weights, None)
        return sum(getattr(self.losses, name) * term for name, term in terms.items())


def adapted_layers(model: ReportGenerator) -> list[str]:
    """The names of the layers that the generic adapter adapts."""
    return list(dict.fromkeys(key.rpartition(".lora_")[0] for key in model.llm.parameters_of(GENERIC)))
