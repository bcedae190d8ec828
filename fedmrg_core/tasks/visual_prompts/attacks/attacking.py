"""The table of attacks on a run: what comes back from one update of a client, beside the floors.

On the benchmark's machine, which holds the pictures of all. The attacker has pictures of another centre: their mean is
where the search begins, and they are the floors [ours].
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence

import pandas
import torch
from torch import Tensor

from fedmrg_core.errors import InputError
from fedmrg_core.federation.curious.defences import DEFENCES, Defence, check_defences, errors
from fedmrg_core.federation.curious.image_scores import floors, matched
from fedmrg_core.federation.curious.inversion import Attack, Inverted, attack_draws, invert_update
from fedmrg_core.federation.curious.perceptual import Scores, scores_of
from fedmrg_core.federation.model_task import load_chosen
from fedmrg_core.federation.roster import read_roster
from fedmrg_core.federation.task import load_task
from fedmrg_core.tasks.visual_prompts.attacks.closed_form import has_closed_form, solve_patches
from fedmrg_core.tasks.visual_prompts.attacks.updates import update_of
from fedmrg_core.tasks.visual_prompts.client_pictures import open_pictures
from fedmrg_core.tasks.visual_prompts.prompted_model import PromptedModel
from fedmrg_core.tasks.visual_prompts.task import PictureTask

MATCHED, SOLVED = "matching", "closed form"
COLUMNS = ("method", "defence", "batch", "steps", "rebuilt_by", "psnr", "ssim", "perceptual", "distance")


def attack_run(
    run_folder: pathlib.Path,
    attack: Attack,
    batches: Sequence[int] = (1, 4, 16),
    seed: int = 0,
    defences: Sequence[str] = ("none",),
    lpips: pathlib.Path | str = "",
) -> pandas.DataFrame:
    """Attack the first client of a run, whose model is the chosen one.

    Args:
        run_folder: finished.
        attack: the budget, the same for every row of methods.
        batches: numbers of pictures of an update.
        seed: draws pictures, noise and floors.
        defences: names in `DEFENCES`: what the client does to its update.
        lpips: a file with LPIPS's weights, for a column more; empty: none.

    Returns:
        `COLUMNS`, and `lpips` where it is asked for: means over a batch's pictures; distance is blank but for matching.

    Raises:
        InputError: its task has no pictures, a defence is unknown, there is no second client whose pictures the
            attacker has, a batch is larger than a client, the row shares nothing, or there are no such weights.
    """
    task = load_task(run_folder.resolve())
    if not isinstance(task, PictureTask):
        raise InputError(f"{run_folder}: its task has no pictures; expected a run of notebook 12b.")
    check_defences(defences)
    scored = scores_of("pictures", next(task.model.parameters()).device, lpips)
    load_chosen(task.model, task.run_folder)
    attacked, known = attacked_pictures(task, max(batches), seed)
    model = task.model.eval()
    rows = [
        {"defence": name, **row}
        for batch in batches
        for name in defences
        for row in _rows(model, scored, attacked, known, batch, attack, seed, DEFENCES[name])
    ]
    table = pandas.DataFrame(rows).assign(method=task.configuration.method.name, steps=attack.steps)
    return table.reindex(columns=[*COLUMNS, *(["lpips"] if lpips else [])])


def attacked_pictures(task: PictureTask, largest: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Whose pictures are attacked, and whose the attacker has.

    Args:
        task: of a finished run.
        largest: pictures that are attacked at once.
        seed: draws the order.

    Returns:
        Training pictures of the first client, `pixels` in [0, 1] and `truth`, in a random order; and the second one's.

    Raises:
        InputError: there is no second client, or too few pictures.
    """
    clients = read_roster(task.run_folder).clients
    if len(clients) < 2:
        raise InputError(f"{task.run_folder}: it has one client, so no other centre's pictures to begin from.")
    first, second = (
        open_pictures((task.run_folder / client.folders[0]).resolve(), "train")[1] for client in clients[:2]
    )
    if largest > min(len(first["pixels"]), len(second["pixels"])):
        raise InputError(f"attack: {clients[0].name} has fewer than {largest} training pictures; ask for fewer.")
    order = torch.randperm(len(first["pixels"]), generator=attack_draws(seed, "pictures"))
    device = next(task.model.parameters()).device
    pixels, truth = ((first[name][order].float()).to(device) for name in ("pixels", "truth"))
    return {"pixels": pixels / 255, "truth": truth}, second["pixels"].float().to(device) / 255


def match_pictures(
    model: PromptedModel,
    observed: dict[str, Tensor],
    truth: Tensor,
    start: Tensor,
    attack: Attack,
    generator: torch.Generator,
) -> Inverted:
    """Rebuild the pictures of an update by matching it, see `invert_update`.

    Args:
        model: as the client received it.
        observed: see `update_of`.
        truth: of the batch, which the attacker is given.
        start: (C, H, W).
        attack: the budget.
        generator: draws the noise.
    """

    def update(pixels: Tensor) -> dict[str, Tensor]:
        return update_of(model, pixels, truth, attack.steps, attack.pace, differentiable=True)

    return invert_update(update, observed, len(truth), start, attack, generator)


def _rows(
    model: PromptedModel,
    scored: Scores,
    attacked: dict[str, Tensor],
    known: Tensor,
    batch: int,
    attack: Attack,
    seed: int,
    defence: Defence,
) -> Iterator[dict[str, object]]:
    pixels, truth = attacked["pixels"][:batch], attacked["truth"][:batch]
    update = update_of(model, pixels, truth, attack.steps, attack.pace)
    seen = defence.sent(update, attack_draws(seed, "defence", str(batch)))
    found = match_pictures(model, seen, truth, known.mean(dim=0), attack, attack_draws(seed, "noise", str(batch)))
    rebuilt = {MATCHED: matched(found.pixels, pixels)}
    if batch == attack.steps == 1 and has_closed_form(model, pixels.shape[-1]):
        solved = solve_patches(model, seen, known.mean(dim=0), errors(update, seen))
        # A grey picture was repeated for a model that reads colours.
        rebuilt[SOLVED] = solved if len(solved[0]) == len(pixels[0]) else solved.mean(dim=1, keepdim=True)
    rebuilt |= floors(known, pixels, attack_draws(seed, "floors", str(batch)))
    for name, images in rebuilt.items():
        distance = {"distance": found.distance} if name == MATCHED else {}
        yield {"batch": batch, "rebuilt_by": name, **scored(images, pixels).mean().to_dict(), **distance}
