"""Profiles (the numbers of a run) and methods (what is trained, what travels, which losses), both from YAML.

Both are read strictly: an unknown key or an ill-typed value is an :class:`InputError` that names the file and the key.
"""

from __future__ import annotations

import enum
import pathlib
from typing import Any, Literal

import pydantic
import yaml

from fedmrg_core.data.sources import DATA_SOURCES, corpus_name
from fedmrg_core.errors import InputError
from fedmrg_core.strict_yaml import Strict, read_yaml, validated

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


class Ownership(enum.StrEnum):
    """Who holds a trainable module (contract 3). What is neither shared nor personal is frozen or not built."""

    SHARED = "shared"  # averaged by the server: its parameters leave the hospital every round
    PERSONAL = "personal"  # trained in one hospital and never sent
    FROZEN = "frozen"  # part of the model, never trained


class PhantomCounts(Strict):
    """Studies per training centre; the unseen centre gets `test` studies, and 128 to adapt to it."""

    train: int = pydantic.Field(gt=0)
    validation: int = pydantic.Field(gt=0)
    test: int = pydantic.Field(gt=0)


class ImageChanges(Strict):
    """How far training images are changed at random (see `augmentation`); zero leaves a change out."""

    image_shift: int = pydantic.Field(0, ge=0)  # either way, pixels
    image_rotation: float = pydantic.Field(0.0, ge=0, le=180)  # either way, degrees
    image_stretch: float = pydantic.Field(0.0, ge=0, lt=1)  # factors of height and width, 1 - this to 1 + this
    image_gamma: float = pydantic.Field(0.0, ge=0)  # exponent of grey levels, 1 / (1 + this) to 1 + this


class BaseModels(ImageChanges):
    """The frozen LLM and the visual backbone: a folder or hub name each, or sizes of small ones to build.

    `llm` and `backbone` left empty mean: built and pretrained by notebook 05, on images changed as said here.
    """

    llm: str | None = None
    backbone: str | None = None
    precision: Literal["float32", "bfloat16"] = "float32"  # of the frozen LLM in memory; all that is trained is float32
    llm_width: int = 192
    llm_layers: int = 4
    vocabulary: int = 2048
    backbone_widths: tuple[int, ...] = (32, 64, 128, 192)
    backbone_depths: tuple[int, ...] = (1, 1, 1, 1)
    public_studies: int = 1500
    llm_steps: int = 500
    backbone_steps: int = 200
    largest_epochs: int = 12  # the LLM reads a small public corpus no more often than this, whatever the steps
    pretraining_batch_size: int = 32
    pretraining_learning_rate: float = 2e-3

    def sources(self, built: pathlib.Path) -> tuple[str | pathlib.Path, str | pathlib.Path]:
        """The LLM and the backbone to load: as named here, else of the folder `built` that notebook 05 fills.

        Raises:
            InputError: that folder is needed and does not hold them.
        """
        sources = self.llm or built / "llm", self.backbone or built / "backbone"
        for source in sources:
            if isinstance(source, pathlib.Path) and not source.is_dir():
                raise InputError(f"base models: folder {source} does not exist; run notebook 05_base_models first.")
        return sources


class Adapter(Strict):
    """LoRA on the frozen LLM: dW = (alpha / rank) B A [derived: rank 16, alpha 16, q_proj and v_proj]."""

    rank: int = pydantic.Field(16, gt=0)
    alpha: int = pydantic.Field(16, gt=0)
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")


class Training(ImageChanges):
    """One client's update, on images changed as said here."""

    batch_size: int = pydantic.Field(gt=0)
    local_epochs: int = pydantic.Field(1, gt=0)
    learning_rate: float = pydantic.Field(gt=0)  # of the encoder, the projection and the diagnosis head
    adapter_learning_rate: float = pydantic.Field(gt=0)  # of the adapters and the prompt table
    weight_decay: float = pydantic.Field(0.01, ge=0)
    gradient_clip: float = pydantic.Field(1.0, gt=0)
    warmup_rounds: int = pydantic.Field(1, ge=0)
    contrast_temperature: float = pydantic.Field(0.07, gt=0)  # tau [derived]
    distillation_temperature: float = pydantic.Field(3.0, gt=0)  # T [related: FedDAT]
    logit_adjustment: float = pydantic.Field(1.0, ge=0)  # strength of log p_d in L_cls; 1 [related: PromptMRG]
    max_report_tokens: int = pydantic.Field(96, gt=0)
    own_statistics: bool = True  # of BatchNorm, at home: the client's own, or the server's pooled ones


class Federation(Strict):
    """The server's loop."""

    rounds: int = pydantic.Field(gt=0)
    participation: float = pydantic.Field(1.0, gt=0, le=1)  # share of the clients that train in a round
    min_clients: int = pydantic.Field(2, gt=0)  # fewer usable replies than this end the run
    round_timeout: float = pydantic.Field(3600.0, gt=0)  # seconds the server waits for a round's replies


class Generation(Strict):
    """Decoding of reports."""

    beams: int = pydantic.Field(3, gt=0)  # [related: PromptMRG]
    max_new_tokens: int = pydantic.Field(96, gt=0)
    batch_size: int = pydantic.Field(32, gt=0)
    length_penalty: float = 1.0  # of the beam search
    end_bias: float = pydantic.Field(0.0, le=0)  # added to the end token's score at every step; below 0: longer reports
    repetition_penalty: float = pydantic.Field(1.0, gt=0)

    def arguments(self, end: int) -> dict[str, Any]:
        """Arguments of Hugging Face's `generate`; `end` is the id of the end token."""
        return {
            "num_beams": self.beams,
            "do_sample": False,
            "max_new_tokens": self.max_new_tokens,
            "length_penalty": self.length_penalty,
            "repetition_penalty": self.repetition_penalty,
            "sequence_bias": [[[end], self.end_bias]] if self.end_bias else None,
        }


class Profile(Strict):
    """Every number of a run, read from profiles/<name>.yaml."""

    name: str
    image_size: int = pydantic.Field(128, ge=32)
    phantom: PhantomCounts
    base_models: BaseModels = BaseModels()
    adapter: Adapter = Adapter()
    training: Training
    federation: Federation
    generation: Generation = Generation()
    bootstrap_samples: int = pydantic.Field(1000, gt=0)


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
        modules = set(self.modules)
        if "encoder" not in modules:
            raise ValueError("modules must hold encoder")
        if self.model == "llm" and "projection" not in modules:
            raise ValueError("modules must hold encoder and projection")
        if (self.model == "llm") == ("decoder" in modules):
            raise ValueError("the module decoder belongs to models without an LLM, and to each of them")
        if self.model != "llm" and any(name.endswith(("_adapter", "_a", "_b")) for name in modules):
            raise ValueError("adapters need model: llm")
        if self.prompts != "none" and not {"diagnosis_head", "prompt_table"} <= modules:
            raise ValueError("prompts from diagnoses need the modules diagnosis_head and prompt_table")
        if self.predicted_prompts and self.prompts != "diagnosis":
            raise ValueError("predicted_prompts needs prompts: diagnosis")
        factors = modules & {"generic_adapter_a", "generic_adapter_b"}
        if factors and (len(factors) == 1 or "generic_adapter" in modules or self.adapter_kind != "lora"):
            raise ValueError(
                "generic_adapter_a and _b come together, in place of generic_adapter, and are of kind lora"
            )
        if "specialised_adapter" in modules and not (factors or "generic_adapter" in modules):
            raise ValueError("specialised_adapter needs generic_adapter")
        if "specialised_adapter" in modules and self.adapter_kind != "lora":
            raise ValueError("two adapters side by side are of kind lora")
        if "specialised_adapter" not in modules and (
            self.losses.generic_to_specialised or self.losses.specialised_to_generic
        ):
            raise ValueError("mutual boosting needs both generic_adapter and specialised_adapter")
        if self.boosting == "feddat" and "specialised_adapter" not in modules:
            raise ValueError("boosting: feddat needs the module specialised_adapter")
        if self.losses.image_report_contrast and self.model == "llm":
            raise ValueError("losses.image_report_contrast needs model: wcl or dcl")
        if self.losses.orthogonality and self.adapter_kind != "adalora":
            raise ValueError("losses.orthogonality needs adapter_kind: adalora")
        if self.losses.classification and "diagnosis_head" not in modules:
            raise ValueError("losses.classification needs the module diagnosis_head")
        if self.server.rule == "exact-lora" and self.modules.get("generic_adapter") is not Ownership.SHARED:
            raise ValueError("server.rule exact-lora needs a shared generic_adapter")
        if self.server.rule == "exact-lora" and self.adapter_kind != "lora":
            raise ValueError("server.rule exact-lora needs adapter_kind: lora")
        owners = set(self.modules.values())
        if self.client.alternating and not {Ownership.SHARED, Ownership.PERSONAL} <= owners:
            raise ValueError("client.alternating needs both shared and personal modules")
        if Ownership.SHARED not in owners and (
            self.client.moon or self.client.proximal or self.client.control_variates
        ):
            raise ValueError("client.moon, client.proximal and client.control_variates need a shared module")
        if self.training == "centralised" and Ownership.PERSONAL in owners:
            raise ValueError("training: centralised knows no personal module")
        if self.training == "centralised" and (self.losses.contrast_inter or self.client.fine_tuning_epochs):
            raise ValueError("training: centralised has one client: no losses.contrast_inter, no fine_tuning_epochs")
        return self


def load_profile(name: str, data: str = "phantom") -> Profile:
    """Read ``profiles/<name>.yaml`` or, given a path that ends in .yaml, that file.

    Args:
        name: of the profile.
        data: a data set; what the file's ``by_data`` holds for it is laid over the rest, one level deep.

    Raises:
        InputError: the profile does not exist, or a key is unknown or ill-typed, for whichever data set.
    """
    folder = REPOSITORY / "profiles"
    path = pathlib.Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise InputError(f"profile: {name!r} is unknown; expected one of {known}, or the path of a .yaml file.")
    content = {"name": path.stem, **read_yaml(path, "profile")}
    changes = content.pop("by_data", {})
    profiles = {"": validated(Profile, content, path.name)}
    for each, change in changes.items():
        where = f"{path.name}: by_data.{each}"
        if each not in DATA_SOURCES or not isinstance(change, dict):
            raise InputError(f"{where}: expected a data set ({', '.join(DATA_SOURCES)}) and its keys and values.")
        profiles[each] = validated(Profile, _laid_over(content, change), where)
    return profiles.get(corpus_name(data), profiles[""])


def load_methods(path: pathlib.Path = REPOSITORY / "methods.yaml") -> dict[str, Method]:
    """Read every row of the table of methods.

    A row with ``like: other`` starts from the other row, and its own keys are laid over it, one level deep; a module
    or setting given as null is taken out.

    Raises:
        InputError: a row has an unknown key, an ill-typed value, or parts that do not fit together.
    """
    rows = read_yaml(path, "methods")
    return {
        name: validated(
            Method, {"name": name, **_completed_row(rows, name, path.name)}, f"{path.name}: method {name!r}"
        )
        for name in rows
    }


def _completed_row(rows: dict, name: str, source: str, below: tuple[str, ...] = ()) -> dict:
    """A row with all it takes over from the row it is like."""
    row = rows[name]
    if not isinstance(row, dict):
        raise InputError(f"{source}: method {name!r} must hold keys and values.")
    if "like" not in row:
        return row
    other = row["like"]
    if other not in rows or other in (name, *below):
        raise InputError(f"{source}: method {name!r}: like: {other!r} is not another row; expected the name of one.")
    own = {key: value for key, value in row.items() if key != "like"}
    return _laid_over(_completed_row(rows, other, source, (name, *below)), own)


def _laid_over(content: dict, changes: dict) -> dict:
    """`content` with `changes`; mappings are merged one level deep, and null takes a key out."""
    merged = dict(content)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        inner = {**merged[key], **value} if both else value
        merged[key] = {k: v for k, v in inner.items() if v is not None} if isinstance(inner, dict) else inner
    return {key: value for key, value in merged.items() if value is not None}


def load_method(name: str) -> Method:
    """One row of methods.yaml.

    Raises:
        InputError: no such row.
    """
    methods = load_methods()
    if name not in methods:
        raise InputError(f"method: {name!r} is unknown; expected one of {', '.join(methods)} (rows of methods.yaml).")
    return methods[name]


def apply_variant(profile: Profile, method: Method, variant: str) -> tuple[Profile, Method]:
    """Change single numbers of a run, for sensitivity curves and the like.

    Args:
        profile: of the run.
        method: of the run.
        variant: ``key=value`` pairs joined by commas, keys dotted as in the two files, e.g.
            ``training.contrast_temperature=0.03,losses.contrast_inter=0.1``; empty changes nothing.

    Raises:
        InputError: a key is in neither file, or its value does not fit.
    """
    contents = {"profile": profile.model_dump(mode="json"), "method": method.model_dump(mode="json")}
    for pair in filter(None, variant.split(",")):
        key, equals, value = (part.strip() for part in pair.partition("="))
        section, dot, name = key.partition(".")
        owners = [content for content in contents.values() if isinstance(content.get(section), dict)]
        if not (equals and dot and owners and name in owners[0][section]):
            raise InputError(
                f"variant: {pair.strip()!r} is not understood; expected section.name=value of a profile or of a row "
                "of methods.yaml, e.g. training.contrast_temperature=0.05."
            )
        owners[0][section][name] = yaml.safe_load(value)
    return (
        validated(Profile, contents["profile"], f"variant {variant!r}"),
        validated(Method, contents["method"], f"variant {variant!r}"),
    )
