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
# # 05 · Base models: a small LLaMA and a small ResNet, made here
#
# FedMRG keeps its LLM **frozen** and trains low-rank adapters on it [paper]. At paper scale the LLM is a LLaMA and the
# encoder a ResNet-101 [derived]; both are then a name or a folder in the profile, and this notebook has nothing to build.
#
# The embedded default needs no download: both were built from nothing on a **public corpus kept apart from every client's
# data**, in the ordinary Hugging Face layout. Those of profile smoke lie in the repository, so that a first run starts
# at once; `base_models="fresh"` builds them again. Everything in this notebook is ours [ours].

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom"  # whose public corpus to learn from
data_root = ""  # folder of a real data set
base_models = "stored"  # those in the repository, where it has some; or "fresh": build them here
seed = 0
workspace = ""  # where results are kept; the repository if empty

# %% [markdown]
# Building and judging is in `fedmrg_core/tasks/reports/base_models.py`, taking stored ones in `fedmrg_core/tasks/reports/stored_base_models.py`.

# %%
import json
import time

import datasets
import matplotlib.pyplot as plt
import numpy
import pandas
import seaborn
import torch
import transformers

from fedmrg_core.data.labeller import label_report
from fedmrg_core.data.prepared import load_public_studies, load_public_texts
from fedmrg_core.data.sources import DATA_SOURCES, corpus_name, data_source
from fedmrg_core.metrics.clinical import states_f1_micro
from fedmrg_core.paths import REPOSITORY, base_models_folder, workspace_folder
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.runs.methods import load_method
from fedmrg_core.tasks.reports import base_models as making
from fedmrg_core.tasks.reports import stored_base_models as storing
from fedmrg_core.tasks.reports.build import build_report_generator
from fedmrg_core.training.language_models import load_language_model
from fedmrg_core.training.pretrained import compute_device
from figures.common import mark_synthetic

# %% [markdown]
# The versions decide what a checkpoint looks like. The models go to the workspace, by the corpus that they learned from.

# %%
print("torch", torch.__version__, "· transformers", transformers.__version__)
datasets.disable_progress_bars()
settings = load_profile(profile, data)
sizes = settings.base_models
folder = base_models_folder(workspace_folder(workspace), settings.name, corpus_name(data))

# %% [markdown]
# ## Stored, or built here?
#
# The stored ones say in `manifest.json` which numbers, seed and corpus they were made from, by which commit and on which
# processor. They are taken only if all of that is what this profile asks for.

# %%
making.check_sizes(sizes)
built_here = sizes.llm is None or sizes.backbone is None
stored = storing.choose_models(base_models, settings.name, data) if built_here else None
if stored is not None:
    storing.take_stored_models(stored, folder, sizes, data, seed)
    print("taken from the repository:", stored.relative_to(REPOSITORY))

# %% [markdown]
# ## The public corpus
#
# Reports in a mixed, neutral wording and images in a jittered, neutral acquisition. No client's study is among them. A
# tenth of the reports is held out to measure what the models learned; where nothing is built, only that tenth is read.

# %%
if stored is None:
    public = load_public_studies(data, data_root, sizes.public_studies, settings.image_size, seed)
    held_out = len(public.texts) // 10
    texts, states = public.texts[:held_out], public.text_states[:held_out]
    print(f"{len(public.texts)} public reports, {len(public.images)} public images")
else:
    texts, states = load_public_texts(data, sizes.public_studies, seed)
    held_out = len(texts)
print(f"{held_out} reports held out")

# %% [markdown]
# Three of them:

# %%
for text in texts[:3]:
    print("·", text)

# %% [markdown]
# ## The frozen LLM
#
# What is built says from which profile, data, seed and corpus. If the same is there already, nothing is built.

# %%
build, started, losses = False, time.perf_counter(), {}
if built_here and stored is None:
    description = {"profile": sizes.model_dump(mode="json"), "data": data, "seed": seed, "corpus": public.fingerprint}
    ready = making.saved_description(folder) == json.loads(json.dumps(description)) and storing.is_built_here(folder)
    build = not ready

# %% [markdown]
# A byte-level tokenizer, then a LLaMA that reads `<s> Findings: … </s>`. In most batches 14 *phrase vectors* stand
# in front of the report, one a finding: the mean embedding of words such as *cardiomegaly* and *positive*. A large LLM follows
# such hints unasked; a small one has to be shown once. The diagnosis prompts of notebook 03 start from the same vectors.

# %%
if build:
    texts_to_learn, their_states = public.texts[held_out:], public.text_states[held_out:]
    llm, tokenizer, losses["LLM"] = making.pretrain_llm(texts_to_learn, their_states, sizes, seed)
    print(f"{sum(p.numel() for p in llm.parameters()) / 1e6:.2f} M parameters, {time.perf_counter() - started:.0f} s")

# %% [markdown]
# ## The visual backbone
#
# A ResNet of four stages, taught to name the 14 × 4 states of public images. It only has to start somewhere better than
# random: the encoder goes on training in the federation.

# %%
if build:
    backbone, losses["backbone"] = making.pretrain_backbone(public.images, public.image_states, sizes, seed)
    making.save_base_models(folder, llm, tokenizer, backbone, description, losses)
    print(f"{sum(p.numel() for p in backbone.parameters()) / 1e6:.2f} M parameters")
    print(f"both models: {time.perf_counter() - started:.0f} s")
else:
    print("nothing to build:", "already there" if built_here else "the profile names both checkpoints")

# %% [markdown]
# Beside new models stands how they were made: the command, the time, the number of threads.

# %%
if build:
    command = f"fedmrg run notebooks/05_base_models.py -p profile={profile} -p data={data} -p base_models=fresh"
    seconds = round(time.perf_counter() - started)
    storing.write_making(folder, data, command, seconds=seconds, threads=torch.get_num_threads())

# %% [markdown]
# How both learned, wherever they were built.

# %%
if (folder / "losses.csv").is_file():
    curves = pandas.read_csv(folder / "losses.csv")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3))
    for axis, (name, rows) in zip(axes, curves.groupby("model"), strict=True):
        seaborn.lineplot(rows, x="step", y="loss", ax=axis)
        axis.set(title=f"{name}, public corpus", ylabel="loss in nats", ylim=(0, None))
    figure.tight_layout()
    of_the_phantom = data_source(data).public_corpus == DATA_SOURCES["phantom"].public_corpus  # so is that of a folder
    mark_synthetic(figure, "phantom" if of_the_phantom else data)
    plt.show()

# %% [markdown]
# ## Does it write report English?
#
# Loaded again through the path every real checkpoint takes. What FedMRG could not use is refused here, before any run: missing
# weights, layers without these names, too few positions.

# %%
build_report_generator(settings, load_method("fedmrg"), folder, seed)
llm, tokenizer = load_language_model(sizes.sources(folder)[0], getattr(torch, sizes.precision))
llm = llm.to(compute_device())

# %% [markdown]
# Perplexity on the held-out reports, without and with phrase vectors. A model that knows nothing has the size of its vocabulary.

# %%
plain = making.perplexity(llm, tokenizer, texts)
steered = making.perplexity(llm, tokenizer, texts, states)
print(f"held-out perplexity {plain:.2f}, with phrase vectors {steered:.2f} (vocabulary {len(tokenizer)})")

# %% [markdown]
# Whether it writes what the vectors ask for: the labeller reads the states from what it wrote.

# %%
followed = states[: min(held_out, 64)]
read = numpy.array([label_report(text) for text in making.steered_reports(llm, tokenizer, followed)])
agreement = states_f1_micro(read, followed.numpy())
print(f"positive findings asked for by phrase vectors and written: micro-F1 {agreement:.2f}")

# %% [markdown]
# Reports that it makes up by itself, before any adapter.

# %%
for text in making.sample_reports(llm, tokenizer, 5, seed):
    print("·", text)
