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
# Steps and learning rate were set before any of it was run; nothing is chosen on the centre's test studies.

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

# %%
import matplotlib.pyplot as plt
import seaborn

from fedmrg_core.adaptation import evaluate_adaptation
from fedmrg_core.experiments import RunSettings
from fedmrg_core.paths import workspace_folder

run = RunSettings(profile=profile, data=data, partition=partition, clients=clients, unseen=unseen, method=method,
                  variant=variant, seed=seed)  # fmt: skip
folder = run.folder(workspace_folder(workspace))

# %%
adapted = evaluate_adaptation(folder)
shown = ["bleu_4", "rouge_l", "cider", "clinical_f1_micro_14_uncertain_negative"]
adapted[adapted.metric.isin(shown)].pivot_table("value", "metric", "count").loc[shown].round(3)

# %%
figure, axes = plt.subplots(1, len(shown), figsize=(12, 2.8))
for axis, metric in zip(axes, shown, strict=True):
    rows = adapted[adapted.metric == metric]
    axis.errorbar(rows["count"], rows.value, [rows.value - rows.low, rows.high - rows.value], marker="o", capsize=2)
    axis.set(xscale="symlog", xlabel="studies of the centre", title=metric)
    seaborn.despine(ax=axis)
figure.tight_layout()
plt.show()
