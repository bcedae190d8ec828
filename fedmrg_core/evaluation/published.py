"""The publication's own numbers as published.yaml holds them [secondary]; as fractions, like ours."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import pandas
import yaml

from fedmrg_core.errors import InputError

MAIN_TABLE = "mimic_cxr cluster"
_PATH = pathlib.Path(__file__).with_name("published.yaml")


@functools.cache
def _content() -> dict[str, Any]:
    return yaml.safe_load(_PATH.read_text(encoding="utf-8"))


def published_note() -> str:
    """The sentence that stands below everything that shows these numbers."""
    return " ".join(_content()["note"].split())


def published_tag() -> str:
    """The tag of every column that shows these numbers."""
    return f"[{_content()['tag']}]"


def published_table(name: str = MAIN_TABLE) -> pandas.DataFrame:
    """One published table.

    Returns:
        Long: method (a row of methods.yaml), metric, value (a fraction), parameters_sent (NaN where not published).

    Raises:
        InputError: no table of this name.
    """
    content = _content()
    if name not in content["tables"]:
        raise InputError(f"published: {name!r} is unknown; expected one of {', '.join(content['tables'])}.")
    rows = [
        {
            "method": method,
            "metric": metric,
            "value": value / 100,
            "parameters_sent": 1e6 * content["parameters_sent"].get(method, float("nan")),
        }
        for method, values in content["tables"][name].items()
        for metric, value in zip(content["metrics"], values, strict=True)
    ]
    return pandas.DataFrame(rows)


def published_client_curve() -> pandas.DataFrame:
    """BLEU-1 + BLEU-4 of FedMRG by number of clients: columns clients and value (a fraction)."""
    curve = _content()["curves"]["clients"]
    return pandas.DataFrame({"clients": list(curve), "value": [value / 100 for value in curve.values()]})
