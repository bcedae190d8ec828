"""The table of words that come back from one update of a hospital's generic adapter, beside the floors.

On the benchmark's machine, which holds the reports of all. The attacker has another hospital's studies: its reports say
how frequent tokens are, and are what findings are read from [ours].
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy
import pandas
import scipy.optimize
import torch
from torch import Tensor

from fedmrg_core.data.findings import POSITIVE
from fedmrg_core.errors import InputError
from fedmrg_core.federation.curious.defences import Defence, check_defences, errors
from fedmrg_core.federation.curious.inversion import moving
from fedmrg_core.federation.curious.recomputed import recomputed_update, sent_by
from fedmrg_core.report_generator import ReportGenerator
from fedmrg_core.tasks.reports.attacks.attacked import (
    Attacked,
    BatchLoss,
    Case,
    adapted_layers,
    means_over_draws,
    open_attacked,
)
from fedmrg_core.tasks.reports.attacks.crafted import craft_start
from fedmrg_core.tasks.reports.attacks.words import (
    TOLD_BY_FREQUENCY,
    Reader,
    in_the_span,
    token_strengths,
)
from fedmrg_core.tasks.reports.batch import Batch
from fedmrg_core.training.adapter_names import GENERIC, adapter_of

REBUILT, FREQUENT, RANDOM = "attack", "frequent tokens", "random report"
CURIOUS, CRAFTING = "curious", "crafts what it sends"
WHOLE, ADAPTER, NOTHING = "whole LLM", "adapter", "nothing"
COLUMNS = ("method", "server", "sent", "defence", "batch", "steps", "rebuilt_by", "tokens", "findings")


def attack_words(
    run_folder: pathlib.Path,
    batches: Sequence[int] = (1, 4, 16),
    steps: Sequence[int] = (1,),
    draws: int = 8,
    seed: int = 0,
    defences: Sequence[str] = ("none",),
    pace: float = 0.01,
    crafted: bool = False,
) -> pandas.DataFrame:
    """Attack the first hospital of a run, whose model is the chosen one.

    Args:
        run_folder: finished.
        batches: numbers of reports of an update.
        steps: numbers of local steps.
        draws: different batches of each size.
        seed: draws reports, noise and floors.
        defences: names in `DEFENCES`: what the hospital does to its update.
        pace: of a local step.
        crafted: the server changes what it sends first, see `craft_start`.

    Returns:
        `COLUMNS`: means over the draws. `tokens`: share of the different tokens of the batch's reports that are among
        as many found ones; `findings`: F1 of the positive findings of the nearest known reports.

    Raises:
        InputError: see `open_attacked`; a defence is unknown, a batch is larger than a hospital, or no adapter travels.
    """
    check_defences(defences)
    attacked = open_attacked(run_folder)
    _adapter(attacked.model)
    if crafted:
        craft_start(attacked.model, seed)
    attacked.check_batches(batches)
    table = means_over_draws(
        functools.partial(_rows, attacked), ("tokens", "findings"),
        batches=batches, steps=steps, draws=draws, seed=seed, defences=defences, pace=pace,
    )  # fmt: skip
    return table.assign(
        method=attacked.task.configuration.method.name, server=CRAFTING if crafted else CURIOUS
    ).reindex(columns=list(COLUMNS))


def strengths_of_one(attacked: Attacked, seed: int = 0) -> tuple[Tensor, Batch]:
    """How strongly each token, (V,), has part in what the adapter sends after one step on one report; and its batch."""
    case = Case(batch=1, steps=1, draw=0, seed=seed, pace=0.01)
    batch, sent = case.studies(attacked), _adapter(attacked.model)
    update = recomputed_update(BatchLoss(attacked), sent, (batch,), case.steps, case.pace)
    return _strengths(attacked, moving(update), dict.fromkeys(update, 0.0)), batch


def _rows(attacked: Attacked, case: Case, defence: Defence) -> Iterator[dict[str, object]]:
    model, loss = attacked.model, BatchLoss(attacked)
    batch = case.studies(attacked)
    # The last token is not read, and the instruction's are read in any case.
    read = set(batch.report_ids[:, :-1][batch.report_mask[:, 1:]].tolist()) - attacked.always_read
    noise = case.noise()
    for name, sent in (WHOLE, _matrices(model)), (ADAPTER, _adapter(model)):
        with _learning(sent):
            update = recomputed_update(loss, sent, (batch,), case.steps, case.pace)
        received = defence.sent(update, noise)
        strengths = _strengths(attacked, moving(received), errors(update, received))
        nearest = _nearest_reports(attacked, strengths, case.batch)
        found = {"tokens": _shown_tokens(attacked, read, strengths), "findings": _findings(attacked, batch, nearest)}
        yield {"sent": name, "rebuilt_by": REBUILT, **found}
    yield {"sent": NOTHING, "rebuilt_by": FREQUENT, "tokens": _shown_tokens(attacked, read, attacked.frequency)}
    chosen = case.numbers("floor").choice(len(attacked.known), case.batch, replace=False)
    tokens = torch.tensor([token for index in chosen for token in attacked.known.report_ids[index]])
    strengths = torch.zeros_like(attacked.frequency).index_put((tokens,), attacked.frequency[tokens])
    found = {"tokens": _shown_tokens(attacked, read, strengths), "findings": _findings(attacked, batch, chosen)}
    yield {"sent": NOTHING, "rebuilt_by": RANDOM, **found}


def _adapter(model: ReportGenerator) -> dict[str, Tensor]:
    """What travels of the generic adapter.

    Raises:
        InputError: nothing does.
    """
    sent = {key: tensor for key, tensor in sent_by(model).items() if adapter_of(key.split("/")[0]) == GENERIC}
    if not sent:
        raise InputError(f"method {model.method.name!r} shares no adapter, so no update shows its words.")
    return sent


def _matrices(model: ReportGenerator) -> dict[str, Tensor]:
    """The LLM's own weights of adapted layers, as if it was trained whole and travelled [ours]."""
    llm = model.llm.peft.get_base_model()
    return {f"{WHOLE}/{name}.weight": llm.get_submodule(name).base_layer.weight for name in adapted_layers(model)}


@contextlib.contextmanager
def _learning(sent: dict[str, Tensor]) -> Iterator[None]:
    """Inside, these parameters have gradients, also those of the frozen LLM."""
    before = {key: parameter.requires_grad for key, parameter in sent.items()}
    try:
        for parameter in sent.values():
            parameter.requires_grad_(True)
        yield
    finally:
        for key, parameter in sent.items():
            parameter.requires_grad_(before[key])


def _strengths(attacked: Attacked, update: dict[str, Tensor], errors: Mapping[str, float]) -> Tensor:
    """How strongly each token has part in an update, (V,); errors by key as `defences.errors` has them."""
    changes = {key.partition("/")[2]: change for key, change in update.items()}
    first, prior = attacked.readers[0], attacked.frequency**TOLD_BY_FREQUENCY
    whole, factors = (
        [changes[reader.name + end] for reader in attacked.readers if reader.name + end in changes]
        for end in (".weight", ".lora_A")
    )
    if whole:
        worst = max(errors[key] for key in update)
        near = in_the_span(torch.cat(whole), first.inputs, worst)
        if near is not None:
            return near
    if whole or factors:  # all of one room: what the first layer reads
        rows = torch.cat([change / change.norm() for change in whole or factors])
        return token_strengths(rows, first.inputs, first.before, prior)
    return sum(_strengths_of_b(attacked, reader, changes, prior) for reader in attacked.readers)


def _strengths_of_b(attacked: Attacked, reader: Reader, changes: dict[str, Tensor], prior: Tensor) -> Tensor:
    """Those that one layer's dL/dB shows, 1 for the strongest; zeros if it did not come."""
    if f"{reader.name}.lora_B" not in changes:
        return torch.zeros_like(prior)
    factor = attacked.model.llm.parameters_of(GENERIC)[f"{reader.name}.lora_A"].detach()  # frozen, so the server has it
    read = reader.inputs @ factor.T, reader.before @ factor.T
    found = token_strengths(changes[f"{reader.name}.lora_B"], *read, prior)
    return found / found.max().clamp(min=1e-30)


def _shown_tokens(attacked: Attacked, read: set[int], strengths: Tensor) -> float:
    """The share of the tokens that were read among as many of the strongest ones."""
    strengths = strengths.index_fill(0, torch.tensor(sorted(attacked.always_read)), 0.0)
    found = strengths.topk(len(read))
    return len(read & set(found.indices[found.values > 0].tolist())) / len(read)


def _nearest_reports(attacked: Attacked, strengths: Tensor, count: int) -> numpy.ndarray:
    """The known reports that share the strongest and rarest tokens: cosine of tf-idf, without the tf."""
    rare = -attacked.frequency.log()
    wanted = strengths * rare  # the weight of a token in the update; in a report it is its rarity alone
    reports = [torch.tensor(sorted(set(row))) for row in attacked.known.report_ids]
    scores = torch.stack([(wanted * rare)[tokens].sum() / rare[tokens].norm() for tokens in reports])
    return scores.topk(count).indices.numpy()


def _findings(attacked: Attacked, batch: Batch, chosen: numpy.ndarray) -> float:
    """F1 of positive findings of known reports against the batch's, each with that which it fits best; a mean."""
    true = (batch.states == POSITIVE).float()
    found = (attacked.known.studies.states[torch.as_tensor(chosen)] == POSITIVE).float()
    both, either = true @ found.T, true.sum(dim=1)[:, None] + found.sum(dim=1)[None]
    f1 = torch.where(either > 0, 2 * both / either.clamp(min=1), torch.ones_like(both)).numpy()
    pairs = scipy.optimize.linear_sum_assignment(f1, maximize=True)
    return float(f1[pairs].mean())
