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
# # 08 · Figures
#
# Every figure is one script in `figures/` that reads stored results only, and writes a vector file, a PNG and a CSV of
# what it shows. Adding a figure is adding a script.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom"
partition = "site"
clients = 0
unseen = ""
method = "fedmrg"  # a row of methods.yaml
variant = ""
seed = 0
workspace = ""  # where results are kept; the repository if empty

# %% [markdown]
# A figure is `draw(run_folders, out_folder)` of its script; `show` puts the PNG under this cell.

# %%
from fedmrg_core.data import publishing
from fedmrg_core.paths import workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from figures.showing import show

# %% [markdown]
# The run that notebook 07 evaluated under the same settings, and the data it was made from.

# %%
run = RunSettings(profile=profile, data=data, partition=partition, clients=clients, unseen=unseen, method=method,
                  variant=variant, seed=seed)  # fmt: skip
root = workspace_folder(workspace)
folder = run.folder(root)
out = folder / "figures"

# %% [markdown]
# ## Convergence by round
#
# Losses that fall and flatten have been trained long enough.

# %%
from figures import convergence

show(convergence.draw([folder], out))

# %% [markdown]
# ## Quality by client and on the unseen centre, by adapter
#
# Whether the specialised adapter is ahead at home, and which hospital is served worst.

# %%
from figures import quality_by_client

show(quality_by_client.draw([folder], out))

# %% [markdown]
# ## Bytes by round and module
#
# Measured on the messages, up and down.

# %%
from figures import communication

show(communication.draw([folder], out))

# %% [markdown]
# ## Feature map, by centre and by finding
#
# Features of the test images in two dimensions, coloured twice.

# %%
from figures import feature_map

show(feature_map.draw([folder], out))

# %% [markdown]
# ## How far the clients are apart, in text and in images
#
# Distances between the clients' own words and between their features.

# %%
from figures import client_distance

show(client_distance.draw([folder], out))

# %% [markdown]
# ## X-rays with reference and generated report
#
# Findings are marked right, wrong and missed by the labeller. Only for data whose images may be shown.

# %%
from figures import report_page

if publishing.shows_studies(data):
    show(report_page.draw([folder], out, run.prepared(root)))
else:
    print(f"{data}: images and reports of this data set must not be published; the page is left out.")
