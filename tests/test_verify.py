"""Reruns against references: equal, within chance, not reproduced, not run; what is damaged; the exit codes."""

from __future__ import annotations

import json
import shutil

import numpy
import pandas
import pytest
import yaml
from run_folders import CLIENTS, planted_variance, write_run

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation import changes
from fedmrg_core.evaluation import verify as verifying
from fedmrg_core.evaluation.seed_variance import FILE, seed_variance, variances_of
from fedmrg_core.evaluation.seed_variance import _excesses as excesses
from fedmrg_core.evaluation.stored_runs import load_run
from fedmrg_core.evaluation.verify import EQUAL, NOT_REPRODUCED, NOT_RUN, REPRODUCED, exit_code, verdicts, verify
from fedmrg_core.metrics.statistics import mean_statistics
from fedmrg_core.runs.measures import Answers
from fedmrg_core.runs.training_code import training_code_hash
from fedmrg_core.tasks.reports.measures import CLINICAL_F1

NAME = "smoke/phantom/fedmrg/seed-0"
CODE = training_code_hash()
STUDIES = 240  # 60 of each centre, as profile smoke has them


@pytest.fixture
def roots(tmp_path):
    write_run(tmp_path / "reference", 0.5, training_code=CODE, studies=STUDIES)
    planted_variance(tmp_path / "reference" / "results" / FILE)
    shutil.copytree(tmp_path / "reference", tmp_path / "again")
    return tmp_path / "reference" / "results", tmp_path / "again" / "results"


def checked(roots):
    return verify(*roots, [NAME])


def rewrite(roots, quality, studies=STUDIES, draws=0):
    shutil.rmtree(roots[1] / NAME)
    write_run(roots[1].parent, quality, training_code=CODE, studies=studies, draws=draws)


def change(path, metric, value):
    table = pandas.read_csv(path)
    chosen = (table.metric == metric) & (table.scope == "home") & (table.adapter == "generic")
    table.loc[chosen, "value"] = value
    table.to_csv(path, index=False)


def test_the_same_run_is_equal_to_the_digit(roots):
    rows = checked(roots)
    assert set(rows.status) == {EQUAL} and verdicts(rows) == {NAME: EQUAL} and exit_code(rows) == 0
    assert {"home", "unseen", "centre-a", "wire"} <= set(rows.scope)
    assert {"generic", "specialised", "floor_random"} <= set(rows.adapter)


def test_other_luck_is_within_chance(roots):
    """As good a method that answers other studies right: differences, but none that chance does not explain."""
    for draws in range(1, 6):
        rewrite(roots, 0.5, draws=draws)
        rows = checked(roots)
        assert verdicts(rows) == {NAME: REPRODUCED} and exit_code(rows) == 0
        assert (rows.status == REPRODUCED).any() and (rows.difference.abs() > 0.01).any()


@pytest.mark.parametrize("quality", [0.05, 0.95])
def test_another_method_is_not_reproduced(roots, quality):
    rewrite(roots, quality)
    rows = checked(roots)
    assert verdicts(rows) == {NAME: NOT_REPRODUCED} and exit_code(rows) == 1
    failed = rows[rows.status == NOT_REPRODUCED]
    assert CLINICAL_F1 in set(failed.metric) and (failed.difference.abs() > failed.chance).all()
    # What follows from the data alone did not change.
    assert set(rows[rows.adapter == "floor_random"].status) == {EQUAL}


def test_what_seeds_do_is_allowed(roots):
    """The same two runs: a difference that stands out of the studies' spread does not where seeds differ as much."""
    rewrite(roots, 0.95)
    alone = checked(roots)
    planted_variance(roots[0] / FILE, value=0.5**2)
    with_seeds = checked(roots)
    assert verdicts(alone) == {NAME: NOT_REPRODUCED} and verdicts(with_seeds) == {NAME: REPRODUCED}
    model = alone.adapter.isin(["generic", "specialised"])
    assert (with_seeds.chance[model] > alone.chance[model]).all()


def test_what_follows_from_the_data_has_to_be_equal(roots):
    path = roots[1] / NAME / "metrics.csv"
    table = pandas.read_csv(path)
    table.loc[(table.system == "floor_random") & (table.metric == "bleu_4") & (table.scope == "home"), "value"] += 1e-3
    table.to_csv(path, index=False)
    rows = checked(roots)
    assert list(rows[rows.status == NOT_REPRODUCED].adapter) == ["floor_random"]


def test_a_run_of_fewer_rounds_is_not_reproduced(roots):
    manifests = [root / NAME / "manifest.json" for root in roots]
    for path, rounds in zip(manifests, (3, 2), strict=True):
        path.write_text(json.dumps({**json.loads(path.read_text()), "rounds": rounds}))
    rows = checked(roots)
    assert list(rows[rows.status == NOT_REPRODUCED].metric) == ["rounds"]


@pytest.mark.parametrize(("factor", "status"), [(1.004, REPRODUCED), (1.3, NOT_REPRODUCED)])
def test_the_losses_of_the_chosen_round_are_held(roots, factor, status):
    for root, change in zip(roots, (1.0, factor), strict=True):
        rounds = pandas.read_csv(root / NAME / "rounds.csv")
        rounds["validation_loss"] = rounds.validation_language_loss * change
        rounds.to_csv(root / NAME / "rounds.csv", index=False)
        path = root / NAME / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "selected_round": 3}))
    table = pandas.read_csv(roots[0] / FILE)
    known = [("phantom", "fedmrg", scope, "losses", "validation_loss", 1e-4, None, 20) for scope in ("client", "home")]
    pandas.concat([table, pandas.DataFrame(known, columns=table.columns)]).to_csv(roots[0] / FILE, index=False)
    rows = checked(roots)
    losses = rows[rows.adapter == "losses"]
    assert set(losses.scope) == {*CLIENTS, "home"} and set(losses.status) == {status}


@pytest.mark.parametrize(("share", "status"), [(1.0005, REPRODUCED), (1.01, NOT_REPRODUCED)])
def test_bytes_on_the_wire(roots, share, status):
    path = roots[1] / NAME / "ledger.csv"
    ledger = pandas.read_csv(path)
    ledger.loc[ledger.direction == "up", "bytes"] = (ledger.loc[ledger.direction == "up", "bytes"] * share).astype(int)
    ledger.to_csv(path, index=False)
    rows = checked(roots)
    assert list(rows[rows.status == status].metric) == ["bytes_up"] and verdicts(rows) == {NAME: status}


def test_what_is_no_number_reproduces_nothing():
    change = verifying.Change(0.5, float("nan"), variance=1.0, degrees=20.0)
    (row,) = verifying.judge({("home", "generic", "bleu_4"): change})
    assert row["status"] == NOT_REPRODUCED


def test_chance_is_called_chance():
    """p values of differences that are chance alone, of studies and of runs, are uniform."""
    generator, studies, of_run = numpy.random.default_rng(0), 60, 0.05
    p_values = []
    for _ in range(2000):
        sides = [mean_statistics(generator.normal(generator.normal(0, of_run), 0.4, studies)) for _ in range(2)]
        variance = of_run**2 * generator.chisquare(20) / 20  # as a table made of 20 degrees of freedom has it
        p_values.append(changes.paired_change(*sides, variance, 20.0).p_value)
    for level in (0.01, 0.05, 0.2, 0.5):
        assert numpy.mean(numpy.array(p_values) < level) == pytest.approx(level, rel=0.25, abs=0.006)


def test_the_variance_between_seeds_is_found():
    """Planted: runs that end better or worse as a whole by a standard deviation of .1, beside studies' own spread."""
    generator, of_run = numpy.random.default_rng(1), 0.1
    found = []
    for _ in range(300):
        runs = [generator.normal(generator.normal(0, of_run), 0.5, 80) for _ in range(3)]
        answers = [Answers(tuple("s" * 80), {"rouge_l": mean_statistics(run)}) for run in runs]
        found += [value for _, value in excesses(answers, "planted", ["rouge_l"])]
    assert numpy.mean(found) == pytest.approx(of_run**2, rel=0.2)
    alike = [generator.normal(0, 0.5, 80) for _ in range(3)]
    same = [Answers(tuple("s" * 80), {"rouge_l": mean_statistics(run)}) for run in alike]
    assert numpy.mean([value for _, value in excesses(same, "", ["rouge_l"])]) < 0.005


def test_seed_variance_pools_methods_and_shares_clients(tmp_path):
    runs = [
        load_run(write_run(tmp_path, quality, method=method, seed=seed))
        for method, quality in (("fedmrg", 0.5), ("fedmrg-without-dual", 0.6), ("fed-lora", 0.7))
        for seed in range(3)
    ]
    table = seed_variance(runs)
    assert set(table.scope) == {"client", "home", "unseen"} and len(CLIENTS) == 3
    of_family = table[table.metric == "bleu_4"].set_index(["family", "scope", "adapter"]).degrees
    assert of_family["fedmrg", "home", "generic"] == 4 and of_family["fedmrg", "home", "specialised"] == 2
    assert of_family["fed-lora", "client", "generic"] == 2
    assert variances_of(table, runs[3]).loc[("home", "generic", "bleu_4"), "degrees"] == 4
    with pytest.raises(InputError, match="no variance between seeds for moon on phantom; keep references of a second"):
        variances_of(table[table.family == "fedmrg"], load_run(write_run(tmp_path, method="moon")))
    assert (table.beyond_studies >= 0).all() and (table.between_seeds > 0).any()
    with pytest.raises(InputError, match="answered different studies"):
        seed_variance([runs[0], load_run(write_run(tmp_path / "other", 0.5, studies=40, seed=1))])


def test_what_was_not_run(roots):
    (roots[1] / NAME / "metrics.csv").unlink()
    rows = checked(roots)
    assert set(rows.status) == {NOT_RUN} and len(rows) and exit_code(rows) == 3
    assert exit_code(verify(*roots, [])) == 3


def test_another_run_reproduces_nothing(roots):
    folder = roots[1] / NAME
    configuration = yaml.safe_load((folder / "config.yaml").read_text())
    configuration["profile"]["training"]["learning_rate"] = 0.5
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
    rows = checked(roots)
    assert set(rows.status) == {NOT_REPRODUCED} and set(rows.note) == {"made with another training.learning_rate"}
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "data_fingerprint": "other"}))
    assert set(checked(roots).note) == {"made with other data"}
    versioned = {**manifest, "data_fingerprint": "other", "fingerprints": {"data_version": "5"}}
    (folder / "manifest.json").write_text(json.dumps(versioned))
    (note,) = set(checked(roots).note)
    assert note.startswith("made with data of version unknown, the run with version 5") and "fedmrg same-data" in note


def test_other_base_models_are_told(roots):
    path = roots[1] / NAME / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "fingerprints": {"base_models": "other"}}))
    assert set(checked(roots).note) == {"from other base models"}


def test_what_other_code_has_made_was_not_run(roots):
    """A folder that an older version has filled is no rerun, however equal its numbers are."""
    path = roots[1] / NAME / "manifest.json"
    manifest = json.loads(path.read_text())
    for changed in ({**manifest, "training_code": "older"}, {k: manifest[k] for k in manifest if k != "training_code"}):
        path.write_text(json.dumps(changed))
        rows = checked(roots)
        assert set(rows.status) == {NOT_RUN} and rows.rerun.isna().all()
        assert set(rows.note) == {f"made by other training code; delete results/{NAME} and verify again"}
        assert exit_code(rows) == 3
    path.write_text(json.dumps(manifest))
    reference = roots[0] / NAME / "manifest.json"
    reference.write_text(json.dumps({**manifest, "training_code": "older"}))  # it may be older than the rerun
    assert set(checked(roots).status) == {EQUAL}


@pytest.mark.parametrize("side", [0, 1])
def test_damaged_measures_are_no_measures(roots, side):
    path = roots[side] / NAME / "metrics.csv"
    whole = path.read_text()
    rows = whole.splitlines(keepends=True)
    path.write_text("".join(rows[: len(rows) // 2]))
    with pytest.raises(InputError, match="metrics.csv has no .*; restore it or evaluate again"):
        checked(roots)
    path.write_text(whole)
    change(path, "bleu_4", 0.9)
    with pytest.raises(InputError, match="another bleu_4 of home, generic than its answers give"):
        checked(roots)
    change(path, "bleu_4", None)
    with pytest.raises(InputError, match="empty values"):
        checked(roots)


def test_a_reference_without_scores_of_studies_is_refused(roots):
    (roots[0] / NAME / "predictions.csv").unlink()
    with pytest.raises(InputError, match=r"holds no scores of studies .*keep the run again"):
        checked(roots)


def test_scores_of_other_studies_are_refused(roots):
    rewrite(roots, 0.5, studies=40)
    with pytest.raises(InputError, match="answered different test studies"):
        checked(roots)


def test_without_the_variance_between_seeds_nothing_is_judged(roots):
    path = roots[0] / FILE
    table = pandas.read_csv(path)
    table[table.scope != "home"].to_csv(path, index=False)
    with pytest.raises(InputError, match="has no beyond_studies of home"):
        checked(roots)
    path.unlink()
    with pytest.raises(InputError, match="seed_variance.csv does not exist; make it with"):
        checked(roots)


def test_reference_must_be_there(roots):
    with pytest.raises(InputError, match="is not a folder"):
        verify(*roots, ["smoke/phantom/other/seed-0"])
