"""The reports' rows of methods: what `fedmrg_core.runs.methods.Method` has, and what only a report generator does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import pydantic
import pydantic_core

from fedmrg_core.errors import InputError
from fedmrg_core.files.strict_yaml import validated
from fedmrg_core.paths import REPOSITORY
from fedmrg_core.prompts import JOIN, DiagnosisPrompts, NoPrompts, PromptSettings, PromptSource, source_named
from fedmrg_core.runs.methods import Losses, Method, MethodTable, Named, Ownership
from fedmrg_core.tasks.reports.baseline_rows import check_method

if TYPE_CHECKING:
    from fedmrg_core.runs.configuration import Profile, Training

# Beside the modules that a row's prompt source brings.
MODULES: tuple[str, ...] = (
    "encoder",
    "projection",
    "generic_adapter",
    "generic_adapter_a",  # the two factors of a LoRA adapter, for methods that treat them apart
    "generic_adapter_b",
    "specialised_adapter",
    "decoder",  # of models trained whole, without an LLM
)
# Modules that learn at the encoder's pace; the adapters and the prompts at their own. A decoder trained whole starts
# from nothing, as the encoder's neighbours do, and goes at the encoder's pace [ours].
ENCODER_PACED = ("encoder", "projection", "decoder")
FACTORS = {"generic_adapter_a", "generic_adapter_b"}
KINDS_OF_THE_RANK = ("lora", "adalora", "loha")  # the other kinds of adapters take no rank of the profile's


class ReportLosses(Losses):
    """Weights of the loss terms; zero switches a term off. A prompt source may bring more, which only its rows know."""

    model_config = pydantic.ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[float, pydantic.Field(ge=0, strict=True)]]

    language: float = pydantic.Field(1.0, ge=0)
    classification: float = pydantic.Field(0.0, ge=0)  # 4 [related: PromptMRG]
    contrast_inter: float = pydantic.Field(0.0, ge=0)  # lambda_rep 0.5 [derived]
    contrast_intra: float = pydantic.Field(0.0, ge=0)
    generic_to_specialised: float = pydantic.Field(0.0, ge=0)  # lambda_kd 0.5 [derived]
    specialised_to_generic: float = pydantic.Field(0.0, ge=0)
    image_report_contrast: float = pydantic.Field(0.0, ge=0)  # WCL, DCL [related]
    orthogonality: float = pydantic.Field(0.0, ge=0)  # AdaLoRA: keeps its factors orthogonal [related]
    # MRG-LLM: images and their reports [secondary]. Stored rows without it do not mention it.
    alignment: float = pydantic.Field(0.0, ge=0, exclude_if=lambda weight: not weight)


class ReportFields(Named):
    """What only a report generator's row has. Apart from `ReportMethod` for the order of keys in stored files."""

    model: Literal["llm", "transformer", "r2gen", "wcl", "dcl"] = "llm"
    # A name of `fedmrg_core.prompts`, or several joined by "+". diagnosis: the table's row of the true state in
    # training, of the predicted one at inference; soft-diagnosis: the mean row under the predicted probabilities.
    prompts: str = "none"
    # The source's own numbers, which stored rows without any do not mention.
    prompt_settings: dict[str, bool | int | float | str] = pydantic.Field({}, exclude_if=lambda given: not given)
    # The share of training studies that are prompted with the predicted states all the same.
    predicted_prompts: float = pydantic.Field(0.0, ge=0, le=1)
    adapter_kind: Literal["lora", "adalora", "loha", "vera", "prefix", "p-tuning"] = "lora"
    adapter_settings: dict[str, bool | int | float | str] = {}  # for the kind's PEFT configuration
    # Times the profile's adapter_learning_rate: kinds whose few parameters stand behind fixed matrices need more.
    adapter_pace: float = pydantic.Field(1.0, gt=0)
    boosting: Literal["mutual", "feddat"] = "mutual"  # who teaches the two adapters
    # So many rounds at the start train on losses.alignment alone, and no later one on it [secondary: a stage of its
    # own]; with 0 it is a term beside the others [ours]. Stored rows without such rounds do not mention them.
    alignment_rounds: int = pydantic.Field(0, ge=0, exclude_if=lambda rounds: not rounds)


class ReportMethod(Method, ReportFields):
    """One row of methods.yaml."""

    losses: ReportLosses = ReportLosses()

    misfits = {
        "modules must hold encoder": lambda row, has: "encoder" not in has,
        "modules must hold encoder and projection": lambda row, has: row.model == "llm" and "projection" not in has,
        "the module decoder belongs to models without an LLM, and to each of them": lambda row, has: (
            (row.model == "llm") == ("decoder" in has)
        ),
        "adapters need model: llm": lambda row, has: (
            row.model != "llm" and any(name.endswith(("_adapter", "_a", "_b")) for name in has)
        ),
        "predicted_prompts needs prompts: diagnosis": lambda row, has: (
            row.predicted_prompts > 0 and "diagnosis" not in row.prompts.split(JOIN)
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
        "losses.alignment needs model: llm, whose reading of a report it aligns an image with": lambda row, has: (
            row.losses.alignment > 0 and row.model != "llm"
        ),
        "losses.alignment comes before or beside the reports, and losses.language is 0; expected more": (
            lambda row, has: row.losses.alignment > 0 and not row.losses.language
        ),
        "losses.alignment needs an encoder or a projection that is trained": lambda row, has: (
            row.losses.alignment > 0
            and all(row.modules.get(name, Ownership.FROZEN) is Ownership.FROZEN for name in ("encoder", "projection"))
        ),
        "alignment_rounds need losses.alignment": lambda row, has: (
            row.alignment_rounds > 0 and not row.losses.alignment
        ),
        "alignment_rounds train no adapter: adapter_kind adalora and client.alternating do not go with them": (
            lambda row, has: row.alignment_rounds > 0 and (row.adapter_kind == "adalora" or row.client.alternating)
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
        "training: centralised has one client: no losses.contrast_inter": lambda row, has: (
            row.training == "centralised" and row.losses.contrast_inter > 0
        ),
        **Method.misfits,
    }

    @pydantic.field_validator("prompts")
    @classmethod
    def _source_is_known(cls, name: str) -> str:
        source_named(name)
        return name

    @pydantic.field_validator("prompt_settings")
    @classmethod
    def _settings_are_the_source_s(cls, given: dict, information: pydantic.ValidationInfo) -> dict:
        if name := information.data.get("prompts"):
            validated(source_named(name).settings_type, given, f"prompts {name}")
        return given

    @pydantic.field_validator("losses")
    @classmethod
    def _losses_are_known(cls, losses: ReportLosses, information: pydantic.ValidationInfo) -> ReportLosses:
        """What is no field of the losses is a term of the row's prompt source, which stands before them in the row."""
        known = source_named(information.data["prompts"]).own_losses if "prompts" in information.data else ()
        wrong = [
            {"type": "extra_forbidden", "loc": (name,), "input": weight}
            for name, weight in losses.model_extra.items()
            if name not in known
        ]
        if wrong:
            raise pydantic_core.ValidationError.from_exception_data("losses", wrong)
        return losses

    @pydantic.model_validator(mode="after")
    def _modules_are_there(self) -> ReportMethod:
        own = self.prompt_type.own_modules
        for module in self.modules:
            if module not in (*MODULES, *own):
                expected = ", ".join((*MODULES, *own))
                raise ValueError(f"modules.{module} is none of prompts: {self.prompts}; expected some of {expected}")
        if not own.keys() <= self.modules.keys():
            raise ValueError(f"prompts: {self.prompts} needs the modules {' and '.join(own)}")
        return self

    @property
    def prompt_type(self) -> type[PromptSource]:
        """The class of its prompt source."""
        return source_named(self.prompts)

    def pace_of(self, module: str, settings: Training) -> float:
        """The highest learning rate of a module; the row's own factor is for adapters, not for the prompts."""
        if module in ENCODER_PACED or module in self.prompt_type.encoder_paced:
            return settings.learning_rate
        return settings.adapter_learning_rate * (self.adapter_pace if "adapter" in module else 1.0)

    def picked_code(self) -> tuple[str, ...]:
        """The files of prompt sources that are not of the paper."""
        sources = [source_named(name) for name in self.prompts.split(JOIN)]
        own = (source.__module__ for source in sources if source not in (NoPrompts, DiagnosisPrompts))
        return tuple(dict.fromkeys(own))

    def prompt_numbers(self) -> PromptSettings:
        """`prompt_settings` as its prompt source has them."""
        return self.prompt_type.settings_type.model_validate(self.prompt_settings)

    def losses_in(self, round_number: int | None = None) -> ReportLosses:
        """The weights of the terms in a round, from 1; None: in what follows the last one."""
        if round_number is not None and round_number <= self.alignment_rounds:
            return ReportLosses(language=0, alignment=self.losses.alignment)
        return self.losses.model_copy(update={"alignment": 0.0}) if self.alignment_rounds else self.losses

    @property
    def first_choice(self) -> int:
        """The first round after those of the alignment, which train no report."""
        return self.alignment_rounds + 1

    def check(self, profile: Profile) -> None:
        """Hold the row against a profile before anything is loaded or built.

        Raises:
            InputError: its model has not what it asks for; or the profile leaves its alignment no round for the
                reports, or no other report in a batch; or the rank is above the width of the LLM that notebook 05
                builds: no layer of that is narrower. Of an LLM that the profile names, the widths are known when it is
                there, see `adapter_kinds.check_layers`.
        """
        if self.model != "llm":
            check_method(self)
        self._check_alignment(profile)
        rank, sizes = profile.adapter.rank, profile.base_models
        adapted = any("adapter" in module for module in self.modules) and self.adapter_kind in KINDS_OF_THE_RANK
        if adapted and sizes.llm is None and rank > sizes.llm_width:
            raise InputError(
                f"adapter.rank: {rank} is above {sizes.llm_width}, the width of a layer it adapts; expected less, or a "
                "larger base_models.llm_width in the profile."
            )

    def _check_alignment(self, profile: Profile) -> None:
        rounds, batch = profile.federation.rounds, profile.training.batch_size
        if self.alignment_rounds >= rounds:
            raise InputError(
                f"method {self.name!r}: alignment_rounds: {self.alignment_rounds} leaves no round for the reports; "
                f"expected less than {rounds}, federation.rounds of the profile."
            )
        if self.losses.alignment and batch == 1:
            raise InputError(
                f"method {self.name!r}: losses.alignment tells a report from the others of its batch, and "
                "training.batch_size is 1; expected more in the profile."
            )


TABLE = MethodTable(ReportMethod, REPOSITORY / "methods.yaml")
