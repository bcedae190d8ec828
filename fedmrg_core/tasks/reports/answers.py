"""Which of a model's answers counts where."""

from __future__ import annotations

from collections.abc import Collection

from fedmrg_core.tasks.reports.methods import ReportMethod

# Which of a run's answers counts where, the first that it has [ours]: at home the client's own adapter, at a centre
# that never trained the shared one, because it has no other.
ANSWERS: dict[str, tuple[str, ...]] = {"home": ("specialised", "generic"), "unseen": ("generic",)}
FEDDAT_AT_HOME = ("both",)  # its specialised adapter has learnt in the mixture with the shared one, never alone


def counting_answer(role: str, there: Collection[str], method: ReportMethod) -> str | None:
    """Of a method's answers that are there, the one that counts in a role (see `ANSWERS`); None if there is none."""
    wanted = FEDDAT_AT_HOME if role == "home" and method.boosting == "feddat" else ANSWERS[role]
    return next((adapter for adapter in wanted if adapter in there), None)
