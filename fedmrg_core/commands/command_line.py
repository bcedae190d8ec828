"""The command `fedmrg`. Heavy libraries are imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import os
import pathlib
import re
import sys
from typing import Annotated

import typer

import fedmrg_core
from fedmrg_core.commands import federation, identity, site
from fedmrg_core.commands.described import DescribedCommand
from fedmrg_core.errors import InputError

BAD_INPUT, FAILED = 2, 1  # exit codes
TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".ods", ".json", ".jsonl", ".parquet")  # what no file of lines is called

app = typer.Typer(
    help="FedMRG companion: notebooks as batch jobs, the findings labeller, a check of your own data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


notebook_app = typer.Typer(help="The .ipynb copies of the notebooks.", no_args_is_help=True)
app.add_typer(notebook_app, name="notebook")
app.add_typer(federation.app, name="federation")
app.add_typer(site.app, name="site")
app.add_typer(identity.app, name="identity")
app.command(cls=DescribedCommand)(identity.audit)


@app.command(cls=DescribedCommand)
def run(
    notebook: Annotated[str, typer.Argument(help="A .py or .ipynb file, or a name such as 06_federated_run.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="A text as it is written, else YAML."),
    ] = None,
    output: Annotated[
        pathlib.Path | None, typer.Option(help="The executed notebook, else report/notebooks/<name>.ipynb.")
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show a bar over the cells.")] = True,
) -> None:
    """Run a notebook with papermill; unknown or ill-typed parameters stop it before anything is computed.

    Example: fedmrg run 06_federated_run -p profile=smoke -p method=fedmrg -p seed=1
    """
    from fedmrg_core.commands import notebooks

    written: dict[str, str] = {}
    for name, value in map(notebooks.parse_parameter, parameter or []):
        if name in written:
            raise InputError(f"Parameter {name!r} is given twice; give it once.")
        written[name] = value
    source = notebooks.find_notebook(notebook)
    parameters = notebooks.read_parameters(notebooks.read_notebook(source), source.name, written)
    print(notebooks.run_notebook(source, parameters, output, progress))


@app.command(cls=DescribedCommand)
def label(
    file: Annotated[pathlib.Path, typer.Argument(help="A UTF-8 text file with one report a line.")],
    explain: Annotated[
        bool, typer.Option("--explain", help="Print each mention with the words that decided it instead of JSON.")
    ] = False,
) -> None:
    """Read the 14 findings from reports: one JSON object a line, {"states": {"cardiomegaly": "positive", ...}}."""
    from fedmrg_core.data.labeller.files import label_file

    _check_lines(file)
    for line in label_file(file, explain):
        print(line)


@app.command(cls=DescribedCommand)
def score(
    file: Annotated[pathlib.Path, typer.Argument(help="A CSV table with study_id, reference and generated.")],
    output: Annotated[pathlib.Path | None, typer.Option(help="Also write the table to this CSV file.")] = None,
    meteor: Annotated[bool, typer.Option(help="METEOR too; its Java takes seconds to start.")] = True,
    seed: Annotated[int, typer.Option(help="Of the bootstrap over studies.")] = 0,
) -> None:
    """Score anybody's generated reports: every text and clinical measure with its 95 % interval over studies."""
    from fedmrg_core.files.stored_tables import table_text
    from fedmrg_core.files.whole_files import write_text
    from fedmrg_core.tasks.reports.score_file import read_reports, score_reports

    scored = score_reports(read_reports(file), meteor, seed)
    print(scored.to_string(index=False, float_format="{:.4f}".format, na_rep=""))
    if output is not None:
        write_text(output, table_text(scored))


@app.command("check-data")
def check_data(
    data: Annotated[str, typer.Option(help="The dataset's name, e.g. phantom or iu_xray.")],
    root: Annotated[pathlib.Path | None, typer.Option(help="The folder that holds it.")] = None,
    profile: Annotated[str, typer.Option(help="The profile that sets image size and counts.")] = "smoke",
) -> None:
    """Load a dataset, print its counts by site and split, list every study left out with the reason, and warn."""
    from collections import Counter

    from fedmrg_core.commands import check_data as dry_run

    loaded = dry_run.load_studies(data, root, profile)
    counts = Counter(zip(loaded.studies["site"], loaded.studies["split"], strict=True))
    for (where, split), studies in sorted(counts.items()):
        print(f"{where}\t{split}\t{studies}")
    print(f"{len(loaded.studies)} studies in use, {len(loaded.left_out)} left out.")
    for item in loaded.left_out:
        print(f"left out\t{item.study_id}\t{item.item}\t{item.reason}")
    for sentence in loaded.warnings:
        print(f"warning\t{sentence}")


@app.command("check-partition", cls=DescribedCommand)
def check_partition(
    runs: Annotated[
        list[str], typer.Argument(help="Runs by their folders, e.g. smoke/phantom,style,clients=3/fedmrg/seed-0.")
    ],
    workspace: Annotated[str, typer.Option(help="Where prepared/ is kept; the repository if empty.")] = "",
) -> None:
    """Deal prepared studies to clients as these runs would, without training, and print who holds how many."""
    from fedmrg_core.data.study import SPLITS
    from fedmrg_core.paths import workspace_folder
    from fedmrg_core.runs.experiments import RunSettings, deals_of

    deals = list(deals_of(list(map(RunSettings.from_name, runs)), workspace_folder(workspace)))
    print("run", "client", *SPLITS, sep="\t")
    for run, partition in deals:
        for client, studies in partition.clients.items():
            print(run.name, client, *(len(getattr(studies, split)) for split in SPLITS), sep="\t")


@app.command(cls=DescribedCommand)
def report(
    run_folder: Annotated[pathlib.Path, typer.Argument(help="A run folder with figures.")],
    executed: Annotated[list[pathlib.Path] | None, typer.Argument(help="Executed notebooks to include.")] = None,
    output: Annotated[pathlib.Path, typer.Option(help="The front page.")] = pathlib.Path("report/index.html"),
) -> None:
    """Collect figures, measures and executed notebooks of a run into HTML pages, and print what they begin with."""
    from fedmrg_core.commands.console import library_log
    from fedmrg_core.commands.html_report import write_html_report

    with library_log(output.with_suffix(".log"), f"fedmrg report {run_folder} --output {output}"):
        summary = write_html_report(run_folder, executed or [], output)
    print(summary.console())
    print(f"\nFigures and report: {output}")


@app.command(cls=DescribedCommand)
def reference(
    folders: Annotated[
        list[pathlib.Path],
        typer.Argument(help="Run folders below results/, report/benchmark-PROFILE, or base_models/PROFILE/DATA."),
    ],
) -> None:
    """Keep what is small and may be published of finished runs, and of their comparison, under figures/reference/.

    Base models go to profiles/base_models/, where notebook 05 finds them.
    """
    from fedmrg_core.evaluation.reference import BENCHMARK, store_benchmark, store_reference
    from fedmrg_core.paths import reference_folder
    from fedmrg_core.tasks.reports.stored_base_models import store_base_models

    for folder in folders:
        path = folder.resolve()
        if path.name.startswith(f"{BENCHMARK}-"):
            print(store_benchmark(path, reference_folder(path.name.removeprefix(f"{BENCHMARK}-"))))
        elif path.parent.parent.name == "base_models":
            print(store_base_models(path, path.parent.name, path.name))
        else:
            name = "/".join(path.parts[-4:])
            print(store_reference(folder, name, reference_folder(name.partition("/")[0]).parent))


@app.command("seed-variance")
def seed_variance(
    cores: Annotated[int, typer.Option(min=1, help="Cores to use.")] = os.cpu_count() or 1,
) -> None:
    """Compute from references of several seeds how far chance moves each measure, for `fedmrg verify`; minutes."""
    from fedmrg_core.evaluation.reference import store_seed_variance
    from fedmrg_core.paths import reference_folder

    print(store_seed_variance(reference_folder("").resolve(), cores))


@app.command("same-data", cls=DescribedCommand)
def same_data(
    older: Annotated[pathlib.Path, typer.Argument(help="A prepared folder of an earlier version or another machine.")],
    current: Annotated[pathlib.Path, typer.Argument(help="A prepared folder of this version.")],
    record: Annotated[bool, typer.Option(help="Note in figures/reference/equal_data.csv that they are equal.")] = False,
) -> None:
    """Hold two prepared folders against each other: the same studies, but for rounded pixels and a few states?"""
    from fedmrg_core.data.prepared import load_prepared
    from fedmrg_core.evaluation import equal_data

    pair = load_prepared(older), load_prepared(current)
    found = equal_data.record_equal_data(*pair) if record else equal_data.difference(*pair)
    kind = "the same" if found.counts_as_same else "other"
    print(f"{found.studies} studies with equal ids and texts; {found}: {kind} data")
    if not found.counts_as_same:
        raise typer.Exit(FAILED)


@app.command()
def verify(
    profile: Annotated[str, typer.Option(help="Whose reference runs.")] = "smoke",
    only: Annotated[
        list[str] | None,
        typer.Option(help="A method, a data set or a run to verify; give it again for more.", show_default="all"),
    ] = None,
    rerun: Annotated[bool, typer.Option(help="Run what results/ lacks; without it only compare.")] = True,
    data_root: Annotated[str, typer.Option(help="The folder of a real data set.")] = "",
    cores: Annotated[int, typer.Option(min=1, help="Cores to use.")] = os.cpu_count() or 1,
    exact: Annotated[bool, typer.Option(help="Run with the arithmetic of REPRODUCIBLE=exact.")] = False,
) -> None:
    """Run the reference runs again and hold their measures, study by study, against what chance explains.

    The table of all numbers goes to report/verify-PROFILE.csv.

    Exit code 0: all reproduced; 1: something was not; 3: something was not run; 4: a stored reference is damaged.
    """
    from fedmrg_core.evaluation.reruns import print_verdict, verify_references

    raise typer.Exit(print_verdict(verify_references(profile, only or [], rerun, data_root, cores, exact), profile))


@app.command()
def version() -> None:
    """Print the version."""
    print(fedmrg_core.__version__)


@notebook_app.command(cls=DescribedCommand)
def sync(
    name: Annotated[list[str] | None, typer.Argument(help="Notebooks to write.", show_default="all")] = None,
    executed: Annotated[
        pathlib.Path | None, typer.Option("--from", help="An executed notebook of the one named, for its outputs.")
    ] = None,
) -> None:
    """Write each NN_name.ipynb from NN_name.py, without timestamps, progress bars and absolute paths."""
    from fedmrg_core.commands import committed_notebooks, notebooks

    chosen = [notebooks.find_notebook(item).with_suffix(".py") for item in name or []]
    if executed is not None and len(chosen) != 1:
        raise InputError("--from takes the outputs of one run: name the one notebook they belong to.")
    for source in chosen or committed_notebooks.sources():
        print(committed_notebooks.sync_notebook(source, executed))


@notebook_app.command()
def check() -> None:
    """Exit with 1 when an .ipynb has not the cells of its .py."""
    from fedmrg_core.commands import committed_notebooks

    problems = [
        line for source in committed_notebooks.sources() for line in committed_notebooks.differing_cells(source)
    ]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise typer.Exit(FAILED)


def _check_lines(file: pathlib.Path) -> None:
    """Refuse a folder and a table, whose rows and header would be labelled as if they were reports."""
    if file.is_dir():
        raise InputError(f"{file} is a folder; expected a text file with one report a line.")
    beginning = b""
    if file.is_file():
        with file.open("rb") as content:
            beginning = content.readline(10_000)
    cells = re.split("[,;\t]", beginning.decode("utf-8-sig", errors="replace").strip())
    header = len(cells) > 2 and all(cell.strip(' "').isidentifier() for cell in cells)
    if header or file.suffix.lower() in TABLES:
        raise InputError(
            f"{file} is a table; write its column of reports into a text file, one report a line and no header."
        )


def main() -> None:
    """Entry point: an InputError becomes one sentence and exit code 2, a failed notebook exit code 1."""
    from fedmrg_core.commands.notebooks import NotebookFailed

    try:
        app()
    except InputError as error:
        print(f"fedmrg: {error}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None
    except NotebookFailed as error:
        print(f"fedmrg: {error}", file=sys.stderr)
        raise SystemExit(FAILED) from None


if __name__ == "__main__":
    main()
