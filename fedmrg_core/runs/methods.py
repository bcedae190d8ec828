"""Methods: what is trained, what travels, which losses and rules: rows of a table, one table a task.

What every row has stands in `Method`; a task lays its own fields and checks over it, and says where its rows lie
(`MethodTable`, `task_registry`). A row is read strictly: an unknown key, an ill-typed value or parts that do not fit
together are one sentence that names the row.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pydantic

from fedmrg_core.errors import InputError
from fedmrg_core.files.strict_yaml import Strict, laid_over, read_yaml, validated
from fedmrg_core.runs.task_registry import REPORTS, methods_entry, tasks_with_methods

if TYPE_CHECKING:
    from fedmrg_core.runs.configuration import Profile, Training

NAME = r"[a-z0-9]+(-[a-z0-9]+)*"  # of a method: it stands in folders' names and between commas


class Ownership(enum.StrEnum):
    """Who holds a trainable module (contract 3). What is neither shared nor personal is frozen or not built."""

    SHARED = "shared"  # averaged by the server: its parameters leave the hospital every round
    PERSONAL = "personal"  # trained in one hospital and never sent
    FROZEN = "frozen"  # part of the model, never trained


_CLIENTS_NEEDED = {"krum": 3, "multi-krum": 3, "trimmed-mean": 1}  # of a rule of the server, beyond 2 attackers
_PRIVATE = ("clipping_norm", "noise_multiplier", "max_epsilon", "delta")


def _not_given(number: float | None) -> bool:
    return number is None


class Losses(Strict):
    """Weights of a task's loss terms; zero switches a term off. Each task has its own."""


class ServerRule(Strict):
    """How the server makes the next shared model of the clients' updates.

    `fedavg`, `fedavgm` and `fedadam` are Flower's; `exact-lora` averages everything but LoRA factors, whose mean
    product it factorises again. `krum`, `multi-krum`, `trimmed-mean` and `median` are Flower's, too, and bound what a
    few dishonest clients can do. `private` is Flower's average under differential privacy of whole hospitals.
    """

    rule: Literal[
        "fedavg", "fedavgm", "fedadam", "exact-lora", "krum", "multi-krum", "trimmed-mean", "median", "private"
    ] = "fedavg"
    learning_rate: float = pydantic.Field(1.0, gt=0)  # of fedavgm and fedadam
    momentum: float = pydantic.Field(0.9, ge=0, lt=1)  # of fedavgm
    tau: float = pydantic.Field(1e-3, gt=0)  # of fedadam: controls its adaptivity
    # Stored rows of other rules do not mention the numbers below.
    # Of krum, multi-krum and trimmed-mean: f, the clients of a round that may be dishonest.
    attackers: int | None = pydantic.Field(None, ge=0, exclude_if=_not_given)
    # Of private, which needs each of them: the length an update is cut to, the noise by that length, and the budget.
    clipping_norm: float | None = pydantic.Field(None, gt=0, exclude_if=_not_given)
    noise_multiplier: float | None = pydantic.Field(None, gt=0, exclude_if=_not_given)
    max_epsilon: float | None = pydantic.Field(None, gt=0, exclude_if=_not_given)
    delta: float | None = pydantic.Field(None, gt=0, lt=1, exclude_if=_not_given)

    @pydantic.model_validator(mode="after")
    def _numbers_are_used(self) -> ServerRule:
        used = {
            "fedavgm": {"learning_rate", "momentum"},
            "fedadam": {"learning_rate", "tau"},
            "private": set(_PRIVATE),
            **dict.fromkeys(_CLIENTS_NEEDED, {"attackers"}),
        }.get(self.rule, set())
        for name in sorted(self.model_fields_set - {"rule"} - used):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is of another rule than {self.rule}")
        if self.rule in _CLIENTS_NEEDED and self.attackers is None:
            raise ValueError(f"{self.rule} needs attackers, the number of clients of a round that may be dishonest")
        for name in _PRIVATE if self.rule == "private" else ():
            if getattr(self, name) is None:
                raise ValueError(f"rule: private needs {name}; give it a number")
        return self

    @property
    def robust(self) -> bool:
        """Whether it takes something else than a mean over all clients."""
        return self.rule in ("median", *_CLIENTS_NEEDED)

    @property
    def clients_needed(self) -> int:
        """Clients that have to answer in a round, so that the rule holds against its `attackers`.

        2 f + 3 for krum and multi-krum [related: Blanchard et al. 2017], 2 f + 1 for trimmed-mean, whose trimmed share
        f / n stays below a half [related: Yin et al. 2018]. The median asks for no number, and holds against any
        minority.
        """
        return 2 * self.attackers + _CLIENTS_NEEDED[self.rule] if self.rule in _CLIENTS_NEEDED else 1

    def check_clients(self, sampled: int) -> None:
        """Hold the rule against the clients that are asked in a round, before the first.

        Raises:
            InputError: they are too few for its attackers.
        """
        if sampled < self.clients_needed:
            raise InputError(
                f"server.attackers is {self.attackers}, for which {self.rule} needs {self.clients_needed} clients in a "
                f"round, and {sampled} take part; lower it, choose the rule median, or let more clients take part."
            )


class ClientRule(Strict):
    """What a client's update adds to the plain one."""

    proximal: float = pydantic.Field(0.0, ge=0)  # FedProx: mu / 2 |w - w_server|^2
    moon: float = pydantic.Field(0.0, ge=0)  # MOON: weight of its model contrast
    moon_temperature: float = pydantic.Field(0.5, gt=0)  # [related: MOON]
    control_variates: bool = False  # SCAFFOLD
    alternating: bool = False  # FedRep: the personal modules first, then the shared ones
    fine_tuning_epochs: int = pydantic.Field(0, ge=0)  # after the last round, on the client's own studies


class Payload(Strict):
    """How the shared modules travel, up and down."""

    rank: int | None = pydantic.Field(None, gt=0)  # matrices of updates as factors of this rank; None: in full
    bits: Literal[32, 16, 8, 4] = 32  # width of the numbers sent
    error_feedback: bool = True  # what one message leaves out is added to the next

    @property
    def compressed(self) -> bool:
        """Whether anything is done to the update at all."""
        return self.rank is not None or self.bits < 32


class Named(Strict):
    """The head of a row."""

    name: str
    description: str


class Method(Named):
    """What a row of any task says: which modules exist, who owns them, which losses and rules train them."""

    training: Literal["federated", "centralised"] = "federated"  # centralised: all studies in one place
    modules: dict[str, Ownership]
    losses: Losses = Losses()
    server: ServerRule = ServerRule()
    client: ClientRule = ClientRule()
    payload: Payload = Payload()

    # What no row may be, in the order in which it is looked for; a task's own come first.
    misfits: ClassVar[Mapping[str, Callable[[Any, set[str]], bool]]] = {
        "client.alternating needs both shared and personal modules": lambda row, has: (
            row.client.alternating and not {Ownership.SHARED, Ownership.PERSONAL} <= set(row.modules.values())
        ),
        "client.moon, client.proximal and client.control_variates need a shared module": lambda row, has: (
            (row.client.moon > 0 or row.client.proximal > 0 or row.client.control_variates)
            and Ownership.SHARED not in row.modules.values()
        ),
        "server.rule: private averages updates alone: no client.control_variates": lambda row, has: (
            row.server.rule == "private" and row.client.control_variates
        ),
        "server.rule: private needs hospitals: no training: centralised": lambda row, has: (
            row.server.rule == "private" and row.training == "centralised"
        ),
        "server.rule: private needs a shared module": lambda row, has: (
            row.server.rule == "private" and Ownership.SHARED not in row.modules.values()
        ),
        "client.control_variates need the mean of all clients, and server.rule takes another": lambda row, has: (
            row.server.robust and row.client.control_variates
        ),
        "training: centralised has one client: no server.rule against dishonest ones": lambda row, has: (
            row.training == "centralised" and row.server.robust
        ),
        "training: centralised knows no personal module": lambda row, has: (
            row.training == "centralised" and Ownership.PERSONAL in row.modules.values()
        ),
        "training: centralised has one client: no client.fine_tuning_epochs": lambda row, has: (
            row.training == "centralised" and row.client.fine_tuning_epochs > 0
        ),
    }

    @pydantic.model_validator(mode="after")
    def _parts_fit(self) -> Method:
        for complaint, broken in self.misfits.items():
            if broken(self, set(self.modules)):
                raise ValueError(complaint)
        return self

    def pace_of(self, module: str, settings: Training) -> float:
        """The highest learning rate of a module, before the course of the rounds."""
        return settings.learning_rate

    def picked_code(self) -> tuple[str, ...]:
        """Modules of Python that the row picks by a name, where no import of its task leads to them."""
        return ()

    @property
    def first_choice(self) -> int:
        """The first round whose model may be chosen: earlier ones do not train what validation measures."""
        return 1

    def check(self, profile: Profile) -> None:
        """Hold the row against a profile before anything is loaded or built.

        Raises:
            InputError: they do not fit together.
        """


@dataclasses.dataclass(frozen=True)
class MethodTable:
    """The rows that train one task; without a file there are only those that a caller makes."""

    row: type[Method]
    path: pathlib.Path | None = None


def method_table(task: str) -> MethodTable:
    """The table of a task by its name; a task that declares none takes plain rows of `Method`.

    Raises:
        InputError: no task has this name, or its table cannot be imported.
    """
    entry = methods_entry(task)
    try:
        return MethodTable(Method) if entry is None else entry.load()
    except (ImportError, AttributeError) as error:
        raise InputError(f"task {task!r}: its methods cannot be imported from {entry.value} ({error}).") from error


def load_methods(path: pathlib.Path | None = None, task: str = REPORTS) -> dict[str, Any]:
    """Read every row of a table of methods.

    A row with ``like: other`` starts from the other row, and its own keys are laid over it, one level deep; a module
    or setting given as null is taken out.

    Args:
        path: of the table; the task's own if None.
        task: whose rows they are.

    Returns:
        Rows by name, of the task's row type.

    Raises:
        InputError: a row has an unknown key, an ill-typed value, or parts that do not fit together.
    """
    table = method_table(task)
    path = path or table.path
    rows = {} if path is None else read_yaml(path, "methods")
    for name in rows:
        if not re.fullmatch(NAME, str(name)):
            raise InputError(f"{path.name}: method {name!r}: a name is of small letters, digits and dashes.")
    return {
        name: validated(
            table.row, {"name": name, **_completed_row(rows, name, path.name)}, f"{path.name}: method {name!r}"
        )
        for name in rows
    }


def family_of(name: str, path: pathlib.Path | None = None, task: str = REPORTS) -> str:
    """The row that a method's row is like, and that one's, up to the first: FedMRG's for all its ablations.

    A name that is no row is its own family.

    Raises:
        InputError: as `read_yaml`.
    """
    path = path or method_table(task).path
    rows, seen = {} if path is None else read_yaml(path, "methods"), set()
    while name not in seen and name in rows and "like" in rows[name]:
        seen.add(name)
        name = rows[name]["like"]
    return name


def _completed_row(rows: dict, name: str, source: str, below: tuple[str, ...] = ()) -> dict:
    """A row with all it takes over from the row it is like."""
    row = rows[name]
    if not isinstance(row, dict):
        raise InputError(f"{source}: method {name!r} must hold keys and values.")
    if "like" not in row:
        return row
    other = row["like"]
    if not isinstance(other, str) or other not in rows or other in (name, *below):
        raise InputError(f"{source}: method {name!r}: like: {other!r} is not another row; expected the name of one.")
    own = {key: value for key, value in row.items() if key != "like"}
    return laid_over(_completed_row(rows, other, source, (name, *below)), own)


def load_method(name: str, task: str = REPORTS) -> Any:
    """One row of a task's table, of its row type.

    Raises:
        InputError: no such row, or it is one of another task's.
    """
    methods = load_methods(task=task)
    if name not in methods:
        known = f"expected one of {', '.join(methods)} (rows of {_place(task)})"
        other = _task_of(name, besides=task)
        if other is not None:
            raise InputError(f"method: {name!r} is a row of task {other!r}, and the data are for {task!r}; {known}.")
        raise InputError(f"method: {name!r} is unknown; {known}.")
    return methods[name]


def check_row(row: Method, task: str) -> None:
    """Hold a row against the task that it is to train.

    Raises:
        InputError: it is a row of another task.
    """
    if not isinstance(row, method_table(task).row):
        raise InputError(f"method {row.name!r} is a row of another task than {task!r}; expected {_place(task)}'s.")


def _task_of(name: str, besides: str) -> str | None:
    """A task that has a row of this name; tables that cannot be read are passed over."""
    for task in tasks_with_methods():
        with contextlib.suppress(InputError):
            if task != besides and name in load_methods(task=task):
                return task
    return None


def _place(task: str) -> str:
    path = method_table(task).path
    return f"task {task}" if path is None else path.name
