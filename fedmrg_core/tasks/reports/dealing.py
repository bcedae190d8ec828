"""The step before a federation on one machine: the prepared studies become one folder a client."""

from __future__ import annotations

import pathlib

from fedmrg_core.data.dealing import Dealt, deal, dealing_request, open_dealt
from fedmrg_core.data.prepared import load_prepared
from fedmrg_core.data.site_names import check_apart
from fedmrg_core.errors import InputError
from fedmrg_core.federation.roster import Client, Roster, pooled, relative_folders
from fedmrg_core.runs.run_configuration import RunConfiguration


def deal_run(run_folder: pathlib.Path, configuration: RunConfiguration) -> Roster:
    """Deal the prepared studies as a run is configured, unless that is done.

    Args:
        run_folder: the folders of the configuration are relative to it.
        configuration: of the run.

    Returns:
        Who takes part: the clients of the partition, or where the method is centralised "pooled", which holds all
        training and validation studies. Test studies stay with their site.

    Raises:
        InputError: the prepared studies are missing or have another image size, or cannot be dealt as configured, or
            two clients could not have a folder each here.
    """
    source, size = (run_folder / configuration.prepared).resolve(), configuration.profile.image_size
    prepared = load_prepared(source)
    if prepared.summary["image_size"] != size:
        raise InputError(
            f"{source}: its images are {prepared.summary['image_size']} pixels wide and the profile "
            f"asks for image_size {size}; prepare the data with this profile (notebook 01)."
        )
    settings, folder = configuration, (run_folder / configuration.dealt).resolve()
    dealt = deal(prepared, folder, settings.partition, settings.clients, settings.seed, settings.unseen_sites)
    if run_folder.is_dir():
        check_apart([*dealt.clients, *dealt.unseen], run_folder)
    return _roster(run_folder, configuration, dealt)


def dealt_studies(run_folder: pathlib.Path, configuration: RunConfiguration) -> Dealt:
    """The folders that a run was dealt, for evaluation on the machine that holds them all.

    Raises:
        InputError: there are none, or they were dealt otherwise since.
    """
    folder = (run_folder / configuration.dealt).resolve()
    dealt = open_dealt(folder)
    held_out = dealt.request["unseen_sites"] if configuration.unseen_sites is None else configuration.unseen_sites
    wanted = dealing_request(configuration.partition, configuration.clients, configuration.seed, held_out)
    if {key: dealt.request.get(key) for key in wanted} != wanted:
        raise InputError(f"{folder} was dealt in another way than this run; run notebook 06_federated_run again.")
    return dealt


def _roster(run_folder: pathlib.Path, configuration: RunConfiguration, dealt: Dealt) -> Roster:
    clients = tuple(
        Client(name, folder.studies["train"], folder.fingerprint, relative_folders(run_folder, [folder.path]))
        for name, folder in dealt.clients.items()
    )
    roster = Roster(clients, {"data": dealt.fingerprint, "data_version": dealt.data_version})
    return pooled(roster) if configuration.method.training == "centralised" else roster
