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
# # 02 · The client-aware contrastive encoder
#
# Images differ between hospitals: another scanner, another contrast curve, another projection. FedMRG trains its encoder
# so that features **generalise globally and stay locally distinctive** [paper]. Two InfoNCE terms do it [secondary]; their
# exact form here is ours [ours]. Both stand in `fedmrg_core/contrast.py`.
#
# Needs what notebooks 01 (the prepared data) and 05 (the base models) leave.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom"
seed = 0
workspace = ""  # where results are kept; the repository if empty
studies_per_centre = 64  # shrunk from the profile's own count
steps = 30

# %% [markdown]
# The encoder comes from `fedmrg_core/encoder.py`, its two losses from `fedmrg_core/contrast.py`, statistics from
# `fedmrg_core/training/batch_statistics.py`.

# %%
import copy

import matplotlib.pyplot as plt
import numpy
import pandas
import seaborn
import torch
from sklearn.decomposition import PCA
from tqdm.auto import tqdm

from fedmrg_core.contrast import inter_client_contrast, intra_client_contrast
from fedmrg_core.data.partition import partition_clients
from fedmrg_core.data.prepared import load_prepared
from fedmrg_core.data.sources import corpus_name
from fedmrg_core.data.tensors import ClientTensors
from fedmrg_core.encoder import VisualProjection, load_encoder
from fedmrg_core.paths import base_models_folder, prepared_folder, workspace_folder
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.seeds import numpy_stream, stream_seed
from fedmrg_core.training.batch_statistics import is_statistic, pooled_statistics
from figures.common import mark_synthetic

# %% [markdown]
# The profile has the sizes, the workspace what was made before. The seed decides every random number below.

# %%
settings, root = load_profile(profile, data), workspace_folder(workspace)
_ = torch.manual_seed(stream_seed(seed, "notebook", "contrast"))

# %% [markdown]
# ## Tokens, a pooled feature, a projection
#
# The encoder E turns an image into M tokens V of width d_v; their mean is the pooled feature z [paper]. P, a linear map and a
# LayerNorm, brings both to the LLM's width D, and h = P(z) is what the contrast compares [ours].

# %%
prepared = load_prepared(prepared_folder(root, settings.name, data))
partition = partition_clients(prepared.studies, "site", seed=seed, unseen_sites=prepared.unseen_sites)
clients = {name: ClientTensors(part.train.select(range(min(studies_per_centre, len(part.train)))))
           for name, part in partition.clients.items()}  # fmt: skip

# %% [markdown]
# An image becomes so many tokens of such a width, and one pooled feature.

# %%
encoder = load_encoder(settings.base_models.sources(base_models_folder(root, settings.name, corpus_name(data)))[1])
projection = VisualProjection(encoder.width, settings.base_models.llm_width)
seen = encoder.eval()(clients[next(iter(clients))].images(range(2)))
print("tokens", tuple(seen.tokens.shape), "· pooled", tuple(seen.pooled.shape))

# %% [markdown]
# ## Whose BatchNorm statistics?
#
# In training BatchNorm standardises by the statistics of a client's own batch, so the averaged weights have seen each
# centre's images standardised by that centre. So a hospital reads the shared weights with its own statistics [related: SiloBN],
# and the server pools them for centres that never trained [ours]. What that was worth: `docs/tried.md`.
#
# First the means and variances in every layer, on the images of one centre:


# %%
def statistics(part: ClientTensors) -> dict[str, torch.Tensor]:
    """Means and variances in every BatchNorm layer of the encoder on one client's images."""
    reader = copy.deepcopy(encoder).train()
    for layer in reader.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0  # this batch and nothing before it
    with torch.no_grad():
        reader(part.images(range(len(part))))
    return {key: tensor for key, tensor in reader.state_dict().items() if is_statistic(key)}


# %% [markdown]
# How far each centre's own means lie from those of all images together, in standard deviations.

# %%
own = {name: statistics(part) for name, part in clients.items()}
together = pooled_statistics(list(own.values()), [1 / len(own)] * len(own))
rows = []
for layer, key in enumerate(key for key in together if key.endswith("running_mean")):
    deviation = together[key.replace("running_mean", "running_var")].sqrt()
    for name, found in own.items():
        distance = ((found[key] - together[key]).abs() / deviation).mean().item()
        rows.append({"BatchNorm layer": layer + 1, "centre": name, "distance of means": distance})

# %% [markdown]
# Layer by layer, the first at the left. The further a line is above zero, the worse the pooled mean fits that centre.

# %%
if rows:  # a transformer has none
    figure, axis = plt.subplots(figsize=(6, 3.4))
    table, looks = pandas.DataFrame(rows), {"hue": "centre", "palette": "colorblind"}
    seaborn.lineplot(table, x="BatchNorm layer", y="distance of means", ax=axis, **looks)
    axis.set(ylim=(0, None), ylabel="distance of means (standard deviations)")
    mark_synthetic(figure, data)
    plt.show()

# %% [markdown]
# ## L_inter: against the clients' prototypes
#
# $$ L_{inter} = -\log \frac{e^{\cos(h,\mu_{own})/\tau}}{\sum_k e^{\cos(h,\mu_k)/\tau}} $$
#
# mu_k is the mean feature of client k: one vector of width D a client. Here in two dimensions, with three prototypes and an h
# that points in every direction.

# %%
prototypes = torch.tensor([[1.0, 0.0], [-0.5, 0.866], [-0.5, -0.866]], dtype=torch.float64)
angles = torch.linspace(-numpy.pi, numpy.pi, 181, dtype=torch.float64)
directions = torch.stack([angles.cos(), angles.sin()], dim=1)

# %% [markdown]
# The loss is low where h points along its own prototype. The smaller tau, the steeper.

# %%
figure, axis = plt.subplots(figsize=(6, 3))
for tau in (0.07, 0.3, 1.0):
    values = [inter_client_contrast(d[None], prototypes, 0, tau).item() for d in directions]
    axis.plot(angles, values, label=f"tau = {tau}")
axis.legend(loc="lower left")
_ = axis.set(xlabel="direction of h in radians (own prototype at 0)", ylabel="L_inter", yscale="log")

# %% [markdown]
# ## L_intra: against the global encoder's view of the same image
#
# $$ L_{intra} = -\frac1B\sum_i \log \frac{e^{\cos(h_i,h_i^{global})/\tau}}{\sum_j e^{\cos(h_i,h_j^{global})/\tau}} $$
#
# h^global comes from the encoder as it arrived from the server, which is not trained (MOON's positive pair [related]). It keeps local
# training from drifting away. At the very start both encoders are one, and the loss is as low as the images are different.

# %%
client = next(iter(clients.values()))
with torch.no_grad():
    h = projection(encoder(client.images(range(16))).pooled)
    shuffled = h[torch.randperm(16)]
    same, mixed = intra_client_contrast(h, h, 0.07), intra_client_contrast(h, shuffled, 0.07)
print(f"same images {same:.2f} · shuffled {mixed:.2f}")

# %% [markdown]
# ## A few steps of the contrast alone
#
# Centre after centre takes a step on L_inter + L_intra, prototypes and the global view fixed, as in one round of the
# federation. Nothing else is trained here, so the picture shows what this loss does by itself. The features before it:


# %%
def features() -> dict[str, torch.Tensor]:
    """h of every study, by client."""
    encoder.eval()
    with torch.no_grad():
        return {name: projection(encoder(part.images(range(len(part)))).pooled) for name, part in clients.items()}


before = features()
means = torch.stack([part.mean(dim=0) for part in before.values()])

# %% [markdown]
# One step of one centre, on 16 of its images.


# %%
def take_step(step: int, own: int, name: str) -> dict[str, float]:
    chosen = numpy_stream(seed, "notebook", step, name).integers(len(clients[name]), size=16)
    h = projection(encoder.train()(clients[name].images(chosen)).pooled)
    inter = inter_client_contrast(h, means, own, settings.training.contrast_temperature)
    intra = intra_client_contrast(h, before[name][chosen], settings.training.contrast_temperature)
    optimiser.zero_grad()
    (inter + intra).backward()
    optimiser.step()
    return {"step": step, "L_inter": inter.item(), "L_intra": intra.item()}


# %% [markdown]
# Encoder and projection learn; the LLM has no part in this loss.

# %%
optimiser = torch.optim.AdamW([*encoder.parameters(), *projection.parameters()], lr=5e-4)
history = []
for step in tqdm(range(steps), desc="contrast"):
    history += [take_step(step, own, name) for own, name in enumerate(clients)]

# %% [markdown]
# On the phantom L_inter falls and L_intra stays: features move to their centre's prototype and still tell one image from another.

# %%
curves = pandas.DataFrame(history).melt("step", var_name="term", value_name="loss")
figure, axis = plt.subplots(figsize=(6, 3.4))
seaborn.lineplot(curves, x="step", y="loss", hue="term", palette="colorblind", ax=axis)
axis.set(ylabel="loss in nats", ylim=(0, None), title="mean over centres, band: 95% interval")
mark_synthetic(figure, data)

# %% [markdown]
# ## Before and after
#
# Two principal components of h, for every study.


# %%
def in_two_dimensions(parts: dict[str, torch.Tensor]) -> pandas.DataFrame:
    directions = torch.nn.functional.normalize(torch.cat([*parts.values()]), dim=1)
    first, second = PCA(2, random_state=0).fit_transform(directions).T
    names = [name for name, part in parts.items() for _ in range(len(part))]
    return pandas.DataFrame({"first component": first, "second component": second, "centre": names})


# %% [markdown]
# Afterwards the centres are further apart than before: features have become *locally distinctive*. Not all of them have after so
# few steps: on the phantom with the values above, centres a and b still overlap. What keeps the features useful for diagnosis is
# the rest of the loss, in notebook 06.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 4))
looks = {"hue": "centre", "style": "centre", "s": 18, "palette": "colorblind"}
for axis, (title, parts) in zip(axes, {"before": before, "after": features()}.items(), strict=True):
    table = in_two_dimensions(parts)
    seaborn.scatterplot(table, x="first component", y="second component", ax=axis, legend=title == "after", **looks)
    axis.set(title=title, ylabel="second component" if title == "before" else "")
axes[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
figure.tight_layout()
mark_synthetic(figure, data)
