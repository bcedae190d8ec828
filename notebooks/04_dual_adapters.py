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
# # 04 · Dual adapters that teach each other
#
# Reporting styles differ between hospitals. FedMRG puts two adapters on the frozen LLM: a **generic** one, averaged by the
# server, and a **specialised** one that never leaves its hospital; they boost each other [paper]. Both are LoRA. The code is
# `fedmrg_core/adapters.py`.
#
# Needs what notebooks 01 (the prepared data) and 05 (the base models) leave.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom"
seed = 0
workspace = ""  # where results are kept; the repository if empty
steps = 40
batch_size = 12

# %% [markdown]
# The adapters and what they teach each other come from `fedmrg_core/adapters.py`.

# %%
import numpy
import pandas
import seaborn
import torch
from tqdm.auto import tqdm

from fedmrg_core.adapters import AdaptedLLM, mutual_boosting
from fedmrg_core.data.partition import partition_clients
from fedmrg_core.data.prepared import load_prepared
from fedmrg_core.data.sources import corpus_name
from fedmrg_core.paths import base_models_folder, prepared_folder, workspace_folder
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.seeds import numpy_stream, stream_seed
from fedmrg_core.tasks.reports.batch import encode_reports, language_loss, pad_reports
from fedmrg_core.training.adapter_names import GENERIC, SPECIALISED
from fedmrg_core.training.language_models import load_language_model
from figures.common import mark_synthetic

# %% [markdown]
# The profile has the sizes, the workspace what was made before. The seed decides every random number below.

# %%
settings, root = load_profile(profile, data), workspace_folder(workspace)
_ = torch.manual_seed(stream_seed(seed, "notebook", "adapters"))

# %% [markdown]
# ## A low-rank update
#
# $$ W + \Delta W, \qquad \Delta W = \frac{\alpha}{r} B A $$
#
# with B at zero in the beginning. r = 16 and alpha = 16 on the query and value projections reproduce the paper's
# traffic [derived]; the small LLMs here have adapters on their feed-forward layers, too [ours]. The LLM's own weights never
# change.

# %%
source, _ = settings.base_models.sources(base_models_folder(root, settings.name, corpus_name(data)))
llm, tokenizer = load_language_model(source)
adapter = settings.adapter
model = AdaptedLLM(llm, (GENERIC, SPECIALISED), adapter.rank, adapter.alpha, adapter.target_modules)
frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
for name in model.names:
    own = sum(p.numel() for p in model.parameters_of(name).values())
    print(f"{name}: {own:,} parameters on {frozen:,} frozen ones")

# %% [markdown]
# ## Both in one batched pass
#
# The frozen layers do their work once for both adapters, on a batch twice as long. The same logits come out as from one
# adapter at a time.

# %%
inputs, mask = torch.randn(2, 9, model.width) * model.embedding_scale(), torch.ones(2, 9, dtype=torch.long)
with torch.no_grad():
    together = model(inputs, mask, 9, model.names)
    with model.active(SPECIALISED) as alone:
        single = alone(inputs_embeds=inputs).logits
print("largest difference:", (together[1] - single).abs().max().item())

# %% [markdown]
# ## Mutual boosting
#
# $$ L_{g2l} = T^2\,KL(sg(p_g)\,\|\,p_s), \qquad L_{l2g} = T^2\,KL(sg(p_s)\,\|\,p_g) $$
#
# Two directional losses [secondary], temperature T = 3 as in FedDAT [related]; sg stops the gradient, so that a
# teacher does not learn from its student. A teacher that is sure of
# a token pulls a student that is not:

# %%
sure, unsure = torch.tensor([[[4.0, 0.0, 0.0]]]), torch.zeros(1, 1, 3, requires_grad=True)
to_specialised, _ = mutual_boosting(sure, unsure, torch.ones(1, 1, dtype=torch.bool), 3.0)
to_specialised.backward()
print(f"L_g2l = {to_specialised.item():.3f}; gradient on the student's logits {unsure.grad.squeeze().tolist()}")

# %% [markdown]
# ## Two styles, two adapters
#
# The generic adapter reads reports of *all* centres, the specialised one of a single centre. Text only: no image, no prompts.

# %%
prepared = load_prepared(prepared_folder(root, settings.name, data))
partition = partition_clients(prepared.studies, "site", seed=seed, unseen_sites=prepared.unseen_sites)
home = next(iter(partition.clients))
texts = {name: list(part.train["findings"]) for name, part in partition.clients.items()}
everyone = [text for part in texts.values() for text in part]

# %% [markdown]
# Logits of both adapters on whole reports, with ids and mask of the tokens: what a language loss needs.


# %%
def logits_of(chosen: list[str]) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    ids, mask = pad_reports(encode_reports(tokenizer, chosen, settings.training), tokenizer.pad_token_id)
    start = model.embed(torch.full((len(chosen), 1), tokenizer.bos_token_id))
    inputs = torch.cat([start, model.embed(ids[:, :-1])], dim=1)
    attention = torch.cat([mask[:, :1], mask[:, :-1]], dim=1).long()
    return model(inputs, attention, ids.shape[1], model.names), ids, mask


# %% [markdown]
# The loss of a step: a batch of everyone's reports for the generic adapter, one of the home's for the specialised one, and on the
# latter what the two teach each other.


# %%
def loss_of_step(generator: numpy.random.Generator, boosting: float) -> torch.Tensor:
    batches = ([part[i] for i in generator.integers(len(part), size=batch_size)] for part in (everyone, texts[home]))
    (generic, _), ids, mask = logits_of(next(batches))
    loss = language_loss(generic, ids, mask)
    (generic, special), ids, mask = logits_of(next(batches))
    taught = sum(mutual_boosting(generic, special, mask, settings.training.distillation_temperature))
    return loss + language_loss(special, ids, mask) + boosting * taught


# %% [markdown]
# Each training starts anew: B at zero, A at random.


# %%
def start_anew() -> None:
    for name in model.names:
        for key, parameter in model.parameters_of(name).items():
            if key.endswith("lora_B"):
                torch.nn.init.zeros_(parameter)
            else:
                torch.nn.init.kaiming_uniform_(parameter, 5**0.5)


# %% [markdown]
# Both adapters learn in every step.


# %%
def train(boosting: float) -> None:
    start_anew()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    generator = numpy_stream(seed, "notebook", "adapters")
    for _ in tqdm(range(steps), desc=f"boosting {boosting}"):
        loss = loss_of_step(generator, boosting)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


# %% [markdown]
# Trained without and with boosting, then tested on validation reports of each centre.

# %%
rows = []
for boosting in (0.0, 0.5):
    train(boosting)
    for centre, part in partition.clients.items():
        with torch.no_grad():
            both, ids, mask = logits_of(list(part.validation["findings"]))
        for name, logits in zip(model.names, both, strict=True):
            rows.append((boosting, name.replace("_", " "), centre, language_loss(logits, ids, mask).item()))
table = pandas.DataFrame(rows, columns=["boosting", "adapter", "centre", "loss"])

# %% [markdown]
# The specialised adapter should be the better one at its home and the worse one everywhere else. The generic one is not equally good
# everywhere: some wordings are harder than others, on the phantom that of centre b for both. Boosting draws the two together, most
# where they are furthest apart.

# %%
looks = {"kind": "bar", "height": 3.2, "aspect": 1.3, "palette": "colorblind"}
grid = seaborn.catplot(table, x="centre", y="loss", hue="adapter", col="boosting", **looks)
grid.set(ylim=(0, None), ylabel="loss in nats a token")
grid.figure.suptitle(f"language loss on validation reports; home is {home}", y=1.05)
mark_synthetic(grid.figure, data)
table.pivot_table("loss", ["boosting", "adapter"], "centre").round(3)
