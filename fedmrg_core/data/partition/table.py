"""The one table of partitions, and the function that deals studies by one of its rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import datasets

from fedmrg_core.data.partition.dirichlet import CONCENTRATION, by_findings
from fedmrg_core.data.partition.parts import Deal, Partition, split_of
from fedmrg_core.data.partition.simple import at_random, by_site
from fedmrg_core.data.partition.style import by_style
from fedmrg_core.data.row_files import column_of
from fedmrg_core.data.site_names import check_site_name, find_sites
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError

CLIENTS = 5  # of the partitions that do not count their clients themselves [paper: five]


@dataclasses.dataclass(frozen=True)
class PartitionRule:
    """A way of dealing.

    Attributes:
        deal: deals the studies of the training sites, see the package's docstring.
        clients: number of clients unless told otherwise; None: the data decide.
        number: the number behind the name ("dirichlet-0.1") unless told otherwise; None: the name takes none.
    """

    deal: Deal
    clients: int | None = CLIENTS
    number: float | None = None


PARTITIONS: dict[str, PartitionRule] = {
    "site": PartitionRule(by_site, clients=None),
    "random": PartitionRule(at_random),
    "style": PartitionRule(by_style),
    "dirichlet": PartitionRule(by_findings, number=CONCENTRATION),
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


def partition_clients(
    studies: datasets.Dataset,
    partition: str = "site",
    clients: int | None = None,
    seed: int = 0,
    unseen_sites: Sequence[str] = (),
) -> Partition:
    """Deal studies to clients.

    Args:
        studies: all studies of a data set (contract 1).
        partition: "site": one client a site, named after it; "random": every split dealt evenly at random; "style":
            clusters of the reports' wording; "dirichlet" or "dirichlet-0.1": unlike in findings, by a Dirichlet draw of
            that concentration. All studies of one patient go to one client.
        clients: number of clients; None: 5, and for "site" the number of sites, which is all that "site" takes.
        seed: root seed; the stream "partition" is drawn from.
        unseen_sites: sites held out of training. Their test split is what they are measured on, so that a site is
            measured on the same studies whether it took part or not; their train split is for adaptation alone.

    Raises:
        InputError: an unknown partition or site, fewer than two clients, a number of clients that the data do not
            allow, a site's name that tables use themselves, or a client or unseen site that lacks a split.
    """
    rule = partition_rule(partition)
    if clients is not None and clients < 2:
        raise InputError(f"clients is {clients}; a federation needs at least 2.")
    sites = column_of(studies, "site")
    for site in sorted(set(sites)):
        check_site_name(site, "the data set")
    held_out = set(find_sites(unseen_sites, sites, "unseen"))
    home = studies.select([row for row, site in enumerate(sites) if site not in held_out])
    dealt = rule.deal(home, clients or rule.clients, seed, rule.number)
    for name, client in dealt.items():
        if name in held_out:
            raise InputError(f"unseen site {name!r} is called as a client of partition {partition!r}; rename the site.")
        for split in SPLITS:
            if not len(getattr(client, split)):
                raise InputError(f"partition {partition!r}: client {name!r} has no {split} study; lower clients.")
    unseen, adaptation, unused = {}, {}, {}
    for site in sorted(held_out):
        own = studies.select([row for row, name in enumerate(sites) if name == site])
        unseen[site], adaptation[site] = split_of(own, "test"), split_of(own, "train")
        unused[site] = len(own) - len(unseen[site]) - len(adaptation[site])
        if not len(unseen[site]):
            raise InputError(f"unseen site {site!r} has no test study; put studies into its test split or take it out.")
    return Partition({name: dealt[name] for name in sorted(dealt)}, unseen, unused, adaptation)
