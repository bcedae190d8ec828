"""Reruns against references: reproduced, not reproduced, not run, and the exit codes."""

from __future__ import annotations

import json
import shutil

import pandas
import pytest
import yaml
from run_folders import write_run

from fedmrg_core.code_state import training_code_hash
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.verify import NOT_REPRODUCED, NOT_RUN, REPRODUCED, exit_code, verify

NAME = "smoke/phantom/fedmrg/seed-0"


@pytest.fixture
def roots(tmp_path):
    write_run(tmp_path / "reference", 0.5, training_code=training_code_hash())
    shutil.copytree(tmp_path / "reference", tmp_path / "again")
    return tmp_path / "reference" / "results", tmp_path / "again" / "results"


def change(path, metric, value):
    table = pandas.read_csv(path)
    chosen = (table.metric == metric) & (table.scope == "home") & (table.adapter == "generic")
    table.loc[chosen, "value"] = value
    table.to_csv(path, index=False)


def test_equal_runs_are_reproduced(roots):
    rows = verify(*roots, [NAME])
    assert set(rows.status) == {REPRODUCED} and rows.equal.all() and exit_code(rows) == 0
    assert {"home", "unseen", "centre-a", "wire"} <= set(rows.scope)
    assert {"generic", "specialised", "floor_random"} <= set(rows.adapter)


def test_one_byte_more_on_the_wire_is_not_reproduced(roots):
    path = roots[1] / NAME / "ledger.csv"
    ledger = pandas.read_csv(path)
    up = ledger.index[(ledger.module == "message") & (ledger.direction == "up") & (ledger.phase == "train")][0]
    ledger.loc[up, "bytes"] += 1
    ledger.to_csv(path, index=False)
    rows = verify(*roots, [NAME])
    assert list(rows[rows.status == NOT_REPRODUCED].metric) == ["bytes_up"] and exit_code(rows) == 1


def test_values_inside_and_outside_of_the_interval(roots):
    path = roots[1] / NAME / "metrics.csv"
    row = verify(*roots, [NAME]).query("scope == 'home' and adapter == 'generic' and metric == 'bleu_4'").squeeze()
    for value, status in ((row.high, REPRODUCED), (row.high + 1e-4, NOT_REPRODUCED), (row.low - 1e-4, NOT_REPRODUCED)):
        change(path, "bleu_4", value)
        rows = verify(*roots, [NAME])
        changed = rows.query("scope == 'home' and adapter == 'generic' and metric == 'bleu_4'").squeeze()
        assert changed.status == status and not changed.equal and changed.rerun == pytest.approx(value)
        assert (rows.status != REPRODUCED).sum() == (status != REPRODUCED)
        assert exit_code(rows) == (status == NOT_REPRODUCED)


def test_other_reference_seeds_widen_the_interval(roots):
    path = roots[1] / NAME / "metrics.csv"
    wanted = "scope == 'home' and adapter == 'generic' and metric == 'bleu_4'"
    alone = verify(*roots, [NAME]).query(wanted).squeeze()
    write_run(roots[0].parent, 0.9, seed=1)
    other = verify(roots[0], roots[1], [NAME.replace("seed-0", "seed-1")]).query(wanted).squeeze()
    change(path, "bleu_4", other.high - 1e-4)
    row = verify(*roots, [NAME]).query(wanted).squeeze()
    assert alone.high < other.high - 1e-4 and row.status == REPRODUCED
    assert row.low == min(alone.low, other.low) and row.high == max(alone.high, other.high)
    assert row.reference == alone.reference
    change(path, "bleu_4", other.high + 1e-4)
    assert verify(*roots, [NAME]).query(wanted).squeeze().status == NOT_REPRODUCED


def test_what_was_not_run(roots):
    path = roots[1] / NAME / "metrics.csv"
    change(path, "bleu_4", None)
    rows = verify(*roots, [NAME])
    assert (rows.status == NOT_RUN).sum() == 1 and exit_code(rows) == 3
    change(path, "rouge_l", 5.0)
    assert exit_code(verify(*roots, [NAME])) == 1  # what failed weighs more
    path.unlink()
    rows = verify(*roots, [NAME])
    assert set(rows.status) == {NOT_RUN} and len(rows) and exit_code(rows) == 3
    assert exit_code(verify(*roots, [])) == 3


def test_another_run_reproduces_nothing(roots):
    folder = roots[1] / NAME
    configuration = yaml.safe_load((folder / "config.yaml").read_text())
    configuration["profile"]["training"]["learning_rate"] = 0.5
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
    rows = verify(*roots, [NAME])
    assert set(rows.status) == {NOT_REPRODUCED} and set(rows.note) == {"made with another training.learning_rate"}
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "data_fingerprint": "other"}))
    assert set(verify(*roots, [NAME]).note) == {"made with other data"}


def test_what_other_code_has_made_was_not_run(roots):
    """A folder that an older version has filled is no rerun, however equal its numbers are."""
    path = roots[1] / NAME / "manifest.json"
    manifest = json.loads(path.read_text())
    for changed in ({**manifest, "training_code": "older"}, {k: manifest[k] for k in manifest if k != "training_code"}):
        path.write_text(json.dumps(changed))
        rows = verify(*roots, [NAME])
        assert set(rows.status) == {NOT_RUN} and not rows.equal.any() and rows.rerun.isna().all()
        assert set(rows.note) == {f"made by other training code; delete results/{NAME} and verify again"}
        assert exit_code(rows) == 3
    path.write_text(json.dumps(manifest))
    reference = roots[0] / NAME / "manifest.json"
    reference.write_text(json.dumps({**manifest, "training_code": "older"}))  # it may be older than the rerun
    assert set(verify(*roots, [NAME]).status) == {REPRODUCED}


def test_reference_must_be_there(roots):
    with pytest.raises(InputError, match="is not a folder"):
        verify(*roots, ["smoke/phantom/other/seed-0"])
