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
# # 12d · What updates of a report model give away
#
# FedMRG sends an encoder in full, its diagnosis prompts, and a low-rank adapter of its LLM. A server that is honest but curious sees them all.
# Which words of the reports can it read from the adapter, which findings from the prompts, and how much of an image from the rest?
#
# **A weak attack that fails is no proof of safety.** What succeeds here is certain; what fails here is not. The runs are those of notebook 06,
# so `make figures` comes first.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom"  # phantom, iu_xray, folder
methods = "fedmrg"  # rows of methods.yaml with an adapter that travels, joined by commas
batches = "1,4,16"  # reports of an update, joined by commas
steps = "1,4"  # local steps of the hospital, joined by commas
draws = 2  # different batches of each size
iterations = 30  # of the search for images
lpips = ""  # a file with the weights of LPIPS, for a column more; empty: none
seed = 0
workers = 0  # hospitals at the same time; 0: one a core, one on a GPU
workspace = ""  # where results are kept; the repository if empty

# %% [markdown]
# The attacks are in `fedmrg_core/tasks/reports/attacks/`, and what serves every task in `fedmrg_core/federation/curious/`.

# %%
import matplotlib.pyplot as plt
import pandas
import torch
from IPython.display import display

from fedmrg_core.federation.curious.defences import DEFENCES
from fedmrg_core.federation.curious.inversion import Attack
from fedmrg_core.federation.run import run_federation
from fedmrg_core.paths import workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.tasks.reports.attacks.attacked import open_attacked
from fedmrg_core.tasks.reports.attacks.finding_table import attack_findings
from fedmrg_core.tasks.reports.attacks.image_table import attack_images, attacked_batch, rebuild
from fedmrg_core.tasks.reports.attacks.word_table import ADAPTER, attack_words, strengths_of_one
from figures.common import mark_synthetic

# %% [markdown]
# A run that is finished is not trained again.

# %%
torch.set_num_threads(1)  # of models this small, several take longer than one
root = workspace_folder(workspace)
runs = {name: RunSettings(profile=profile, data=data, method=name, seed=seed) for name in methods.split(",")}
for name, run in runs.items():
    run_federation(run.folder(root), run.configuration(root), workers=workers)
    print(f"{name}: {run.name}")

# %% [markdown]
# ## One report, read from an adapter
#
# What the first layer of the LLM reads of a token depends on the token alone. The server knows it for every token of the vocabulary. The
# adapter's gradient is made of few of these vectors, and sparse regression finds most of them. Below are the strongest tokens, and the report.

# %%
first = open_attacked(next(iter(runs.values())).folder(root))
strengths, batch = strengths_of_one(first, seed)
tokenizer = first.model.tokenizer
print("strongest:", *(repr(tokenizer.decode([token])) for token in strengths.topk(30).indices.tolist()))
print("report:", tokenizer.decode(batch.report_ids[0], skip_special_tokens=True))

# %% [markdown]
# ## How many tokens
#
# The share of a batch's different tokens among as many found ones. `whole LLM` is a stand-in: the LLM's own matrices, as if they travelled.
# The floors saw no update: the most frequent tokens of another hospital, and a random report of it.

# %%
sizes, counts = ([int(part) for part in text.split(",")] for text in (batches, steps))
words = pandas.concat(
    [attack_words(run.folder(root), sizes, counts, draws, seed) for run in runs.values()], ignore_index=True
)
words.pivot_table(index=["sent", "rebuilt_by", "steps"], columns=["method", "batch"], values="tokens").round(2)

# %% [markdown]
# And the findings that those words speak of: those of the other hospital's report that has most in common with the found tokens, F1. A random
# one is the floor.

# %%
words.pivot_table(index=["sent", "rebuilt_by", "steps"], columns=["method", "batch"], values="findings").round(2)

# %% [markdown]
# ## Findings, from diagnosis prompts
#
# Words are not needed for them. A step moves the prompts of the states that occur in the batch, and no other prompt. And the gradient of the
# head's bias has one negative entry a finding, where there is one study: its state. `occurring` is F1 of what is positive somewhere in the
# batch, `counted` of how many studies have it.

# %%
speaking = [run for run in runs.values() if "diagnosis" in run.load()[1].prompts.split("+")]
told = [attack_findings(run.folder(root), sizes, counts, draws, seed) for run in speaking]
if told:
    keys = ["method", "rebuilt_by", "steps"]
    table = pandas.concat(told).pivot_table(index=keys, columns="batch", values=["occurring", "counted"], sort=False)
    display(table.round(2))

# %% [markdown]
# ## A server that crafts what it sends
#
# It switches images and prompts off, and starts the adapter the other way round. The update then holds nothing but words
# (`attacks/crafted.py`). This is no longer an honest server; a hospital that looks at what it receives would notice.

# %%
crafted = pandas.concat(
    [attack_words(run.folder(root), sizes, [1], draws, seed, crafted=True) for run in runs.values()], ignore_index=True
)
crafted = crafted[crafted.sent == ADAPTER]
crafted.pivot_table(index="server", columns=["method", "batch"], values=["tokens", "findings"]).round(2)

# %% [markdown]
# ## What a hospital may do first
#
# Fewer bits, low-rank factors, noise whose deviation is counted in lengths of the update.

# %%
defended = pandas.concat(
    [attack_words(run.folder(root), [1], [1], draws, seed, list(DEFENCES)) for run in runs.values()], ignore_index=True
)
adapters = defended[defended.sent == ADAPTER]
adapters.pivot_table(index="defence", columns="method", values="tokens", sort=False).round(2)

# %% [markdown]
# ## An image, from all that travels
#
# The search of notebook 12c, on everything that a hospital sends. Where BatchNorm's statistics travel, one local step tells those of the batch
# to the digit, and the search may use them.

# %%
attack = Attack(iterations=iterations, restarts=1)
tables = [attack_images(run.folder(root), attack, [1], seed, lpips=lpips) for run in runs.values()]
images = pandas.concat(tables, ignore_index=True)
images.set_index(["method", "rebuilt_by"])[["psnr", "ssim", "perceptual", *(["lpips"] if lpips else [])]].round(2)

# %% [markdown]
# The image, where the search begins, and what came back.

# %%
batch = attacked_batch(first, 1, seed)
start = first.known.batch(range(min(64, len(first.known)))).images.mean(dim=0)
found = rebuild(first, batch, start, attack, seed)
sheet = {"image": batch.images, "mean of others": start[None]} | {name: each.pixels for name, each in found.items()}

# %% [markdown]
# All in one row.

# %%
figure, axes = plt.subplots(1, len(sheet), figsize=(1.7 * len(sheet), 2.0), layout="constrained")
for axis, (name, image) in zip(axes, sheet.items(), strict=True):
    axis.imshow(torch.as_tensor(image)[0, 0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(name, fontsize=7)
    axis.set_axis_off()
mark_synthetic(figure, data)
