"""`fedmrg site`: a hospital's side of a real federation."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from fedmrg_core.commands.described import DescribedCommand

app = typer.Typer(help="A hospital's side of a real federation.", no_args_is_help=True)
Folder = Annotated[pathlib.Path, typer.Argument(help="The hospital's folder.")]


@app.command(cls=DescribedCommand)
def init(
    folder: Folder,
    invitation: Annotated[pathlib.Path, typer.Option(help="The server's invitation.json.")],
    client_folder: Annotated[
        pathlib.Path, typer.Option(help="The hospital's studies, made with fedmrg federation client-folder.")
    ],
    base_models: Annotated[pathlib.Path, typer.Option(help="Folder of the base models.")] = pathlib.Path("base_models"),
    runtime_port: Annotated[int, typer.Option(help="On this machine alone; 0: one that is free.")] = 0,
) -> None:
    """Make a hospital's folder: its key, the server's authority, the run, and application.json for the server.

    Example: fedmrg site init north --invitation invitation.json --client-folder client
    """
    from fedmrg_core.federation.deployment.folders import init_site

    print(f"{init_site(folder, invitation, client_folder, base_models, runtime_port)}: send this file to the server")


@app.command(cls=DescribedCommand)
def join(
    folder: Folder, members: Annotated[pathlib.Path, typer.Argument(help="The server's run/identity/members.json.")]
) -> None:
    """Take the server's list of members, in a run with identities.

    Example: fedmrg site join north members.json
    """
    from fedmrg_core.federation.deployment import folders

    folders.join(folder, members)
    print(f"{folder}: has the list of members")


@app.command(cls=DescribedCommand)
def start(folder: Folder) -> None:
    """Run the hospital's SuperNode until it is ended (Ctrl-C).

    Example: fedmrg site start north
    """
    from fedmrg_core.federation.deployment import nodes

    raise typer.Exit(nodes.start_site(folder))
