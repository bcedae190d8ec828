"""Local Hugging Face `evaluate` modules: the one way in which runs, `fedmrg score` and others call the measures.

They load offline: ``evaluate.load("FOLDER/report_text")`` or `load_metric`. A measure is added or mended in
`metrics/text.py` or `metrics/clinical.py`, and each of these modules gives all measures of one of the two.
"""

from __future__ import annotations

import pathlib
import tempfile

import evaluate

from fedmrg_core.errors import InputError

METRICS: tuple[str, ...] = ("report_text", "report_clinical")


def load_metric(name: str) -> evaluate.EvaluationModule:
    """Load a module by name through `evaluate.load` from this folder; nothing is downloaded.

    Reports stay in memory: `evaluate` would write them into the cache of the user's home otherwise. It copies the
    module's code there; where a home cannot be written, the code runs from this folder.

    Raises:
        InputError: there is no module of that name.
    """
    if name not in METRICS:
        raise InputError(f"There is no metric module {name!r}; expected one of {', '.join(METRICS)}.")
    try:
        return evaluate.load(str(pathlib.Path(__file__).parent / name), keep_in_memory=True)
    except OSError:
        kind = evaluate.loading.import_main_class(f"{__name__}.{name}.{name}")
        with tempfile.TemporaryDirectory() as folder:
            return kind(keep_in_memory=True, cache_dir=folder)
