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
# # 07 · Evaluation
#
# The round chosen on validation writes a report for every test study: at each home client with the generic adapter, with
# the client's own specialised one and with the mean of both (half of each low-rank update), at the centre never seen with
# the generic one [ours]. Predictions are stored study by study; every number below is computed from them and can be
# computed again.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom"
partition = "site"
clients = 0
unseen = ""
method = "fedmrg"  # a row of methods.yaml
variant = ""
seed = 0
workers = 0  # test sets at the same time; 0: one a core, one on a GPU. The result does not depend on it
workspace = ""  # where results are kept; the repository if empty

# %% [markdown]
# Measures are local `evaluate` modules in `fedmrg_core/metrics/modules/`, which this notebook, `fedmrg score` and `evaluate.load` call
# alike. `fedmrg_core/tasks/reports/trained_run.py` writes the reports.

# %%
import pandas

from fedmrg_core.metrics.diversity import diversity
from fedmrg_core.metrics.modules import load_metric
from fedmrg_core.paths import workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.tasks.reports.measures import CLINICAL_F1, MEASURES
from fedmrg_core.tasks.reports.predictions import ADAPTER_NAMES, read_predictions
from fedmrg_core.tasks.reports.trained_run import evaluate_run

# %% [markdown]
# The run that notebook 06 left under the same settings.

# %%
run = RunSettings(profile=profile, data=data, partition=partition, clients=clients, unseen=unseen, method=method,
                  variant=variant, seed=seed)  # fmt: skip
folder = run.folder(workspace_folder(workspace))

# %% [markdown]
# ## Reports, features, floors
#
# Floors give training reports again: the commonest one, a random one, and that of the nearest training image. The first two need
# no model; the nearest image is found among features of this run's own trained encoder. A method that does not beat them writes
# nothing that copying would not have brought. Text metrics come from `pycocoevalcap` after one named
# normalisation; clinical metrics compare the findings our labeller reads from both texts.

# %%
metrics = evaluate_run(folder, workers)
predictions = read_predictions(folder / "predictions.csv")
print(f"{len(predictions)} reports of {predictions.study_id.nunique()} studies")

# %% [markdown]
# A model that writes one report for everybody is named here; its other measures mean little.

# %%
for (role, adapter), rows in predictions[predictions.system == "model"].groupby(["role", "adapter"]):
    if reason := diversity(rows.generated.tolist()).degenerate_reason():
        print(f"{role}, {adapter}: {reason}")

# %% [markdown]
# ## Quality, pooled over the clients' test sets and on the unseen centre
#
# With percentile intervals over studies (bootstrap). Clinical F1 is over 14 findings, uncertain ones counted as negative: averaged over
# studies, or micro and macro over findings. "home" pools the clients' test sets. A client with an adapter of its own
# can write with it (specialised), with the shared one (generic), or with the mean of both; tables of many runs take
# the specialised adapter at home (of FedDAT the mean) and the generic one at a centre that never trained [ours].

# %%
f1 = [CLINICAL_F1.replace("example", mean) for mean in ("example", "micro", "macro")]
words = {name: MEASURES[name] for name in ("bleu_1", "bleu_4", "meteor", "rouge_l", "cider", *f1)}
words["distinct_share"] = "Share of distinct reports"
metrics = metrics[metrics.metric.isin(words)].replace({"adapter": ADAPTER_NAMES})

# %% [markdown]
# One column an answer or floor, one row a measure; blank where a measure cannot be said.

# %%
pooled = metrics[metrics.scope.isin(["home", "unseen"])]
interval = pooled.apply(lambda row: "" if pandas.isna(row.low) else f" [{row.low:.3f}, {row.high:.3f}]", axis=1)
table = pooled.assign(text=pooled.value.map(lambda value: "" if pandas.isna(value) else f"{value:.3f}") + interval)
table.pivot_table("text", ["scope", "system", "adapter"], "metric", aggfunc="first")[[*words]].rename(columns=words).T

# %% [markdown]
# ## The diagnosis head, on validation studies
#
# Area under the ROC curve of the positive state, all clients' validation studies pooled; empty where no study, or every
# study, is positive.

# %%
auroc = folder / "head_auroc.csv"
pandas.read_csv(auroc).round(3) if auroc.is_file() else print(f"{method} has no diagnosis head")

# %% [markdown]
# ## By client
#
# The mean hides the worst hospital, so every client has a column; `metrics.csv` has the worst client and the harmonic mean as well.

# %%
by_client = metrics[metrics.system == "model"]
by_client.pivot_table("value", ["metric", "adapter"], "scope").reindex([*words], level=0).rename(index=words).round(3)

# %% [markdown]
# ## One client, scored directly
#
# The module gives of one client's reports what stands in its column above. METEOR is left out, for its Java takes seconds to start.

# %%
home = predictions[(predictions.system == "model") & (predictions.role == "home")]
(site, adapter), rows = next(iter(home.groupby(["site", "adapter"])))
texts = {"predictions": rows.generated.tolist(), "references": rows.reference.tolist()}
scores = load_metric("report_text").compute(**texts, meteor=False)
pandas.Series(scores, name=f"{site}, {ADAPTER_NAMES[adapter]}").round(3)

# %% [markdown]
# ## Five reports
#
# The first test studies of the first client, as the specialised adapter wrote them if there is one.

# %%
own = "specialised" if "specialised" in set(predictions.adapter) else "generic"
for row in predictions[predictions.adapter == own].head(5).itertuples():
    print(f"{row.study_id}\n  reference: {row.reference}\n  generated: {row.generated}\n")
