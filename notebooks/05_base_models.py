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
# The embedded default needs no download: it builds both from nothing on a **public corpus kept apart from every client's
# data** and saves them in the ordinary Hugging Face layout. Everything in this notebook is ours [ours].

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom"  # whose public corpus to learn from
data_root = ""  # folder of a real data set
seed = 0
workspace = ""  # where results are kept; the repository if empty

# %%
import json
import sys
import time

import datasets
import matplotlib.pyplot as plt
import numpy
import seaborn
import torch
import transformers

from fedmrg_core import base_models
from fedmrg_core.configuration import load_profile
from fedmrg_core.data.prepared import load_public_studies
from fedmrg_core.data.sources import DATA_SOURCES, corpus_name, data_source
from fedmrg_core.paths import REPOSITORY, base_models_folder, workspace_folder

print("torch", torch.__version__, "· transformers", transformers.__version__)
datasets.disable_progress_bars()
settings = load_profile(profile, data)
sizes = settings.base_models
folder = base_models_folder(workspace_folder(workspace), settings.name, corpus_name(data))
sys.path.append(str(REPOSITORY))  # figures/ is a folder of scripts, not part of the installed package
from figures.common import mark_synthetic

# %% [markdown]
# ## The public corpus
#
# Reports in a mixed, neutral wording and images in a jittered, neutral acquisition. No client's study is among them. A
# tenth is held out to measure what the models learned.

# %%
public = load_public_studies(data, data_root, sizes.public_studies, settings.image_size, seed)
held_out = len(public.texts) // 10
print(f"{len(public.texts)} public reports, {len(public.images)} public images, {held_out} reports held out")
for text in public.texts[:3]:
    print("·", text)

# %% [markdown]
# ## The frozen LLM
#
# A byte-level tokenizer, then a LLaMA that reads `<s> Findings: … </s>`. In most batches 14 *phrase vectors* stand
# in front of the report, one a finding: the mean embedding of words such as *cardiomegaly* and *positive*. A large LLM follows
# such hints unasked; a small one has to be shown once. The diagnosis prompts of notebook 03 start from the same vectors.

# %%
base_models.check_sizes(sizes)
description = {"profile": sizes.model_dump(mode="json"), "data": data, "seed": seed, "corpus": public.fingerprint}
built_here = sizes.llm is None or sizes.backbone is None
ready = base_models.saved_description(folder) == json.loads(json.dumps(description))
started = time.perf_counter()
losses = {}
if built_here and not ready:
    llm, tokenizer, losses["LLM"] = base_models.pretrain_llm(
        public.texts[held_out:], public.text_states[held_out:], sizes, seed
    )
    print(f"{sum(p.numel() for p in llm.parameters()) / 1e6:.2f} M parameters, {time.perf_counter() - started:.0f} s")

# %% [markdown]
# ## The visual backbone
#
# A ResNet of four stages, taught to name the 14 × 4 states of public images. It only has to start somewhere better than
# random: the encoder goes on training in the federation.

# %%
if built_here and not ready:
    backbone, losses["backbone"] = base_models.pretrain_backbone(public.images, public.image_states, sizes, seed)
    base_models.save_base_models(folder, llm, tokenizer, backbone, description)
    print(f"{sum(p.numel() for p in backbone.parameters()) / 1e6:.2f} M parameters")
    print(f"both models: {time.perf_counter() - started:.0f} s")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3))
    for axis, (name, values) in zip(axes, losses.items(), strict=True):
        seaborn.lineplot(values, ax=axis)
        axis.set(title=f"{name}, public corpus", xlabel="step", ylabel="loss in nats", ylim=(0, None))
    figure.tight_layout()
    of_the_phantom = data_source(data).public_corpus == DATA_SOURCES["phantom"].public_corpus  # so is that of a folder
    mark_synthetic(figure, "phantom" if of_the_phantom else data)
    plt.show()
else:
    print("nothing to build:", "already there" if built_here else "the profile names both checkpoints")

# %% [markdown]
# ## Does it write report English?
#
# Loaded again through the path every real checkpoint takes. Perplexity on the held-out reports, without and with phrase
# vectors; a model that knows nothing has the size of its vocabulary. Whether it writes what the vectors ask for. Then reports it makes up by itself, before any adapter.

# %%
from fedmrg_core.evaluation.clinical_metrics import states_f1_micro
from fedmrg_core.findings import label_report
from fedmrg_core.pretrained import compute_device, load_pretrained, load_tokenizer

llm_source = sizes.llm or folder / "llm"
precision = getattr(torch, sizes.precision)
llm = load_pretrained(transformers.AutoModelForCausalLM, llm_source, "LLM", precision).to(compute_device()).eval()
tokenizer = load_tokenizer(llm_source)
plain = base_models.perplexity(llm, tokenizer, public.texts[:held_out])
steered = base_models.perplexity(llm, tokenizer, public.texts[:held_out], public.text_states[:held_out])
followed = public.text_states[: min(held_out, 64)]
read = numpy.array([label_report(text) for text in base_models.steered_reports(llm, tokenizer, followed)])
agreement = states_f1_micro(read, followed.numpy())
print(f"held-out perplexity {plain:.2f}, with phrase vectors {steered:.2f} (vocabulary {len(tokenizer)})")
print(f"positive findings asked for by phrase vectors and written: micro-F1 {agreement:.2f}")
for text in base_models.sample_reports(llm, tokenizer, 5, seed):
    print("·", text)
