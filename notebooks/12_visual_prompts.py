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
# # 12 · Visual prompts: one generator for all centres
#
# Centres teach a **frozen** vision model to tell findings and to outline organs. What they train and send is small: a generator that makes
# prompts for each picture, and a head [secondary: an account of a paper that is not identified; the form here is ours].
# This notebook follows one picture through the generator, trains a few methods on both tasks, and counts what each of them sent.
#
# The usual pictures are **synthetic**: PhantomCXR with its drawn truth.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom_findings,phantom_masks"  # or polyps, chest_normal, picture_classes, picture_masks
data_root = ""  # the folder of a public set
options = "{}"  # how it is read, as JSON or YAML
methods = "head,static,generator"  # rows of methods_visual_prompts.yaml, joined by commas
seed = 0
base_models = "stored"  # of the repository, where it has one of the profile; fresh: built here
workers = 0  # hospitals at the same time; 0: one a core, one on a GPU
workspace = ""  # where results are kept; the repository if empty

# %% [markdown]
# The task is a folder of its own, `fedmrg_core/tasks/visual_prompts/`. Federation, rules, ledger and comparison are the reports'.

# %%
import matplotlib.pyplot as plt
import pandas
import seaborn
import torch
import transformers

from fedmrg_core.data.pictures.picture import Subject
from fedmrg_core.data.site_names import path_part
from fedmrg_core.federation.model_task import load_chosen
from fedmrg_core.federation.run import run_federation
from fedmrg_core.federation.task import load_task
from fedmrg_core.paths import workspace_folder
from fedmrg_core.prompts.generator import CrossAttentionBlock
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.tasks.visual_prompts.answering import probabilities
from fedmrg_core.tasks.visual_prompts.client_pictures import open_pictures
from fedmrg_core.tasks.visual_prompts.evaluating import evaluate_run
from fedmrg_core.tasks.visual_prompts.inputs import prepare_inputs
from fedmrg_core.tasks.visual_prompts.measures import DECLARED
from fedmrg_core.tasks.visual_prompts.prompted_model import build_prompted_model, shares
from figures.common import mark_synthetic

# %% [markdown]
# A run is named as everywhere: profile, data, method, seed. Both tasks have the same rows. `generator` is always among them, as it is looked
# at below.

# %%
root = workspace_folder(workspace)
runs = {
    (each, name): RunSettings(profile=profile, data=each, method=name, seed=seed)
    for each in data.split(",")
    for name in dict.fromkeys([*methods.split(","), "generator"])
}
first = {each: next(run for (of, _), run in runs.items() if of == each) for each in data.split(",")}

# %% [markdown]
# ## The pictures
#
# Every site is a client; one centre never trains. The truth is what was drawn: findings of a picture, and the outlines of lungs and heart.

# %%
inputs = {each: prepare_inputs(run, root, data_root, options, base_models) for each, run in first.items()}
summaries = {each: summary for each, (summary, _) in inputs.items()}
for each in summaries:
    print(each, summaries[each]["subject"]["kind"], ", ".join(summaries[each]["subject"]["names"]))
shown = next(iter(summaries.values()))
pandas.DataFrame(shown["pictures"]).T.rename_axis("pictures of").assign(unseen=lambda t: t.index.isin(shown["unseen"]))

# %% [markdown]
# ## The frozen models
#
# A ViT tells, a SAM outlines. The small ones here are pretrained on pictures of no centre, by a task that the clients are not asked
# for. The loss is that of its last steps. With `base_models: {backbone: NAME}` in a profile any checkpoint takes their place.

# %%
for each, (_, made) in inputs.items():
    print(f"{each}: {made.get('model', made.get('backbone'))}, loss {made.get('loss')}, {made.get('task')}")

# %% [markdown]
# ## The generator, step by step
#
# One test picture, and the model of the row `generator` as it starts.


# %%
def model_and_pictures(each: str, method: str) -> tuple:
    run = RunSettings(profile=profile, data=each, method=method, seed=seed)
    subject = Subject.read(summaries[each]["subject"])
    settings, row = run.load()
    name = settings.base_models.backbone or run.base_models(root) / ("sam" if subject.kind == "masks" else "vit")
    place = run.prepared(root) / path_part(next(iter(summaries[each]["pictures"])))
    return build_prompted_model(settings, row, subject, name, seed).eval(), open_pictures(place, "test")


# %% [markdown]
# Its prompts are as long as the model's tokens are wide.

# %%
model, (_, tensors) = model_and_pictures(next(iter(first)), "generator")
image = tensors["pixels"][:1].float() / 255

# %% [markdown]
# **E**: the picture's patches as they enter the first frozen layer, M tokens of width D. **P_g**: L learned tokens that all centres share.

# %%
with torch.no_grad():
    tokens = model.backbone.embed(image)
    patches, queries = model.backbone.patches(tokens), model.global_prompt.weight
print("E", tuple(patches.shape), "  P_g", tuple(queries.shape))

# %% [markdown]
# **Cross-attention**: each token of P_g asks every patch, and reads what answers. A feed-forward layer follows:
# P(x) = P_g + CrossAttn(Q = P_g, K = V = E), then FFN. It is the module of the `generator` source of prompts.

# %%
with torch.no_grad():
    prompts, attention = model.generator(queries, patches)
print("P(x)", tuple(prompts.shape), "  attention", tuple(attention.shape))
print("at the start P(x) is P_g:", torch.equal(prompts[0], queries))

# %% [markdown]
# The tokens that the frozen model reads are **[cls; P(x); E]**. Its feature goes to the head.

# %%
with torch.no_grad():
    feature = model.backbone.run(tokens, prompts)
    logits = model(image).logits
print("feature", tuple(feature.shape), "  logits", tuple(logits.shape))

# %% [markdown]
# ## What share of the model travels
#
# At the size of published models, counted without weights. The upper published share, 8.26 % of a ViT-B/16, is one block [derived]. For
# SAM-B the lower one, 6.55 %, does not come out. The nearest is attention without feed-forward, with the mask decoder.


# %%
def millions(*modules: torch.nn.Module) -> float:
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


with torch.device("meta"):
    block, vit = CrossAttentionBlock(768, 12), transformers.ViTModel(transformers.ViTConfig(), add_pooling_layer=False)
    sam = transformers.SamModel(transformers.SamConfig())

# %% [markdown]
# Of the foundation model alone, and of the whole with what was added.

# %%
decoder = millions(sam.mask_decoder)
parts = {
    "ViT-B/16: block": (millions(block), 0, millions(vit)),
    "SAM-B: block and mask decoder": (millions(block), decoder, millions(sam)),
    "SAM-B: attention and mask decoder": (millions(block.attention), decoder, millions(sam)),
}
table = pandas.DataFrame(parts, index=["added", "decoder", "model"]).T
sent = 100 * (table["added"] + table["decoder"])
table.assign(**{"% of model": sent / table["model"], "% of both": sent / (table["model"] + table["added"])}).round(2)

# %% [markdown]
# ## Training
#
# `head`: nothing but the head. `static`: prompts that are the same for every picture. `generator`: prompts for each. A finished run is not
# trained again.

# %%
for (of, name), run in runs.items():
    run_federation(run.folder(root), run.configuration(root), workers=workers)
    if not (run.folder(root) / "metrics.csv").exists():
        evaluate_run(run.folder(root))
    print(f"{of}, {name}: {run.folder(root).relative_to(root)}")

# %% [markdown]
# Validation, round by round: the area under the ROC curve for findings, Dice for masks. The line is the mean over centres.


# %%
def courses() -> pandas.DataFrame:
    parts = []
    for (of, name), run in runs.items():
        rounds = pandas.read_csv(run.folder(root) / "rounds.csv")
        key = next(key for key in DECLARED.names if f"validation_{key}" in rounds)
        part = rounds[["round", "client"]].assign(value=rounds[f"validation_{key}"], method=name)
        parts.append(part.assign(measure=f"{of}: {DECLARED.names[key]}"))
    return pandas.concat(parts, ignore_index=True)


# %% [markdown]
# Each measure has its own scale.

# %%
drawn = {"hue": "method", "col": "measure", "kind": "line", "errorbar": None, "height": 3, "aspect": 1.4}
figure = seaborn.relplot(courses(), x="round", y="value", facet_kws={"sharey": False}, **drawn)
mark_synthetic(figure.figure, next(iter(first)))

# %% [markdown]
# ## Home and the unseen centre
#
# The test pictures of all centres that trained, and those of the one that did not.


# %%
def measured() -> pandas.DataFrame:
    parts = []
    for (of, name), run in runs.items():
        metrics = pandas.read_csv(run.folder(root) / "metrics.csv")
        parts.append(metrics.assign(data=of, method=name))
    table = pandas.concat(parts, ignore_index=True)
    return table[table["metric"].isin(DECLARED.names)]


# %% [markdown]
# In brackets: the bootstrap interval over pictures.

# %%
found = measured()
found["value"] = found.apply(lambda r: f"{r['value']:.3f} ({r['low']:.3f} to {r['high']:.3f})", axis=1)
found = found[found["scope"].isin(["home", "unseen"])]
found["metric"] = found["metric"].map(DECLARED.names)
found.pivot(index=["data", "metric", "scope"], columns="method", values="value")

# %% [markdown]
# ## Where the prompts look
#
# The trained generator, and the attention of its first prompts over the patches of test pictures. An even grey means that a prompt reads
# the whole picture alike.


# %%
def trained(each: str, method: str) -> tuple:
    folder = runs[each, method].folder(root).resolve()
    task = load_task(folder)
    load_chosen(task.model, folder)
    place = runs[each, method].prepared(root) / path_part(next(iter(summaries[each]["pictures"])))
    return task.model.eval(), open_pictures(place, "test")[1]


# %% [markdown]
# The scale of each map is its own.

# %%
model, tensors = trained(next(iter(first)), "generator")
with torch.no_grad():
    attention = model(tensors["pixels"][:2].float() / 255).attention
maps = attention[:, :5].unflatten(2, (int(attention.shape[2] ** 0.5), -1))
figure, axes = plt.subplots(2, 6, figsize=(9, 3.2), layout="constrained")
for row, axis in enumerate(axes):
    axis[0].imshow(tensors["pixels"][row].permute(1, 2, 0), cmap="gray")
    for number in range(maps.shape[1]):
        axis[number + 1].imshow(maps[row, number])
mark_synthetic(figure, next(iter(first)))

# %% [markdown]
# ## Masks beside the truth
#
# What the mask decoder finds with prompts, in colour, and the drawn outline as a line.


# %%
def outline(axis: plt.Axes, pixels: torch.Tensor, truth: torch.Tensor, found: torch.Tensor) -> None:
    axis.imshow(pixels.permute(1, 2, 0), cmap="gray")
    for region, line, colour in zip(found, truth, ("tab:cyan", "tab:orange", "tab:green"), strict=False):
        axis.contourf(region, levels=[0.5, 1.01], colors=[colour], alpha=0.35)
        axis.contour(line, levels=[0.5], colors=[colour], linewidths=1)
    axis.set(xticks=[], yticks=[])


# %% [markdown]
# The first four test pictures of one centre.

# %%
for each in (each for each in first if summaries[each]["subject"]["kind"] == "masks"):
    model, tensors = trained(each, "generator")
    found = probabilities(model, tensors["pixels"][:4])
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.5), layout="constrained")
    for axis, *parts in zip(axes, tensors["pixels"], tensors["truth"], found, strict=False):
        outline(axis, *parts)
    mark_synthetic(figure, each)

# %% [markdown]
# ## Parameters and bytes
#
# What a centre sends in a round, measured on the serialised messages, and the share of the frozen model that it is.


# %%
def traffic(run: RunSettings) -> dict[str, float]:
    ledger = pandas.read_csv(run.folder(root) / "ledger.csv")
    up = ledger.query("phase == 'train' and direction == 'up' and module == 'message'")["bytes"].mean()
    sent = shares(load_task(run.folder(root)).model)
    return {"parameters sent": sent["sent"], "% of the model": 100 * sent["share"], "KiB up a round": up / 1024}


sent = pandas.DataFrame({key: traffic(run) for key, run in runs.items()}).T.rename_axis(["data", "method"])
sent.round(2)

# %% [markdown]
# Quality against bytes.

# %%
main = measured().query("scope == 'home' and metric in ('auc', 'dice_empty_1')").set_index(["data", "method"])
points = sent.join(main["value"]).reset_index()
settings = {"x": "KiB up a round", "y": "value", "hue": "method", "col": "data", "height": 3, "s": 80}
figure = seaborn.relplot(points, facet_kws={"sharey": False, "sharex": False}, **settings)
figure.set(xscale="log")
mark_synthetic(figure.figure, next(iter(first)))
