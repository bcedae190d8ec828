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
# # 05b · One round by hand
#
# Notebooks 02 to 04 showed the pieces, notebook 06 runs the federation. Here is the step between: one round of FedMRG with
# three hospitals, without Flower, one step a cell. Every function is the one that the federation calls.
#
# 1. The server hands out the **shared** tensors. 2. Each hospital trains on its own studies. 3. It sends the shared tensors
# back, and nothing else of the model. 4. The server averages them. 5. Each hospital validates the mean with what it kept.
#
# Needs what notebooks 01 (the prepared data) and 05 (the base models) leave.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom"
seed = 0
workspace = ""  # where results are kept; the repository if empty
studies = [120, 80, 40]  # training studies of each hospital; shrunk, and different, so that the weights differ
validation_studies = 40  # of each hospital

# %% [markdown]
# The pieces come from `fedmrg_core`. From its `federation` and from Flower come only the container of a message and the rule
# of the average; no server is started.

# %%
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas
import torch
from flwr.app import MetricRecord, RecordDict
from torch.nn import functional

from fedmrg_core.contrast import inter_client_contrast
from fedmrg_core.data.prepared import load_prepared
from fedmrg_core.data.sources import corpus_name
from fedmrg_core.data.tensors import ClientTensors
from fedmrg_core.errors import InputError
from fedmrg_core.federation.messages import ARRAYS, EXAMPLES, METRICS, PROTOTYPES, from_record, module_of, to_record
from fedmrg_core.federation.server_rules import make_strategy
from fedmrg_core.paths import base_models_folder, prepared_folder, workspace_folder
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.runs.methods import Ownership, load_method
from fedmrg_core.tasks.reports.build import build_report_generator
from fedmrg_core.tasks.reports.client_batches import ClientBatches
from fedmrg_core.tasks.reports.leaving import leaving
from fedmrg_core.tasks.reports.local_training import first_state, train_client, validate_client
from fedmrg_core.training.batch_statistics import pooled_statistics
from fedmrg_core.training.pretrained import compute_device
from figures.common import mark_synthetic

# %% [markdown]
# ## Three hospitals
#
# Each holds the first studies of one site. They are of different size, as real ones are: the largest will count most.

# %%
settings, root = load_profile(profile, data), workspace_folder(workspace)
prepared = load_prepared(prepared_folder(root, settings.name, data))
partition = prepared.deal("site", None, seed)
hospitals = list(partition.clients)[: len(studies)]
print(", ".join(hospitals))

# %% [markdown]
# A hospital reads its own images and reports. Nothing below hands one hospital's studies to another.


# %%
def first(name: str, split: str, count: int) -> ClientTensors:
    held = getattr(partition.clients[name], split)
    return ClientTensors(held.select(range(min(count, len(held)))))


train = {name: first(name, "train", count) for name, count in zip(hospitals, studies, strict=False)}
validation = {name: first(name, "validation", validation_studies) for name in hospitals}
pandas.DataFrame({"training": {n: len(train[n]) for n in train}, "validation": {n: len(validation[n]) for n in train}})

# %% [markdown]
# ## One model, two owners
#
# The row `fedmrg` of `methods.yaml` says of each module who owns it. *Shared* modules travel. *Personal* ones are trained in a
# hospital and stay there. The LLM is frozen: every hospital has the same, so it need not travel either.

# %%
method = load_method("fedmrg")
base_models = base_models_folder(root, settings.name, corpus_name(data))
model = build_report_generator(settings, method, base_models, seed).to(compute_device())
numbers = {module: sum(t.numel() for t in model.tensors_of(module).values()) for module in model.ownership}
pandas.DataFrame({"owner": {m: str(owner) for m, owner in model.ownership.items()}, "numbers": numbers})

# %% [markdown]
# ## Step 1: receive
#
# What the server hands out is a dictionary of tensors, named `module/tensor`. In the first round it is the start that the seed
# gives, the same for all. There is one model in memory, and the hospitals take turns with it: each loads all that it uses.

# %%
shared = {key: tensor.cpu().clone() for key, tensor in model.state(Ownership.SHARED).items()}
print(f"{len(shared)} shared tensors, {sum(tensor.numel() for tensor in shared.values()):,} numbers, such as:")
for key in [*shared][:3]:
    print(f"  {key} {tuple(shared[key].shape)}")

# %% [markdown]
# To see later what the round was worth, each hospital validates the start. `first_state` is what a hospital has before its first
# round: a specialised adapter that changes nothing yet, and how often each finding occurs in its own reports.

# %%
same = {"profile": settings, "method": method}
before = {}
for name in hospitals:
    fresh = first_state(model, train[name])
    before[name], _ = validate_client(model, validation[name], shared, fresh, client=name, **same)
pandas.Series({name: before[name]["validation_language_loss"] for name in hospitals}).round(3)

# %% [markdown]
# ## Step 2: train
#
# `train_client` is one hospital's part of a round: load the shared tensors, lay the personal ones over them, then take a step of
# AdamW for each batch. `None` says that the hospital kept nothing yet, and `{}` that there are no prototypes yet.

# %%
updates = {}
for name in hospitals:
    updates[name] = train_client(model, train[name], shared, None, {}, client=name, round_number=1, seed=seed, **same)
pandas.DataFrame({name: update.metrics for name, update in updates.items()}).round(3)

# %% [markdown]
# These are means over the steps of the round, one row a term of the loss. The adapters can hardly teach each other yet, because
# both began alike. L_inter is missing: it compares with prototypes, and the first round has none.

# %% [markdown]
# ## Step 3: send
#
# An update has two halves: what travels (`shared`, `prototype`, counts and means of losses), and `state`, which stays. A message
# is made of the first half only. Tensors travel as float32. (The federation adds how many seconds it took.)


# %%
def message_of(name: str) -> RecordDict:
    update = updates[name]
    counted = MetricRecord({**update.metrics, EXAMPLES: update.examples})
    prototype = to_record({name: update.prototype})
    return RecordDict({ARRAYS: to_record(update.shared), METRICS: counted, PROTOTYPES: prototype})


messages = {name: message_of(name) for name in hospitals}
print({name: list(message) for name, message in messages.items()})

# %% [markdown]
# The arrays in the first hospital's message, with shapes and bytes (128 of each array are its header). None is an image or a word
# of a report.

# %%
one = hospitals[0]
arrays = messages[one][ARRAYS].items()
rows = [(module_of(key), key.partition("/")[2], tuple(array.shape), len(array.data)) for key, array in arrays]
sent = pandas.DataFrame(rows, columns=["module", "tensor", "shape", "bytes"])
print(f"{len(sent)} arrays, {sent['bytes'].sum() / 2**20:.2f} MiB")
sent.groupby("module", sort=False).head(4)

# %% [markdown]
# The table shows at most four arrays of a module. The rest of the message is one vector, and a number for each metric.

# %%
vector = messages[one][PROTOTYPES][one]
print(f"prototype: shape {tuple(vector.shape)}, {len(vector.data)} bytes")
for metric, value in messages[one][METRICS].items():
    print(f"{metric}: {value:.4g}")

# %% [markdown]
# ## What may not be sent
#
# Which modules, metrics and vectors may leave is declared once, by the method. A hospital holds every message against that list.
# Here one tries to send its specialised adapter along:

# %%
declared = leaving(method, model.validated, model.feature_width)
declared.check(messages[one], declared.training)  # raises nothing
own = {key: t for key, t in updates[one].state.part("personal").items() if key.startswith("specialised_adapter")}
try:
    declared.check(RecordDict({ARRAYS: to_record({**updates[one].shared, **own})}), declared.training)
except InputError as error:
    print("refused:", error)

# %% [markdown]
# ## What stays
#
# The specialised adapter, BatchNorm statistics of the hospital's own, the moments of AdamW, and the disease weights (how often
# each finding occurs). In the picture both halves of an update, module by module.

# %%
state = updates[one].state.tensors.items()
rows = [(key.split("/")[0], tensor.numel() * tensor.element_size()) for key, tensor in state]
kept = pandas.DataFrame(rows, columns=["part", "bytes"])
parts = pandas.DataFrame({"sent": sent.groupby("module")["bytes"].sum(), "stays": kept.groupby("part")["bytes"].sum()})
(parts.fillna(0) / 1024).round(1).rename_axis(columns="KiB")

# %% [markdown]
# The optimiser's moments are the largest part, and they stay.

# %%
figure, axis = plt.subplots(figsize=(7, 3))
(parts / 2**20).sort_values(["sent", "stays"]).plot.barh(stacked=True, ax=axis, color=["C0", "C1"])
axis.set(xlabel="MiB of one hospital and round", ylabel="", title="what is sent, and what stays")
mark_synthetic(figure, data)

# %% [markdown]
# ## Step 4: average
#
# $$ \bar{w} = \sum_k \frac{n_k}{\sum_j n_j}\, w_k $$
#
# The server knows of a hospital its tensors and how many studies they were trained on. That is enough for FedAvg:

# %%
counts = [update.examples for update in updates.values()]
weights = [count / sum(counts) for count in counts]
sent_tensors = [from_record(messages[name][ARRAYS]) for name in hospitals]
mean = {key: sum(w * tensors[key] for w, tensors in zip(weights, sent_tensors, strict=True)) for key in shared}
print({name: round(weight, 3) for name, weight in zip(hospitals, weights, strict=True)})

# %% [markdown]
# One kind of tensor is not averaged so: BatchNorm's variances. The variance of all images together is the mean of the variances
# **and** how far the hospitals' means lie apart. Without the second part it would be too small, by so much:

# %%
pooled = pooled_statistics(sent_tensors, weights)
ratios = [(mean[key] / pooled[key]).min().item() for key in pooled if key.endswith("running_var")]
print(f"{len(pooled)} tensors of statistics; the plain mean has at least {min(ratios, default=1):.0%} of the variance")
mean |= pooled

# %% [markdown]
# The federation does the same with Flower's FedAvg, to which it hands arrays and counts; prototypes it puts aside before. A reply
# is here whatever has a content and no error.

# %%
contents = [RecordDict({ARRAYS: message[ARRAYS], METRICS: message[METRICS]}) for message in messages.values()]
replies = [SimpleNamespace(content=content, has_error=lambda: False) for content in contents]
record, _ = make_strategy(method.server).aggregate_train(1, replies)
averaged = from_record(record)

# %% [markdown]
# Both ways have come to the same tensors, but for the last digits of float32 sums.

# %%
difference = max((averaged[key] - mean[key]).abs().max().item() for key in mean)
assert averaged.keys() == mean.keys() and difference < 1e-5
print(f"largest difference between this average and the server's: {difference:.1e}")

# %% [markdown]
# ## Step 5: validate
#
# The mean goes back to every hospital. It lays its specialised adapter and its own BatchNorm statistics over it, and reads its
# validation studies. What it answers is numbers. Of its state only the disease weights change, and all of it stays.

# %%
after, states = {}, {}
for name in hospitals:
    state = updates[name].state
    after[name], states[name] = validate_client(model, validation[name], mean, state, client=name, **same)
pandas.DataFrame(after).round(3)

# %% [markdown]
# One round is little, and should be seen already: the language loss falls in every hospital. It is the mean over both adapters.

# %%
pairs = {"before": before, "after one round": after}
measure = "validation_language_loss"
losses = pandas.DataFrame({when: {n: found[n][measure] for n in found} for when, found in pairs.items()})
figure, axis = plt.subplots(figsize=(6, 3))
losses.plot.bar(ax=axis, rot=0)
axis.set(ylabel="language loss in nats a token", title="validation studies of each hospital")
mark_synthetic(figure, data)

# %% [markdown]
# ## The hospitals' own tensors
#
# All hospitals have the same shared tensors again. Their specialised adapters differ, from the start and from each other, and
# the server's mean has no such key.

# %%
key = next(key for key in own if key.endswith("lora_B"))
adapters = {name: states[name].tensors[f"personal/{key}"] for name in hospitals}
print(key, "is among the server's tensors:", key in mean)
apart = {a: {b: (adapters[a] - adapters[b]).norm().item() for b in hospitals} for a in hospitals}
pandas.DataFrame(apart).round(3).rename_axis("distance between")

# %% [markdown]
# ## What a prototype is
#
# The mean feature of a hospital's training images, under the shared model as it came: one vector. Here it is
# computed once more, image by image.

# %%
model.load_state(shared)
features = {name: ClientBatches(model, train[name], settings).features(model).cpu() for name in hospitals}
prototypes = {name: updates[name].prototype for name in hospitals}
for name in hospitals:
    difference = (features[name].mean(dim=0) - prototypes[name]).abs().max().item()
    print(f"{name}: {tuple(features[name].shape)} features, their mean differs from what was sent by {difference:.0e}")

# %% [markdown]
# ## How prototypes are exchanged
#
# The server does not average them. It keeps the last one of each hospital, and hands all of them out with the next request to train.
# So a hospital learns one vector about each of the others, and no image. A cosine near 1 says that two hospitals' images look
# alike to the encoder.

# %%
table = functional.normalize(torch.stack([*prototypes.values()]), dim=1)  # (K, D)
pandas.DataFrame((table @ table.T).numpy(), hospitals, hospitals).round(3)

# %% [markdown]
# ## What they are for
#
# L_inter asks of every image: which hospital's prototype is its feature closest to? It is low where the answer is the image's
# own hospital. Guessing would cost the logarithm of the number of hospitals.

# %%
temperature = settings.training.contrast_temperature
centres = torch.stack([*prototypes.values()])
for own_row, name in enumerate(hospitals):
    loss = inter_client_contrast(features[name], centres, own_row, temperature).item()
    print(f"{name}: L_inter {loss:.3f}; guessing {torch.tensor(float(len(hospitals))).log():.3f}")

# %% [markdown]
# ## The second round begins
#
# The same call, now with the mean, the hospital's own state and all prototypes. L_inter appears among the terms.

# %%
second = train_client(model, train[one], mean, states[one], prototypes, client=one, round_number=2, seed=seed, **same)
rounds = {"round 1": updates[one].metrics, "round 2": second.metrics}
pandas.DataFrame(rounds).round(3)

# %% [markdown]
# ## What to take along
#
# A round is a dictionary that goes down, dictionaries that come up, and a weighted mean. The rest of the federation is for what goes
# wrong, a hospital that fails, a message cut off or a run that is killed, and for fewer bytes. Notebook 06 runs all of it.
