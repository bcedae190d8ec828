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
# # 09 · A centre that joins later
#
# The unseen centre writes in a style that nobody has learned. How many of its own studies does it take? The shared model is
# adapted with 0, 8, 32 and 128 of the centre's studies, never sent anywhere, and writes the centre's test reports [ours].
# Steps and learning rate were set before any of it was run; nothing is chosen on the centre's test studies. Bars in the picture
# are 95% intervals over these.

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
# What is trained and how long stands in `fedmrg_core/tasks/reports/adaptation.py`.

# %%
import matplotlib.pyplot as plt
import seaborn

from fedmrg_core.paths import workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.tasks.reports.adaptation import COUNTS, evaluate_adaptation
from fedmrg_core.tasks.reports.measures import CLINICAL_F1, MEASURES
from figures import common, curves

# %% [markdown]
# The run that notebook 07 evaluated under the same settings.

# %%
run = RunSettings(profile=profile, data=data, partition=partition, clients=clients, unseen=unseen, method=method,
                  variant=variant, seed=seed)  # fmt: skip
folder = run.folder(workspace_folder(workspace))

# %% [markdown]
# ## Quality by number of studies
#
# One column a number of studies; 0 is the shared model as it is.

# %%
adapted = evaluate_adaptation(folder)
if left_out := [str(count) for count in COUNTS if count not in set(adapted["count"])]:
    print(f"Without {', '.join(left_out)} studies: an unseen centre has fewer of its own.")
shown = ["bleu_4", "rouge_l", "cider", CLINICAL_F1.replace("example", "micro")]
adapted[adapted.metric.isin(shown)].pivot_table("value", "metric", "count").loc[shown].rename(index=MEASURES).round(3)

# %% [markdown]
# The same with intervals. Most is won where the line is steepest.

# %%
figure, axes = plt.subplots(1, len(shown), figsize=(12, 2.8), layout="tight")
for axis, metric in zip(axes, shown, strict=True):
    rows = adapted[adapted.metric == metric]
    curves.error_bars(axis, rows["count"], rows, marker="o")
    axis.set_xscale("symlog", linthresh=8)
    axis.set_xticks(rows["count"], rows["count"])
    axis.minorticks_off()
    axis.set(xlabel="studies of the centre", title=MEASURES[metric])
seaborn.despine(figure)
common.mark_synthetic(figure, data)
