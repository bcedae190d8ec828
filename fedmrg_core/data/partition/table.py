"""The functions of the partitions, and the one that deals studies by any of them."""

from __future__ import annotations

from collections.abc import Sequence

import datasets

from fedmrg_core.data.partition.dirichlet import by_findings
from fedmrg_core.data.partition.parts import Deal, Partition, split_of
from fedmrg_core.data.partition.simple import at_random, by_site
from fedmrg_core.data.partition.style import by_style
from fedmrg_core.data.partition_rules import PARTITIONS, partition_rule
from fedmrg_core.data.row_files import column_of
from fedmrg_core.data.site_names import check_site_name, find_sites
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError

DEALS: dict[str, Deal] = {"site": by_site, "random": at_random, "style": by_style, "dirichlet": by_findings}

if DEALS.keys() != PARTITIONS.keys():
    raise ValueError("a partition needs a row in PARTITIONS and a function in DEALS, of one name.")


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
    dealt = DEALS[partition.partition("-")[0]](home, clients or rule.clients, seed, rule.number)
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
