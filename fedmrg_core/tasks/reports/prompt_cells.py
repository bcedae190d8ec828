"""Which row of methods.yaml stands for which source of prompts, against what else is trained (docs/prompts.md).

Rows of one base are alike in all but their prompts: the source with its numbers and modules, and the classification
that a source of diagnosis prompts needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedmrg_core.runs.methods import Ownership, load_methods
from fedmrg_core.tasks.reports.measures import CLINICAL_F1
from fedmrg_core.tasks.reports.methods import ReportMethod

SOURCES = ("none", "static", "prompt-wise", "promptbook-wise", "generator", "diagnosis", "diagnosis+prompt-wise")
CUSTOMISED = ("prompt-wise", "promptbook-wise")
# What is trained beside encoder, projection and prompts: the row that has it, and no prompts.
NOTHING = {"nothing more": "mrg-llm-none"}
BASES = {**NOTHING, "one LoRA": "fed-lora", "FedMRG's two": "fedmrg-without-prompts"}
CENTRALISED = {"nothing more, centralised": "centralised-mrg-llm-none"}
# The ablation of the alignment: without it, before the reports, beside them.
ALIGNMENT = ("mrg-llm-prompt-wise", "mrg-llm-prompt-wise-aligned", "mrg-llm-prompt-wise-aligned-beside")
SHOWN = ("bleu_4", "cider", "rouge_l", CLINICAL_F1)

Cells = dict[str, tuple[str, str]]
Pairs = list[tuple[str, str]]


def prompt_cells(bases: Mapping[str, str] = BASES) -> Cells:
    """Source and what is trained besides, by the row of methods.yaml that stands for them; without those of no row.

    Args:
        bases: row without prompts by what is trained besides.
    """
    rows = load_methods()
    cells = {}
    for besides, base in bases.items():
        for source in SOURCES:
            alike = [row.name for row in [rows[base], *rows.values()] if _is_cell(row, source, rows[base])]
            cells |= {name: (source, besides) for name in alike[:1]}
    return cells


def order_of_sources() -> Pairs:
    """What tells whether customised prompts are ahead of static ones, and these of none: in hospitals, in one place."""
    steps = [("static", "none"), *((source, "static") for source in CUSTOMISED)]
    pairs = []
    for bases in (NOTHING, CENTRALISED):
        row = {source: name for name, (source, _) in prompt_cells(bases).items()}
        pairs += [(row[first], row[second]) for first, second in steps]
    return pairs


def centralised_pairs() -> Pairs:
    """Each row of all studies in one place, and the same in hospitals."""
    federated = {source: name for name, (source, _) in prompt_cells(NOTHING).items()}
    return [(name, federated[source]) for name, (source, _) in prompt_cells(CENTRALISED).items()]


def _is_cell(row: ReportMethod, source: str, base: ReportMethod) -> bool:
    shared = all(row.modules[module] is Ownership.SHARED for module in row.prompt_type.own_modules)
    return row.prompts == source and shared and _without_prompts(row) == _without_prompts(base)


def _without_prompts(row: ReportMethod) -> dict[str, Any]:
    content, source = row.whole(), row.prompt_type
    for key in ("name", "description", "prompts", "prompt_settings"):
        del content[key]
    content["modules"] = {name: owner for name, owner in content["modules"].items() if name not in source.own_modules}
    own = {"classification", *source.own_losses}
    content["losses"] = {name: weight for name, weight in content["losses"].items() if name not in own}
    return content
