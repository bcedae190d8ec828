"""The figure of gas, from stored tables alone."""

from __future__ import annotations

import pandas
import pytest

from fedmrg_core.errors import InputError
from figures import chain_gas

ROWS = [(0, "register", 3, 450), (1, "commit", 3, 303), (1, "open_round", 1, 60), (2, "commit", 2, 197)]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "phantom" / "fedmrg" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("data: phantom\n")
    pandas.DataFrame(ROWS, columns=chain_gas.COLUMNS).to_csv(folder / chain_gas.GAS, index=False)
    return folder


def test_gas_by_function_is_a_mean_over_transactions():
    table = chain_gas.by_function(pandas.DataFrame(ROWS, columns=chain_gas.COLUMNS).assign(run="run"))
    assert table["gas a transaction"].droplevel("run").to_dict() == {"register": 150, "commit": 100, "open_round": 60}


@pytest.mark.parametrize("count", [1, 2])
def test_the_figure_and_what_it_shows(count, folder, tmp_path):
    paths = chain_gas.draw([folder] * count, tmp_path / "out")
    assert {path.suffix for path in paths} == {".pdf", ".png", ".csv"} and all(path.stat().st_size for path in paths)
    assert pandas.read_csv(tmp_path / "out" / "chain_gas.csv")["gas"].sum() == count * 1010


def test_a_run_without_identities(folder, tmp_path):
    (folder / chain_gas.GAS).unlink()
    with pytest.raises(InputError, match="gas.csv does not exist"):
        chain_gas.draw([folder], tmp_path)
