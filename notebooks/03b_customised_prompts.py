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
# # 03b · Prompts that each image changes
#
# FedMRG looks prompts up by diagnosis. MRG-LLM (arXiv 2506.15477) has learned prompts and lets each image change them by an **affine
# transformation** [paper]. It has two forms: a pair (gamma, beta) for each prompt, or one for all of them [paper]. Its equations are
# not at hand, so those below are ours [ours]. They stand in `fedmrg_core/prompts/`, and `docs/prompts.md` lists all sources.
#
# Training is short here, a few seconds for each form, and the usual data are synthetic. The pictures show the mechanism, no result.
#
# Needs what notebooks 01 (the prepared data) and 05 (the base models) leave.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom"
seed = 0
workspace = ""  # where results are kept; the repository if empty
studies_per_centre = 16  # for training; shrunk from the profile's own count
validation_per_centre = 40
epochs = 3
batch_size = 4  # shrunk, too: more steps in the same time

# %% [markdown]
# The sources come from `fedmrg_core/prompts/`, model and training from `fedmrg_core/tasks/reports/` and `fedmrg_core/training/`.

# %%
import datasets
import matplotlib.pyplot as plt
import pandas
import seaborn
import torch
from torch.nn import functional
from tqdm.auto import tqdm

from fedmrg_core.data.findings import NO_FINDING, POSITIVE, SUPPORT_DEVICES, UNCERTAIN
from fedmrg_core.data.prepared import load_prepared
from fedmrg_core.data.sources import corpus_name
from fedmrg_core.data.tensors import ClientTensors
from fedmrg_core.paths import base_models_folder, prepared_folder, workspace_folder
from fedmrg_core.prompts import PromptSource, Surroundings, initial_disease_weights
from fedmrg_core.runs.configuration import apply_variant, load_profile
from fedmrg_core.runs.methods import Ownership, load_method
from fedmrg_core.seeds import stream_seed
from fedmrg_core.tasks.reports.build import build_report_generator
from fedmrg_core.tasks.reports.client_batches import ClientBatches
from fedmrg_core.tasks.reports.local_training import first_state, validate_client
from fedmrg_core.tasks.reports.report_model import ReportModel
from fedmrg_core.training.client_update import Plan, train_alone
from fedmrg_core.training.pretrained import compute_device
from figures.common import mark_synthetic

# %% [markdown]
# The profile has the sizes, the workspace what was made before. The seed decides every random number below.

# %%
settings, root = load_profile(profile, data), workspace_folder(workspace)
_ = torch.manual_seed(stream_seed(seed, "notebook", "customised prompts"))

# %% [markdown]
# MRG-LLM trains in one place [paper]. So the first studies of all centres are put together here.


# %%
def pooled(split: str, count: int) -> ClientTensors:
    parts = [getattr(part, split) for part in partition.clients.values()]
    return ClientTensors(datasets.concatenate_datasets([p.select(range(min(count, len(p)))) for p in parts]))


prepared = load_prepared(prepared_folder(root, settings.name, data))
partition = prepared.deal("site", None, seed)
train, validation = pooled("train", studies_per_centre), pooled("validation", validation_per_centre)
print(f"{len(train)} training and {len(validation)} validation studies")

# %% [markdown]
# A chest counts as **normal** here if its report neither affirms a finding nor leaves one open, support devices apart. The others
# are **ill**.


# %%
def findings_of(studies: ClientTensors) -> torch.Tensor:
    told = (studies.states == POSITIVE) | (studies.states == UNCERTAIN)
    told[:, [NO_FINDING, SUPPORT_DEVICES]] = False
    return told.sum(dim=1)


normal, trained_normal = findings_of(validation) == 0, findings_of(train) == 0
print(f"validation: {normal.sum()} normal and {(~normal).sum()} ill chests")

# %% [markdown]
# ## A static book
#
# N vectors $p_1 \dots p_N$ as wide as a word of the LLM, the same for every image: that is what MRG-LLM compares itself with [paper].
# They are trained, and begin as words drawn at random [ours].

# %%
row = load_method("mrg-llm-static")
base_models = base_models_folder(root, settings.name, corpus_name(data))
model = build_report_generator(settings, row, base_models, seed).eval()
book = model.prompt_source.book.weight
print("book:", tuple(book.shape), "· a word of the LLM:", tuple(model.llm.embed(torch.tensor([0])).shape[1:]))

# %% [markdown]
# The LLM reads $V$, the tokens of the image, then the prompts, then the word that begins every report. Here are the positions of all
# that stands before the report.

# %%
images = validation.images(range(min(8, len(validation))))
with torch.no_grad():
    tokens = model.projection(model.encoder(images).tokens)  # V, (B, M, D)
    prefix = model.prefix(images)
parts = {"begin": 1, "image tokens": tokens.shape[1], "prompts": len(book), "instruction": len(model.instruction_ids)}
lengths = pandas.Series(parts)
pandas.DataFrame({"first": lengths.cumsum() - lengths, "last": lengths.cumsum() - 1, "tokens": lengths})

# %% [markdown]
# At the positions of the prompts stands the book, whichever image it is.

# %%
start = parts["begin"] + parts["image tokens"]
standing = prefix.embeddings[:, start : start + len(book)]
torch.testing.assert_close(standing, book.expand(len(images), -1, -1))

# %% [markdown]
# ## One affine pair by hand
#
# $$ g = \mathrm{mean}(V), \qquad (\gamma, \beta) = \mathrm{MLP}(g), \qquad p' = \gamma \circ p + \beta $$
#
# First the feature g, one vector an image. It is normalised, so that it does not matter how small the LLM's embeddings are [ours].

# %%
g = tokens.mean(dim=1)  # (B, D)
g = (g - g.mean(dim=1, keepdim=True)) / (g.var(dim=1, unbiased=False, keepdim=True) + 1e-5).sqrt()
print("g:", tuple(g.shape))

# %% [markdown]
# Then a network with one hidden layer for **one** prompt. What it gives are u and v: $\gamma = 1 + u$ and $\beta = s v$, with s the
# spread of the LLM's embeddings. Its last layer is zero. So it begins with $\gamma = 1$ and $\beta = 0$ [ours].

# %%
hidden, width, spread = 32, book.shape[1], model.llm.embedding_scale()
enter, leave = torch.nn.Linear(width, hidden), torch.nn.Linear(hidden, 2 * width)
for tensor in leave.parameters():
    torch.nn.init.zeros_(tensor)
u, v = leave(enter(g).relu()).chunk(2, dim=1)
gamma, beta = 1 + u, spread * v  # (B, D) each
assert (gamma == 1).all() and (beta == 0).all()

# %% [markdown]
# Training moves the last layer away from zero. Random numbers stand in for it here. Now each image has its own version of the prompt.

# %%
for tensor in leave.parameters():
    torch.nn.init.normal_(tensor, std=0.1)
u, v = leave(enter(g).relu()).chunk(2, dim=1)
changed = (1 + u) * book[0] + spread * v
distance = (changed - changed[0]).norm(dim=1) / width**0.5 / spread
print("one prompt,", len(changed), "images; how far from that of the first image, in spreads:")
print(", ".join(f"{each:.2f}" for each in distance))

# %% [markdown]
# The module of `fedmrg_core/prompts/` does the same for all prompts at once. A row of `methods.yaml` names it.


# %%
def source_of(name: str) -> PromptSource:
    asked = load_method(f"mrg-llm-{name}")
    around = Surroundings(model.encoder.width, width, spread, model.tokenizer, model.llm.embed)
    torch.manual_seed(stream_seed(seed, "notebook", "book"))  # the same book for each
    return asked.prompt_type.build(asked, asked.prompt_numbers(), around)


source = source_of("prompt-wise")
print({name: tuple(parameter.shape) for name, parameter in source.named_parameters()})

# %% [markdown]
# It is given our numbers for its first prompt, and must come to the same.

# %%
with torch.no_grad():
    source.book.weight[0] = book[0]
    source.network.enter.weight[:hidden], source.network.enter.bias[:hidden] = enter.weight, enter.bias
    source.network.leave[0], source.network.bias[0] = leave.weight.T, leave.bias
prompts = source(tokens, tokens.mean(dim=1)).prompts  # (B, N, D)
torch.testing.assert_close(prompts[:, 0], changed)

# %% [markdown]
# ## The forms, and what they cost
#
# **Prompt-wise** has a network for each prompt, **promptbook-wise** one for the whole book. A third way, `generator`, changes no
# prompts: learned queries look at the image tokens by attention [secondary; form ours].

# %%
sources = {name: source_of(name) for name in ("static", "prompt-wise", "promptbook-wise", "generator")}
counts = {
    name: [sum(p.numel() for p in each.part(m).parameters()) for m in each.own_modules]
    for name, each in sources.items()
}
costs = pandas.DataFrame({name: (count + [0])[:2] for name, count in counts.items()}, ["book or queries", "network"]).T
frozen = sum(p.numel() for p in model.llm.parameters())
costs.assign(together=costs.sum(axis=1), share=(costs.sum(axis=1) / frozen).map("{:.1%} of the LLM".format))

# %% [markdown]
# Sixteen networks cost sixteen times as much as one. The LLM of this profile is tiny, so every share is large here.
#
# All four begin alike: as the same book, unchanged, to the last bit.

# %%
for name, each in sources.items():
    prompts = each(tokens, tokens.mean(dim=1)).prompts
    expected = sources["static"].book.weight.expand_as(prompts)
    torch.testing.assert_close(prompts, expected, rtol=0, atol=0)
    print(f"{name}: the same prompts for {len(prompts)} images")

# %% [markdown]
# ## A short training
#
# Each form is trained by the code of the runs, with the same batches, on the language loss alone. Prompts and projection learn. The
# encoder stays as notebook 05 left it, so that few steps are enough; in the rows it learns, too.


# %%
def trained(name: str) -> ReportModel:
    quick, row = apply_variant(settings, load_method(f"mrg-llm-{name}"), f"training.batch_size={batch_size}")
    model = build_report_generator(quick, row, base_models, seed).to(compute_device())
    weights = initial_disease_weights(train.states).to(compute_device())
    plan = Plan(row.modules.keys() - {"encoder"}, epochs, rate=1.0)
    batches, same = ClientBatches(model, train, quick), {"profile": quick, "method": row, "seed": seed}

    def loss(batch, _):
        return model.loss_terms(batch, row.losses, weights, None)

    train_alone(model, batches, loss, plan, stream=("notebook", "prompts"), **same)
    return model


# %% [markdown]
# What a source makes of the images afterwards: the prompts, and whatever it computed on the way.


# %%
def made_of(model: ReportModel, studies: ClientTensors) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        output = model.eval().prefix(studies.images(range(len(studies))).to(compute_device())).prompts
    return {name: tensor.cpu().clone() for name, tensor in {"prompts": output.prompts, **output.auxiliary}.items()}


# %% [markdown]
# And the language loss on a few validation studies.

# %%
few = pooled("validation", 8)


def language_loss_of(model: ReportModel) -> float:
    shared, state = model.state(Ownership.SHARED), first_state(model, few)
    measures, _ = validate_client(model, few, shared, state, client="pooled", profile=settings, method=model.method)
    return measures["validation_language_loss"]


# %% [markdown]
# First a control: one pair for the book whose last layer holds random numbers, in a model without any training.

# %%
control = source_of("promptbook-wise")
torch.nn.init.normal_(control.network.leave, std=0.1)
losses = {"before": language_loss_of(model.to(compute_device()))}
model.prompt_source = control.to(compute_device())
made, made_in_training = ({"random": made_of(model, studies)} for studies in (validation, train))

# %% [markdown]
# Then the four. Of each model only this is kept, so that there is one in memory at a time.

# %%
for name in tqdm(sources, desc="training"):
    model = trained(name)
    made[name], made_in_training[name] = made_of(model, validation), made_of(model, train)
    losses[name] = language_loss_of(model)
steps = epochs * -(-len(train) // batch_size)
print(f"{steps} steps each; language loss on validation studies:", {n: round(loss, 3) for n, loss in losses.items()})

# %% [markdown]
# All have learned something. Which is best cannot be said after so few steps of one seed: the experiment `mrg-llm` in
# `experiments.yaml` is for that.
#
# ## How far images change prompts
#
# The distance of a prompt from its mean over all images, in spreads of the LLM's embeddings. Words are about 1 apart from their mean.

# %%
apart = {name: made[name]["prompts"] - made[name]["prompts"].mean(dim=0) for name in sources}  # (B, N, D) each
pandas.Series({name: (each.norm(dim=2).mean() / width**0.5 / spread).item() for name, each in apart.items()}).round(3)

# %% [markdown]
# Static prompts do not change at all. After so few steps an affine pair changes them little, the shared one least, and `generator`
# changes them most.
#
# ## Gamma and beta of normal and ill chests
#
# A pair has hundreds of numbers. One line through them is enough to look at: from the mean over the normal chests to that over the
# ill ones, both of **training** studies. How far along it does each **validation** study lie? Each pair is counted in its own
# standard deviation, so that those that change little can be seen.


# %%
def along_the_line(form: str, number: str) -> torch.Tensor:
    found, known = made[form][number], made_in_training[form][number]  # (B, K, D) each
    line = known[~trained_normal].mean(dim=0) - known[trained_normal].mean(dim=0)  # (K, D)
    of_training, places = ((each * line).sum(dim=2) for each in (known, found))  # (B, K)
    return (places - of_training.mean(dim=0)) / of_training.std(dim=0).clamp(min=1e-9)


# %% [markdown]
# All of them as one table: a row for each study, pair and number.

# %%
pairs = {"prompt-wise": range(1, len(book) + 1), "promptbook-wise": ["book"], "random": ["random"]}
chest = ["normal" if each else "ill" for each in normal]
tables = [
    pandas.DataFrame(along_the_line(form, number).numpy(), columns=names).assign(chest=chest, number=number)
    for form, names in pairs.items()
    for number in ("gamma", "beta")
]
places = pandas.concat([table.melt(["chest", "number"], var_name="pair", value_name="place") for table in tables])

# %% [markdown]
# One pair of boxes for each prompt, then the single pair of the whole book, and at the right the control. To see: with most prompts
# the box of the ill chests lies above that of the normal ones, though boxes overlap. **The control does the same.** Notebook 05
# trained the encoder to name findings, so g tells of the chest already, and any network hands that on. Training decides only
# what it does to the prompts. Gamma and beta look alike because both come from the same hidden numbers.

# %%
looks = {"x": "pair", "y": "place", "hue": "chest", "hue_order": ["normal", "ill"], "palette": "colorblind"}
if places["place"].notna().any():  # no line without normal or without ill chests
    grid = seaborn.catplot(
        places, row="number", kind="box", height=2.4, aspect=3.8, fliersize=1, linewidth=0.8, **looks
    )
    grid.set_titles("{row_name}").set(xlabel="pair of prompt", ylabel="standard deviations")
    grid.refline(y=0, color="0.7", lw=0.8, ls="-")
    grid.tick_params(axis="x", labelsize=8)
    mark_synthetic(grid.figure, data)
    plt.show()

# %% [markdown]
# ## Two chests
#
# The following looks at two validation studies of one centre, so that scanner and wording are the same: the one with the fewest and
# the one with the most findings.

# %%
first = next(iter(partition.clients.values())).validation
findings = findings_of(validation)[: min(validation_per_centre, len(first))]
chests = {"normal": int(findings.argmin()), "ill": int(findings.argmax())}
for kind, index in chests.items():
    print(f"{kind}, {findings[index]} findings: {validation.texts[index]}")

# %% [markdown]
# ## Which words are near?
#
# A prompt is no word, but has a direction, as words have. The nearest words are those of the largest cosine. The LLM's vocabulary
# has pieces of words, too; those without letters are left out.

# %%
names = [model.tokenizer.decode([index]).strip() for index in range(len(model.tokenizer))]
spelled = torch.tensor([index for index, name in enumerate(names) if len(name) > 1 and name.isalpha()])
table_of_words = functional.normalize(model.llm.embed(spelled.to(compute_device())).detach().cpu(), dim=1)


def near(vector: torch.Tensor) -> str:
    best = (table_of_words @ functional.normalize(vector, dim=0)).topk(3)
    return ", ".join(f"{names[spelled[i]]} {cosine:.2f}" for cosine, i in zip(*best, strict=True))


# %% [markdown]
# The prompts whose mean differs most between ill and normal training chests, held against their spread:

# %%
known = made_in_training["prompt-wise"]["prompts"]
line = known[~trained_normal].mean(dim=0) - known[trained_normal].mean(dim=0)  # (N, D)
chosen = (line.norm(dim=1) / (known.std(dim=0).norm(dim=1) + 1e-9)).topk(4).indices.tolist()
print("prompts", [index + 1 for index in chosen])

# %% [markdown]
# To see: every prompt is still nearest to the word that it began as, in both chests. The cosine differs from chest to chest, which
# is all that a few steps do. The last column has the words nearest to the change from the normal to the ill chest. No word lies near
# it, and some word always comes first, so it must not be read as a meaning.

# %%
static, changed = made["static"]["prompts"][0], made["prompt-wise"]["prompts"]
rows = {i + 1: {"static": near(static[i])} | {kind: near(changed[c][i]) for kind, c in chests.items()} for i in chosen}
for i in chosen:
    rows[i + 1]["from normal to ill"] = near(changed[chests["ill"]][i] - changed[chests["normal"]][i])
pandas.DataFrame(rows).T.rename_axis("prompt")

# %% [markdown]
# ## Where queries look
#
# `generator` keeps its attention over the image tokens, the mean over the heads. Queries that began as rare words look alike. So
# here are four that differ: each next one is furthest from those before.

# %%
attention = made["generator"]["attention"]  # (B, L, M), sums to 1 over the tokens
usual = attention.mean(dim=0)
queries = [0]
while len(queries) < 4:
    queries.append(int(torch.cdist(usual, usual[queries]).min(dim=1).values.argmax()))
side = int(attention.shape[2] ** 0.5)  # tokens lie in a square; what a transformer has before them is left out
maps = attention[:, :, -(side**2) :].unflatten(2, (side, side))

# %% [markdown]
# One picture: the X-ray, and over it in colour how much a query takes from each square. An image of this profile has few tokens, so
# a square is a large part of the chest.

# %%
largest = maps[[*chests.values()]][:, queries].max().item()


def show(axis: plt.Axes, kind: str, query: int | None) -> None:
    axis.imshow(validation.images([chests[kind]])[0, 0], cmap="gray", extent=(0, 1, 0, 1))
    axis.set(xticks=[], yticks=[], title=kind if query is None else f"query {query + 1}")
    if query is not None:
        share = maps[chests[kind], query]
        axis.imshow(share, "plasma", extent=(0, 1, 0, 1), alpha=0.7 * share / largest, vmin=0, vmax=largest)


# %% [markdown]
# To see: some queries take much from one or two squares, others a little from everywhere, and in the other chest they look partly
# elsewhere. On the phantom the bright squares lie mostly at the edge of the picture, where the marker of the side is. So a bright
# square is not the place of a finding, at least not after so few steps.

# %%
figure, axes = plt.subplots(2, 5, figsize=(9, 3.7), layout="constrained")
for kind, line in zip(chests, axes, strict=True):
    for axis, query in zip(line, (None, *queries), strict=True):
        show(axis, kind, query)
figure.colorbar(axes[0, 1].images[1], ax=axes, label="attention", shrink=0.8)
mark_synthetic(figure, data)

# %% [markdown]
# ## What to take along
#
# A static prompt says the same of every image. MRG-LLM scales and shifts it, and `generator` lets it look. Both begin as the
# static book, and learn what to do with the image from the reports alone. That prompts differ between chests does not show yet that
# the LLM makes use of it: the measures of written reports must tell, in whole runs against the static book.
