"""Profiles (the numbers of a run) and methods (what is trained, what travels, which losses), both from YAML.

Both are read strictly: an unknown key or an ill-typed value is an :class:`InputError` that names the file and the key.
"""

from __future__ import annotations

import enum
import pathlib
from typing import Literal

import pydantic
import yaml

from fedmrg_core.errors import InputError

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


class Ownership(enum.StrEnum):
    """Who holds a trainable module (contract 3). What is neither shared nor personal is frozen or not built."""

    SHARED = "shared"  # averaged by the server: its parameters leave the hospital every round
    PERSONAL = "personal"  # trained in one hospital and never sent
    FROZEN = "frozen"  # part of the model, never trained


class Strict(pydantic.BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class PhantomCounts(Strict):
    """Studies per training centre; the unseen centre gets `test` studies."""

    train: int = pydantic.Field(gt=0)
    validation: int = pydantic.Field(gt=0)
    test: int = pydantic.Field(gt=0)


class BaseModels(Strict):
    """The frozen LLM and the visual backbone: a folder or hub name each, or sizes of small ones to build.

    `llm` and `backbone` left empty mean: built and pretrained by notebook 05.
    """

    llm: str | None = None
    backbone: str | None = None
    llm_width: int = 192
    llm_layers: int = 4
    vocabulary: int = 2048
    backbone_widths: tuple[int, ...] = (32, 64, 128, 192)
    backbone_depths: tuple[int, ...] = (1, 1, 1, 1)
    public_studies: int = 1500
    llm_steps: int = 500
    backbone_steps: int = 200
    largest_epochs: int = 12  # a small public corpus is read no more often than this, whatever the steps
    pretraining_batch_size: int = 32
    pretraining_learning_rate: float = 2e-3


class Adapter(Strict):
    """LoRA on the frozen LLM: dW = (alpha / rank) B A [derived: rank 16, alpha 16, q_proj and v_proj]."""

    rank: int = pydantic.Field(16, gt=0)
    alpha: int = pydantic.Field(16, gt=0)
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")


class Training(Strict):
    """One client's update."""

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
    image_shift: int = pydantic.Field(0, ge=0)  # random translation in training, pixels
    max_report_tokens: int = pydantic.Field(96, gt=0)


class Federation(Strict):
    """The server's loop."""

    rounds: int = pydantic.Field(gt=0)
    min_clients: int = pydantic.Field(2, gt=0)  # fewer usable replies than this end the run
    round_timeout: float = pydantic.Field(3600.0, gt=0)  # seconds the server waits for a round's replies


class Generation(Strict):
    """Decoding of reports."""

    beams: int = pydantic.Field(3, gt=0)  # [related: PromptMRG]
    max_new_tokens: int = pydantic.Field(96, gt=0)
    batch_size: int = pydantic.Field(32, gt=0)
    length_penalty: float = 1.0
    repetition_penalty: float = pydantic.Field(1.0, gt=0)


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


MODULES: tuple[str, ...] = (
    "encoder",
    "projection",
    "diagnosis_head",
    "prompt_table",
    "generic_adapter",
    "specialised_adapter",
)


class Method(Strict):
    """One row of methods.yaml: which modules exist, who owns them, which losses train them."""

    name: str
    description: str
    prompts: Literal["diagnosis", "none"]
    modules: dict[Literal[MODULES], Ownership]  # type: ignore[valid-type]
    losses: Losses

    @pydantic.model_validator(mode="after")
    def _parts_fit(self) -> Method:
        if "encoder" not in self.modules or "projection" not in self.modules:
            raise ValueError("modules must hold encoder and projection")
        diagnosis = {"diagnosis_head", "prompt_table"}
        if self.prompts == "diagnosis" and not diagnosis <= set(self.modules):
            raise ValueError("prompts: diagnosis needs the modules diagnosis_head and prompt_table")
        dual = {"generic_adapter", "specialised_adapter"} <= set(self.modules)
        if not dual and (self.losses.generic_to_specialised or self.losses.specialised_to_generic):
            raise ValueError("mutual boosting needs both generic_adapter and specialised_adapter")
        if self.losses.classification and "diagnosis_head" not in self.modules:
            raise ValueError("losses.classification needs the module diagnosis_head")
        return self


def _read_yaml(path: pathlib.Path, what: str) -> dict:
    if not path.is_file():
        raise InputError(f"{what}: file {path} does not exist.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{what}: {path} is not valid YAML in UTF-8 ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{what}: {path} must hold keys and values.")
    return content


def _validate(model: type[Strict], content: dict, source: str) -> Strict:
    try:
        return model.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole entry"
        raise InputError(f"{source}: {key}: {first['msg']} (got {str(first.get('input'))[:60]!r}).") from error


def load_profile(name: str) -> Profile:
    """Read ``profiles/<name>.yaml`` or, given a path that ends in .yaml, that file.

    Raises:
        InputError: the profile does not exist, or a key is unknown or ill-typed.
    """
    folder = REPOSITORY / "profiles"
    path = pathlib.Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise InputError(f"profile: {name!r} is unknown; expected one of {known}, or the path of a .yaml file.")
    return _validate(Profile, {"name": path.stem, **_read_yaml(path, "profile")}, str(path.name))


def load_methods(path: pathlib.Path = REPOSITORY / "methods.yaml") -> dict[str, Method]:
    """Read every row of the table of methods.

    Raises:
        InputError: a row has an unknown key, an ill-typed value, or parts that do not fit together.
    """
    rows = _read_yaml(path, "methods")
    return {
        name: _validate(Method, {"name": name, **row}, f"{path.name}: method {name!r}") for name, row in rows.items()
    }


def load_method(name: str) -> Method:
    """One row of methods.yaml.

    Raises:
        InputError: no such row.
    """
    methods = load_methods()
    if name not in methods:
        raise InputError(f"method: {name!r} is unknown; expected one of {', '.join(methods)} (rows of methods.yaml).")
    return methods[name]
