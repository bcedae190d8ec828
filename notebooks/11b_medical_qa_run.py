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
# # 11b · One run of medical questions
#
# The unit of experiment of this task, as notebooks 06 and 07 are of the reports: one row of `methods_medical_qa.yaml`, one data
# set, one seed, one profile. The workflow runs it for every run of an experiment. Notebook 11 explains what happens here.
#
# Killed at any moment and started again, it goes on from the last finished round and ends with the same bytes.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "medical_world"  # or medquad, medmcqa, medqa, pubmedqa
data_root = ""  # the folder of a public set
options = "{}"  # how it is read, as JSON or YAML
partition = "site"  # questions lie where they were asked; random: each part of a public set is dealt at random
clients = 0  # as many as the data have; with random to how many they are dealt
unseen = ""  # this task leaves no client out
method = "fed-lora"  # a row of methods_medical_qa.yaml
variant = ""  # numbers that differ from profile and row, see docs/running.md
seed = 0
base_models = "stored"  # of the repository, where it has one of the profile; fresh: built here
threads = 1  # CPU threads of each hospital; the last bits of the result depend on their number
workers = 0  # hospitals at work at the same time; 0: one a core, one on a GPU. The result does not depend on it
identities = ""  # a chain with an identity for every hospital: embedded, or the URL of an EVM node; empty: none
workspace = ""  # where results are kept; the repository if empty

# %% [markdown]
# What is read here lies in the run folder, for everybody to read again.

# %%
import pandas

from fedmrg_core.federation.run import run_federation
from fedmrg_core.paths import workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.tasks.medical_qa.evaluating import evaluate_run
from fedmrg_core.tasks.medical_qa.inputs import prepare_inputs
from fedmrg_core.tasks.medical_qa.measures import NAMES

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
# Questions and base model are prepared by the run that comes first. The others find them.

# %%
summary, description = prepare_inputs(run, root, data_root, options, base_models)
pandas.DataFrame(summary["questions"]).T.rename_axis("questions of")

# %% [markdown]
# ## The rounds
#
# Each hospital trains on its own questions, and the server averages what is shared. The round that is kept is the one with the lowest
# mean validation loss. No test question is read before the model is chosen.

# %%
run_federation(folder, run.configuration(root, threads, identities), workers=workers)
rounds = pandas.read_csv(folder / "rounds.csv")
shown = [name for name in rounds if name.startswith(("train_loss", "validation_"))]
rounds.groupby("round")[shown].mean().round(3)

# %% [markdown]
# ## The answers
#
# Every client's test questions, under the model that validation chose; and, as a floor, under the base model as it came.

# %%
metrics = evaluate_run(folder, workers)
home = metrics[(metrics["scope"] == "home") & metrics["metric"].isin(NAMES)].copy()
home["answer"] = home["adapter"].where(home["system"] == "model", "base model")
home.pivot_table(index="answer", columns="metric", values="value").rename(columns=NAMES).T.round(3)
