"""PhantomCXR: projection, determinism, schema, masks, states, cache, public corpus, heterogeneity."""

from __future__ import annotations

import io
import json

import numpy
import pytest
from PIL import Image

from fedmrg_core.data import heterogeneity
from fedmrg_core.data.findings import BLANK, FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN
from fedmrg_core.data.labeller import label_report
from fedmrg_core.data.phantom import (
    CENTRES,
    DRAWN_FINDINGS,
    UNSEEN_CENTRE,
    PhantomSettings,
    draw_study,
    load_phantom,
    public_corpus,
    public_texts,
    study_text,
)
from fedmrg_core.data.phantom.anatomy import masks, project_fields, sample_anatomy
from fedmrg_core.data.phantom.centres import blended_report_style, centre
from fedmrg_core.data.phantom.drawing import draw_patient
from fedmrg_core.data.phantom.projection import Ellipsoid, Grid, draw_segments, transmission, tube_chord
from fedmrg_core.data.phantom.report import choose_states, write_report
from fedmrg_core.data.phantom.truth import Detail
from fedmrg_core.data.study import SPLITS, check_studies
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream


@pytest.mark.numerical
def test_ellipsoid_chord_equals_numerical_ray_integration():
    solid = Ellipsoid(2.0, -1.5, 6.0, 3.0, 4.0, angle=0.6)
    grid = Grid.square(48, zoom=1.1, tilt=0.05)
    depths = numpy.linspace(-5, 5, 2001)
    cos, sin = numpy.cos(0.6), numpy.sin(0.6)
    dx, dy = grid.x.astype(float) - 2.0, grid.y.astype(float) + 1.5
    u, v = (cos * dx + sin * dy) / 6.0, (cos * dy - sin * dx) / 3.0
    inside = (u**2 + v**2)[..., None] + (depths / 4.0) ** 2 < 1
    numerical = inside.sum(axis=-1) * (depths[1] - depths[0])
    assert numpy.abs(2 * solid.half_depth(grid) - numerical).max() < 0.02
    assert solid.half_depth(grid).max() > 3.9


@pytest.mark.numerical
def test_tube_chord_equals_numerical_ray_integration():
    grid = Grid.square(96)
    drawn = numpy.zeros_like(grid.x)
    draw_segments(drawn, grid, numpy.array([[-5.0, 2.0, 6.0, -4.0, 1.0, 1.0]]))
    depths = numpy.linspace(-1.5, 1.5, 1201)
    direction = numpy.array([11.0, -6.0]) / numpy.hypot(11, 6)
    along = (grid.x + 5) * direction[0] + (grid.y - 2) * direction[1]
    across = numpy.abs((grid.x + 5) * direction[1] - (grid.y - 2) * direction[0])
    middle = (along > 1) & (along < numpy.hypot(11, 6) - 1)  # away from the rounded ends
    numerical = (across[..., None] ** 2 + depths**2 < 1).sum(axis=-1) * (depths[1] - depths[0])
    assert numpy.abs(drawn - numerical)[middle].max() < 0.02
    hollow = tube_chord(numpy.array([0.0]), 1.0, wall=0.25)
    assert hollow == pytest.approx(0.5)  # twice the wall's thickness


@pytest.mark.numerical
def test_half_the_photons_are_left_after_one_half_value_layer():
    assert transmission(numpy.array(numpy.log(2))) == pytest.approx(0.5)


@pytest.mark.numerical
def test_a_box_of_a_turned_grid_holds_its_rectangle():
    grid = Grid.square(64, zoom=1.2, tilt=0.2)
    inside = (grid.x > -3) & (grid.x < 5) & (grid.y > -6) & (grid.y < 2)
    reached = numpy.zeros_like(inside)
    reached[grid.box(-3, 5, -6, 2)] = True
    assert inside.sum() > 100
    assert not (inside & ~reached).any()


@pytest.mark.numerical
def test_a_study_depends_on_seed_centre_and_index_only():
    first = draw_study(3, "centre-b", 17, 64)
    for index in (4, 90):
        draw_study(3, "centre-b", index, 64)
    again = draw_study(3, "centre-b", 17, 64)
    assert numpy.array_equal(first.image, again.image)
    assert (first.findings, first.impression, first.states) == (again.findings, again.impression, again.states)
    assert study_text(3, "centre-b", 17) == first.findings == draw_study(3, "centre-b", 17, 32).findings
    others = [draw_study(4, "centre-b", 17, 64), draw_study(3, "centre-b", 18, 64), draw_study(3, "centre-c", 17, 64)]
    assert all(not numpy.array_equal(first.image, other.image) for other in others)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    return load_phantom(12, 3, 6, 64, seed=1, cache_folder=folder, adaptation=4, progress=False), folder


def test_load_phantom_follows_the_schema_and_gives_the_unseen_centre_no_validation(loaded):
    studies = loaded[0].studies
    check_studies(studies, "phantom")
    assert loaded[0].left_out == []
    counts = {(site, split): 0 for site in CENTRES for split in SPLITS}
    for site, split in zip(studies["site"], studies["split"], strict=True):
        counts[site, split] += 1
    expected = {"train": 12, "validation": 3, "test": 6}
    of_unseen = {"train": 4, "validation": 0, "test": 6}  # its train split is for adaptation
    for (site, split), count in counts.items():
        assert count == (of_unseen if site == UNSEEN_CENTRE else expected)[split]
    image = studies[0]["image"]
    assert (image.mode, image.size) == ("L", (64, 64))
    assert set(json.loads(studies[0]["details"])) == {
        name for name, flag in zip(FINDINGS, studies[0]["drawn"], strict=True) if flag and name != "no finding"
    }


def test_a_larger_data_set_begins_with_the_same_studies(loaded):
    small = loaded[0].studies
    large = load_phantom(13, 3, 6, 64, seed=1, adaptation=5, progress=False).studies
    reports = dict(zip(large["study_id"], large["findings"], strict=True))
    assert all(reports[name] == text for name, text in zip(small["study_id"], small["findings"], strict=True))


def test_the_second_load_reads_the_cache_and_is_equal(loaded, monkeypatch):
    first, folder = loaded
    monkeypatch.setattr("fedmrg_core.data.phantom.studies.draw_study", lambda *_: pytest.fail("drawn again"))
    second = load_phantom(12, 3, 6, 64, seed=1, cache_folder=folder, adaptation=4, progress=False)
    assert first.studies.features == second.studies.features
    assert first.studies.to_dict() == second.studies.to_dict()
    assert len(list(folder.iterdir())) == 1  # nothing half written beside it


def test_other_settings_are_another_data_set(loaded):
    first, folder = loaded
    asked = {"cache_folder": folder, "adaptation": 4, "image_strength": 0.0}
    other = load_phantom(12, 3, 6, 64, seed=1, **asked, progress=False)
    assert other.studies["findings"][:] == first.studies["findings"][:]  # wording is untouched
    assert other.studies[0]["image"].tobytes() != first.studies[0]["image"].tobytes()


@pytest.mark.numerical
def test_at_least_ten_findings_are_drawn_and_each_changes_the_picture():
    assert len(DRAWN_FINDINGS) >= 10
    grid = Grid.square(128)
    details = {"support devices": Detail("left", -1, 2, ("pacemaker",)), "lung lesion": Detail("left", 0, 2)}
    healthy, _ = _patient({}, grid)
    for name in DRAWN_FINDINGS:
        truth = {name: details.get(name, Detail("left", 2, 2))}
        if name == "pneumonia":  # an infection is a kind of consolidation: it must look unlike the other kind
            truth["consolidation"] = Detail("left", 2, 2)
            reference, _ = _patient({"consolidation": Detail("left", 2, 2)}, grid)
        else:
            reference = healthy
        changed, _ = _patient(truth, grid)
        assert (numpy.abs(changed - reference) > 0.15).sum() > 20, name


def _patient(truth, grid):
    rng = numpy_stream(5, "one patient")
    anatomy = sample_anatomy(rng, truth, "PA")
    return draw_patient(anatomy, truth, grid, numpy_stream(5, "its drawing"))


def _heart_to_thorax_ratio(anatomy, grid):
    lung_mask, heart_mask = masks(project_fields(anatomy, grid))
    lung_columns, heart_columns = numpy.flatnonzero(lung_mask.any(axis=0)), numpy.flatnonzero(heart_mask.any(axis=0))
    return numpy.ptp(heart_columns) / numpy.ptp(lung_columns)


@pytest.mark.numerical
def test_the_masks_measure_cardiomegaly_on_postero_anterior_films():
    grid = Grid.square(256)
    for number in range(15):
        for severity in (1, 2, 3):
            rng = numpy_stream(number, "ratio")
            enlarged = sample_anatomy(rng, {"cardiomegaly": Detail(severity=severity)}, "PA")
            assert _heart_to_thorax_ratio(enlarged, grid) > 0.5
        assert _heart_to_thorax_ratio(sample_anatomy(numpy_stream(number, "ratio"), {}, "PA"), grid) < 0.5


@pytest.mark.numerical
def test_masks_are_sensible():
    study = draw_study(0, "centre-a", 5, 128)
    assert study.lung_mask.dtype == study.heart_mask.dtype == bool
    assert 0.15 < study.lung_mask.mean() < 0.5 and 0.02 < study.heart_mask.mean() < 0.25
    assert not (study.lung_mask & study.heart_mask).any()
    assert study.image[study.lung_mask].mean() < study.image[study.heart_mask].mean()


@pytest.mark.numerical
def test_an_effusion_whitens_the_base_on_its_side():
    grid = Grid.square(128)
    base_right = (grid.x < -5) & (grid.x > -11) & (grid.y > 3) & (grid.y < 5.5)
    base_left = (grid.x > 5) & (grid.x < 11) & (grid.y > 3) & (grid.y < 5.5)
    healthy, _ = _patient({}, grid)
    wet, _ = _patient({"pleural effusion": Detail("right", -1, 3)}, grid)
    assert (wet - healthy)[base_right].mean() > 0.5
    assert abs((wet - healthy)[base_left].mean()) < 0.05


def test_the_states_are_what_the_text_says():
    style = centre("centre-b").report
    truth = {"pleural effusion": Detail("right", -1, 3), "cardiomegaly": Detail(severity=2)}
    seen = {state: 0 for state in (BLANK, POSITIVE, NEGATIVE, UNCERTAIN)}
    for number in range(60):
        text, _, states = write_report(truth, style, numpy_stream(number, "states"))
        state = states[FINDINGS.index("pleural effusion")]
        seen[state] += 1
        named = "effusion" in text
        hedged = any(
            f"{cue} large right {noun}" in text
            for cue in ("Possible", "Questionable")
            for noun in ("effusion", "pleural")
        )
        assert (named, hedged) == (state != BLANK, state == UNCERTAIN), text
        assert state != NEGATIVE  # nobody denies what is there
        assert states[FINDINGS.index("cardiomegaly")] in (POSITIVE, UNCERTAIN, BLANK)
    assert seen[POSITIVE] > 40


def test_the_labeller_recovers_the_states_of_every_centre_and_of_the_public_corpus():
    for name in (*CENTRES, "public"):
        wrong = 0
        for number in range(60):
            study = draw_study(11, name, number, 32)
            wrong += sum(said != read for said, read in zip(study.states, label_report(study.findings), strict=True))
        assert wrong / (60 * len(FINDINGS)) <= 0.01, name


def test_no_finding_is_positive_exactly_without_any_other_finding_but_devices():
    style = centre("centre-d").report
    for number in range(40):
        devices = {"support devices": Detail("left", -1, 2, ("tube",))} if number % 2 else {}
        text, _, states = write_report(devices, style, numpy_stream(number, "nothing"))
        others = [state for name, state in zip(FINDINGS[:-1], states, strict=False) if name != "support devices"]
        assert (states[-1] == POSITIVE) == (not {POSITIVE, UNCERTAIN} & set(others)), text
        assert states[-1] in (BLANK, POSITIVE)


def test_pneumonia_is_never_surer_than_its_consolidation():
    truth = {"consolidation": Detail("left", 2, 1), "pneumonia": Detail("left", -1, 2)}
    for number in range(200):
        states = choose_states(truth, centre("centre-e").report, numpy_stream(number, "infection"))
        if states["consolidation"] == BLANK:
            assert states["pneumonia"] == BLANK
        if states["consolidation"] == UNCERTAIN:
            assert states["pneumonia"] in (UNCERTAIN, BLANK)


def test_without_wording_strength_all_centres_write_alike():
    truth = {"edema": Detail(severity=3)}
    texts = {
        write_report(truth, blended_report_style(centre(name).report, 0.0), numpy_stream(2, "same"), 0.0)[0]
        for name in CENTRES
    }
    own = {write_report(truth, centre(name).report, numpy_stream(2, "same"))[0] for name in CENTRES}
    assert len(texts) == 1 and len(own) == len(CENTRES)
    plain = PhantomSettings(wording_strength=0.0)
    assert not draw_study(0, "centre-d", 0, 64, plain).findings.startswith("Lungs:")
    assert draw_study(0, "centre-d", 0, 64).findings.startswith("Lungs:")


def test_the_public_corpus_shares_no_study_and_hardly_a_sentence_with_the_centres(loaded):
    public = public_corpus(30, 64, seed=1, progress=False)
    check_studies(public, "public")
    assert set(public["site"]) == {"public"} and set(public["split"]) == {"train"}
    assert public["findings"][:] == public_texts(30, seed=1)
    pictures = {_pixels(image) for image in public["image"]}
    assert not pictures & {_pixels(image) for image in loaded[0].studies["image"]}
    # A short sentence such as "No pneumothorax." may occur on both sides; a whole report should not.
    assert not set(public["findings"]) & set(loaded[0].studies["findings"])


def test_the_public_corpus_knows_the_words_of_every_centre_and_no_study_of_the_unseen_one():
    words = set(" ".join(public_texts(400, seed=0)).lower().split())
    unseen = [draw_study(0, UNSEEN_CENTRE, index, 64).findings for index in range(40)]
    missing = [word for text in unseen for word in text.lower().split() if word not in words]
    assert len(missing) < 0.01 * sum(len(text.split()) for text in unseen)
    assert not set(unseen) & set(public_texts(400, seed=0))


def _pixels(image):
    handle = io.BytesIO()
    image.save(handle, format="BMP")
    return handle.getvalue()


def test_bad_arguments_are_named():
    with pytest.raises(InputError, match="centre-z"):
        draw_study(0, "centre-z", 0)
    with pytest.raises(InputError, match="image_size is 8"):
        draw_study(0, "centre-a", 0, 8)
    with pytest.raises(InputError, match="validation is -1"):
        load_phantom(1, -1, 1)
    with pytest.raises(InputError, match="no study"):
        load_phantom(0, 0, 0, adaptation=0)
    with pytest.raises(InputError, match="adaptation is -1"):
        load_phantom(1, 1, 1, adaptation=-1)
    with pytest.raises(InputError, match="wording_strength is 2"):
        PhantomSettings(wording_strength=2)
    with pytest.raises(InputError, match="1 site"):
        heterogeneity.site_from_text(["a"], ["x"], ["a"], ["x"])


@pytest.mark.parametrize(("image", "wording"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)])
def test_probes_name_the_centre_as_far_as_the_strengths_say(image, wording):
    """Chance is 1/6; at strength 0 prevalence, the one difference left, adds little to it."""
    settings = PhantomSettings(image_strength=image, wording_strength=wording)
    studies = {
        part: [draw_study(2, name, start + number, 64, settings) for name in CENTRES for number in range(count)]
        for part, start, count in (("train", 0, 30), ("test", 20_000_000, 12))
    }
    sites = {part: [name for name in CENTRES for _ in range(count)] for part, count in (("train", 30), ("test", 12))}
    features = {part: heterogeneity.image_features([study.image for study in rows]) for part, rows in studies.items()}
    texts = {part: [study.findings for study in rows] for part, rows in studies.items()}
    from_image = heterogeneity.site_from_image(features["train"], sites["train"], features["test"], sites["test"])
    from_text = heterogeneity.site_from_text(texts["train"], sites["train"], texts["test"], sites["test"])
    assert from_image > 0.8 if image else from_image < 0.35
    assert from_text > 0.9 if wording else from_text < 0.35


@pytest.mark.numerical
def test_a_probe_of_an_empty_class_scores_nothing():
    rng = numpy.random.default_rng(0)
    labels = numpy.stack([rng.random(40) > 0.5, numpy.zeros(40, bool)], axis=1)
    features = rng.normal(size=(40, 3)) + 4 * labels[:, :1]
    scores = heterogeneity.finding_scores(features, labels, features)
    areas = heterogeneity.area_under_curve(labels, scores)
    assert areas[0] > 0.95 and numpy.isnan(areas[1])


@pytest.mark.numerical
def test_image_features_take_any_size_and_mode():
    picture = Image.fromarray(draw_study(0, "centre-a", 1, 96).image)
    grey, colour = heterogeneity.image_features([picture, picture.convert("RGB")])
    assert numpy.abs(grey - colour).max() < 0.02
