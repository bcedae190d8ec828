# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12c · What updates of visual prompts give away
#
# A server that is honest but curious sees each centre's update. How much of a picture is in it? Here the same attack, with the same budget, is
# made on what each method sends: the whole model, its head, LoRA, the generator, static prompts.
#
# **A weak attack that fails is no proof of safety.** Stronger ones against adapters exist, by a server that crafts what it sends
# (arXiv 2506.04453). What succeeds here is certain; what fails here is not.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom_findings"  # pictures with classes
data_root = ""  # the folder of a public set
options = "{}"  # how it is read, as JSON or YAML
methods = "full,head,lora,generator,static"  # rows of methods_visual_prompts.yaml, joined by commas
rounds = 1  # of training before the attack: at the very start a generator's last layers are zero
batches = "1,4"  # pictures of an update, joined by commas
iterations = 100  # of a restart
restarts = 1
steps = 1  # local steps of the client
lpips = ""  # a file with the weights of LPIPS, for a column more; empty: none
seed = 0
base_models = "stored"  # of the repository, where it has one of the profile; fresh: built here
workers = 0  # hospitals at the same time; 0: one a core, one on a GPU
workspace = ""  # where results are kept; the repository if empty

# %% [markdown]
# The attacks are in `fedmrg_core/tasks/visual_prompts/attacks/`, and what serves every task in `fedmrg_core/federation/curious/`.

# %%
import matplotlib.pyplot as plt
import pandas
import torch

from fedmrg_core.federation.curious.defences import DEFENCES
from fedmrg_core.federation.curious.inversion import Attack
from fedmrg_core.federation.model_task import load_chosen
from fedmrg_core.federation.run import run_federation
from fedmrg_core.federation.task import load_task
from fedmrg_core.paths import workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.tasks.visual_prompts.attacks.attacking import SOLVED, attack_run, attacked_pictures, match_pictures
from fedmrg_core.tasks.visual_prompts.attacks.closed_form import has_closed_form, solve_patches
from fedmrg_core.tasks.visual_prompts.attacks.updates import update_of
from fedmrg_core.tasks.visual_prompts.inputs import prepare_inputs
from figures.common import mark_synthetic

# %% [markdown]
# One short run of each method. A finished one is not trained again.

# %%
torch.set_num_threads(1)  # of models this small, several take longer than one
root = workspace_folder(workspace)
settings = {"profile": profile, "data": data, "variant": f"federation.rounds={rounds}", "seed": seed}
runs = {name: RunSettings(method=name, **settings) for name in methods.split(",")}
for name, run in runs.items():
    prepare_inputs(run, root, data_root, options, base_models)
    run_federation(run.folder(root), run.configuration(root), workers=workers)
    print(f"{name}: {run.name}")

# %% [markdown]
# ## The attack
#
# The attacker looks for pictures whose update points where the one that he saw points, tensor by tensor, and that are smooth
# (total variation). He begins from the mean of another centre's pictures, and is told the findings. The floors are that mean, and random
# pictures of the other centre. Where the whole ViT travels, one picture comes back without any search: positions and patches have one error in
# common, and a linear system gives the pixels.

# %%
attack = Attack(iterations=iterations, restarts=restarts, steps=steps)
sizes = [int(part) for part in batches.split(",")]
tables = [attack_run(run.folder(root), attack, sizes, seed, lpips=lpips) for run in runs.values()]
table = pandas.concat(tables, ignore_index=True)
table.pivot_table(index=["batch", "rebuilt_by"], columns="method", values="psnr").round(1)

# %% [markdown]
# PSNR is above, in decibels. Below is the likeness of structures, SSIM: 1 is the same picture.

# %%
table.pivot_table(index=["batch", "rebuilt_by"], columns="method", values="ssim").round(2)

# %% [markdown]
# And the perceptual distance: 1 - cosine of what the small ResNet of the reports sees in both, which is not attacked. 0 is the same.
# With `lpips`, LPIPS stands here in its place.

# %%
table.pivot_table(index=["batch", "rebuilt_by"], columns="method", values="lpips" if lpips else "perceptual").round(3)

# %% [markdown]
# ## What a hospital may do first
#
# The attack that succeeds, the closed form, on `full` and one picture. An update may leave as few bits, as low-rank factors, or with noise.
# The noise's deviation is counted in lengths of the update; the attacker knows it, and leaves out what it has drowned. What noise costs a
# whole run is in `docs/privacy.md`.

# %%
plainly = Attack(iterations=1, restarts=1)  # matching is not looked at here
whole = [run.folder(root) for name, run in runs.items() if name == "full"]
defended = [attack_run(folder, plainly, [1], seed, list(DEFENCES)) for folder in whole]
solved = [table[table.rebuilt_by == SOLVED].set_index("defence")[["psnr", "ssim"]].round(2) for table in defended]
solved[0] if solved else None

# %% [markdown]
# ## One picture, seen by the attacker
#
# The picture itself, where the search begins, and what each update gave back.


# %%
def rebuilt(run: RunSettings) -> dict[str, torch.Tensor]:
    task = load_task(run.folder(root).resolve())
    load_chosen(task.model, task.run_folder)
    attacked, known = attacked_pictures(task, 1, seed)
    picture, truth = attacked["pixels"][:1], attacked["truth"][:1]
    seen = update_of(task.model.eval(), picture, truth, attack.steps, attack.pace)
    found = match_pictures(task.model, seen, truth, known.mean(dim=0), attack, torch.Generator().manual_seed(seed))
    shown = {"picture": picture, "mean of others": known.mean(dim=0, keepdim=True), run.method: found.pixels}
    solved = attack.steps == 1 and has_closed_form(task.model, picture.shape[-1])
    return shown | ({f"{run.method}, closed form": solve_patches(task.model, seen)} if solved else {})


# %% [markdown]
# All in one row.

# %%
sheet = {name: image for run in runs.values() for name, image in rebuilt(run).items()}
figure, axes = plt.subplots(1, len(sheet), figsize=(1.5 * len(sheet), 1.9), layout="constrained")
for axis, (name, image) in zip(axes, sheet.items(), strict=True):
    axis.imshow(image[0].permute(1, 2, 0).cpu(), cmap="gray", vmin=0, vmax=1)
    axis.set_title(name, fontsize=7)
    axis.set_axis_off()
mark_synthetic(figure, data)
