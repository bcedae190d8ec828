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
# # 10 · The benchmark
#
# Every method of `methods.yaml` beside the others, from run folders alone: those made here, and the reference runs under
# `figures/reference/` for what was not. The tests are paired, study by study, against FedMRG, with Holm's correction for the
# number of methods; intervals are over seeds and studies. A run that does not exist is named, never filled in.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/
same_code = False  # refuse runs of different training code, instead of a note below the table
workspace = ""  # where results are kept; the repository if empty

# %% [markdown]
# `stored` names the runs there are of an experiment, `tabulate` writes a table of them and shows it, `show` draws a figure.

# %%
from fedmrg_core.paths import workspace_folder
from figures.showing import Benchmark

benchmark = Benchmark(profile, workspace_folder(workspace), same_code)

# %% [markdown]
# ## FedMRG, piece by piece
#
# The modules of one hospital, who owns them, and the bytes that travelled.

# %%
from figures import method_overview

main = benchmark.stored("main")
benchmark.show(method_overview.draw, main[:1], least=1)

# %% [markdown]
# ## Main table
#
# Every method beside the others, and what it is apart from FedMRG.

# %%
benchmark.tabulate("main", main, differences=True)

# %% [markdown]
# How fast each method learns, and the paper's numbers beside ours. These are transcribed [secondary], of other data and from
# models a thousand times larger.

# %%
from figures import method_convergence, published_beside_ours

for figure in (method_convergence, published_beside_ours):
    benchmark.show(figure.draw, main)

# %% [markdown]
# ## Communication against quality
#
# FedMRG with compressed updates [ours] beside every method: factors of what is dense, 4-bit numbers with scales, and error feedback, up and down.

# %%
from figures import communication_quality

benchmark.tabulate("payload", benchmark.stored("payload"), differences=True)
benchmark.show(communication_quality.draw, benchmark.stored("main", "payload"))

# %% [markdown]
# ## Rules of server and client, on Fed-LoRA's model
#
# FedProx, SCAFFOLD, MOON, FedAdam and others: only the rule differs.

# %%
benchmark.tabulate("rules", benchmark.stored("rules"), differences=True)

# %% [markdown]
# ## Ablation
#
# FedMRG with one part taken out at a time.

# %%
from figures import ablation

parts = benchmark.stored("ablation")
benchmark.tabulate("ablation", parts, differences=True)
benchmark.show(ablation.draw, parts)

# %% [markdown]
# ## Prompts from true, predicted and uncertain states
#
# FedMRG is trained with the prompts of true states and writes with those of predicted ones, so that it believes wrong prompts (exposure
# bias). Ours beside it: means under the predicted probabilities (soft), and predicted states for a fifth of the training studies (mixed).

# %%
benchmark.tabulate("prompts", benchmark.stored("prompts"), differences=True)

# %% [markdown]
# ## Sources of prompts
#
# Static, customised, generated and diagnosis prompts against what else is trained: nothing more, one LoRA, FedMRG's two adapters
# (docs/prompts.md). Then every cell against FedMRG, customised against static prompts, one place against hospitals, and the alignment.
# A cell without runs stays blank; where none of these rows was run, nothing is shown.

# %%
from figures import prompt_tables

for experiment in ("mrg-llm", "iu_xray-mrg-llm"):
    prompt_tables.show_sources(benchmark, experiment)
prompt_tables.show_curves(benchmark, "mrg-llm-curves")

# %% [markdown]
# ## Other partitions, and IU X-ray
#
# Where studies are dealt otherwise than by site, and where they are real.

# %%
benchmark.tabulate("partitions", benchmark.stored("partitions"), differences=True)
benchmark.tabulate("iu_xray", benchmark.stored("iu_xray"), differences=True)
benchmark.tabulate("iu_xray-partitions", benchmark.stored("iu_xray-partitions"), differences=True)

# %% [markdown]
# ## Sensitivity, clients, heterogeneity
#
# One number of the profile changed at a time; more and fewer clients; centres that differ less.

# %%
from figures import client_count, heterogeneity_degree, sensitivity

benchmark.show(sensitivity.draw, benchmark.stored("sensitivity"))
benchmark.show(client_count.draw, benchmark.stored("clients"))
benchmark.show(heterogeneity_degree.draw, benchmark.stored("heterogeneity"))

# %% [markdown]
# ## Rank and bits, participation
#
# What is sent in fewer numbers, and rounds in which only a part of the clients trains.

# %%
from figures import participation, rank_and_bits

benchmark.show(rank_and_bits.draw, benchmark.stored("rank-and-bits"))
benchmark.show(participation.draw, benchmark.stored("participation"))

# %% [markdown]
# ## Medical questions: what federation added
#
# The other task (docs/medical_qa.md). Each method beside the base model, hospitals alone and everything in one place; every adapter on every
# hospital's questions; models of several sizes; public sets. Where none of these rows was run, nothing is shown.

# %%
from figures import question_tables

question_tables.show_gain(benchmark, "medical-qa")
question_tables.show_tables(
    benchmark, "medical-qa-sizes", "medical-qa-medquad", "medical-qa-medmcqa", "medical-qa-causes"
)

# %% [markdown]
# ## Visual prompts: classes and masks
#
# The third task (docs/visual_prompts.md). Every method on findings and on organs, what it sends as a share of full fine-tuning, few and many
# pictures, few and many prompts; real pictures. Then quality against bytes, with the reports beside. Where none of these rows was run, nothing is shown.

# %%
from figures import picture_tables, quality_against_bytes

picture_tables.show_methods(benchmark, "visual-prompts", "visual-prompts-chest", "visual-prompts-polyps")
picture_tables.show_curves(benchmark, "visual-prompts-shares", "visual-prompts-count")
if benchmark.holds("visual-prompts", ""):
    benchmark.show(quality_against_bytes.draw, benchmark.stored("main", "visual-prompts"))

# %% [markdown]
# ## A centre that joins later
#
# Notebook 09's numbers over three seeds, on the phantom and on IU X-ray.

# %%
from figures import adaptation

joining, joining_iu_xray = (
    benchmark.stored(name, measures="adaptation.csv") for name in ("adaptation", "iu_xray-adaptation")
)
benchmark.show(adaptation.draw, joining, least=1)
benchmark.show(adaptation.draw, joining_iu_xray, least=1, name="iu_xray_adaptation")
