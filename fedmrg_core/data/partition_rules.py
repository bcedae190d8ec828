"""Which ways of dealing there are, and what a run may say of each. What they do is `data/partition/`.

Apart from it, as the command line and the workflow ask for this alone, and the other needs seconds of imports.
"""

from __future__ import annotations

import dataclasses
import math

from fedmrg_core.errors import InputError

CLIENTS = 5  # of the partitions that do not count their clients themselves [paper: five]
CONCENTRATION = 0.5  # of "dirichlet", where the partition's name gives none [ours]


@dataclasses.dataclass(frozen=True)
class PartitionRule:
    """A way of dealing.

    Attributes:
        clients: number of clients unless told otherwise; None: the data decide.
        number: the number behind the name ("dirichlet-0.1") unless told otherwise; None: the name takes none.
    """

    clients: int | None = CLIENTS
    number: float | None = None


PARTITIONS: dict[str, PartitionRule] = {
    "site": PartitionRule(clients=None),
    "random": PartitionRule(),
    "style": PartitionRule(),
    "dirichlet": PartitionRule(number=CONCENTRATION),
}


if any("-" in name for name in PARTITIONS):
    raise ValueError("PARTITIONS: what follows a dash in a partition's name is its number; name the row without one.")


def partition_rule(partition: str) -> PartitionRule:
    """The row of a partition; a name such as "dirichlet-0.1" sets the row's number.

    Raises:
        InputError: no row has this name, or the number is missing, malformed or not taken.
    """
    name, dash, number = partition.partition("-")
    if name not in PARTITIONS:
        raise InputError(f"partition is {partition!r}; expected one of {', '.join(PARTITIONS)}.")
    rule = PARTITIONS[name]
    if not dash:
        return rule
    if rule.number is None:
        raise InputError(f"partition is {partition!r} but {name!r} takes no number; write partition={name!r}.")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(
            f"partition is {partition!r}; expected a number above 0 after {name + dash!r}, "
            f"for example '{name}-{rule.number:g}'."
        )
    return dataclasses.replace(rule, number=value)
