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
# # 03 · Diagnosis prompts
#
# A frozen LLM cannot see. FedMRG tells it what the image shows: a head predicts the **state** of each finding, and the states
# become **prompt tokens** [paper]. n findings times 4 states make a table of trainable prompts [secondary]; how the head is
# trained follows PromptMRG [related]. All of it stands in `fedmrg_core/prompts/`.
#
# Needs what notebooks 01 (the prepared data) and 05 (the base models) leave.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom"
seed = 0
workspace = ""  # where results are kept; the repository if empty
studies = 150  # shrunk from the profile's own count
epochs = 4

# %% [markdown]
# Prompts and their loss come from `fedmrg_core/prompts/`, the states of a report from the labeller.

# %%
import matplotlib.pyplot as plt
import numpy
import pandas
import seaborn
import torch
from tqdm.auto import tqdm

from fedmrg_core.data.findings import BLANK, FINDINGS, NEGATIVE, POSITIVE, STATES
from fedmrg_core.data.labeller import label_report
from fedmrg_core.data.labeller.explain import explain_report
from fedmrg_core.data.partition import partition_clients
from fedmrg_core.data.prepared import load_prepared
from fedmrg_core.data.sources import corpus_name
from fedmrg_core.data.tensors import ClientTensors
from fedmrg_core.encoder import load_encoder
from fedmrg_core.metrics.clinical import head_auroc
from fedmrg_core.paths import base_models_folder, prepared_folder, workspace_folder
from fedmrg_core.prompts import DiagnosisPrompts, classification_loss, initial_disease_weights, phrase_embeddings
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.seeds import numpy_stream, stream_seed
from fedmrg_core.tasks.reports.base_models import steered_reports
from fedmrg_core.training.language_models import load_language_model
from figures.common import mark_synthetic

# %% [markdown]
# The profile has the sizes, the workspace what was made before. The seed decides every random number below.

# %%
settings, root = load_profile(profile, data), workspace_folder(workspace)
_ = torch.manual_seed(stream_seed(seed, "notebook", "prompts"))

# %% [markdown]
# ## Fourteen findings, four states
#
# A report may affirm a finding, deny it, leave it open, or say nothing of it. The studies of one centre:

# %%
prepared = load_prepared(prepared_folder(root, settings.name, data))
partition = partition_clients(prepared.studies, "site", seed=seed, unseen_sites=prepared.unseen_sites)
name, part = next(iter(partition.clients.items()))
train = ClientTensors(part.train.select(range(min(studies, len(part.train)))))
validation = ClientTensors(part.validation)
print(f"{name}: {len(train)} training and {len(validation)} validation studies")

# %% [markdown]
# This is what its reports say of each finding. Most say nothing of most.

# %%
shares = [(train.states == state).double().mean(dim=0).numpy() for state in range(4)]
table = pandas.DataFrame(dict(zip(STATES, shares, strict=True)), index=FINDINGS)
figure, axis = plt.subplots(figsize=(7, 4))
table.plot.barh(stacked=True, color=seaborn.color_palette("colorblind", 4), ax=axis)
axis.set(title=f"states in the reports of {name}", xlabel="share of studies", xlim=(0, 1))
axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
mark_synthetic(figure, data)

# %% [markdown]
# ## States look up prompts
#
# The table has one row for each finding and state. It starts from the LLM's own embedding of words such as *pleural effusion
# positive* [ours], so a prompt means something before any training.

# %%
source, backbone = settings.base_models.sources(base_models_folder(root, settings.name, corpus_name(data)))
llm, tokenizer = load_language_model(source)
embed = llm.get_input_embeddings()
encoder = load_encoder(backbone)
prompts = DiagnosisPrompts(encoder.width, phrase_embeddings(tokenizer, embed))
print("table of prompts:", tuple(prompts.table.weight.shape))

# %% [markdown]
# Now one state is changed: the same reports, with an effusion denied and with one affirmed.

# %%
effusion, nothing = FINDINGS.index("pleural effusion"), FINDINGS.index("no finding")
denied = train.states[train.states[:, effusion] == NEGATIVE][:32]
affirmed = denied.clone()
affirmed[:, effusion], affirmed[:, nothing] = POSITIVE, BLANK

# %% [markdown]
# The frozen LLM reads these prompts alone, with no image and no adapter. It follows often, not always: it is small, and
# training is to make it follow.

# %%
for name, states in (("negative", denied), ("positive", affirmed)):
    reports = steered_reports(llm, tokenizer, states)
    share = numpy.mean([label_report(report)[effusion] == POSITIVE for report in reports])
    print(f"effusion {name}: affirmed in {share:.0%} of {len(reports)} reports, such as:\n  {reports[0]}")

# %% [markdown]
# ## Why the labeller reads a report so
#
# Every clinical number of this project comes from the labeller: it reads 14 states from a text by rules, one step a module of
# `fedmrg_core/data/labeller/`. For each mention it can say which words decided it and how far those words reach. `fedmrg label --explain FILE`
# prints the same for reports of your own, one a line.

# %%
print(explain_report(train.texts[0]))
print()
report = "No pneumothorax, 8 mm nodule at the left base. Pneumonia cannot be excluded. Heart size is normal."
print(explain_report(report))

# %% [markdown]
# ## The logit adjustment
#
# $$ L_{cls} = \mathrm{CE}\big(s + \eta \log p_d \cdot [\text{state} = \text{positive}]\big) $$
#
# p_d starts at the finding's base rate over the largest [related]. In training log p_d <= 0 lowers the positive logit, so the
# head has to push harder for rare findings; at inference the adjustment is gone and the push remains. eta is 1 in PromptMRG
# [related]; the profiles have less (`logit_adjustment`), or the head affirms very rare findings far too often [ours]. What one
# positive study costs, with either:

# %%
logits = torch.zeros(1, len(FINDINGS), len(STATES))
logits[..., POSITIVE] = 1.0
positive = torch.full((1, len(FINDINGS)), POSITIVE)
eta = settings.training.logit_adjustment
for weight in (1.0, 0.3, 0.05):
    costs = [classification_loss(logits, positive, torch.full((14,), weight), each).item() for each in (1.0, eta)]
    print(f"p_d = {weight:4}: loss {costs[0]:.2f} with eta = 1, {costs[1]:.2f} with eta = {eta:g}")

# %% [markdown]
# ## The head learns
#
# Encoder and head learn at one centre, nothing else does.

# %%
weights = initial_disease_weights(train.states)
optimiser = torch.optim.AdamW([*encoder.parameters(), *prompts.head.parameters()], lr=1e-3)

# %% [markdown]
# One step on a batch:


# %%
def take_step(chosen: numpy.ndarray) -> float:
    seen = encoder.train()(train.images(chosen))
    out = prompts(seen.tokens, seen.pooled, train.states[chosen])
    loss = classification_loss(out.auxiliary["state_logits"], train.states[chosen], weights, eta)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


# %% [markdown]
# A few epochs, each in an order of its own.

# %%
losses = []
for epoch in tqdm(range(epochs), desc="epochs"):
    order = numpy_stream(seed, "notebook", "prompts", epoch).permutation(len(train))
    batches = numpy.array_split(order, max(1, len(order) // settings.training.batch_size))
    losses += [take_step(chosen) for chosen in batches]
print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}")

# %% [markdown]
# Area under the ROC curve of the positive state on validation studies, for the findings that occur both ways there.

# %%
with torch.no_grad():
    seen = encoder.eval()(validation.images(range(len(validation))))
    probabilities = prompts(seen.tokens, seen.pooled).auxiliary["state_logits"].softmax(-1)
auroc = pandas.Series(head_auroc(probabilities.numpy(), validation.states.numpy())).dropna()
print(f"mean AUROC {auroc.mean():.2f} on {len(validation)} validation studies")

# %% [markdown]
# By finding, and beside it how many studies are positive. Where these are few, one study more or less moves the area a lot: one near
# 0.5 neither shows that the head misses the finding nor that it sees it.

# %%
positives = pandas.Series((validation.states == POSITIVE).sum(dim=0).numpy(), FINDINGS)
pandas.DataFrame({"AUROC": auroc.round(2), "positive studies": positives}).loc[auroc.index]
