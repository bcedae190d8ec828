"""The 14 findings and their four states: the only home of both lists.

Order of the findings: CheXpert's, as PromptMRG lists them [related].
"""

from __future__ import annotations

from collections.abc import Iterable

FINDINGS: tuple[str, ...] = (
    "enlarged cardiomediastinum",
    "cardiomegaly",
    "lung opacity",
    "lung lesion",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural effusion",
    "pleural other",
    "fracture",
    "support devices",
    "no finding",
)

# The index of a state is its class number everywhere: a study's `states`, the diagnosis head, the prompt table.
STATES: tuple[str, ...] = ("blank", "positive", "negative", "uncertain")
BLANK, POSITIVE, NEGATIVE, UNCERTAIN = range(len(STATES))

STATE_RANK = (BLANK, NEGATIVE, UNCERTAIN, POSITIVE)  # aggregation: the last one found in a report wins
NO_FINDING = FINDINGS.index("no finding")
SUPPORT_DEVICES = FINDINGS.index("support devices")


def states_to_names(states: Iterable[int]) -> dict[str, str]:
    """Finding name to state name, ``{"cardiomegaly": "positive", ...}``, for 14 class numbers in `FINDINGS` order."""
    return {finding: STATES[state] for finding, state in zip(FINDINGS, states, strict=True)}
