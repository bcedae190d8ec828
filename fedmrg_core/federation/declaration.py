"""What leaves a hospital: one declared list a run, held against every message before it is sent and when it arrives.

A task declares it from its method (`Task.leaving`). What is not on the list does not leave.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from flwr.app import RecordDict

from fedmrg_core.errors import InputError
from fedmrg_core.federation.messages import (
    ARRAYS,
    CLIENT,
    CONFIG,
    EXAMPLES,
    FINGERPRINT,
    METRICS,
    NEEDS_MODEL,
    PROTOTYPES,
    SECONDS,
    TRAINING_STUDIES,
    module_of,
)

# Of every update and every validation: how many studies it is of, and how long it took.
COUNTS = (EXAMPLES, SECONDS)
# The answers beside updates and validations: who a node is, and that it lacks the model it was told of.
ANSWERS = (CLIENT, TRAINING_STUDIES, FINGERPRINT, NEEDS_MODEL)


@dataclasses.dataclass(frozen=True)
class Declaration:
    """Everything that leaves a hospital, by name.

    Attributes:
        modules: whose tensors an update holds.
        prototype: numbers of the mean feature of the training images that goes with it; 0: none does.
        training: metrics that go with an update.
        validation: metrics that answer a validation.
        testing: metrics that answer a test, where whoever runs the server asks for one.
    """

    modules: tuple[str, ...]
    prototype: int
    training: tuple[str, ...]
    validation: tuple[str, ...]
    testing: tuple[str, ...] = ()

    def check(self, content: RecordDict, metrics: Collection[str]) -> None:
        """Hold the content of a message against the list, before it is packed and sent.

        Args:
            content: of the reply.
            metrics: those of the list that go with a reply of this kind.

        Raises:
            InputError: names the first thing that is not on the list.
        """
        for name in _names_in(content):
            if name not in {*self._records(), *(f"{METRICS}/{metric}" for metric in (*metrics, *COUNTS))}:
                raise InputError(f"{name} is not declared to leave a hospital; it was not sent.")

    def _records(self) -> set[str]:
        arrays = {f"{ARRAYS}/{module}" for module in self.modules}
        return arrays | {f"{CONFIG}/{answer}" for answer in ANSWERS} | ({PROTOTYPES} if self.prototype else set())

    def rows(self) -> list[dict[str, str]]:
        """The list as rows of a table: when, what and which names."""
        prototype = ("prototype",) if self.prototype else ()
        listed = [
            ("once", "who it is", ("name", "number of training studies", "fingerprint of the studies")),
            ("each round, after training", "tensors of the modules", self.modules),
            ("each round, after training", "mean feature of the training images", prototype),
            ("each round, after training", "numbers", (*self.training, *COUNTS)),
            ("each round, after validation", "numbers", (*self.validation, *COUNTS)),
            ("once at the end, if asked for", "numbers", (*self.testing, *COUNTS) if self.testing else ()),
            ("when something fails", "the error's class", ("class name",)),
        ]
        return [{"when": when, "what": what, "names": ", ".join(names)} for when, what, names in listed if names]


def _names_in(content: RecordDict) -> Iterable[str]:
    """What a message holds: modules, metrics, answers and records by name."""
    for record, entries in content.items():
        if record == ARRAYS:
            yield from sorted({f"{ARRAYS}/{module_of(key)}" for key in entries})
        elif record in (METRICS, CONFIG):
            yield from (f"{record}/{key}" for key in sorted(entries))
        else:
            yield record
