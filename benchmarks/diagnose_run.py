"""Why a part of a method helps or does not: what each loss pulls at, and what wrong prompts cost, in a finished run.

    python benchmarks/diagnose_run.py RUN_FOLDER [--losses fedmrg] [--batches 4]

First table: the norm of each weighted loss term's gradient at each module, as a share of the sum over terms. Second:
the cosine of that gradient with the language term's; below zero, the two work against each other. Means over clients
and training batches of the selected model; with --losses the weights are those of another row of methods.yaml. It is
the first step of a round: the global encoder is the client's own, so that L_intra pulls less than it does later.

Third table: language loss a token on validation studies under each adapter, prompts from the true states (as in
training) and from the predicted ones (as at inference). What lies between is exposure bias. No test study is read.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Iterator

import pandas
import torch
from torch import Tensor

from fedmrg_core.errors import InputError
from fedmrg_core.report_generator import ReportGenerator
from fedmrg_core.runs.methods import load_method
from fedmrg_core.seeds import numpy_stream
from fedmrg_core.tasks.reports.batch import Contrast, language_loss
from fedmrg_core.tasks.reports.client_batches import ClientBatches
from fedmrg_core.tasks.reports.finished_run import FinishedRun
from fedmrg_core.tasks.reports.methods import ReportLosses
from fedmrg_core.tasks.reports.trained_run import load_trained


def batches_with_contrast(
    folder: pathlib.Path, run: FinishedRun, count: int
) -> Iterator[tuple[ReportGenerator, ClientBatches, list[int], Contrast]]:
    """The first shuffled training batches of each client, the model loaded as that client has it."""
    model, profile = run.model, run.configuration.profile
    by_client: dict[str, ClientBatches] = {}
    features: dict[str, Tensor] = {}
    for site in run.sites:
        load_trained(folder, run, site)
        by_client[site] = ClientBatches(model, run.tensors(site, "train"), profile)
        features[site] = by_client[site].features(model)
    prototypes = torch.stack([features[site].mean(dim=0) for site in run.sites])
    for own, site in enumerate(run.sites):
        load_trained(folder, run, site)
        model.train()
        for indices in by_client[site].shuffled(numpy_stream(0, "diagnosis", site))[:count]:
            yield model, by_client[site], indices, Contrast(features[site][indices], prototypes, own)


def gradients(
    model: ReportGenerator, batches: ClientBatches, indices: list[int], contrast: Contrast, losses: ReportLosses
) -> dict[str, dict[str, Tensor]]:
    """Each weighted term's gradient at each module, flat: by term, then by module."""
    weights = torch.ones(batches.studies.states.shape[1], device=batches.device)
    terms = model.loss_terms(batches.batch(indices), losses, weights, contrast)
    trainable = model.trainable()
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in terms.items():
        loss = getattr(losses, name) * value
        by_key = torch.autograd.grad(loss, list(trainable.values()), retain_graph=True, allow_unused=True)
        parts: dict[str, list[Tensor]] = {}
        for (key, parameter), gradient in zip(trainable.items(), by_key, strict=True):
            whole = torch.zeros_like(parameter) if gradient is None else gradient
            parts.setdefault(key.partition("/")[0], []).append(whole.flatten())
        found[name] = {module: torch.cat(tensors) for module, tensors in parts.items()}
    return found


def pulls(folder: pathlib.Path, run: FinishedRun, losses: ReportLosses, count: int) -> pandas.DataFrame:
    """Rows: term, module, share of the norms, cosine with the language term; means over clients and batches."""
    rows = []
    for model, batches, indices, contrast in batches_with_contrast(folder, run, count):
        found = gradients(model, batches, indices, contrast, losses)
        for module in found["language"]:
            norms = {term: by_module[module].norm().item() for term, by_module in found.items()}
            for term, norm in norms.items():
                if norm:
                    cosine = torch.cosine_similarity(found[term][module], found["language"][module], dim=0).item()
                    rows.append((term, module, norm / sum(norms.values()), cosine))
    table = pandas.DataFrame(rows, columns=["term", "module", "share", "cosine"])
    return table.groupby(["term", "module"], sort=False, as_index=False).mean()


@torch.no_grad()
def exposure(folder: pathlib.Path, run: FinishedRun) -> pandas.DataFrame:
    """Validation language loss a token, all clients together: a row an adapter, columns true and predicted states."""
    model, sums, tokens = run.model, {}, 0
    for site in run.sites:
        load_trained(folder, run, site)
        model.eval()
        batches = ClientBatches(model, run.tensors(site, "validation"), run.configuration.profile)
        for indices in batches.in_order(by_length=True):
            batch = batches.batch(indices)
            count = int(batch.report_mask.sum())
            tokens += count
            for column, states in (("true states", batch.states), ("predicted states", None)):
                logits = model.report_logits(model.prefix(batch.images, states), batch, model.adapters)
                for adapter, of_adapter in zip(model.adapters, logits, strict=True):
                    loss = language_loss(of_adapter, batch.report_ids, batch.report_mask).item()
                    sums[adapter, column] = sums.get((adapter, column), 0.0) + count * loss
    return pandas.Series({key: value / tokens for key, value in sums.items()}).unstack(sort=False)


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", type=pathlib.Path, help="a finished run of a method with an LLM")
    parser.add_argument("--losses", help="the row of methods.yaml whose weights to look at; the run's own if left out")
    parser.add_argument("--batches", type=int, default=4, help="training batches a client")
    arguments = parser.parse_args()
    try:
        run = FinishedRun(arguments.run_folder)
        method = load_method(arguments.losses) if arguments.losses else run.configuration.method
        if not isinstance(run.model, ReportGenerator):
            raise InputError(f"{arguments.run_folder}: its model has no LLM; give a run of one that has.")
        table = pulls(arguments.run_folder, run, method.losses, arguments.batches)
        losses = exposure(arguments.run_folder, run)
    except InputError as error:
        sys.exit(str(error))
    for column in ("share", "cosine"):
        print(f"{column}\n{table.pivot(index='term', columns='module', values=column).round(3).to_string()}\n")
    print(f"language loss a token, validation studies\n{losses.round(3).to_string()}")


if __name__ == "__main__":
    main()
