"""The server's folder and a hospital's, and the two files that are handed over between them.

The server sends each hospital `invitation.json`: where it is reached, which authority vouches for it, and the run. A
hospital answers with `application.json`: its name, its number of training studies, their fingerprint, its public key.
Neither holds a study or a private key.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import pydantic

import fedmrg_core
from fedmrg_core.data.site_names import path_part
from fedmrg_core.errors import InputError
from fedmrg_core.federation import gate
from fedmrg_core.federation.deployment import certificates
from fedmrg_core.federation.roster import (
    Client,
    Roster,
    read_client,
    relative_folders,
    roster_of_clients,
    write_roster,
)
from fedmrg_core.files.strict_yaml import Strict, dumped, read_yaml, validated
from fedmrg_core.files.whole_files import read_json, write_text
from fedmrg_core.runs.run_configuration import (
    CONFIGURATION_FILE,
    configuration_of,
    read_configuration,
    write_configuration,
)

FEDERATION, SITE = "federation.yaml", "site.yaml"  # ports, paths and names: one file each
INVITATION, APPLICATION = "invitation.json", "application.json"
RUN, NODES = "run", "nodes"
Port = pydantic.Field(ge=1, le=65535)
FREE = 0  # a port that is free when the program starts


class FederationFolder(Strict):
    """federation.yaml.

    Attributes:
        name: of the federation.
        host: name or address under which hospitals reach the server.
        port: of the SuperLink there.
        listen: the address that it listens on.
    """

    name: str = pydantic.Field(min_length=1)
    host: str = pydantic.Field(min_length=1)
    port: int = Port
    listen: str = "127.0.0.1"


class SiteFolder(Strict):
    """site.yaml.

    Attributes:
        federation: its name.
        authority: SHA-256 of the authority's certificate.
        host: of the server.
        port: of the server.
        client: the hospital's name.
        client_folder: its studies, relative to the site's folder.
        runtime_port: of the SuperNode, on loopback alone; `FREE`: one that is free when it starts.
    """

    federation: str
    authority: str
    host: str
    port: int = Port
    client: str
    client_folder: str
    runtime_port: int = pydantic.Field(FREE, ge=FREE, le=65535)


@dataclasses.dataclass(frozen=True)
class Admitted:
    """A hospital as the server knows it."""

    client: Client
    public_key: str
    identity: int  # on the chain; 0 where the run has none


def versions() -> dict[str, str]:
    """What has to be the same everywhere."""
    return {"fedmrg": fedmrg_core.__version__, "flwr": importlib.metadata.version("flwr")}


def init_federation(folder: pathlib.Path, settings: FederationFolder, run_folder: pathlib.Path) -> pathlib.Path:
    """Make the server's folder; made again, it keeps its authority and renews the server's certificate.

    Args:
        folder: of the server.
        settings: names, host and port.
        run_folder: its config.yaml is the run's, and the base models that it names are the server's.

    Returns:
        The invitation for the hospitals.

    Raises:
        InputError: the folder holds another run, or the run is one of a synthetic attack.
    """
    configuration = read_configuration(run_folder)
    if configuration.profile.attack.planned:
        raise InputError(
            f"attack.kind is {configuration.profile.attack.kind}: a synthetic attack is for one machine; give the "
            "configuration of a run without."
        )
    (folder / RUN).mkdir(parents=True, exist_ok=True)
    inputs = {name: run_folder / getattr(configuration, name) for name in ("prepared", "base_models")}
    moved = {name: relative_folders(folder / RUN, [path])[0] for name, path in inputs.items()}
    configuration = gate.prepare_server(folder / RUN, configuration.model_copy(update=moved))
    write_configuration(folder / RUN, configuration)
    certificates.make_authority(folder, settings.name)
    hosts = dict.fromkeys((settings.host, settings.listen, "localhost", "127.0.0.1"))
    certificates.issue_certificate(folder, [host for host in hosts if host != "0.0.0.0"])  # noqa: S104
    write_text(folder / FEDERATION, dumped(settings.model_dump(mode="json")))
    content = {
        "name": settings.name,
        "host": settings.host,
        "port": settings.port,
        "authority": (folder / certificates.AUTHORITY).read_text(encoding="utf-8"),
        "configuration": read_yaml(folder / RUN / CONFIGURATION_FILE, "run folder"),
        "versions": versions(),
    }
    _write_json(folder / INVITATION, content)
    return folder / INVITATION


def init_site(
    folder: pathlib.Path,
    invitation: pathlib.Path,
    client_folder: pathlib.Path,
    base_models: pathlib.Path,
    runtime_port: int = FREE,
) -> pathlib.Path:
    """Make a hospital's folder: its key, the server's authority, the run's configuration.

    Args:
        folder: of the hospital.
        invitation: the server's file.
        client_folder: the hospital's studies, as `fedmrg federation client-folder` makes them.
        base_models: folder of the base models on this machine.
        runtime_port: see `SiteFolder`.

    Returns:
        The application for the server.

    Raises:
        InputError: the invitation is none, of other versions or of another federation than the folder's; or the client
            folder is none.
    """
    content = _read(invitation, ("name", "host", "port", "authority", "configuration", "versions"), "an invitation")
    _check_versions(content["versions"], str(invitation))
    client = read_client(client_folder, folder / RUN)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / certificates.AUTHORITY, str(content["authority"]))
    authority = certificates.fingerprint(certificates.read_certificate(folder / certificates.AUTHORITY))
    site = validated(
        SiteFolder,
        {"federation": content["name"], "authority": authority, "host": content["host"], "port": content["port"],
         "client": client.name, "client_folder": relative_folders(folder, [client_folder])[0],
         "runtime_port": runtime_port},
        str(invitation),
    )  # fmt: skip
    if (folder / SITE).is_file() and read_site(folder).authority != authority:
        raise InputError(f"{folder}: a site of another federation; choose another folder for {site.federation!r}.")
    (folder / RUN).mkdir(exist_ok=True)
    given = configuration_of(content["configuration"], str(invitation))
    models = relative_folders(folder / RUN, [base_models])[0]
    configuration = write_configuration(folder / RUN, given.model_copy(update={"base_models": models}))
    write_text(folder / SITE, dumped(site.model_dump(mode="json")))
    application = {
        "federation": site.federation,
        "authority": authority,
        "client": client.name,
        "train": client.train,
        "fingerprint": client.fingerprint,
        "public_key": certificates.make_node_key(folder),
        "versions": versions(),
    }
    if (number := gate.apply(folder / RUN, configuration, client.name)) is not None:
        application["identity"] = number
    _write_json(folder / APPLICATION, application)
    return folder / APPLICATION


def admit(folder: pathlib.Path, applications: Sequence[pathlib.Path]) -> Roster:
    """Take hospitals into a federation: clients.json, and the public key of each to be registered.

    Args:
        folder: of the server.
        applications: the file of every hospital; all of them, each time.

    Returns:
        Who takes part.

    Raises:
        InputError: a file is no application, of another federation or of other versions; two have one name or one key;
            or there are fewer than two.
    """
    authority = certificates.fingerprint(certificates.read_certificate(folder / certificates.AUTHORITY))
    admitted = [_admitted(path, authority) for path in applications]
    if len(admitted) < 2:
        raise InputError(f"{len(admitted)} application was given; a federation needs at least 2 hospitals.")
    for path, one in zip(applications, admitted, strict=True):
        if sum(one.public_key == other.public_key for other in admitted) > 1:
            raise InputError(f"{path}: another hospital has the same key; each makes its own with fedmrg site init.")
    configuration = read_configuration(folder / RUN)
    gate.admit_members(folder / RUN, configuration, {one.client.name: one.identity for one in admitted})
    roster = roster_of_clients(sorted((one.client for one in admitted), key=lambda client: client.name))
    write_roster(folder / RUN, roster)
    for one in admitted:
        write_text(folder / NODES / f"{path_part(one.client.name)}.pub", one.public_key + "\n")
    return roster


def _admitted(path: pathlib.Path, authority: str) -> Admitted:
    names = ("federation", "authority", "client", "train", "fingerprint", "public_key", "versions")
    content = _read(path, names, "an application")
    _check_versions(content["versions"], str(path))
    if content["authority"] != authority:
        raise InputError(f"{path}: it is for {content['federation']!r} of another server; send the right one.")
    try:
        client = Client(str(content["client"]), int(content["train"]), str(content["fingerprint"]))
        identity = int(content.get("identity", 0))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: not an application ({error}); make it with fedmrg site init.") from error
    certificates.check_public_key(str(content["public_key"]), str(path))
    return Admitted(client, str(content["public_key"]).strip(), identity)


def join(folder: pathlib.Path, members: pathlib.Path) -> None:
    """Give a hospital the server's list of members, where the run has identities.

    Raises:
        InputError: the run has none, or the list is not this hospital's.
        ChainUnavailable: the chain does not answer.
    """
    gate.join(folder / RUN, read_configuration(folder / RUN), read_site(folder).client, members)


def read_federation(folder: pathlib.Path) -> FederationFolder:
    """federation.yaml.

    Raises:
        InputError: it is missing or wrong.
    """
    path = folder / FEDERATION
    return validated(FederationFolder, read_yaml(path, "the server's folder"), str(path))


def read_site(folder: pathlib.Path) -> SiteFolder:
    """site.yaml.

    Raises:
        InputError: it is missing or wrong.
    """
    path = folder / SITE
    return validated(SiteFolder, read_yaml(path, "a hospital's folder"), str(path))


def _read(path: pathlib.Path, names: Sequence[str], what: str) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected {what}.")
    content = read_json(path)
    missing = [name for name in names if name not in content] if isinstance(content, dict) else list(names)
    if missing:
        raise InputError(f"{path} is not {what}: {missing[0]} is missing.")
    return content


def check_made_here(path: pathlib.Path) -> None:
    """Hold the versions in a folder's invitation or application against those that run now.

    Raises:
        InputError: it is missing, or they differ.
    """
    _check_versions(
        _read(path, ("versions",), "a file of fedmrg federation init or fedmrg site init")["versions"], str(path)
    )


def _check_versions(theirs: object, source: str) -> None:
    for name, version in versions().items():
        other = theirs.get(name) if isinstance(theirs, dict) else None
        if other != version:
            raise InputError(f"{source}: it was made with {name} {other}, here is {version}; install the same one.")


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
