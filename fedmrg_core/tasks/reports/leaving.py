"""What leaves a hospital that trains a report generator, by its row of methods.yaml."""

from __future__ import annotations

from collections.abc import Sequence

from fedmrg_core.federation.declaration import Declaration
from fedmrg_core.federation.model_task import modules_sent, terms_of_rules
from fedmrg_core.tasks.reports.methods import ReportLosses, ReportMethod

# What a hospital that tests itself tells of it.
TESTED = (
    "bleu_1",
    "bleu_4",
    "rouge_l",
    "cider",
    *(f"clinical_f1_{mean}_14_uncertain_negative" for mean in ("example", "micro", "macro")),
    "distinct_share",
)
# Terms that are computed together: one of them weighs enough for both to be measured.
PAIRS = ({"generic_to_specialised", "specialised_to_generic"},)


def leaving(method: ReportMethod, validated: Sequence[str], feature_width: int) -> Declaration:
    """The declared list.

    Args:
        method: which modules are shared, which losses and rules train them.
        validated: the ways to write whose loss validation measures, `ReportModel.validated`.
        feature_width: D of `ReportModel.features`.
    """
    language = "validation_language_loss"
    head = ("validation_classification", "validation_head_auroc", "validation_head_f1_micro_14")
    return Declaration(
        modules=modules_sent(method),
        prototype=feature_width if method.losses.contrast_inter or method.losses.contrast_intra else 0,
        training=tuple(f"train_{name}" for name in (*_terms(method), "loss")),
        validation=(
            "validation_loss",
            language,
            *(f"{language}_{name}" for name in validated),
            *(head if "diagnosis_head" in method.modules else ()),
        ),
        testing=TESTED,
    )


def _terms(method: ReportMethod) -> list[str]:
    """Loss terms that the method's steps measure."""
    names = [*ReportLosses.model_fields, *method.losses.model_extra]
    weighed = {name for name in names if name == "language" or getattr(method.losses, name)}
    for pair in PAIRS:
        weighed |= pair if weighed & pair else set()
    return [name for name in names if name in weighed] + terms_of_rules(method)
