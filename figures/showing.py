"""What notebooks 08 and 10 do beside drawing: find the runs of experiments, show pictures and tables."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Sequence

from IPython.display import Image, Markdown, display

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation import comparison, table_writers
from fedmrg_core.evaluation.reference import finished_runs
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.paths import reference_folder
from fedmrg_core.runs.experiments import runs_of


def show(paths: Iterable[pathlib.Path]) -> None:
    """The PNG of each figure just drawn, under its name."""
    for path in (path for path in paths if path.suffix == ".png"):
        display(Markdown(f"`{path.name}` beside {path.stem}.pdf and {path.stem}.csv"), Image(str(path)))


def show_table(paths: Iterable[pathlib.Path]) -> None:
    """The Markdown of a table just written."""
    for path in (path for path in paths if path.suffix == ".md"):
        display(Markdown(path.read_text(encoding="utf-8")))


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The runs there are of a profile, and what is made of them.

    Attributes:
        profile: a name in profiles/, or the path of a .yaml file.
        root: the workspace.
        same_code: refuse runs of different training code, instead of a note below the table.
    """

    profile: str
    root: pathlib.Path
    same_code: bool = False

    @property
    def out(self) -> pathlib.Path:
        """Where tables and figures go."""
        return self.root / "report" / f"benchmark-{pathlib.Path(self.profile).stem}"

    def stored(self, *names: str, measures: str = "metrics.csv") -> list[pathlib.Path]:
        """The run folders there are of these experiments; what is missing is counted and named."""
        folders, missing = self._found(names, measures)
        print(f"{', '.join(names)}: {len(folders)} runs")
        print("\n".join(f"  not run: {name}" for name in missing))
        return folders

    def holds(self, name: str, part: str) -> bool:
        """Whether a run of an experiment is there whose row has this part in its name; nothing is printed."""
        folders, _ = self._found([name], "metrics.csv")
        return any(part in folder.parent.name for folder in folders)

    def _found(self, names: Sequence[str], measures: str) -> tuple[list[pathlib.Path], list[str]]:
        references = reference_folder(self.profile).parent
        return finished_runs(runs_of(list(names), self.profile), self.root, references, measures)

    def show(
        self, draw: Callable[..., list[pathlib.Path]], folders: Sequence[pathlib.Path], least: int = 2, **settings: str
    ) -> None:
        """Draw a figure if there are `least` runs for it."""
        if len(folders) < least:
            print("Not drawn: too few of its runs are there.")
            return
        try:
            paths = draw(folders, self.out, **settings)
        except InputError as error:
            print(f"Not drawn: {error}")
            return
        show(paths)

    def tabulate(self, name: str, folders: Sequence[pathlib.Path], **settings: bool) -> None:
        """Write a comparison as CSV, Markdown and LaTeX, and show the Markdown."""
        if not folders:
            return
        runs = load_runs(folders, same_code=self.same_code)
        table = comparison.main_table(runs)
        paths = table_writers.write_comparison(
            table, self.out, name, measures=runs.measures, notes=runs.notes, **settings
        )
        show_table(paths)
