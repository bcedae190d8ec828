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
# # 11 · Medical questions: what did federation add
#
# Hospitals that know different things train one language model together, each with LoRA on its own questions [paper: Flow of
# Knowledge, arXiv 2510.00543]. Nothing but the adapter travels. This notebook prepares the questions, follows one of them, trains a few
# methods, and asks of each hospital what it gained from the others.
#
# The usual data are a **synthetic medical world**: conditions, drugs, doses and signs are invented, and so is every fact.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "medical_world"  # or medquad, medmcqa, medqa, pubmedqa
data_root = ""  # the folder of a public set
options = "{}"  # how it is read, as JSON or YAML
methods = "local,fed-lora,dual"  # rows of methods_medical_qa.yaml, joined by commas
seed = 0
base_models = "stored"  # of the repository, where it has one of the profile; fresh: built here
workers = 0  # hospitals at the same time; 0: one a core, one on a GPU
workspace = ""  # where results are kept; the repository if empty

# %% [markdown]
# The task is a folder of its own, `fedmrg_core/tasks/medical_qa/`. Federation, adapters, rules and comparison are the reports'.

# %%
import matplotlib.pyplot as plt
import pandas
import seaborn

from fedmrg_core.adapters import BASE
from fedmrg_core.data.questions.layout import answer_text, prompt_text
from fedmrg_core.evaluation.comparison import main_table
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.federation.run import run_federation
from fedmrg_core.paths import workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.tasks.medical_qa.evaluating import MATRIX, evaluate_run
from fedmrg_core.tasks.medical_qa.measures import MAIN, NAMES
from fedmrg_core.tasks.medical_qa.preparing import prepare_base_model, prepare_questions, prepared_questions
from fedmrg_core.tasks.medical_qa.question_model import build_question_model
from fedmrg_core.tasks.medical_qa.readings import Reader
from fedmrg_core.tasks.medical_qa.scoring import NORMALISATIONS, normalised, score_readings
from figures.common import mark_synthetic

# %% [markdown]
# A run is named as everywhere: profile, data, method, seed.

# %%
root = workspace_folder(workspace)
runs = {name: RunSettings(profile=profile, data=data, method=name, seed=seed) for name in methods.split(",")}
first = next(iter(runs.values()))
settings, row = first.load()
prepared, base_folder = first.prepared(root), first.base_models(root)

# %% [markdown]
# ## The world
#
# Every hospital has specialities of its own, and trains on questions about these alone. A test question can also be about what
# **another** hospital holds. Each fact is asked in words that training did not have.

# %%
summary = prepare_questions(prepared, data, settings, data_root, options)
questions = prepared_questions(prepared)
pandas.DataFrame(summary["questions"]).T.rename_axis("questions of")

# %% [markdown]
# Here is one fact: how training states and asks it, and how the test does.

# %%
test = [q for q in questions if q.split == "test"]
asked = next((q for q in test if q.kind == "choice" and q.client not in q.held_by), test[0])
same = [q for q in questions if q.fact == asked.fact and q.split == "train" and q.fact]
for each in [*same[:3], asked]:
    print(f"{each.split:6} {each.client:11} {each.text}  ->  {each.answer_text}")

# %% [markdown]
# ## The base model
#
# A small LLaMA, pretrained on the language of this world: the same words and layouts, and facts drawn anew for every text. So it
# knows how to speak, and none of the facts. The loss is that of its last steps.

# %%
description = prepare_base_model(base_folder, data, settings, base_models)
print({key: description[key] for key in ("llm", "texts", "loss") if key in description})

# %% [markdown]
# ## One question, followed
#
# The model does not write its choice. It reads the question, and each answer is scored by its **log-likelihood**: the sum over the
# answer's tokens of log p(token | what came before).

# %%
model = build_question_model(settings, row, settings.base_models.llm or base_folder / "llm", seed)
reader = Reader(model.tokenizer, settings.questions.layout, settings.questions.chat, settings.questions.longest)
print(prompt_text(asked, reader.layout))
print([answer_text(asked, letter, reader.layout) for letter in asked.options], "right:", asked.answer)

# %% [markdown]
# Longer answers are less likely as wholes. So the sum is also divided by the number of tokens, or of characters. Which one decides is
# part of a measure's name.

# %%
options = reader.options(asked)
scores = score_readings(model.llm, list(options.values()), BASE, model.tokenizer.pad_token_id)
lengths = [(len(r.answer), len(reader.tokenizer.decode(r.answer).strip())) for r in options.values()]
table = pandas.DataFrame(
    {name: normalised(scores, lengths, name).tolist() for name in NORMALISATIONS}, index=list(options)
)
table.assign(tokens=[tokens for tokens, _ in lengths], right=[letter == asked.answer for letter in options])

# %% [markdown]
# ## Training
#
# `local`: every hospital alone. `fed-lora`: one adapter, averaged every round. `dual`: FedMRG's two adapters that teach each other,
# here on text. A finished run is not trained again.

# %%
for name, run in runs.items():
    run_federation(run.folder(root), run.configuration(root), workers=workers)
    if not (run.folder(root) / "metrics.csv").exists():
        evaluate_run(run.folder(root))
    print(f"{name}: {run.folder(root).relative_to(root)}")

# %% [markdown]
# How the share of right validation answers went. The average can fall at first: adapters that have just parted are averaged, and
# their mean knows less than each of them.


# %%
def courses() -> pandas.DataFrame:
    parts = []
    for name, run in runs.items():
        rounds = pandas.read_csv(run.folder(root) / "rounds.csv")
        columns = [column for column in rounds if column.startswith("validation_accuracy_")]
        long = rounds.melt(["round", "client"], columns, "adapter", "accuracy")
        long["adapter"] = long["adapter"].str.removeprefix("validation_accuracy_")
        parts.append(long.assign(method=name))
    return pandas.concat(parts, ignore_index=True)


# %% [markdown]
# The line is the mean over hospitals, the band reaches from the worst to the best.

# %%
drawn = {"hue": "method", "style": "adapter", "kind": "line", "errorbar": ("pi", 100), "height": 3.2, "aspect": 1.8}
figure = seaborn.relplot(courses(), x="round", y="accuracy", **drawn)
figure.set(xticks=range(0, settings.federation.rounds + 1, 5))
mark_synthetic(figure.figure, data)

# %% [markdown]
# ## Every adapter on every hospital's questions
#
# A row is an adapter, a column the hospital whose test questions it answers. On the diagonal of `local` each is at home.


# %%
def matrix_of(run: RunSettings) -> pandas.DataFrame:
    table = pandas.read_csv(run.folder(root) / MATRIX, keep_default_na=False)
    table["row"] = (table["adapter"] + " " + table["of"]).str.strip()
    return table.pivot(index="row", columns="on", values=MAIN).astype(float)


figure, axes = plt.subplots(1, len(runs), figsize=(4.4 * len(runs), 3.2), squeeze=False, layout="constrained")
for axis, (name, run) in zip(axes[0], runs.items(), strict=True):
    seaborn.heatmap(matrix_of(run), annot=True, fmt=".2f", vmin=0, vmax=1, cmap="viridis", cbar=False, ax=axis)
    axis.set(title=name, xlabel="test questions of", ylabel="")
    axis.tick_params(axis="y", rotation=0)
mark_synthetic(figure, data)

# %% [markdown]
# ## What sharing brought, and to whom
#
# Questions whose answer the hospital holds itself, and those whose answer another one holds. Only the latter need the others.

# %%
measured = pandas.concat(
    [pandas.read_csv(run.folder(root) / "metrics.csv").assign(method=name) for name, run in runs.items()]
)
measured["answer"] = measured["adapter"].where(measured["system"] == "model", "base model")
shown = {key: NAMES[key] for key in (MAIN, f"{MAIN}_here", f"{MAIN}_elsewhere")}
home = measured[(measured["scope"] == "home") & measured["metric"].isin(shown)]
home.pivot_table(index=["method", "answer"], columns="metric", values="value").rename(columns=shown).round(3)

# %% [markdown]
# The same against each other, question by question: federation minus each of the others, with its interval, and whether chance
# explains it (p, corrected for the number of tests).

# %%
loaded = load_runs([run.folder(root) for run in runs.values()])
compared = main_table(loaded, against="fed-lora" if "fed-lora" in runs else next(iter(runs)))
columns = ["method", "metric", "value", "difference", "difference_low", "difference_high", "p_holm"]
compared.loc[compared["metric"].isin(shown) & compared["difference"].notna(), columns].round(3)

# %% [markdown]
# Worst hospital, and harmonic mean over hospitals: a mean can hide who is left behind.

# %%
fair = measured[measured["metric"].isin([f"worst_client_{MAIN}", f"harmonic_mean_{MAIN}"])]
fair.pivot_table(index=["method", "answer"], columns="metric", values="value").round(3)
