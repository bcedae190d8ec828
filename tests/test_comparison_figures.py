"""The figures of several runs, from planted run folders: the CSV holds the stored numbers, along the right axis."""

from __future__ import annotations

import pandas
import pytest
from run_folders import write_run

from fedmrg_core.errors import InputError
from fedmrg_core.runs.experiments import runs_of
from fedmrg_core.runs.methods import load_method
from fedmrg_core.tasks.reports.measures import CLINICAL_F1
from figures import (
    ablation,
    adaptation,
    client_count,
    common,
    communication_quality,
    convergence,
    curves,
    heterogeneity_degree,
    method_convergence,
    method_overview,
    participation,
    prompt_curves,
    prompt_sources,
    published_beside_ours,
    rank_and_bits,
    sensitivity,
)

SEVERAL = (
    adaptation, client_count, communication_quality, heterogeneity_degree, method_convergence, participation,
    published_beside_ours, rank_and_bits, sensitivity, ablation, convergence, prompt_curves, prompt_sources,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("figures")


def drawn(module, folders, out):
    paths = module.draw(folders, out)
    assert sorted(path.suffix for path in paths) == [".csv", ".pdf", ".png"] and sorted(out.iterdir()) == sorted(paths)
    return pandas.read_csv(next(path for path in paths if path.suffix == ".csv"))


@pytest.fixture
def captions(monkeypatch):
    """What is written below the figures that a test draws."""
    texts = []
    whole = common.caption
    monkeypatch.setattr(common, "caption", lambda figure, text, runs: [texts.append(text), whole(figure, text, runs)])
    return texts


def stored(folder, metric="bleu_4", scope="unseen"):
    table = pandas.read_csv(folder / "metrics.csv")
    chosen = (table.metric == metric) & (table.scope == scope) & (table.adapter == "generic")
    return table[chosen].value.item()


def test_communication_quality(root, tmp_path):
    methods = {"fedmrg": 400_000, "fed-lora": 300_000, "local": 90, "centralised": 0}
    folders = [write_run(root / "quality", method=name, sent=size) for name, size in methods.items()]
    data = drawn(communication_quality, folders, tmp_path).query("role == 'unseen' and metric == 'bleu_4'")
    by_method = data.set_index("method")
    assert by_method.bytes_up.to_dict() == {"fedmrg": 4e5, "fed-lora": 3e5, "local": 90, "centralised": 0}
    assert by_method.value["fed-lora"] == pytest.approx(stored(folders[1]))


def test_markers_of_like_bytes_are_moved_apart():
    sent = pandas.Series({"c": 4.0, "a": 0.2, "b": 4.0, "e": 12.0, "d": 4.1})
    places = communication_quality.moved_apart(sent)
    assert places.index.tolist() == ["a", "c", "b", "d", "e"]
    factors = places / places.shift()
    assert (factors.dropna() > 1.0299).all() and factors["b"] == pytest.approx(factors["d"])
    assert places[["a", "e"]].tolist() == pytest.approx([0.2, 12.0])
    assert places[["b", "c", "d"]].prod() == pytest.approx(4.0 * 4.0 * 4.1)
    assert communication_quality.moved_apart(pandas.Series({"a": 0.0})).empty  # no place on a logarithmic axis


def test_ablation(root, tmp_path):
    names = {"fedmrg": 0.8, "fedmrg-without-contrast": 0.3, "fedmrg-without-dual": 0.8}
    folders = [write_run(root / "ablation", quality, method=name) for name, quality in names.items()]
    data = drawn(ablation, folders, tmp_path).query(f"role == 'unseen' and metric == '{CLINICAL_F1}'")
    rows = data.set_index("method")
    assert set(rows.index) == set(names) - {"fedmrg"}
    difference = stored(folders[0], CLINICAL_F1) - stored(folders[1], CLINICAL_F1)
    assert rows.difference["fedmrg-without-contrast"] == pytest.approx(difference) and difference > 0
    numbers_only = [write_run(root / "bare", method=name, predictions=False) for name in names]
    with pytest.raises(InputError, match="predictions and a seed in common"):
        ablation.draw(numbers_only, tmp_path)


def test_sensitivity(root, tmp_path, captions):
    variants = {
        "": 0.5,
        "training.contrast_temperature=0.03": 0.4,
        "training.contrast_temperature=0.1": 0.6,
        "losses.contrast_inter=0.1,losses.contrast_intra=0.1": 0.7,
        "losses.generic_to_specialised=2.0,losses.specialised_to_generic=2.0": 0.2,
    }
    folders = [write_run(root / "sensitivity", quality, variant=v) for v, quality in variants.items()]
    data = drawn(sensitivity, folders, tmp_path).query("role == 'unseen' and metric == 'bleu_4'")
    along = {axis: rows.set_index("x").value for axis, rows in data.groupby("axis")}
    assert {axis: values.index.tolist() for axis, values in along.items()} == {
        "tau": [0.03, 0.07, 0.1], "lambda_rep": [0.1, 0.5], "lambda_kd": [0.5, 2.0],
    }  # fmt: skip
    assert along["tau"][0.1] == pytest.approx(stored(folders[2]))
    assert along["lambda_kd"][0.5] == along["tau"][0.07] == pytest.approx(stored(folders[0]))
    assert captions[0].endswith("along an axis the other numbers are as row and profile have them.")
    with pytest.raises(InputError, match="takes two values"):
        sensitivity.draw(folders[:1], tmp_path)
    beside = write_run(root / "sensitivity", variant="payload.bits=4")
    with pytest.raises(InputError, match="nothing else"):
        sensitivity.draw([*folders, beside], tmp_path)


def test_rank_and_bits(root, tmp_path):
    places = [("fedmrg", ""), ("fedmrg", "adapter.rank=4"), ("fedmrg", "payload.bits=4"), ("fedmrg", "payload.bits=8"),
              ("fedmrg-compressed", ""), ("fedmrg-compressed", "payload.rank=2")]  # fmt: skip
    folders = [
        write_run(root / "rank", method=method, variant=variant, sent=100_000 * (place + 1))
        for place, (method, variant) in enumerate(places)
    ]
    data = drawn(rank_and_bits, folders, tmp_path).query("role == 'home' and metric == 'bleu_4'")
    found = {
        (axis, line): dict(zip(rows.x, rows.bytes_up, strict=True))
        for (axis, line), rows in data.groupby(["axis", "line"])
    }
    assert found == {
        ("Rank of the adapter", "fedmrg"): {4: 2e5, 16: 1e5},
        ("Bits of a number", "fedmrg"): {4: 3e5, 8: 4e5, 32: 1e5},
        ("Rank of an update", "fedmrg-compressed"): {2: 6e5, load_method("fedmrg-compressed").payload.rank: 5e5},
    }


def test_other_numbers_are_the_rows_or_named(root, tmp_path, captions):
    """Most runs are at a rank that the row does not have: its own line stays at the row's numbers all the same."""
    rank = load_method("fedmrg-compressed").payload.rank
    variants = [
        "",
        "payload.rank=4",
        "payload.rank=8",
        "payload.rank=8,payload.bits=8",
        "payload.rank=8,payload.bits=16",
    ]
    folders = [write_run(root / "held", method="fedmrg-compressed", variant=variant) for variant in variants]
    data = drawn(rank_and_bits, folders, tmp_path / "named")
    along = {key: sorted(set(rows.x)) for key, rows in data.groupby(["axis", "line"])}
    assert along == {
        ("Bits of a number", "fedmrg-compressed at payload.rank 8"): [4, 8, 16],
        ("Rank of an update", "fedmrg-compressed"): [4, 8, rank],
    }
    assert set(data[data.axis == "Bits of a number"].held) == {f"payload.rank 8 instead of {rank}"}
    assert f"but payload.rank 8 instead of {rank} for fedmrg-compressed over 'Bits of a number'" in captions[-1]
    folders.append(write_run(root / "held", method="fedmrg-compressed", variant="payload.bits=8"))
    data = drawn(rank_and_bits, folders, tmp_path / "own")
    assert set(data.line) == {"fedmrg-compressed"} and data.held.isna().all()
    assert set(data[data.axis == "Bits of a number"].x) == {4, 8} and "instead of" not in captions[-1]


def test_participation(root, tmp_path):
    variants = {"": 0.5, "federation.participation=0.5": 0.4, "federation.participation=0.2": 0.3}
    folders = [write_run(root / "share", quality, variant=v) for v, quality in variants.items()]
    data = drawn(participation, folders, tmp_path).query("role == 'unseen' and metric == 'bleu_4'")
    assert dict(zip(data.participation, data.value, strict=True)) == pytest.approx(
        {share: stored(folder) for share, folder in zip((1.0, 0.5, 0.2), folders, strict=True)}
    )


def test_participation_with_pooled_statistics(root, tmp_path):
    variants = ["", "federation.participation=0.2", "federation.participation=0.2,training.own_statistics=false"]
    data = drawn(participation, [write_run(root / "pooled", variant=v) for v in variants], tmp_path)
    assert data.groupby("line").participation.unique().map(sorted).to_dict() == {
        "fedmrg": [0.2, 1.0], "fedmrg, pooled statistics": [0.2]
    }  # fmt: skip


def test_participation_says_who_trained(root, tmp_path, captions):
    full = write_run(root / "trained")
    fifth = [write_run(root / "trained", variant="federation.participation=0.2", seed=seed) for seed in (0, 1)]
    for folder, status in zip(fifth, ("left_out", "not_validated"), strict=True):
        rounds = pandas.read_csv(folder / "rounds.csv")
        rounds["status"] = ["not_sampled", status, "not_sampled"] + ["ok", "not_sampled", "not_sampled"] * 2
        rounds.to_csv(folder / "rounds.csv", index=False)
    data = drawn(participation, [full, *fifth], tmp_path).groupby("participation")
    counts = data[["client_updates", "clients", "never_trained"]].agg(["min", "max"])
    assert counts.loc[1.0].tolist() == [9, 9, 3, 3, 0, 0] and counts.loc[0.2].tolist() == [2.5, 2.5, 3, 3, 1.5, 1.5]
    told = " ".join(captions[0].split())
    assert "at 100% 9 client updates, all 3 clients trained" in told
    assert "at 20% 2 client updates, 2 of 3 clients never trained or 3 client updates, 1 of 3 clients never" in told


DRAWN = {
    "main": (method_convergence,), "main,payload": (communication_quality,),
    "ablation": (ablation,), "sensitivity": (sensitivity,), "clients": (client_count,),
    "heterogeneity": (heterogeneity_degree,), "rank-and-bits": (rank_and_bits,), "participation": (participation,),
    "mrg-llm": (prompt_sources,), "mrg-llm-curves": (prompt_curves,),
}  # fmt: skip


@pytest.mark.parametrize("names", DRAWN)
def test_the_runs_of_an_experiment_fit_into_its_figure(names, tmp_path):
    """What experiments.yaml asks for on profile standard is never refused after hours of computing."""
    runs = runs_of(names.split(","), "standard")
    folders = [write_run(tmp_path, fingerprint=run.data, **run.model_dump()) for run in runs if run.seed == 0]
    methods = {run.method for run in runs} - ({"fedmrg"} if names == "ablation" else set())  # zero is the whole there
    for module in DRAWN[names]:
        data = drawn(module, folders, tmp_path / module.__name__)
        if module in (method_convergence, communication_quality, ablation):
            assert methods <= set(data["line" if "line" in data else "method"])


def test_client_count(root, tmp_path):
    folders = [
        write_run(root / "clients", quality, partition="style", clients=number)
        for number, quality in ((2, 0.4), (5, 0.6), (7, 0.7))
    ]
    data = drawn(client_count, folders, tmp_path)
    ours = data.query("role == 'unseen' and metric == 'bleu_4'")
    assert ours.clients.tolist() == [2, 5, 7] and ours.value.tolist() == pytest.approx([stored(f) for f in folders])
    change = data[data.line.str.startswith("published")].set_index("clients").value
    assert change[5] == 0 and change[10] == pytest.approx(0.0048)
    assert data[data.line == "this repository"].set_index("clients").value[5] == 0


def test_heterogeneity_degree(root, tmp_path):
    names = {
        "phantom-image0-wording0": 0.3, "phantom-image0.5-wording0": 0.4, "phantom-image1-wording0": 0.5,
        "phantom-image0-wording1": 0.6, "phantom": 0.7,
    }  # fmt: skip
    folders = [write_run(root / "degree", q, data=name, fingerprint=name) for name, q in names.items()]
    data = drawn(heterogeneity_degree, folders, tmp_path).query("role == 'home' and metric == 'bleu_4'")
    along = {panel: rows.strength.tolist() for panel, rows in data.groupby("panel")}
    assert along == {"image": [0, 0.5, 1], "wording": [0, 1], "both": [0, 1]}
    assert common.is_phantom(folders[0])
    with pytest.raises(InputError, match="no two strengths"):
        heterogeneity_degree.draw(folders[-1:], tmp_path)


def test_adaptation(root, tmp_path):
    folders = [
        write_run(root / "adapt", method=method, seed=seed) for method in ("fedmrg", "fed-lora") for seed in (0, 1)
    ]
    for place, folder in enumerate(folders):
        rows = [
            {
                "count": count,
                "metric": metric,
                "value": 0.1 * place + count / 1000,
                "low": 0.0,
                "high": 0.5,
                "studies": 9,
            }
            for count in (0, 8, 32)
            for metric in curves.SHOWN
        ]
        pandas.DataFrame(rows).to_csv(folder / "adaptation.csv", index=False)
    data = drawn(adaptation, folders, tmp_path).query("metric == 'bleu_4'").set_index(["line", "count"])
    assert data.value["fed-lora", 8] == pytest.approx((0.2 + 0.3) / 2 + 0.008) and set(data.seeds) == {2}
    with pytest.raises(InputError, match=r"adaptation\.csv does not exist"):
        adaptation.draw([write_run(root / "unadapted")], tmp_path)


def test_method_convergence(root, tmp_path):
    folders = [
        write_run(root / "rounds", method=method, seed=seed) for method in ("fedmrg", "fed-lora") for seed in (0, 1)
    ]
    data = drawn(method_convergence, folders, tmp_path)
    rounds = pandas.read_csv(folders[0] / "rounds.csv")
    expected = rounds[rounds["round"] == 2].validation_language_loss.mean()
    shown = data[(data.line == "fedmrg") & (data.seed == 0) & (data["round"] == 2)]
    assert shown.value.item() == pytest.approx(expected) and len(data) == 4 * 3


def test_published_beside_ours(root, tmp_path):
    folders = [
        write_run(root / "published", 0.1 * k, method=m)
        for k, m in enumerate(("fedmrg", "fed-lora", "r2gengpt", "moon"))
    ]
    data = drawn(published_beside_ours, folders, tmp_path).query("metric == 'bleu_4'").set_index("method")
    assert data.published_secondary.to_dict() == pytest.approx(
        {"fedmrg": 0.1268, "fed-lora": 0.1201, "r2gengpt": 0.1227}
    )
    with pytest.raises(InputError, match="published table"):
        published_beside_ours.draw(folders[-1:], tmp_path)


def test_method_overview(root, tmp_path):
    for method in ("fedmrg", "ffa-lora", "transformer", "local"):
        folder = write_run(root / "overview", method=method)
        data = drawn(method_overview, [folder], tmp_path / method).set_index("module")
        assert (data.bytes_up["encoder"], data.bytes_down["encoder"]) == (399_900, 2 * 399_900)
        assert data.ownership["encoder"] == ("personal" if method == "local" else "shared")


def test_data_are_never_mixed(root, tmp_path):
    folders = [write_run(root / "mixed", method=m, fingerprint=m) for m in ("fedmrg", "fed-lora")]
    for module in SEVERAL:
        with pytest.raises(InputError, match="different data"):
            module.draw(folders, tmp_path)
        with pytest.raises(InputError, match="no run folder"):
            module.draw([], tmp_path)
    settings = [folders[0], write_run(root / "mixed", partition="random", fingerprint="fedmrg")]
    joined = (participation, rank_and_bits, sensitivity, client_count, heterogeneity_degree, adaptation)
    for module in (communication_quality, ablation, published_beside_ours, prompt_curves, prompt_sources, *joined):
        with pytest.raises(InputError, match="one setting"):
            module.draw(settings, tmp_path)
    assert not list(tmp_path.iterdir())


def test_numbers_of_clients_are_never_added_up(root, tmp_path):
    by_style = [write_run(root / "added", partition="style", clients=clients) for clients in (3, 5)]
    by_site = write_run(root / "added", partition="site")
    with pytest.raises(InputError, match="one setting apart from clients; these runs have phantom,style and phantom,"):
        client_count.draw([*by_style, by_site], tmp_path)
    beside = write_run(root / "added", partition="style", clients=5, variant="payload.bits=4")
    with pytest.raises(InputError, match=f"{by_style[1]} and {beside} are both at clients 5"):
        client_count.draw([*by_style, beside], tmp_path)


def test_styles_differ():
    names = ["fedmrg", *(f"method-{number}" for number in range(20))]
    looks = curves.styles(names)
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == 21
    assert looks["fedmrg"]["color"] == "black"
    methods = {run.method for run in runs_of(["main", "payload"], "standard")}
    looks = curves.styles(sorted(methods))  # without a look at the markers
    assert len({(look["color"], look["mfc"] == "white") for look in looks.values()}) == len(methods) == 18
