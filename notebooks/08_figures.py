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
method = "fedmrg"  # a row of methods.yaml
seed = 0
workspace = ""  # where results are kept; the repository if empty

# %%
from IPython.display import Image, Markdown, display

from fedmrg_core.configuration import REPOSITORY, load_method, load_profile
from fedmrg_core.paths import prepared_folder, run_folder, workspace_folder
