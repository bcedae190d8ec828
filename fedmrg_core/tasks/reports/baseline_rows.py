"""What a row of methods.yaml may ask of a model that is trained whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmrg_core.errors import InputError

if TYPE_CHECKING:
    from fedmrg_core.tasks.reports.methods import ReportMethod

LOSSES = {
    "transformer": ("language",),
    "r2gen": ("language",),
    "wcl": ("language", "image_report_contrast"),
    "dcl": ("language", "image_report_contrast"),
}


def check_method(method: ReportMethod) -> None:
    """Refuse a row of methods.yaml that asks for what its model does not have, rather than leave it out in silence.

    Raises:
        InputError: naming the row and the key.
    """
    where, model = f"methods.yaml: method {method.name!r}", method.model
    if model not in LOSSES:
        raise InputError(f"{where}: model {model!r} is not trained whole; expected one of {', '.join(LOSSES)}.")
    if method.prompts != "none":
        raise InputError(f"{where}: prompts: {method.prompts} needs model: llm; expected none.")
    for module in method.modules:
        if module not in ("encoder", "decoder"):
            raise InputError(f"{where}: modules.{module} is no part of model {model}; expected encoder and decoder.")
    for name, weight in method.losses:
        if weight and name not in LOSSES[model]:
            raise InputError(f"{where}: losses.{name} is none of model {model}'s; expected {', '.join(LOSSES[model])}.")
