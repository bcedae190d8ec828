"""`fedmrg federation`: what hospitals and the server of a real federation prepare before it begins."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from fedmrg_core.commands.described import DescribedCommand

app = typer.Typer(help="The server's side of a real federation, and client folders.", no_args_is_help=True)
Folder = Annotated[pathlib.Path, typer.Argument(help="The server's folder.")]


@app.command(cls=DescribedCommand)
def init(
    folder: Folder,
    configuration: Annotated[pathlib.Path, typer.Option(help="A run folder whose config.yaml says what is trained.")],
    name: Annotated[str, typer.Option(help="Of the federation.")] = "federation",
    host: Annotated[str, typer.Option(help="Name or address under which hospitals reach this server.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Of the SuperLink.")] = 8000,
    listen: Annotated[str, typer.Option(help="The address that it listens on; 0.0.0.0 for all.")] = "127.0.0.1",
) -> None:
    """Make the server's folder: authority, certificate, the run, and invitation.json for the hospitals.

    Example: fedmrg federation init ours --configuration results/paper/ours/fedmrg/seed-0 --host fed.example.org
    """
    from fedmrg_core.federation.deployment.folders import FederationFolder, init_federation
    from fedmrg_core.files.strict_yaml import validated

    settings = validated(FederationFolder, {"name": name, "host": host, "port": port, "listen": listen}, "init")
    print(f"{init_federation(folder, settings, configuration)}: send this file to every hospital")


@app.command(cls=DescribedCommand)
def admit(
    folder: Folder,
    applications: Annotated[list[pathlib.Path], typer.Argument(help="The application.json of every hospital.")],
) -> None:
    """Take hospitals into the federation, all of them in one call.

    Example: fedmrg federation admit ours north.json south.json
    """
    from fedmrg_core.federation.deployment import folders

    print(f"{folder}: {', '.join(folders.admit(folder, applications).names)} take part")


@app.command(cls=DescribedCommand)
def serve(folder: Folder) -> None:
    """Run the SuperLink until it is ended (Ctrl-C); started again, it knows its hospitals.

    Example: fedmrg federation serve ours
    """
    from fedmrg_core.federation.deployment import nodes

    raise typer.Exit(nodes.serve(folder))


@app.command(cls=DescribedCommand)
def run(
    folder: Folder,
    test: Annotated[bool, typer.Option(help="Have every hospital test itself at the end.")] = False,
) -> None:
    """Register hospitals that are new and run the rounds that are left.

    Example: fedmrg federation run ours
    """
    from fedmrg_core.federation.deployment import running

    running.run(folder, test=test)
    print(f"{folder / 'run'}: done")


@app.command("client-folder", cls=DescribedCommand)
def client_folder(
    prepared: Annotated[pathlib.Path, typer.Argument(help="The hospital's own prepared folder (notebook 01).")],
    output: Annotated[pathlib.Path, typer.Argument(help="The client folder to make.")],
    name: Annotated[str, typer.Option(help="The hospital's name in the federation.")],
) -> None:
    """Make a hospital's client folder of all it has prepared; its client.json, without any study, goes to the server.

    Example: fedmrg federation client-folder prepared/paper/folder client --name north
    """
    from fedmrg_core.data.dealing import deal_whole
    from fedmrg_core.data.prepared import load_prepared
    from fedmrg_core.data.site_names import check_site_name

    check_site_name(name, "--name")
    made = deal_whole(load_prepared(prepared), output, name)
    print(
        f"{made.path}: client {made.name!r}, {', '.join(f'{n} {split}' for split, n in made.studies.items())} studies"
    )


@app.command(cls=DescribedCommand)
def clients(
    run_folder: Annotated[pathlib.Path, typer.Argument(help="The server's run folder.")],
    descriptions: Annotated[list[pathlib.Path], typer.Argument(help="The client.json of every hospital.")],
) -> None:
    """Write clients.json, the server's list of who takes part.

    Example: fedmrg federation clients results/ours north/client.json south/client.json
    """
    from fedmrg_core.federation.roster import ROSTER, roster_of, write_roster

    roster = roster_of(descriptions)
    run_folder.mkdir(parents=True, exist_ok=True)
    write_roster(run_folder, roster)
    print(f"{run_folder / ROSTER}: {', '.join(roster.names)}")
