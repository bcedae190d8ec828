"""Which runs there are: the settings of one run, where it lies, and the lists of runs in experiments.yaml."""

from __future__ import annotations

import functools
import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pydantic

from fedmrg_core.data.partition_rules import partition_rule
from fedmrg_core.data.phantom import CENTRES
from fedmrg_core.data.site_names import find_sites, name_of, read_sites, sites_part, sites_text
from fedmrg_core.data.sources import REPORTS, corpus_name, data_source
from fedmrg_core.errors import InputError
from fedmrg_core.files.strict_yaml import Strict, complaint, read_yaml, validated
from fedmrg_core.paths import REPOSITORY, base_models_folder, prepared_folder
from fedmrg_core.runs.configuration import Profile, apply_variant, load_profile, sample_size
from fedmrg_core.runs.methods import Method, load_method, load_methods
from fedmrg_core.runs.run_configuration import RunConfiguration, configure_run

if TYPE_CHECKING:
    from fedmrg_core.data.partition import Partition

# Of the data sets whose sites are known without reading them.
SITES: dict[str, tuple[str, ...]] = {"phantom": CENTRES}


LONGEST_NAME = 230  # bytes of one folder in a run's path; file systems allow 255, and ".partial" has room
_READ = {"clients": int, "unseen": lambda text: [name_of(part) for part in text.split("+")]}  # in a run folder's name


class RunSettings(Strict):
    """The settings that tell one federated run from another; notebooks 06 to 09 take them as parameters.

    Raises:
        InputError: a setting is unknown, ill-typed or out of its range.
    """

    profile: str = "smoke"  # a name in profiles/, or the path of a .yaml file
    data: str = "phantom"
    partition: str = "site"
    clients: int = pydantic.Field(0, ge=0)  # 0: as many as the partition makes by itself
    unseen: str = ""  # sites held out, see `site_names.read_sites`; empty: those the data were prepared with
    method: str = "fedmrg"  # a row of methods.yaml
    variant: str = ""  # numbers that differ from the two files, see `with_variant`
    seed: int = pydantic.Field(0, ge=0)

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except pydantic.ValidationError as error:  # in a notebook, one sentence instead of pydantic's traceback
            raise InputError(complaint(error, "run", RunSettings)) from error

    @pydantic.field_validator("unseen", mode="before")
    @classmethod
    def _one_way_to_write(cls, value: object) -> str:
        return sites_text(read_sites(value))

    @pydantic.model_validator(mode="after")
    def _is_a_folder(self) -> RunSettings:
        for part in self.name.split("/")[1:]:
            if len(part.encode()) > LONGEST_NAME:
                raise InputError(
                    f"{part[:60]}… has {len(part.encode())} bytes, too many for a folder's name; put the variant's "
                    "numbers into a profile of their own or a row of methods.yaml."
                )
        if self.name.count("/") != 3:
            raise InputError(f"a slash stands in {self.name!r} where none may be; expected names and numbers.")
        return self

    @property
    def profile_name(self) -> str:
        """The profile's name, without folder and ending."""
        return pathlib.Path(self.profile).stem if self.profile.endswith(".yaml") else self.profile

    @property
    def unseen_sites(self) -> tuple[str, ...] | None:
        """The sites to hold out; None: those that the data were prepared with."""
        return read_sites(self.unseen) or None

    @property
    def name(self) -> str:
        """The run folder below results/, e.g. ``smoke/phantom,style,clients=3/fedmrg/seed-0``."""
        dealt = [] if self.partition == "site" else [self.partition]
        dealt += [f"clients={self.clients}"] if self.clients else []
        dealt += [f"unseen={sites_part(self.unseen_sites)}"] if self.unseen_sites else []
        data = ",".join([self.data, *dealt])
        method = ",".join(filter(None, [self.method, self.variant]))
        return f"{self.profile_name}/{data}/{method}/seed-{self.seed}"

    @classmethod
    def from_name(cls, name: str) -> RunSettings:
        """The settings of a run folder's name, the inverse of `name`.

        Raises:
            InputError: no run folder is called so.
        """
        try:
            profile, data_name, method_name, seed_name = name.split("/")
            data, *dealt = data_name.split(",")
            method, _, variant = method_name.partition(",")
            settings = {"profile": profile, "data": data, "method": method, "variant": variant}
            for part in dealt:
                key, equals, value = part.partition("=")
                settings |= {key: _READ[key](value)} if equals else {"partition": key}
            run = cls.model_validate({**settings, "seed": int(seed_name.removeprefix("seed-"))})
        except (ValueError, KeyError) as error:
            raise InputError(f"run: {name!r} is no run; expected profile/data/method/seed-N.") from error
        if run.name != name:
            raise InputError(f"run: {name!r} is no run; the folder of these settings is {run.name}.")
        return run

    def folder(self, workspace: pathlib.Path) -> pathlib.Path:
        """The run folder (contract 4)."""
        return workspace / "results" / self.name

    def prepared(self, workspace: pathlib.Path) -> pathlib.Path:
        """The prepared studies it trains on."""
        return prepared_folder(workspace, self.profile_name, self.data)

    def base_models(self, workspace: pathlib.Path) -> pathlib.Path:
        """The base models it starts from: the profile's, and where the task makes its own also the variant's."""
        varied = [part for part in self.variant.split(",") if part.startswith("base_models.")]
        name = ",".join([corpus_name(self.data), *(varied if self.task != REPORTS else [])])
        return base_models_folder(workspace, self.profile_name, name)

    def dealt(self, workspace: pathlib.Path) -> pathlib.Path:
        """The client folders it trains on, which runs that deal alike share."""
        data = self.name.split("/")[1]
        drawn = "" if self.partition == "site" else f",seed={self.seed}"  # partition "site" draws nothing
        return workspace / "clients" / self.profile_name / f"{data}{drawn}"

    @property
    def task(self) -> str:
        """What is trained on its data.

        Raises:
            InputError: no data set has this name.
        """
        return data_source(self.data).task

    def load(self) -> tuple[Profile, Method]:
        """Profile and row of the task's methods, with the variant's numbers.

        Raises:
            InputError: the profile, the method or the variant is unknown or does not fit.
        """
        return with_variant(load_profile(self.profile, self.data), load_method(self.method, self.task), self.variant)

    def configuration(self, workspace: pathlib.Path, threads: int = 1, identities: str = "") -> RunConfiguration:
        """What `federation.run.run_federation` takes.

        Args:
            workspace: the tree with the prepared studies and base models.
            threads: CPU threads of a local update. The last bits depend on it.
            identities: the chain of its identities, "embedded" or the URL of an EVM node; "": it has none.

        Raises:
            InputError: see `load`; or a setting is ill-typed.
        """
        profile, method = self.load()
        return configure_run(
            self.folder(workspace),
            profile=profile,
            method=method,
            data=self.data,
            task=self.task,
            partition=self.partition,
            clients=self.clients or None,
            unseen_sites=self.unseen_sites,
            seed=self.seed,
            prepared=self.prepared(workspace),
            base_models=self.base_models(workspace),
            dealt=self.dealt(workspace),
            threads=threads,
            identities={"chain": identities} if identities else None,
        )


def with_variant(profile: Profile, method: Method, variant: str) -> tuple[Profile, Method]:
    """Change single numbers of a run; a value such as ``3x`` is that many times what profile or row has.

    So one experiment can say "three times the learning rate" for profiles whose rates differ.

    Args:
        profile: of the run.
        method: of the run.
        variant: see `configuration.apply_variant`.

    Raises:
        InputError: see `configuration.apply_variant`.
    """
    pairs = []
    for pair in filter(None, variant.split(",")):
        key, _, value = (part.strip() for part in pair.partition("="))
        section, _, name = key.partition(".")
        usual = getattr(getattr(profile, section, getattr(method, section, None)), name, None)
        multiple = re.fullmatch(r"(\d+\.?\d*)x", value)
        if multiple and isinstance(usual, int | float):
            pair = f"{key}={float(multiple[1]) * usual:.12g}"
        pairs.append(pair)
    return apply_variant(profile, method, ",".join(pairs))


def check_run(settings: RunSettings) -> None:
    """Hold a run against all that is known of it before its data and models are there, without building any.

    Raises:
        InputError: profile, method, variant, data or partition is unknown or does not fit, the adapters' rank is above
            the width of the LLM that the profile builds, or the data cannot be dealt so, if their sites are known.
    """
    profile, method = settings.load()
    method.check(profile)
    partition_rule(settings.partition)
    data_source(settings.data)
    if settings.clients == 1:
        raise InputError("clients is 1; a federation needs at least 2, or 0: as many as the partition makes by itself.")
    clients = settings.clients
    if corpus_name(settings.data) in SITES:
        clients = _check_sites(settings, SITES[corpus_name(settings.data)])
    if clients and method.training == "federated":
        method.server.check_clients(sample_size(clients, profile.federation.participation))


def deals_of(runs: Sequence[RunSettings], workspace: pathlib.Path) -> Iterator[tuple[RunSettings, Partition]]:
    """Deal the prepared studies as each run would; of runs that deal alike only the first.

    Raises:
        InputError: a run's data, partition or method is unknown, or its studies are not prepared yet or cannot be
            dealt so; names the run.
    """
    from fedmrg_core.data.prepared import load_prepared  # its import takes seconds, and the workflow needs none of it

    for run in runs:
        partition_rule(run.partition)
        data_source(run.data)
        load_method(run.method, run.task)
    alike = {(run.data, run.partition, run.clients, run.unseen, run.seed): run for run in reversed(runs)}
    load = functools.cache(load_prepared)  # runs share data sets
    for run in reversed(alike.values()):
        prepared = load(run.prepared(workspace))
        try:
            yield run, prepared.deal(run.partition, run.clients or None, run.seed, run.unseen_sites)
        except InputError as error:
            raise InputError(f"{run.name}: {error}") from None


def _check_sites(settings: RunSettings, sites: Sequence[str]) -> int:
    """The clients of a run, 0 if unknown; refuses what `partition_clients` would when it sees the studies' sites."""
    held_out = data_source(settings.data).unseen_sites if settings.unseen_sites is None else settings.unseen_sites
    held_out = find_sites(held_out, sites, "unseen")
    if settings.partition != "site":
        return settings.clients
    training = len(sites) - len(held_out)
    if training < 2:
        raise InputError(
            f"unseen leaves {training} training site(s); partition 'site' needs at least 2, hold out fewer."
        )
    if settings.clients not in (0, training):
        raise InputError(
            f"clients is {settings.clients} but there are {training} training sites; leave clients out for 'site'."
        )
    return training


class Experiment(Strict):
    """A block of experiments.yaml: every combination of its lists is a run; an empty list stands for the default."""

    data: tuple[str, ...] = ("phantom",)
    partition: tuple[str, ...] = ("site",)
    clients: tuple[int, ...] = (0,)
    unseen: tuple[str | tuple[str, ...], ...] = ("",)  # of each run; several sites as a list, or joined by commas
    method: tuple[str, ...] = ("fedmrg",)
    variant: tuple[str, ...] = ("",)
    seed: tuple[int, ...] = (0,)

    def runs(self, profile: str) -> list[RunSettings]:
        """Its runs; all methods of a seed before the next seed, so that a table is whole as early as possible."""
        names = ("seed", "data", "partition", "clients", "unseen", "method", "variant")
        combinations = itertools.product(*(getattr(self, name) for name in names))
        return [RunSettings(profile=profile, **dict(zip(names, values, strict=True))) for values in combinations]


def load_experiments(path: pathlib.Path = REPOSITORY / "experiments.yaml") -> dict[str, list[Experiment]]:
    """Read the table of experiments: a name, and one block or a list of blocks.

    Raises:
        InputError: it is missing or not YAML, or a block has an unknown key or an ill-typed value.
    """
    experiments = {}
    for name, blocks in read_yaml(path, "experiments").items():
        source = f"{path.name}: experiment {name!r}"
        experiments[name] = [
            validated(Experiment, block, source) for block in (blocks if isinstance(blocks, list) else [blocks])
        ]
    return experiments


def runs_of(
    names: list[str], profile: str, experiments: dict[str, list[Experiment]] | None = None
) -> list[RunSettings]:
    """Every run of these experiments once, in order, each held against profiles and methods before anything runs.

    Raises:
        InputError: an experiment, a profile, a method or a variant is unknown.
    """
    experiments = load_experiments() if experiments is None else experiments
    numbers = functools.cache(lambda data: load_profile(profile, data))  # data sets have numbers of their own
    methods = functools.cache(lambda task: load_methods(task=task))
    runs: dict[str, RunSettings] = {}
    for name in names:
        if name not in experiments:
            raise InputError(
                f"experiment: {name!r} is unknown; expected one of {', '.join(experiments)} (experiments.yaml)."
            )
        for run in itertools.chain.from_iterable(block.runs(profile) for block in experiments[name]):
            with_variant(
                numbers(run.data), methods(run.task).get(run.method) or load_method(run.method, run.task), run.variant
            )
            runs[run.name] = run
    return list(runs.values())
