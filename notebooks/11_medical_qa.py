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
# methods, and asks of each hospital what it gained from the others. The workflow makes the same runs one by one with notebook 11b.
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
import pandas
import seaborn

from fedmrg_core.data.questions.layout import answer_text, prompt_text
from fedmrg_core.federation.run import run_federation
from fedmrg_core.paths import workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.tasks.medical_qa.evaluating import evaluate_run
from fedmrg_core.tasks.medical_qa.inputs import prepare_inputs
from fedmrg_core.tasks.medical_qa.preparing import prepared_questions
from fedmrg_core.tasks.medical_qa.question_model import build_question_model
from fedmrg_core.tasks.medical_qa.readings import Reader
from fedmrg_core.tasks.medical_qa.scoring import NORMALISATIONS, normalised, score_readings
from fedmrg_core.training.adapter_names import BASE
from figures import question_rounds
from figures.common import mark_synthetic
from figures.question_tables import write_gain
from figures.showing import show, show_table

# %% [markdown]
# A run is named as everywhere: profile, data, method, seed.

# %%
root = workspace_folder(workspace)
runs = {name: RunSettings(profile=profile, data=data, method=name, seed=seed) for name in methods.split(",")}
first = next(iter(runs.values()))
settings, row = first.load()
prepared, base_folder = first.prepared(root), first.base_models(root)
out = root / "report" / "medical_qa"  # of tables and figures

# %% [markdown]
# ## The world
#
# Every hospital has specialities of its own, and trains on questions about these alone. A test question can also be about what
# **another** hospital holds. Each fact is asked in words that training did not have.

# %%
summary, description = prepare_inputs(first, root, data_root, options, base_models)
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
readings = reader.options(asked)
scores = score_readings(model.llm, list(readings.values()), BASE, model.tokenizer.pad_token_id)
lengths = [(len(r.answer), len(reader.tokenizer.decode(r.answer).strip())) for r in readings.values()]
table = pandas.DataFrame(
    {name: normalised(scores, lengths, name).tolist() for name in NORMALISATIONS}, index=list(readings)
)
table.assign(tokens=[tokens for tokens, _ in lengths], right=[letter == asked.answer for letter in readings])

# %% [markdown]
# ## Training
#
# `local`: every hospital alone. `fed-lora`: one adapter, averaged every round. `dual`: FedMRG's two adapters that teach each other,
# here on text. A finished run is not trained again.

# %%
for name, run in runs.items():
    run_federation(run.folder(root), run.configuration(root), workers=workers)
    if not (run.folder(root) / "metrics.csv").exists():
        evaluate_run(run.folder(root), workers)
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
folders = [run.folder(root) for run in runs.values()]
show(question_rounds.draw_matrices(folders, out))

# %% [markdown]
# The same round by round, for the rounds that the profile keeps adapters of. Hospitals put them aside while they train, and the test
# questions are asked after the last round: they choose nothing. Left, each adapter at home; in the middle the worst hospital; right,
# a hospital's own adapter on the questions of others.

# %%
kept = [folder for folder in folders if (folder / "matrix_by_round.csv").is_file()]
show(question_rounds.draw(kept, out) if kept else [])

# %% [markdown]
# ## What sharing brought, and to whom
#
# Questions whose answer the hospital holds itself, and those whose answer another one holds: only the latter need the others. A mean
# can hide who is left behind, so the worst hospital and the harmonic mean over hospitals stand beside it.
#
# Below, each method is held against the base model, hospitals alone, and everything in one place: question by question, with an interval,
# and a star where chance does not explain it.

# %%
show_table(write_gain(folders, out, "what_federation_added"))
