"""`fedmrg federation`: what hospitals and the server of a real federation prepare before it begins."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from fedmrg_core.commands.described import DescribedCommand

app = typer.Typer(help="Client folders and the list of clients of a real federation.", no_args_is_help=True)


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
