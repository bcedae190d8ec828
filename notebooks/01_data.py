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
# # 01 · The data and its heterogeneity
#
# A **phantom** is an object made to be imaged: its inside is known, so a method can be checked against the truth.
# PhantomCXR is a phantom in software [ours]. It draws chest radiographs of patients who do not exist, and writes the
# reports of six imaginary centres about them. Nothing learnt from it is medical knowledge; that both **images** and
# **wording** differ between centres is the setting of the paper [paper], and this notebook shows that the phantom has
# it.

# %% [markdown]
# Five centres train, the sixth (`centre-f`) never does: it is tested on, and adapted to in notebook 09. The numbers
# come from the profile; the few below belong to this notebook alone.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom"  # phantom, iu_xray, folder; in phantom-image0.5-wording0 the centres differ less
data_root = ""  # folder of a real data set
options: str | dict = "{}"  # a data set's own options as JSON, e.g. {"layout": "kaggle"}
seed = 0
workspace = ""  # where results are kept; the repository if empty
probe_train = 700  # studies of one centre to learn its findings from; shrunk from 1500
probe_test = 300  # shrunk from 600

# %% [markdown]
# What cannot be read is refused before anything is drawn.

# %%
from fedmrg_core.data.sources import check_data_parameters

own_options = check_data_parameters(data, data_root, options)

# %% [markdown]
# The phantom has a module for each step from anatomy to report. Reading and storing are the same for every data set.

# %%
import json
import textwrap

import matplotlib.pyplot as plt
import numpy
import pandas
import seaborn
from tqdm.auto import tqdm

from fedmrg_core.data import heterogeneity
from fedmrg_core.data.findings import FINDINGS, POSITIVE, STATES
from fedmrg_core.data.phantom import CENTRES, DRAWN_FINDINGS, PhantomSettings, draw_study, study_text
from fedmrg_core.data.phantom.acquisition import acquire
from fedmrg_core.data.phantom.anatomy import project_fields, sample_anatomy
from fedmrg_core.data.phantom.centres import centre
from fedmrg_core.data.phantom.drawing import draw_patient
from fedmrg_core.data.phantom.projection import Ellipsoid, Grid, transmission
from fedmrg_core.data.phantom.report import write_report
from fedmrg_core.data.phantom.truth import Detail
from fedmrg_core.data.prepared import prepare
from fedmrg_core.data.sources import corpus_name
from fedmrg_core.paths import prepared_folder, workspace_folder
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.seeds import numpy_stream
from figures.common import mark_synthetic

# %% [markdown]
# The profile has the sizes, and the workspace takes what is made.

# %%
settings, root = load_profile(profile, data), workspace_folder(workspace)

# %% [markdown]
# ## A radiograph is a projection
#
# On its way through the body a ray loses photons in proportion to how many are left, so
#
# $$ I(x, y) = I_0 \exp\Big(-\int \mu(x, y, z)\,dz\Big) \qquad \text{(Beer-Lambert)} $$

# %% [markdown]
# For an ellipsoid the integral needs no summing: it is $\mu$ times the chord $2 c \sqrt{1 - q(x, y)}$. Here are the chord along
# one row, and the same length as a sum over thin slices.

# %%
ball, grid = Ellipsoid(x=1.0, y=0.0, a=6.0, b=4.0, c=5.0), Grid.square(128)
row = 64
slices = numpy.linspace(-6, 6, 601)
inside = (ball.quadratic(grid)[row][:, None] + (slices / ball.c) ** 2) < 1
chord = 2 * ball.half_depth(grid)[row]

# %% [markdown]
# Both lie over each other. On the right the share of the photons that $\mu$ = 0.19 per cm leaves.

# %%
figure, (lengths, photons) = plt.subplots(1, 2, figsize=(9, 2.8))
lengths.plot(grid.x[row], inside.sum(axis=1) * (slices[1] - slices[0]), lw=5, alpha=0.3, label="summed slices")
lengths.plot(grid.x[row], chord, label="closed form")
lengths.set(xlabel="x in cm", ylabel="chord in cm", ylim=(-0.5, 14))
lengths.legend(loc="upper center", ncols=2)
photons.plot(grid.x[row], transmission(0.19 * chord), color="C2")
photons.set(xlabel="x in cm", ylabel="share of photons left", ylim=(0, 1.05))
figure.tight_layout()

# %% [markdown]
# ## From solids to a chest
#
# Trunk, lungs, heart, great vessels and diaphragm are such solids, ribs and vessels are tubes. All large ones are
# centred at the same depth, so where two overlap the deeper one displaces the other, and that is again a closed form.

# %% [markdown]
# One patient: first the solids, then the integral along every ray, then the picture that one centre takes of it.

# %%
patient = numpy_stream(seed, "notebook", "patient")
anatomy = sample_anatomy(patient, {}, "PA")
grid = Grid.square(256)
fields = project_fields(anatomy, grid)
path, _ = draw_patient(anatomy, {}, grid, numpy_stream(seed, "notebook", "drawing"))
picture = acquire(path, centre("centre-a").image, numpy_stream(seed, "notebook", "acquisition"))

# %% [markdown]
# Left to right: air inside the lungs, the full path integral, the radiograph.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2))
panels = {"air in cm": fields.air["right"] + fields.air["left"], "path integral": path, "radiograph": picture}
for axis, (title, panel) in zip(axes, panels.items(), strict=True):
    axis.imshow(panel, cmap="gray")
    axis.set_title(title)
    axis.axis("off")
mark_synthetic(figure)

# %% [markdown]
# ## Thirteen findings
#
# Each finding changes the anatomy: a heart wider than half the thorax, water with a meniscus, air beyond a thin
# pleural line, a plate of collapsed lung under a lifted diaphragm. The same patient has one after the other.

# %% [markdown]
# Where a finding sits and how severe it is, is a `Detail`. Pneumonia is drawn as the patchy kind of consolidation, with air
# bronchograms; "no finding" needs no drawing.


# %%
special = {"support devices": Detail("left", -1, 2, ("pacemaker", "tube")), "lung lesion": Detail("left", 0, 2)}


def radiograph(name: str) -> numpy.ndarray:
    truth = {} if name == "healthy" else {name: special.get(name, Detail("right", 2, 2))}
    if name == "pneumonia":
        truth["consolidation"] = Detail("right", 2, 2)
    anatomy = sample_anatomy(numpy_stream(seed, "notebook", "patient"), truth, "PA")
    path, _ = draw_patient(anatomy, truth, grid, numpy_stream(seed, "notebook", "drawing"))
    return acquire(path, centre("centre-a").image, numpy_stream(seed, "notebook", "acquisition"))


# %% [markdown]
# All with the same random numbers, so that nothing else differs.

# %%
figure, axes = plt.subplots(3, 5, figsize=(9, 6.6))
for axis in axes.flat:
    axis.axis("off")
for axis, name in zip(axes.flat, ("healthy", *DRAWN_FINDINGS), strict=False):
    axis.imshow(radiograph(name), cmap="gray")
    axis.set_title(textwrap.fill(name, 18), fontsize=10)
figure.tight_layout()
mark_synthetic(figure)

# %% [markdown]
# ## The truth comes along
#
# A study knows its lung fields (blue) and its heart (red), what is drawn and where, and what its report says. The width of the
# heart mask over that of the thorax is the cardiothoracic ratio, the radiologist's measure of cardiomegaly (over 0.5
# on a postero-anterior film).

# %% [markdown]
# Four studies of one centre, each under what is drawn in it.

# %%
figure, axes = plt.subplots(1, 4, figsize=(10, 3.6))
for number, axis in enumerate(axes):
    study = draw_study(seed, "centre-c", number, 256)
    axis.imshow(study.image, cmap="gray")
    axis.contour(study.lung_mask, [0.5], colors="deepskyblue", linewidths=0.8)
    axis.contour(study.heart_mask, [0.5], colors="tomato", linewidths=0.8)
    axis.set_title("\n".join(json.loads(study.details)) or "healthy", fontsize=10)
    axis.axis("off")
figure.tight_layout()
mark_synthetic(figure)

# %% [markdown]
# Where it lies and how much of it there is, of the last study:

# %%
for name, detail in json.loads(study.details).items():
    zone = f"{('upper', 'middle', 'lower')[detail['zone']]} zone" if detail["zone"] >= 0 else ""  # -1: it has none
    severity = ("mild or small", "moderate", "severe or large")[detail["severity"] - 1]
    print(f"  {name}: {', '.join(filter(None, [detail['side'], zone, severity, *detail['kinds']]))}")

# %% [markdown]
# What is drawn and what the report says differ on purpose: a report may leave a finding unsaid or hedge it, as real ones do.

# %%
pandas.DataFrame({"drawn": study.drawn, "report says": [STATES[state] for state in study.states]}, index=FINDINGS)

# %% [markdown]
# ## Six acquisitions
#
# Every centre has its own contrast curve, noise, blur, pixel size, share of bedside films, processing, marker and
# collimation. All numbers stand in one table, `fedmrg_core/data/phantom/centres.py`.

# %%
figure, axes = plt.subplots(len(CENTRES), 6, figsize=(9, 9.2))
for row, name in zip(axes, CENTRES, strict=True):
    for number, axis in enumerate(row):
        axis.imshow(draw_study(seed, name, number, 128).image, cmap="gray", vmin=0, vmax=255)
        axis.axis("off")
    row[0].set_title(name, fontsize=9, loc="left")
figure.tight_layout(pad=0.3)
mark_synthetic(figure)

# %% [markdown]
# ## Six wordings of one truth
#
# Order, terms, sentence frames, hedging and what is left unsaid are the centre's own.

# %% [markdown]
# The chest below has a large right effusion and a moderately enlarged heart, and nothing else.

# %%
truth = {"pleural effusion": Detail("right", -1, 3), "cardiomegaly": Detail(severity=2)}
for name in CENTRES:
    findings, impression, states = write_report(truth, centre(name).report, numpy_stream(seed, "notebook", "report"))
    print(f"{name}\n  FINDINGS {findings}\n  IMPRESSION {impression}")

# %% [markdown]
# ## The data set
#
# Everything from here on holds for any data set: `prepare` reads it (or draws the phantom), checks every study, and
# stores it once for all notebooks that follow. A phantom study depends on seed, centre and index alone, so a larger
# data set begins with the smaller one.

# %% [markdown]
# What is not used is listed with its reason; the fingerprint is kept with every result.

# %%
counts = settings.phantom.model_dump() if corpus_name(data) == "phantom" else own_options
prepared = prepare(data, data_root, prepared_folder(root, settings.name, data), settings.image_size, seed, **counts)
studies, unseen = prepared.studies, prepared.unseen_sites
sites, splits = numpy.array(studies["site"][:]), numpy.array(studies["split"][:])
print(f"{data}: {len(studies)} studies, {len(prepared.left_out)} left out, fingerprint {prepared.fingerprint[:12]}")
pandas.crosstab(sites, splits, rownames=["site"], colnames=["split"])

# %% [markdown]
# Centres differ in prevalence as well. For the phantom this is the share of studies whose **image** shows a finding;
# for real data only the report can tell, so it is the share of reports that affirm it.

# %%
truth_known = "drawn" in studies.column_names
labels = numpy.array(studies["drawn"][:]) if truth_known else numpy.array(studies["states"][:]) == POSITIVE
shares = pandas.DataFrame(labels, columns=FINDINGS).groupby(sites).mean()
figure, axis = plt.subplots(figsize=(9, 2.8))
seaborn.heatmap(shares, annot=True, fmt=".2f", cmap="crest", ax=axis, annot_kws={"size": 8}, cbar=False)
axis.set_title("share of studies whose " + ("image shows" if truth_known else "report affirms") + " the finding")
mark_synthetic(figure, data)

# %% [markdown]
# ## Can a linear probe name the centre?
#
# If the centres were alike, a classifier could only guess (0.17 for six). The probe is linear: on fixed filter
# responses for the image, on TF-IDF of words and word pairs for the text. Of the unseen centre it also learns from
# one half of the test studies; the other half is held out.

# %% [markdown]
# Which studies it learns from, and which it is tested on:

# %%
texts = numpy.array(studies["findings"][:], dtype=object)
every_other = numpy.arange(len(sites)) % 2 == 1
learn = ((splits == "train") | (numpy.isin(sites, unseen) & (splits == "test"))) & every_other
held_out = (splits == "test") & ~every_other

# %% [markdown]
# Markers and black borders would show at once which centre it is, so the image probe sees only the middle of the picture.


# %%
margin = settings.image_size // 5


def middle_of(chosen: numpy.ndarray) -> numpy.ndarray:
    images = (studies[int(row)]["image"] for row in tqdm(numpy.flatnonzero(chosen), desc="middles"))
    return heterogeneity.image_features([numpy.asarray(image)[margin:-margin, margin:-margin] for image in images])


from_image = heterogeneity.site_from_image(middle_of(learn), sites[learn], middle_of(held_out), sites[held_out])
from_text = heterogeneity.site_from_text(texts[learn], sites[learn], texts[held_out], sites[held_out])
print(f"balanced accuracy on {held_out.sum()} held-out studies: image {from_image:.3f}, text {from_text:.3f}")

# %% [markdown]
# ## Does knowledge travel?
#
# A probe for the findings, trained at one centre, is tested at all of them. First the features of every study, and the studies
# of each centre and split.

# %%
features = heterogeneity.image_features(tqdm(studies["image"], desc="features"))


def of_centre(name: str, split: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    chosen = (sites == name) & (splits == split)
    return features[chosen], labels[chosen, :-1]  # without "no finding"


# %% [markdown]
# Rows are centres that train, columns those that test; the unseen centre only tests.

# %%
names = sorted(set(sites), key=lambda name: (name in unseen, name))
train = {name: of_centre(name, "train") for name in names if name not in unseen}
test = {name: of_centre(name, "test") for name in names}
matrix = numpy.nanmean(heterogeneity.transfer_matrix(train, test), axis=2)

# %% [markdown]
# Off the diagonal the AUROC falls.

# %%
figure, axis = plt.subplots(figsize=(5.4, 3.6))
seaborn.heatmap(pandas.DataFrame(matrix, train, test), annot=True, fmt=".2f", cmap="crest", ax=axis)
axis.set(xlabel="tested at", ylabel="trained at", title="mean AUROC over the findings")
mark_synthetic(figure, data)
own = numpy.eye(len(train), len(test), dtype=bool)
print(f"at home {matrix[own].mean():.3f}, elsewhere {matrix[~own].mean():.3f}")

# %% [markdown]
# ## Is every finding visible?
#
# Back to the phantom: one whose findings cannot be seen would test nothing. With more studies of one centre a linear
# probe finds each of them; the aim is an AUROC of at least 0.80.


# %%
def labelled(start: int, count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    drawn = [draw_study(seed, "centre-a", start + number) for number in tqdm(range(count), desc="studies")]
    wanted = [FINDINGS.index(name) for name in DRAWN_FINDINGS]
    labels = numpy.array([study.drawn for study in drawn])[:, wanted]
    return heterogeneity.image_features([study.image for study in drawn]), labels


# %% [markdown]
# Studies are numbered, and those from 20,000,000 on are test studies: none of them was learned from.

# %%
train_features, train_labels = labelled(0, probe_train)
test_features, test_labels = labelled(20_000_000, probe_test)
scores = heterogeneity.finding_scores(train_features, train_labels, test_features)
areas = heterogeneity.area_under_curve(test_labels, scores)

# %% [markdown]
# Beside the area how many test studies have the finding: of few, one more or less moves it a lot.

# %%
visible = pandas.DataFrame({"AUROC": areas.round(3), "positives": test_labels.sum(axis=0)}, index=DRAWN_FINDINGS)
print(f"lowest: {visible['AUROC'].idxmin()} {visible['AUROC'].min():.3f}")
visible

# %% [markdown]
# ## Less heterogeneity
#
# `PhantomSettings` blends every centre with a common style: 0 leaves prevalence as the only difference, 1 is what was
# shown above. A data set's name sets both strengths for a whole run: `data="phantom-image0-wording1"`.

# %% [markdown]
# The text probe, repeated on reports without any difference in wording, falls towards guessing; what is left comes
# from prevalence.


# %%
def texts_of(strength: float, start: int, count: int) -> tuple[list[str], list[str]]:
    blend = PhantomSettings(wording_strength=strength)
    names = [name for name in CENTRES for _ in range(count)]
    return [study_text(seed, name, start + number % count, blend) for number, name in enumerate(names)], names


for strength in (0.0, 0.5, 1.0):
    accuracy = heterogeneity.site_from_text(*texts_of(strength, 0, 80), *texts_of(strength, 20_000_000, 40))
    print(f"wording strength {strength}: balanced accuracy {accuracy:.2f}")

# %% [markdown]
# ## What to take along
#
# Both heterogeneities are there, and their strengths can be set; every study carries its truth; and it stays a phantom: simple
# anatomy, simple English, invented prevalences. `data_cards/phantom_cxr.md` says what it must not be used for.
