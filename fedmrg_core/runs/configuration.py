"""Profiles: the numbers of a run, from profiles/*.yaml, and changes of single numbers in them or in a method.

They are read strictly: an unknown key or an ill-typed value is an :class:`InputError` that names the file and the key.
"""

from __future__ import annotations

import math
import pathlib
from typing import Annotated, Any, Literal

import pydantic

from fedmrg_core.data.sources import DATA_SOURCES, corpus_name
from fedmrg_core.errors import InputError
from fedmrg_core.files.strict_yaml import Strict, laid_over, read_literal, read_yaml, validated
from fedmrg_core.paths import REPOSITORY
from fedmrg_core.runs.attack import Attack
from fedmrg_core.runs.methods import Method

Size = Annotated[int, pydantic.Field(gt=0)]
LARGEST = 10**9  # of a whole number: more studies, steps or units than any machine holds


class Section(Strict):
    """A part of a profile, whose whole numbers have a largest value."""

    @pydantic.field_validator("*")
    @classmethod
    def _of_this_world(cls, value: Any) -> Any:
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and number > LARGEST:
                raise ValueError(f"{number:,} is above {LARGEST:,}; expected a smaller number")
        return value


class PhantomCounts(Section):
    """Studies per training centre; the unseen centre gets `test` studies, and 128 to adapt to it."""

    train: int = pydantic.Field(gt=0)
    validation: int = pydantic.Field(gt=0)
    test: int = pydantic.Field(gt=0)


class ImageChanges(Section):
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
    llm_width: Size = 192
    llm_layers: Size = 4
    vocabulary: Size = 2048
    backbone_widths: tuple[Size, ...] = (32, 64, 128, 192)
    backbone_depths: tuple[Size, ...] = (1, 1, 1, 1)
    public_studies: Size = 1500
    llm_steps: int = pydantic.Field(500, ge=0)
    backbone_steps: int = pydantic.Field(200, ge=0)
    largest_epochs: Size = 12  # the LLM reads a small public corpus no more often than this, whatever the steps
    pretraining_batch_size: Size = 32
    pretraining_learning_rate: float = pydantic.Field(2e-3, gt=0)

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


class Adapter(Section):
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
    # Of its training studies a client uses this share, see `ClientFolder.used`. Stored profiles with all of them do not
    # mention it.
    study_share: float = pydantic.Field(1.0, gt=0, le=1, exclude_if=lambda share: share == 1)


class Federation(Section):
    """The server's loop."""

    rounds: int = pydantic.Field(gt=0)
    participation: float = pydantic.Field(1.0, gt=0, le=1)  # share of the clients that train in a round
    min_clients: int = pydantic.Field(2, gt=0)  # fewer usable replies than this end the run
    round_timeout: float = pydantic.Field(3600.0, gt=0)  # seconds the server waits for a round's replies


class Generation(Section):
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


class Questions(Section):
    """How questions are laid out, and answered."""

    world: Literal["smoke", "standard"] = "standard"  # size of the embedded world, see `data.questions.world`
    # listed: options stand in the question and the answer is one of them with its letter; letter: the letter alone;
    # cloze: no options in the question, the answer is the option's text.
    layout: Literal["listed", "letter", "cloze"] = "cloze"
    chat: bool = False  # wrap each question in the tokenizer's chat template
    longest: Size = 512  # tokens of a question with its answer
    # By which normalisation of the log-likelihood validation tells what is right; tests report all.
    accuracy: Literal["accuracy_sum", "accuracy_per_token", "accuracy_per_character"] = "accuracy_per_character"
    batch_size: Size = 64  # answers scored at a time
    new_tokens: Size = 48  # of an open answer
    kept_rounds: tuple[Size, ...] = ()  # whose adapters are kept and asked every client's test questions at the end
    # Of a public set, most questions of one client, see `data.questions.clients.limited_clients`. Stored profiles with
    # all of them do not mention it.
    largest_client: Size | None = pydantic.Field(None, exclude_if=lambda given: given is None)


class Pictures(Section):
    """Prompts for a frozen vision model, and the sizes of small models to build [ours]."""

    prompts: Size = 16  # L, of the generator and of static prompts
    heads: Size = 4  # of the generator's attention; they divide the model's width
    network_widths: tuple[Size, ...] = (16, 32, 64)  # of the small convolutional network
    batch_size: Size = 64  # pictures answered at once: one or two for a SAM-B, whose attention takes GB a picture
    # The small ViT and SAM that are built where `base_models.backbone` names none.
    width: Size = 64
    layers: Size = 3
    patch: Size = 8  # pixels
    window: Size = 4  # patches along an edge of SAM's local attention; its last layer sees everything
    decoder_width: Size = 64


class Profile(Section):
    """Every number of a run, read from profiles/<name>.yaml."""

    name: str
    image_size: int = pydantic.Field(128, ge=32)
    phantom: PhantomCounts
    base_models: BaseModels = BaseModels()
    adapter: Adapter = Adapter()
    training: Training
    federation: Federation
    generation: Generation = Generation()
    # Whose reports are written at home, besides the answer that counts there; the mean of both costs a third pass.
    answers_at_home: tuple[Literal["generic", "specialised", "both"], ...] = ("generic", "specialised", "both")
    bootstrap_samples: int = pydantic.Field(1000, gt=0)
    # Of the task medical_qa alone; stored runs of others do not mention it.
    questions: Questions | None = pydantic.Field(None, exclude_if=lambda given: given is None)
    # Likewise of the task visual_prompts.
    pictures: Pictures | None = pydantic.Field(None, exclude_if=lambda given: given is None)
    # Of a measurement of what dishonest clients do; other runs do not mention it.
    attack: Attack = pydantic.Field(Attack(), exclude_if=lambda given: given == Attack())


def sample_size(clients: int, participation: float) -> int:
    """A share of the clients, rounded up."""
    return math.ceil(participation * clients - 1e-9)  # 0.1 * 30 is a little more than 3


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
        profiles[each] = validated(Profile, laid_over(content, change), where)
    return profiles.get(corpus_name(data), profiles[""])


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
    contents = {"profile": profile.whole(), "method": method.whole()}
    for pair in filter(None, variant.split(",")):
        key, equals, value = (part.strip() for part in pair.partition("="))
        section, dot, name = key.partition(".")
        owners = [content for content in contents.values() if isinstance(content.get(section), dict)]
        if not (equals and dot and owners and name in owners[0][section]):
            raise InputError(
                f"variant: {pair.strip()!r} is not understood; expected section.name=value of a profile or of a row "
                "of methods.yaml, e.g. training.contrast_temperature=0.05."
            )
        owners[0][section][name] = read_literal(value)
    return (
        validated(Profile, contents["profile"], f"variant {variant!r}"),
        validated(type(method), contents["method"], f"variant {variant!r}"),
    )
