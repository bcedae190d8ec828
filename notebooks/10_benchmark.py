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

# %%
import functools
import pathlib

from IPython.display import Image, Markdown, display

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation import comparison, table_writers
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.experiments import runs_of
from fedmrg_core.paths import reference_folder, workspace_folder
from fedmrg_core.reference import finished_runs

root = workspace_folder(workspace)
out = root / "report" / f"benchmark-{pathlib.Path(profile).stem}"


def stored(*names: str, measures: str = "metrics.csv") -> list[pathlib.Path]:
    """The run folders there are of these experiments; what is missing is counted and named."""
    folders, missing = finished_runs(runs_of(list(names), profile), root, reference_folder(profile).parent, measures)
    print(f"{', '.join(names)}: {len(folders)} runs")
    print("\n".join(f"  not run: {name}" for name in missing))
    return folders


def show(draw, folders: list[pathlib.Path], least: int = 2) -> None:
    """Draw a figure if there are runs enough for it."""
    if len(folders) < least:
        print("Not drawn: too few of its runs are there.")
        return
    try:
        paths = draw(folders, out)
    except InputError as error:
        print(f"Not drawn: {error}")
        return
    for path in (path for path in paths if path.suffix == ".png"):
        display(Markdown(f"`{path.name}` beside {path.stem}.pdf and {path.stem}.csv"), Image(str(path)))


def tabulate(name: str, folders: list[pathlib.Path], **settings: bool) -> None:
    """Write a comparison as CSV, Markdown and LaTeX, and show the Markdown."""
    if not folders:
        return
    runs = load_runs(folders, same_code=same_code)
    paths = table_writers.write_comparison(comparison.main_table(runs), out, name, notes=runs.notes, **settings)
    display(Markdown(next(path for path in paths if path.suffix == ".md").read_text(encoding="utf-8")))


# %% [markdown]
# ## FedMRG, piece by piece

# %%
from figures import method_overview

main = stored("main")
show(method_overview.draw, main[:1], least=1)

# %% [markdown]
# ## Main table
#
# Below the table: convergence, and a picture of the paper's numbers beside ours. These are transcribed [secondary], of other data and
# from models a thousand times larger.

# %%
tabulate("main", main, differences=True)

# %%
from figures import method_convergence, published_beside_ours

for figure in (method_convergence, published_beside_ours):
    show(figure.draw, main)

# %% [markdown]
# ## Communication against quality
#
# FedMRG with compressed updates [ours] beside every method: factors of what is dense, 4-bit numbers with scales, and error feedback, up and down.

# %%
from figures import communication_quality

tabulate("payload", stored("payload"), differences=True)
show(communication_quality.draw, stored("main", "payload"))

# %% [markdown]
# ## Rules of server and client, on Fed-LoRA's model

# %%
tabulate("rules", stored("rules"), differences=True)

# %% [markdown]
# ## Ablation

# %%
from figures import ablation

parts = stored("ablation")
tabulate("ablation", parts, differences=True)
show(ablation.draw, parts)

# %% [markdown]
# ## Prompts from true, predicted and uncertain states
#
# FedMRG is trained with the prompts of true states and writes with those of predicted ones, so that it believes wrong prompts (exposure
# bias). Ours beside it: means under the predicted probabilities (soft), and predicted states for a fifth of the training studies (mixed).

# %%
tabulate("prompts", stored("prompts"), differences=True)

# %% [markdown]
# ## Other partitions, and IU X-ray

# %%
tabulate("partitions", stored("partitions"), differences=True)
tabulate("iu_xray", stored("iu_xray"), differences=True)
tabulate("iu_xray-partitions", stored("iu_xray-partitions"), differences=True)

# %% [markdown]
# ## Sensitivity, clients, heterogeneity, rank and bits, participation, a centre that joins later

# %%
from figures import adaptation, client_count, heterogeneity_degree, participation, rank_and_bits, sensitivity

show(sensitivity.draw, stored("sensitivity"))
show(client_count.draw, stored("clients"))
show(heterogeneity_degree.draw, stored("heterogeneity"))
show(rank_and_bits.draw, stored("rank-and-bits"))
show(participation.draw, stored("participation"))
show(adaptation.draw, stored("adaptation", measures="adaptation.csv"), least=1)
joining_iu_xray = stored("iu_xray-adaptation", measures="adaptation.csv")
show(functools.partial(adaptation.draw, name="iu_xray_adaptation"), joining_iu_xray, least=1)
