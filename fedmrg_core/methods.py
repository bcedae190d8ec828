"""Methods: what is trained, what travels, which losses and rules, from methods.yaml.

A row is read strictly: an unknown key, an ill-typed value or parts that do not fit together are one sentence that names
the row.
"""

from __future__ import annotations

import enum
import pathlib
import re
from collections.abc import Callable
from typing import Literal

import pydantic

from fedmrg_core.errors import InputError
from fedmrg_core.paths import REPOSITORY
from fedmrg_core.strict_yaml import Strict, laid_over, read_yaml, validated

NAME = r"[a-z0-9]+(-[a-z0-9]+)*"  # of a method: it stands in folders' names and between commas


class Ownership(enum.StrEnum):
    """Who holds a trainable module (contract 3). What is neither shared nor personal is frozen or not built."""

    SHARED = "shared"  # averaged by the server: its parameters leave the hospital every round
    PERSONAL = "personal"  # trained in one hospital and never sent
    FROZEN = "frozen"  # part of the model, never trained


class Losses(Strict):
    """Weights of the loss terms; zero switches a term off."""

    language: float = pydantic.Field(1.0, ge=0)
    classification: float = pydantic.Field(0.0, ge=0)  # 4 [related: PromptMRG]
    contrast_inter: float = pydantic.Field(0.0, ge=0)  # lambda_rep 0.5 [derived]
    contrast_intra: float = pydantic.Field(0.0, ge=0)
    generic_to_specialised: float = pydantic.Field(0.0, ge=0)  # lambda_kd 0.5 [derived]
    specialised_to_generic: float = pydantic.Field(0.0, ge=0)
    image_report_contrast: float = pydantic.Field(0.0, ge=0)  # WCL, DCL [related]
    orthogonality: float = pydantic.Field(0.0, ge=0)  # AdaLoRA: keeps its factors orthogonal [related]


class ServerRule(Strict):
    """How the server makes the next shared model of the clients' updates.

    `fedavg`, `fedavgm` and `fedadam` are Flower's; `exact-lora` averages everything but LoRA factors, whose mean
    product it factorises again.
    """

    rule: Literal["fedavg", "fedavgm", "fedadam", "exact-lora"] = "fedavg"
    learning_rate: float = pydantic.Field(1.0, gt=0)  # of fedavgm and fedadam
    momentum: float = pydantic.Field(0.9, ge=0, lt=1)  # of fedavgm
    tau: float = pydantic.Field(1e-3, gt=0)  # of fedadam: controls its adaptivity

    @pydantic.model_validator(mode="after")
    def _numbers_are_used(self) -> ServerRule:
        used = {"fedavgm": {"learning_rate", "momentum"}, "fedadam": {"learning_rate", "tau"}}.get(self.rule, set())
        for name in sorted(self.model_fields_set - {"rule"} - used):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is of another rule than {self.rule}")
        return self


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


MODULES: tuple[str, ...] = (
    "encoder",
    "projection",
    "diagnosis_head",
    "prompt_table",
    "generic_adapter",
    "generic_adapter_a",  # the two factors of a LoRA adapter, for methods that treat them apart
    "generic_adapter_b",
    "specialised_adapter",
    "decoder",  # of models trained whole, without an LLM
)


class Method(Strict):
    """One row of methods.yaml: which modules exist, who owns them, which losses and rules train them."""

    name: str
    description: str
    model: Literal["llm", "transformer", "r2gen", "wcl", "dcl"] = "llm"
    # diagnosis: the table's row of the true state in training, of the predicted one at inference; soft-diagnosis: the
    # mean row under the predicted probabilities, in both.
    prompts: Literal["none", "diagnosis", "soft-diagnosis"] = "none"
    # The share of training studies that are prompted with the predicted states all the same.
    predicted_prompts: float = pydantic.Field(0.0, ge=0, le=1)
    adapter_kind: Literal["lora", "adalora", "loha", "vera", "prefix", "p-tuning"] = "lora"
    adapter_settings: dict[str, bool | int | float | str] = {}  # for the kind's PEFT configuration
    # Times the profile's adapter_learning_rate: kinds whose few parameters stand behind fixed matrices need more.
    adapter_pace: float = pydantic.Field(1.0, gt=0)
    boosting: Literal["mutual", "feddat"] = "mutual"  # who teaches the two adapters
    training: Literal["federated", "centralised"] = "federated"  # centralised: all studies in one place
    modules: dict[Literal[MODULES], Ownership]  # type: ignore[valid-type]
    losses: Losses = Losses()
    server: ServerRule = ServerRule()
    client: ClientRule = ClientRule()
    payload: Payload = Payload()

    @pydantic.model_validator(mode="after")
    def _parts_fit(self) -> Method:
        for complaint, broken in MISFITS.items():
            if broken(self, set(self.modules)):
                raise ValueError(complaint)
        return self


FACTORS = {"generic_adapter_a", "generic_adapter_b"}

# What no row may be, in the order in which it is looked for.
MISFITS: dict[str, Callable[[Method, set[str]], bool]] = {
    "modules must hold encoder": lambda row, has: "encoder" not in has,
    "modules must hold encoder and projection": lambda row, has: row.model == "llm" and "projection" not in has,
    "the module decoder belongs to models without an LLM, and to each of them": lambda row, has: (
        (row.model == "llm") == ("decoder" in has)
    ),
    "adapters need model: llm": lambda row, has: (
        row.model != "llm" and any(name.endswith(("_adapter", "_a", "_b")) for name in has)
    ),
    "prompts from diagnoses need the modules diagnosis_head and prompt_table": lambda row, has: (
        row.prompts != "none" and not {"diagnosis_head", "prompt_table"} <= has
    ),
    "predicted_prompts needs prompts: diagnosis": lambda row, has: (
        row.predicted_prompts > 0 and row.prompts != "diagnosis"
    ),
    "generic_adapter_a and _b come together, in place of generic_adapter, and are of kind lora": lambda row, has: (
        bool(has & FACTORS) and (not has >= FACTORS or "generic_adapter" in has or row.adapter_kind != "lora")
    ),
    "specialised_adapter needs generic_adapter": lambda row, has: (
        "specialised_adapter" in has and not has & (FACTORS | {"generic_adapter"})
    ),
    "two adapters side by side are of kind lora": lambda row, has: (
        "specialised_adapter" in has and row.adapter_kind != "lora"
    ),
    "mutual boosting needs both generic_adapter and specialised_adapter": lambda row, has: (
        "specialised_adapter" not in has
        and (row.losses.generic_to_specialised > 0 or row.losses.specialised_to_generic > 0)
    ),
    "boosting: feddat needs the module specialised_adapter": lambda row, has: (
        row.boosting == "feddat" and "specialised_adapter" not in has
    ),
    "losses.image_report_contrast needs model: wcl or dcl": lambda row, has: (
        row.losses.image_report_contrast > 0 and row.model == "llm"
    ),
    "losses.orthogonality needs adapter_kind: adalora": lambda row, has: (
        row.losses.orthogonality > 0 and row.adapter_kind != "adalora"
    ),
    "losses.classification needs the module diagnosis_head": lambda row, has: (
        row.losses.classification > 0 and "diagnosis_head" not in has
    ),
    "server.rule exact-lora needs a shared generic_adapter": lambda row, has: (
        row.server.rule == "exact-lora" and row.modules.get("generic_adapter") is not Ownership.SHARED
    ),
    "server.rule exact-lora needs adapter_kind: lora": lambda row, has: (
        row.server.rule == "exact-lora" and row.adapter_kind != "lora"
    ),
    "client.alternating needs both shared and personal modules": lambda row, has: (
        row.client.alternating and not {Ownership.SHARED, Ownership.PERSONAL} <= set(row.modules.values())
    ),
    "client.moon, client.proximal and client.control_variates need a shared module": lambda row, has: (
        (row.client.moon > 0 or row.client.proximal > 0 or row.client.control_variates)
        and Ownership.SHARED not in row.modules.values()
    ),
    "training: centralised knows no personal module": lambda row, has: (
        row.training == "centralised" and Ownership.PERSONAL in row.modules.values()
    ),
    "training: centralised has one client: no losses.contrast_inter, no fine_tuning_epochs": lambda row, has: (
        row.training == "centralised" and (row.losses.contrast_inter > 0 or row.client.fine_tuning_epochs > 0)
    ),
}


def load_methods(path: pathlib.Path = REPOSITORY / "methods.yaml") -> dict[str, Method]:
    """Read every row of the table of methods.

    A row with ``like: other`` starts from the other row, and its own keys are laid over it, one level deep; a module
    or setting given as null is taken out.

    Raises:
        InputError: a row has an unknown key, an ill-typed value, or parts that do not fit together.
    """
    rows = read_yaml(path, "methods")
    for name in rows:
        if not re.fullmatch(NAME, str(name)):
            raise InputError(f"{path.name}: method {name!r}: a name is of small letters, digits and dashes.")
    return {
        name: validated(
            Method, {"name": name, **_completed_row(rows, name, path.name)}, f"{path.name}: method {name!r}"
        )
        for name in rows
    }


def family_of(name: str, path: pathlib.Path = REPOSITORY / "methods.yaml") -> str:
    """The row that a method's row is like, and that one's, up to the first: FedMRG's for all its ablations.

    A name that is no row is its own family.

    Raises:
        InputError: as `read_yaml`.
    """
    rows, seen = read_yaml(path, "methods"), set()
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


def load_method(name: str) -> Method:
    """One row of methods.yaml.

    Raises:
        InputError: no such row.
    """
    methods = load_methods()
    if name not in methods:
        raise InputError(f"method: {name!r} is unknown; expected one of {', '.join(methods)} (rows of methods.yaml).")
    return methods[name]
