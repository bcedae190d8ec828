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
# # 06 · One federated run
#
# The unit of experiment: one method, one data set, one partition, one seed, one profile. Each hospital trains on its own
# studies; the encoder, the projection, the diagnosis head, the prompt table and the **generic** adapter travel, and one mean
# feature vector of the client, its prototype; the **specialised** adapter and the optimiser's state stay [secondary]. The
# server averages the parameters with Flower's FedAvg, hands the prototypes on, and sees no image and no report [paper].
#
# Killed at any moment and started again, this notebook goes on from the last finished round and ends with the same bytes.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom"  # phantom, iu_xray, folder
partition = "site"  # site, style, random, dirichlet
clients = 0  # how many; 0: as many as the partition makes by itself
unseen = ""  # sites held out, joined by commas or as a JSON list; empty: those the data were prepared with
method = "fedmrg"  # a row of methods.yaml
variant = ""  # numbers that differ from profile and row, see docs/running.md
seed = 0
engine = "in-process"  # or "simulation": flwr run
threads = 1  # CPU threads of each hospital; the last bits of the result depend on their number
workers = 0  # hospitals at work at the same time; 0: one a core, one on a GPU. The result does not depend on it
identities = ""  # a chain with an identity for every hospital: embedded, or the URL of an EVM node; empty: none
workspace = ""  # where results are kept; the repository if empty

# %% [markdown]
# The rounds are run by `fedmrg_core/federation/run.py`; what it leaves is read here as everybody reads it, from the run folder.

# %%
import matplotlib.pyplot as plt
import pandas
import seaborn

from fedmrg_core.federation.messages import PROTOTYPES
from fedmrg_core.federation.round_record import LEFT_OUT, NOT_VALIDATED
from fedmrg_core.federation.run import run_federation
from fedmrg_core.federation.task import load_task
from fedmrg_core.files.stored_tables import read_table
from fedmrg_core.paths import workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.runs.run_configuration import write_configuration
from fedmrg_core.training.trained_model import parameter_counts
from figures import common, convergence

# %% [markdown]
# The settings say which run this is, and so in which folder it lies.

# %%
run = RunSettings(profile=profile, data=data, partition=partition, clients=clients, unseen=unseen, method=method,
                  variant=variant, seed=seed)  # fmt: skip
root = workspace_folder(workspace)
folder = run.folder(root)
settings, row = run.load()
print(f"{run.name}: {row.description}")

# %% [markdown]
# ## What leaves a hospital
#
# Ownership is declared in `methods.yaml`, module by module; what travels follows from it. Numbers are parameters.

# %%
folder.mkdir(parents=True, exist_ok=True)
configuration = write_configuration(folder, run.configuration(root, threads, identities))
counts = parameter_counts(load_task(folder).model)
print(", ".join(f"{name} {count:,}" for name, count in counts.items()))
pandas.DataFrame([(module, str(owner)) for module, owner in row.modules.items()], columns=["module", "owner"])

# %% [markdown]
# The whole list, by name, as the code holds it against every message. What is not on it is refused before it is sent, and again
# when it arrives.

# %%
listed = pandas.DataFrame(load_task(folder).leaving().rows())
listed.style.set_uuid("leaving").hide().set_properties(**{"text-align": "left"})

# %% [markdown]
# ## The run
#
# $$ L = L_{LM}^{generic} + L_{LM}^{specialised} + \lambda_{cls}\,L_{cls} + \lambda_{rep}(L_{inter} + L_{intra}) + \lambda_{kd}(L_{g2l} + L_{l2g}) $$
#
# The terms are [paper] and [secondary], this sum is ours [ours]. The weights below come from `methods.yaml`: $\lambda_{cls}$ is
# `classification`, $\lambda_{rep}$ the two of `contrast`, $\lambda_{kd}$ those from one adapter to the other.

# %%
print("\n".join(f"{name}: {weight:g}" for name, weight in row.losses if weight))
run_federation(folder, configuration, engine=engine, workers=workers)

# %% [markdown]
# ## What came of it
#
# One row a round and client; replies that were left out with their reason. A client that had a pause (partial participation)
# is `not_sampled`, not left out. The round that is kept is the one with the lowest mean validation loss over clients, and
# where nothing is shared (`local`) each hospital's own best one [ours]; test studies are not touched here.
#
# With L_inter `train_loss` may rise in the last rounds: near the shared model, where small steps stay, the features of the
# clients are hardly to be told apart (`docs/tried.md`).

# %%
rounds = read_table(folder / "rounds.csv", ("round", "client"), "run this notebook again")
left_out = rounds[rounds.status.isin([LEFT_OUT, NOT_VALIDATED])]
print(f"{rounds['round'].max()} rounds, {rounds.client.nunique()} clients, {len(left_out)} replies left out")
shown = [name for name in rounds.columns if name.startswith(("train_loss", "validation_"))]
rounds.groupby("round")[shown].mean().round(3)

# %% [markdown]
# The same by client. Hospitals differ in how hard their wording is, so lines need not meet.

# %%
named = rounds.assign(client=rounds.client.map(common.plain))
curves = [name for name in ("validation_language_loss", "validation_head_auroc") if name in rounds]
figure, axes = plt.subplots(1, len(curves), figsize=(5 * len(curves), 3.2), squeeze=False)
for axis, name in zip(axes[0], curves, strict=True):
    seaborn.lineplot(named, x="round", y=name, hue="client", palette="colorblind", legend=name == curves[-1], ax=axis)
    axis.set(title="validation studies", ylabel=convergence.MEASURES[name])
axes[0][-1].legend(title="client", loc="upper left", bbox_to_anchor=(1.0, 1.0))
figure.tight_layout()
common.mark_synthetic(figure, data)
plt.show()

# %% [markdown]
# ## Bytes on the wire
#
# Measured on the serialised messages, not computed from parameter counts.

# %%
ledger = read_table(folder / "ledger.csv", ("module", "direction"), "run this notebook again")
travelling = [module for module, owner in row.modules.items() if owner is Ownership.SHARED]
by_module = ledger[ledger.module.isin([*travelling, PROTOTYPES])].pivot_table("bytes", "module", "direction", "sum")
(by_module / 2**20).round(3).rename_axis(columns="MiB in all")
