"""One run's configuration: config.yaml in its run folder, complete enough to run it again from that file alone."""

from __future__ import annotations

import os
import pathlib
from typing import Generic, TypeVar

import pydantic

from fedmrg_core.errors import InputError
from fedmrg_core.files.strict_yaml import Strict, dumped, read_yaml, validated
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.runs.configuration import Profile
from fedmrg_core.runs.configuration_format import FORMAT, upgraded
from fedmrg_core.runs.methods import Method, check_row, method_table
from fedmrg_core.runs.task_registry import REPORTS
from fedmrg_core.runs.training_code import picked_code_hash

CONFIGURATION_FILE = "config.yaml"
Row = TypeVar("Row", bound=Method)


class Identities(Strict):
    """Where the clients of a run are registered, see docs/identity.md."""

    chain: str = "embedded"  # or the URL of an EVM node
    chain_id: int | None = pydantic.Field(None, gt=0)  # the chain has to have this number; None: whichever it has
    contract: str | None = None  # its address; None: deployed when the run begins
    pot: int = pydantic.Field(0, ge=0)  # wei that the coordinator puts in, for the contributors

    @pydantic.field_validator("chain")
    @classmethod
    def _is_known(cls, chain: str) -> str:
        if chain != "embedded" and not chain.startswith(("http://", "https://")):
            raise ValueError(f"{chain!r} is no chain; expected embedded or a node's URL, http://... or https://...")
        return chain


class RunConfiguration(Strict, Generic[Row]):
    """Which model is trained how, on whose data. Folders are stored relative to the run folder.

    ``RunConfiguration[row type]`` reads the rows of that task from a file.
    """

    profile: Profile
    method: Row
    data: str  # name of the data, as in the run folder's path
    prepared: str  # folder of the prepared studies, relative to the run folder
    base_models: str  # folder of the base models, relative to the run folder
    dealt: str = "clients"  # folder of the client folders on the machine that deals, relative to the run folder
    partition: str = "site"
    clients: int | None = pydantic.Field(None, gt=0)  # number of clients; None: as many as the data have sites
    unseen_sites: tuple[str, ...] | None = None  # sites that no client holds; None: those the data were prepared with
    seed: int = pydantic.Field(0, ge=0)
    # CPU threads of a local update. Sums depend on their number in the last bit, so it is part of the run: the same
    # bytes come out wherever it is the same.
    threads: int = pydantic.Field(1, gt=0)
    task: str = REPORTS  # what the clients train: a name in `fedmrg_core.runs.task_registry`
    # An identity on a chain for every client; runs without do not mention it.
    identities: Identities | None = pydantic.Field(None, exclude_if=lambda given: given is None)
    format: int = pydantic.Field(FORMAT, ge=FORMAT, le=FORMAT)  # of this file, see `configuration_format`

    @pydantic.model_validator(mode="after")
    def _row_is_the_task_s(self) -> RunConfiguration:
        check_row(self.method, self.task)
        return self

    def identity(self) -> dict:
        """What makes two runs the same run: all but the number of threads and where input folders and chain are.

        Code that the row picks by name counts, too: the hash of the training code follows imports.
        """
        picked = self.method.picked_code()
        code = {"code": picked_code_hash(picked)} if picked else {}
        elsewhere = {"threads": True, "prepared": True, "base_models": True, "dealt": True, "format": True}
        return self.model_dump(mode="json", exclude={**elsewhere, "identities": {"chain"}}) | code


def configure_run(
    run_folder: pathlib.Path,
    *,
    prepared: pathlib.Path,
    base_models: pathlib.Path,
    dealt: pathlib.Path | None = None,
    **settings: object,
) -> RunConfiguration:
    """The configuration of a run, its input folders stored relative to the run folder.

    Args:
        run_folder: where the run is or will be.
        prepared: folder of the prepared studies.
        base_models: folder of the base models.
        dealt: folder of the client folders, which runs that deal alike share; None: one in the run folder.
        settings: further fields of :class:`RunConfiguration`.

    Raises:
        InputError: a setting is unknown or ill-typed.
    """
    inputs = {"prepared": prepared, "base_models": base_models, "dealt": dealt or run_folder / "clients"}
    folders = {
        name: pathlib.PurePath(os.path.relpath(folder.resolve(), run_folder.resolve())).as_posix()
        for name, folder in inputs.items()
    }
    return validated(RunConfiguration, {**settings, **folders}, "run configuration")


def write_configuration(run_folder: pathlib.Path, configuration: RunConfiguration) -> RunConfiguration:
    """Write config.yaml, or go on with the one that is there if it describes the same run.

    Returns:
        The configuration in force: a run that is taken up again keeps its number of threads.

    Raises:
        InputError: the folder holds another run.
    """
    path = run_folder / CONFIGURATION_FILE
    if path.exists():
        there = read_configuration(run_folder)
        one, other = there.identity(), configuration.identity()
        different = sorted(key for key in one | other if one.get(key) != other.get(key))
        if different:
            raise InputError(
                f"{path}: this run folder holds a run with another {', '.join(different)}; "
                "choose another run folder or delete this one."
            )
        configuration = configuration.model_copy(update={"threads": there.threads})
    write_text(path, dumped(configuration.model_dump(mode="json")))
    return configuration


def read_configuration(run_folder: pathlib.Path) -> RunConfiguration:
    """Read config.yaml strictly, of whatever format it is.

    Raises:
        InputError: it is missing, not YAML, of a newer format, or a key is unknown or ill-typed.
    """
    path = run_folder / CONFIGURATION_FILE
    return configuration_of(read_yaml(path, "run folder"), str(path))


def configuration_of(content: dict, path: str) -> RunConfiguration:
    """The configuration that a file holds, of whatever format it is; `path` begins every complaint.

    Raises:
        InputError: it is of a newer format, or a key is unknown or ill-typed.
    """
    content = upgraded(content, path)
    task = content.get("task", REPORTS)
    try:
        row = method_table(task).row if isinstance(task, str) else Method
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    read = validated(RunConfiguration[row], content, path)
    return RunConfiguration(**dict(read))  # the plain class: other processes find no other by its name
