"""The one table of data sets, and what may be published of each. A new one is a module, a row here and a card."""

from __future__ import annotations

import dataclasses
import pathlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from fedmrg_core.errors import InputError
from fedmrg_core.files.strict_yaml import read_literal

if TYPE_CHECKING:
    from fedmrg_core.data.study import LoadedStudies, PublicPart


REPORTS, MEDICAL_QA, VISUAL_PROMPTS = (
    "reports",
    "medical_qa",
    "visual_prompts",
)  # tasks, see `fedmrg_core.runs.task_registry`
# What may be published of a data set. Each level holds those after it; `publishing` says what that means.
Level = Literal[
    "all",  # images, reports, everything
    "scores",  # numbers of single studies, but no report, no image and no picture of single studies
    "aggregates",  # numbers over many studies alone: credentialed data such as MIMIC-CXR, a hospital's own
]


@dataclasses.dataclass(frozen=True)
class DataSource:
    """One data set.

    Attributes:
        loader: "module:function", called with image_size, seed, root (if it needs one) and its own options ->
            LoadedStudies.
        public_corpus: likewise with count -> PublicPart: texts and images kept apart from every client's; "" for none.
        corpus_needs_root: whether the public corpus is read from the user's folder, too.
        needs_root: read from a folder of the user's.
        unseen_sites: sites that never train, unless told otherwise.
        synthetic: no patient is in it.
        publish: what may be published of it, see `Level`. Nothing else decides: neither a prepared folder nor a run.
        version: of what the loader makes; raise it whenever the same arguments and files give other studies.
        name_options: options of the loader that a data set's name may set, by the word that stands for them there:
            with {"image": "image_strength"} the name "phantom-image0.5" means image_strength=0.5.
        takes_a_name: the data set's name may end with one of the user's: "folder-north" lies beside "folder".
        task: what is trained on it, a name in `fedmrg_core.runs.task_registry`.
    """

    loader: str
    public_corpus: str
    corpus_needs_root: bool
    needs_root: bool
    unseen_sites: tuple[str, ...]
    synthetic: bool
    publish: Level
    version: str
    name_options: dict[str, str] = dataclasses.field(default_factory=dict)
    takes_a_name: bool = False
    task: str = REPORTS


_QUESTIONS, _PICTURES = "fedmrg_core.data.questions", "fedmrg_core.data.pictures"
DATA_SOURCES: dict[str, DataSource] = {
    "phantom": DataSource(
        loader="fedmrg_core.data.phantom:load_phantom",
        public_corpus="fedmrg_core.data.phantom:public_part",
        corpus_needs_root=False,
        needs_root=False,
        unseen_sites=("centre-f",),
        synthetic=True,
        publish="all",
        version="5",
        name_options={"image": "image_strength", "wording": "wording_strength"},
    ),
    "iu_xray": DataSource(
        loader="fedmrg_core.data.iu_xray:load_iu_xray",
        public_corpus="fedmrg_core.data.iu_xray:load_iu_xray_public",
        corpus_needs_root=True,
        needs_root=True,
        unseen_sites=(),
        synthetic=False,
        publish="scores",
        version="1",
    ),
    "folder": DataSource(
        loader="fedmrg_core.data.folder:load_folder",
        public_corpus="fedmrg_core.data.phantom:public_part",  # a hospital's folder has no part apart from its clients'
        corpus_needs_root=False,
        needs_root=True,
        unseen_sites=(),
        synthetic=False,
        publish="aggregates",  # nobody here knows its terms
        version="2",
        takes_a_name=True,
    ),
    "medical_world": DataSource(
        loader=f"{_QUESTIONS}.world_questions:load_world",
        public_corpus=f"{_QUESTIONS}.pretraining:pretraining_corpus",
        corpus_needs_root=False,
        needs_root=False,
        unseen_sites=(),
        synthetic=True,
        publish="all",
        version="1",
        task=MEDICAL_QA,
    ),
    **{
        name: DataSource(
            loader=f"{_QUESTIONS}.loading:load_{name}",
            public_corpus=f"{_QUESTIONS}.public_texts:public_texts",  # the other sets of the folder
            corpus_needs_root=True,
            needs_root=True,
            unseen_sites=(),
            synthetic=False,
            publish="scores",
            version="1",
            task=MEDICAL_QA,
        )
        for name in ("medquad", "medmcqa", "medqa", "pubmedqa")
    },
    **{
        name: DataSource(
            loader=f"{_PICTURES}.phantom_pictures:load_{name}",
            public_corpus=f"{_PICTURES}.phantom_pictures:public_studies",
            corpus_needs_root=False,
            needs_root=False,
            unseen_sites=("centre-f",),
            synthetic=True,
            publish="all",
            version="1",
            task=VISUAL_PROMPTS,
        )
        for name in ("phantom_findings", "phantom_masks")
    },
    **{
        name: DataSource(
            loader=f"{_PICTURES}.{module}:load_{name}",
            public_corpus=f"{_PICTURES}.phantom_pictures:public_studies",  # or the profile names a model
            corpus_needs_root=False,
            needs_root=True,
            unseen_sites=(),
            synthetic=False,
            publish=level,
            version="1",
            takes_a_name=level == "aggregates",
            task=VISUAL_PROMPTS,
        )
        for name, module, level in (
            ("polyps", "public_sets", "scores"),
            ("chest_normal", "public_sets", "scores"),
            ("picture_classes", "picture_folders", "aggregates"),
            ("picture_masks", "picture_folders", "aggregates"),
        )
    },
}


if any("-" in name for name in DATA_SOURCES):
    raise ValueError("DATA_SOURCES: after a dash in a data set's name come its options; name the row without one.")


def data_source(data: str) -> DataSource:
    """The row of a data set, whatever options its name sets.

    Raises:
        InputError: as `read_name`.
    """
    return DATA_SOURCES[read_name(data)[0]]


def corpus_name(data: str) -> str:
    """The data set's name without options: data sets that differ in these alone share corpus and base models.

    Raises:
        InputError: as `read_name`.
    """
    return read_name(data)[0]


def data_family(data: str) -> str:
    """The name under which measures of data sets are pooled: strengths of the phantom are, hospitals' folders are not.

    Raises:
        InputError: as `read_name`.
    """
    name = corpus_name(data)
    return data if DATA_SOURCES[name].takes_a_name else name


def read_name(data: str) -> tuple[str, dict[str, float]]:
    """Name of the row and the loader's options: "phantom-image0.5" -> ("phantom", {"image_strength": 0.5}).

    A name of the user's, as in "folder-north", sets none.

    Raises:
        InputError: no data set has this name, or an option is malformed, unknown to the data set, or set twice.
    """
    base, *parts = data.split("-")
    if base not in DATA_SOURCES:
        raise InputError(f"data is {data!r}; expected one of {', '.join(DATA_SOURCES)}.")
    words = DATA_SOURCES[base].name_options
    if parts and DATA_SOURCES[base].takes_a_name:
        if re.fullmatch(r"[A-Za-z0-9_]{1,40}", "-".join(parts)) is None:
            raise InputError(f"data is {data!r}; behind {base}- one word of letters, digits and _ is expected.")
        return base, {}
    if parts and not words:
        raise InputError(f"data is {data!r} but {base!r} takes no options in its name; write data={base!r}.")
    options: dict[str, float] = {}
    for part in parts:
        match = re.fullmatch(r"([a-z_]+)(\d+(?:\.\d+)?)", part)
        if match is None or match[1] not in words:
            form = "-".join(f"{word}<number>" for word in words)
            raise InputError(f"data is {data!r}; {part!r} is no option of it, expected {base}-{form}.")
        if words[match[1]] in options:
            raise InputError(f"data is {data!r}; it sets {match[1]!r} twice, once is enough.")
        options[words[match[1]]] = float(match[2])
    return base, options


def sources_of(task: str = REPORTS) -> tuple[str, ...]:
    """The data sets that a task is trained on."""
    return tuple(name for name, source in DATA_SOURCES.items() if source.task == task)


def check_data_parameters(
    data: str, data_root: str, options: str | Mapping[str, Any] = "{}", task: str = REPORTS
) -> dict[str, Any]:
    """Hold a notebook's parameters against each other, at once: nothing heavy is imported and nothing read.

    Args:
        data: name of a data set.
        data_root: its folder; "" for a data set that makes its own.
        options: the loader's own options, see `read_options`.
        task: what is to be trained on it.

    Returns:
        The options.

    Raises:
        InputError: an unknown data set or one of another task; `data_root` missing, given in vain or no folder; or
            `options` no mapping, or given to the phantom, whose numbers stand in the profile.
    """
    source = data_source(data)
    if source.task != task:
        known = ", ".join(sources_of(task))
        raise InputError(
            f"data {data!r} is for the task {source.task}, and this notebook for {task}; expected {known}."
        )
    if source.needs_root and not data_root:
        raise InputError(f"data_root is empty but data {data!r} is read from a folder; give data_root=FOLDER.")
    if data_root and not source.needs_root:
        raise InputError(f"data_root is given but data {data!r} reads no folder; leave data_root out.")
    if data_root and not pathlib.Path(data_root).is_dir():
        raise InputError(f"data_root {data_root} is not a folder; give the one that holds the data set.")
    read = read_options(options)
    if read and not source.needs_root:
        raise InputError(f"options is {options!r} but data {data!r} takes its numbers from the profile; leave it out.")
    return read


def call_loader(
    data: str, root: pathlib.Path | str | None, image_size: int, seed: int, **options: Any
) -> LoadedStudies:
    """Load a data set's studies, with the options that are given and those that its name sets.

    Raises:
        InputError: unknown data set, unknown, missing or ill-typed option, root missing, or whatever the loader finds.
    """
    source = data_source(data)
    arguments = {"image_size": image_size, "seed": seed, **options, **read_name(data)[1]}
    arguments |= _root_argument(data, source, root)
    return _call(data, source.loader, arguments)


def call_public_corpus(
    data: str, root: pathlib.Path | str | None, count: int, image_size: int, seed: int, **options: Any
) -> PublicPart:
    """Load what a data set offers for pretraining, apart from every client's studies; its name's options do not matter.

    Raises:
        InputError: as `call_loader`.
    """
    source = data_source(data)
    arguments = {"count": count, "image_size": image_size, "seed": seed, **options}
    if source.corpus_needs_root:
        arguments |= _root_argument(data, source, root)
    return _call(data, source.public_corpus, arguments)


def read_options(options: str | Mapping[str, Any]) -> dict[str, Any]:
    """A loader's own parameters, from the text of a JSON or YAML mapping or from the mapping itself.

    Raises:
        InputError: it is no mapping.
    """
    content = read_literal(options) if isinstance(options, str) else options
    if not isinstance(content, Mapping):
        raise InputError(f'options is {options!r}; expected a mapping such as {{"layout": "kaggle"}}.')
    return dict(content)


def _root_argument(data: str, source: DataSource, root: pathlib.Path | str | None) -> dict[str, pathlib.Path]:
    if not source.needs_root:
        if root:
            raise InputError(f"root is given but data {data!r} reads no folder; leave root out.")
        return {}
    if not root:
        raise InputError(
            f"data {data!r} needs the parameter root (of notebooks data_root); give the folder that holds it."
        )
    return {"root": pathlib.Path(root)}


def _call(data: str, name: str, arguments: dict[str, Any]) -> Any:
    """Call a function with its annotations enforced, so that a wrong option is told before anything is read."""
    import pydantic

    function: Callable[..., Any] = pkgutil.resolve_name(name)
    try:
        return pydantic.validate_call(function)(**arguments)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        option = ".".join(map(str, first["loc"]))
        given = f"; given is {arguments[first['loc'][0]]!r}" if first["loc"][0] in arguments else ""
        raise InputError(f"data {data!r}, option {option!r}: {first['msg']}{given}.") from None
