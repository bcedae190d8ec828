"""Clients from studies: who holds what, for every way of dealing.

Where what is:

* ``../partition_rules.py``: `PARTITIONS`, one row a way of dealing: its number of clients, the number behind its name.
* ``table.py``: `DEALS`, the function of each, and `partition_clients`, which everybody calls.
* ``simple.py``: "site" and "random"; ``style.py``: clusters of wording; ``dirichlet.py``: Dirichlet over findings.
* ``parts.py``: what comes out, and what the ways of dealing share.

To add a way of dealing, write a function ``deal(studies, clients, seed, number) -> {client name: ClientStudies}`` in a
module here and give it a row in `PARTITIONS` and in `DEALS`. It sees the studies of the training sites only, all three
splits of them; unseen sites are taken out before, and `partition_clients` refuses a client that lacks a split. Keep all
studies of a patient with one client (`clients_of_patients` does), draw random numbers from the stream "partition" only,
and raise `InputError` where the data cannot be dealt as asked.
"""

from fedmrg_core.data.partition.parts import ClientStudies, Partition
from fedmrg_core.data.partition.table import partition_clients
from fedmrg_core.data.partition_rules import PARTITIONS, partition_rule

__all__ = ["PARTITIONS", "ClientStudies", "Partition", "partition_clients", "partition_rule"]
