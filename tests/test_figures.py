"""Every figure from a small run folder: files are there, the CSV holds the stored numbers, bad input is named."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys

import datasets
import numpy
import pandas
import pytest
import yaml
from run_folders import loaded
from safetensors.numpy import save_file

from fedmrg_core.data.labeller import label_report
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.stored_runs import synthetic_note
from fedmrg_core.runs.metric_table import write_metrics
from fedmrg_core.runs.run_configuration import configure_run
from fedmrg_core.tasks.reports.floors import floor_predictions
from fedmrg_core.tasks.reports.predictions import COLUMNS, score_predictions, write_predictions
from figures import client_distance, common, communication, convergence, feature_map, quality_by_client, report_page

SITES = [f"centre-{letter}" for letter in "abcdef"]  # the last is unseen
TEXTS = [
    "The heart is enlarged. No pleural effusion or pneumothorax is seen. Lungs are clear.",
    "Lungs are clear. No pneumothorax. The cardiac silhouette is normal in size.",
    "There is a small left pleural effusion with adjacent atelectasis. Heart size is normal.",
    "Right upper lobe consolidation, which may be pneumonia. A pacemaker is in place.",
]
DRAWN = (convergence, quality_by_client, communication, feature_map, client_distance)


def digits(text):
    return "".join(map(str, label_report(text)))


def write_run(folder, data="phantom", fingerprint="data-1", method="fedmrg"):
    """A run folder with results of plausible shape; images and reports are made up here."""
    folder.mkdir(parents=True)
    generator = numpy.random.default_rng(0)
    profile, row = loaded("smoke", method, "")
    configuration = configure_run(
        folder, profile=profile, method=row, data=data, prepared=folder / "prepared", base_models=folder / "base_models"
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration.model_dump(mode="json")))
    (folder / "manifest.json").write_text(json.dumps({"data_fingerprint": fingerprint}))
    rounds = [
        {"round": number, "client": client, "status": "ok", "validation_examples": 9,
         "validation_language_loss": 3 / number + shift / 9, "validation_language_loss_generic_adapter": 9.0,
         "validation_head_auroc": 0.5 + 0.05 * number + shift / 40}
        for number in range(1, 7) for shift, client in enumerate(SITES[:5])
    ]  # fmt: skip
    rounds[3] |= {"status": "left_out", "validation_language_loss": None, "validation_head_auroc": None}
    pandas.DataFrame(rounds).to_csv(folder / "rounds.csv", index=False)
    sizes = {"encoder": 400_000, "generic_adapter": 150_000, "prompt_table": 30_000, "framing": 90}
    ledger = [
        {"round": number, "phase": "train", "client": client, "direction": direction, "module": module, "bytes": size}
        for number in range(1, 7) for client in SITES[:5] for direction in ("down", "up")
        for module, size in {"message": sum(sizes.values()), **sizes}.items()
    ]  # fmt: skip
    pandas.DataFrame(ledger).to_csv(folder / "ledger.csv", index=False)
    rows = []
    for number in range(48):
        site = SITES[number % 6]
        reference = TEXTS[generator.integers(4)]
        for adapter in ("generic", "specialised", "both")[: 1 if site == SITES[-1] else 3]:
            text = reference if generator.random() < 0.4 else TEXTS[generator.integers(4)]
            role = "unseen" if site == SITES[-1] else "home"
            states = (digits(reference), digits(text), digits(reference))
            rows.append((f"s{number:02}", site, "test", role, adapter, reference, text, *states))
    predictions = pandas.DataFrame(rows, columns=list(COLUMNS))
    training = pandas.DataFrame(
        [(f"t{n}", site, TEXTS[n % 4]) for n, site in enumerate(SITES[:5] * 3)],
        columns=["study_id", "site", "reference"],
    )
    studies = predictions.drop_duplicates("study_id")
    features = generator.normal(size=(48, 8)) + 3 * numpy.eye(8)[[SITES.index(site) for site in studies.site]]
    floors = floor_predictions(predictions, training, 0)
    everything = pandas.concat([predictions.assign(system="model"), floors], ignore_index=True)
    write_predictions(folder / "predictions.csv", everything)
    write_metrics(folder / "metrics.csv", score_predictions(everything, resamples=50, meteor=False))
    save_file(
        {"features": numpy.concatenate([features, features]).astype(numpy.float32)}, folder / "features.safetensors"
    )
    table = studies.assign(states=studies.states_reference)[["study_id", "site", "role", "states"]]
    pandas.concat([table.assign(split="test"), table.assign(split="train")]).to_csv(
        folder / "features.csv", index=False
    )
    return folder


def write_prepared(folder, study_ids, fingerprint="data-1"):
    """Prepared studies with images that hold nothing but noise."""
    generator = numpy.random.default_rng(1)
    images = [generator.integers(0, 255, size=(32, 32), dtype=numpy.uint8) for _ in study_ids]
    features = datasets.Features({"study_id": datasets.Value("string"), "image": datasets.Image()})
    datasets.Dataset.from_dict({"study_id": study_ids, "image": images}, features).save_to_disk(str(folder / "studies"))
    (folder / "left_out.csv").write_text("study_id,reason\n")
    (folder / "summary.json").write_text(json.dumps({"fingerprint": fingerprint}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("results") / "phantom" / "fedmrg" / "seed-0")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, run):
    ids = pandas.read_csv(run / "predictions.csv").study_id.unique().tolist()
    return write_prepared(tmp_path_factory.mktemp("prepared"), ids)


def check_files(paths, folder):
    assert sorted(path.suffix for path in paths) == [".csv", ".pdf", ".png"]
    assert sorted(folder.iterdir()) == sorted(paths)  # nothing half written beside them
    by_suffix = {path.suffix: path for path in paths}
    assert by_suffix[".pdf"].read_bytes()[:5] == b"%PDF-" and by_suffix[".png"].read_bytes()[1:4] == b"PNG"
    return pandas.read_csv(by_suffix[".csv"], dtype={"states": str})


def test_convergence(run, tmp_path):
    data = check_files(convergence.draw([run], tmp_path), tmp_path)
    rounds = pandas.read_csv(run / "rounds.csv")
    for measure in ("validation_language_loss", "validation_head_auroc"):
        shown = data[data.measure == measure].set_index(["round", "client"]).value
        stored = rounds.set_index(["round", "client"])[measure].dropna()
        pandas.testing.assert_series_equal(shown.sort_index(), stored.sort_index(), check_names=False)


def test_convergence_of_several_runs(run, tmp_path):
    other = write_run(tmp_path / "results" / "phantom" / "fed-lora" / "seed-0")
    data = check_files(convergence.draw([run, other], tmp_path / "out"), tmp_path / "out")
    assert set(data.run) == {"phantom/fedmrg/seed-0", "phantom/fed-lora/seed-0"}
    elsewhere = write_run(tmp_path / "elsewhere" / "phantom" / "fedmrg" / "seed-0", fingerprint="data-2")
    with pytest.raises(InputError, match=rf"(?s){run}.*{elsewhere}.*different data"):
        convergence.draw([run, other, elsewhere], tmp_path / "mixed")
    names = {path.name for path in communication.draw([run, other], tmp_path / "both")}
    assert {"communication-phantom-fedmrg-seed-0.csv", "communication-phantom-fed-lora-seed-0.csv"} < names


def test_quality_by_client(run, tmp_path):
    data = check_files(quality_by_client.draw([run], tmp_path), tmp_path)
    stored = pandas.read_csv(run / "metrics.csv")
    expected = stored[stored.metric.isin(quality_by_client.METRICS)].reset_index(drop=True)
    pandas.testing.assert_frame_equal(data, expected)
    assert set(data.system) > {"model", "floor_constant"}


def test_communication(run, tmp_path):
    data = check_files(communication.draw([run], tmp_path), tmp_path)
    ledger = pandas.read_csv(run / "ledger.csv")
    assert data.bytes.sum() == ledger[ledger.module == "message"].bytes.sum()
    first = data[(data["round"] == 1) & (data.direction == "up") & (data.module == "encoder")]
    assert first.bytes.item() == 5 * 400_000
    assert set(data[data.module == "framing"].drawn_as) == {communication.REST}


def test_feature_map(run, tmp_path):
    data = check_files(feature_map.draw([run], tmp_path), tmp_path)
    stored = pandas.read_csv(run / "features.csv", dtype=str).query("split == 'test'")
    assert data.study_id.tolist() == stored.study_id.tolist() and data.states.tolist() == stored.states.tolist()
    assert numpy.isfinite(data[["x", "y"]]).all(axis=None)
    again = check_files(feature_map.draw([run], tmp_path), tmp_path)
    pandas.testing.assert_frame_equal(data, again)


def test_client_distance(run, tmp_path):
    data = check_files(client_distance.draw([run], tmp_path), tmp_path)
    assert len(data) == 2 * 6 * 6
    same = data[data["first"] == data["second"]]
    assert same.distance.abs().max() < 1e-6
    means = client_distance.mean_distances(numpy.array([[1.0, 0], [3, 0], [0, 2]]), pandas.Series(["a", "a", "b"]))
    assert means.loc["a", "b"] == pytest.approx(1.0)


def test_report_page(run, prepared, tmp_path):
    data = check_files(report_page.draw([run], tmp_path, prepared, studies=4), tmp_path)
    stored = pandas.read_csv(run / "predictions.csv", dtype=str).set_index(["study_id", "adapter"])
    assert len(data) == 4 and data.site.nunique() == 4
    for row in data.itertuples():
        assert (row.reference, row.generated) == tuple(
            stored[stored.system == "model"].loc[(row.study_id, row.adapter), ["reference", "generated"]]
        )


def test_report_page_shows_the_reports_that_count(prepared, tmp_path):
    """At home FedDAT answers by the mixture that it trains, not by its specialised adapter alone."""
    mixed = write_run(tmp_path / "run", method="feddat")
    data = check_files(report_page.draw([mixed], tmp_path / "out", prepared), tmp_path / "out")
    assert data.set_index("site").adapter.to_dict() == dict.fromkeys(SITES[:5], "both") | {SITES[5]: "generic"}


def test_report_page_says_how_uncertain_statements_are_marked(run, prepared, tmp_path, monkeypatch):
    captions = []
    monkeypatch.setattr(common, "caption", lambda figure, text, runs: captions.append(text))
    report_page.draw([run], tmp_path, prepared, studies=1)
    assert "uncertain statement is marked like a sure one" in captions[0] and "F1" in captions[0]
    assert report_page.compare("There may be pneumonia.", "There is pneumonia.")["right"] == {"pneumonia"}


def test_report_page_never_shows_images_of_other_data(run, prepared, tmp_path):
    """The phantom names its studies alike in every profile and with every strength of heterogeneity."""
    ids = pandas.read_csv(run / "predictions.csv").study_id.unique().tolist()
    other = write_prepared(tmp_path / "other", ids, fingerprint="data-2")
    with pytest.raises(InputError, match=rf"{other} holds other data than {run}.*notebook 01"):
        report_page.draw([run], tmp_path / "out", other)
    assert not (tmp_path / "out").exists()


def test_report_page_marks():
    reference = "The heart is enlarged. There is a left pleural effusion."
    generated = "The heart is enlarged. There is no pleural effusion. There is a pneumothorax. No consolidation."
    assert report_page.compare(reference, generated) == {
        "right": {"cardiomegaly"},
        "wrong": {"pneumothorax"},
        "missed": {"pleural effusion"},
    }
    in_generated = [(generated[a:b].lower(), kind) for a, b, kind in report_page.mark(generated, reference, False)]
    assert [kind for _, kind in in_generated] == ["right", "wrong", "wrong"]
    assert "effusion" in in_generated[1][0] and "pneumothorax" in in_generated[2][0]
    assert [kind for *_, kind in report_page.mark(reference, generated, True)] == ["right", "missed"]


def test_images_of_other_data_are_refused(prepared, tmp_path):
    other = write_run(tmp_path / "run", data="iu_xray")
    with pytest.raises(InputError, match="--private"):
        report_page.draw([other], tmp_path / "out", prepared)
    assert not (tmp_path / "out").exists()
    check_files(report_page.draw([other], tmp_path / "out", prepared, private=True, studies=1), tmp_path / "out")


def test_bad_input_is_named(run, prepared, tmp_path):
    for module in DRAWN:
        with pytest.raises(InputError, match="no run folder"):
            module.draw([], tmp_path)
        with pytest.raises(InputError, match="is not a folder"):
            module.draw([tmp_path / "nowhere"], tmp_path)
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=r"empty.*does not exist"):
            module.draw([tmp_path / "empty"], tmp_path)
    with pytest.raises(InputError, match="not a complete prepared folder"):
        report_page.draw([run], tmp_path, tmp_path)
    bare = write_run(tmp_path / "bare")
    (bare / "predictions.csv").unlink()
    with pytest.raises(InputError, match=r"bare has no predictions\.csv"):
        report_page.draw([bare], tmp_path, prepared)
    with pytest.raises(InputError, match="has no study"):
        report_page.draw([run], tmp_path, write_prepared(tmp_path / "few", ["other"]))
    (tmp_path / "empty" / "ledger.csv").write_text("round,client\n1,a\n")
    with pytest.raises(InputError, match="column 'direction' is missing"):
        communication.draw([tmp_path / "empty"], tmp_path)
    for text, message in (("", "not a readable UTF-8 CSV"), ("round,client,direction,module,bytes\n", "has no rows")):
        (tmp_path / "empty" / "ledger.csv").write_text(text)
        with pytest.raises(InputError, match=rf"ledger\.csv.*{message}"):
            communication.draw([tmp_path / "empty"], tmp_path)


@pytest.mark.parametrize(
    ("data", "marked"), [("phantom", 1), ("phantom-image0.5-wording0", 1), ("iu_xray", 0), ("folder", 0)]
)
def test_pictures_of_phantom_data_are_marked(data, marked):
    figure, (axis,) = common.new_figure(1, 1, 4, 2)
    axis.set_xlabel("x")
    common.mark_synthetic(figure, data)
    assert [text.get_text() for text in figure.texts] == [synthetic_note("phantom")] * marked
    figure.draw_without_rendering()
    for text in figure.texts:
        assert text.get_window_extent().y1 < axis.xaxis.label.get_window_extent().y0
    common.plt.close(figure)


def test_command_line(run, repository, tmp_path, monkeypatch, capsys):
    script = str(repository / "figures" / "communication.py")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            return end.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    code, written, told = call("--run", str(run), "--out", str(tmp_path / "out"))
    assert code == 0 and len(written.splitlines()) == 3, told
    assert "--run" in call("--help")[1]
    missing = ("--run", str(tmp_path / "no"), "--out", str(tmp_path))
    code, _, told = call(*missing)
    assert code == 2 and len(told.strip().splitlines()) == 1
    alone = subprocess.run([sys.executable, *sys.argv[:1], *missing], capture_output=True, text=True)
    assert (alone.returncode, alone.stderr) == (code, told)
