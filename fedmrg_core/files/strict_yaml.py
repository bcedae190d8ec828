"""YAML read strictly: what is missing, unknown or ill-typed is one sentence that names the file and the key.

Numbers and truth values are those of YAML 1.2 in decimal digits: ``no`` and ``on`` are texts, and so are ``010``,
``1_000``, ``0x10``, ``12:30`` and dates. `dumped` writes what is read back the same.
"""

from __future__ import annotations

import pathlib
import re
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import pydantic
import yaml
from pydantic_core import PydanticCustomError

from fedmrg_core.errors import InputError

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", type(None): "null"}


class Strict(pydantic.BaseModel):
    """A frozen model that refuses keys it does not know, numbers that are not finite, and texts in place of numbers."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _of_its_type(cls, value: Any, information: pydantic.ValidationInfo) -> Any:
        """Refuses what pydantic would turn into a number or truth value: ``rounds: true``, ``rounds: "3"``."""
        wanted = _simple_types(cls.model_fields[information.field_name].annotation)
        if wanted and wanted <= set(_KINDS):
            for item in value if isinstance(value, list | tuple) else [value]:
                if not _fits(item, wanted):
                    expected = " or ".join(text for kind, text in _KINDS.items() if kind in wanted)
                    raise PydanticCustomError("ill_typed", "expected {expected}", {"expected": expected})
        return value

    def whole(self) -> dict[str, Any]:
        """As `model_dump` in JSON's types, and with the fields that files leave out where they change nothing."""
        stored, fields = self.model_dump(mode="json"), {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            fields[name] = value.whole() if isinstance(value, Strict) else stored.get(name, value)
        return {**stored, **fields}


def _simple_types(annotation: Any) -> set[type]:
    """The types without parts that a field's values are made of; empty where it holds models or names alone."""
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    if get_origin(annotation) in (Union, types.UnionType, tuple, list, dict):
        parts = [_simple_types(part) for part in get_args(annotation) if part is not Ellipsis]
        return set().union(*parts)
    if hasattr(annotation, "__metadata__"):
        return _simple_types(get_args(annotation)[0])
    return {annotation} if isinstance(annotation, type) else set()


def _fits(value: Any, wanted: set[type]) -> bool:
    return type(value) in wanted or (float in wanted and type(value) is int)


Model = TypeVar("Model", bound=Strict)
_MERGE = "tag:yaml.org,2002:merge"
# Of YAML 1.2's core schema; a whole number has no zero before it, which older readers take for another.
_SCALARS = (
    ("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)"), "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))|\.nan"),
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    (_MERGE, re.compile(r"<<"), "<"),
)


class _Loader(yaml.CSafeLoader):
    """Reads scalars as `_SCALARS` says, and refuses a key that stands twice, of which YAML would take the last."""

    yaml_implicit_resolvers: dict = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Keys and values of a node."""
        seen = set()
        for key, _ in node.value:
            if key.tag != _MERGE and isinstance(key.value, str):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes a text that `_Loader`, or YAML 1.1, would read as something else."""

    yaml_implicit_resolvers = {first: list(found) for first, found in yaml.SafeDumper.yaml_implicit_resolvers.items()}


for _tag, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern.pattern})$"), list(_first))


def read_literal(text: str) -> Any:
    """The value that a YAML text stands for: a number, true, false, null, a text, or a list or mapping of these.

    Raises:
        InputError: it is not YAML.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a CSafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{text!r} is not YAML ({' '.join(str(error).split())}).") from error


def dumped(content: Any) -> str:
    """Plain values as YAML, keys in their order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: pathlib.Path, what: str) -> dict:
    """The keys and values of a YAML file; `what` it holds begins every complaint.

    Raises:
        InputError: the file does not exist, is not YAML in UTF-8, or holds something else than keys and values.
    """
    if not path.is_file():
        raise InputError(f"{what}: file {path} does not exist.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a CSafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{what}: {path} is not valid YAML in UTF-8 ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{what}: {path}: the whole file must hold keys and values.")
    return content


def validated(model: type[Model], content: object, source: str) -> Model:
    """`content` as a model; `source`, a file or a row of one, begins the complaint.

    Raises:
        InputError: a key is missing, unknown or ill-typed; the first of them is named.
    """
    try:
        return model.model_validate(content)
    except pydantic.ValidationError as error:
        raise InputError(complaint(error, source, model)) from error


def complaint(error: pydantic.ValidationError, source: str, model: type[pydantic.BaseModel]) -> str:
    """The first complaint about a model's content in one sentence, which `source` begins."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"])) or "the whole entry"
    if first["type"] == "extra_forbidden" and (known := _keys_at(model, first["loc"][:-1])):
        return f"{source}: {key} is unknown; expected {', '.join(known)}."
    if first["type"] == "value_error":  # a sentence of ours, which says what was given where that helps
        place = f"{source}: {key}" if first["loc"] else source
        return f"{place}: {first['msg'].removeprefix('Value error, ').rstrip('.')}."
    return f"{source}: {key}: {first['msg']} (got {str(first.get('input'))[:60]!r})."


def _keys_at(model: type[pydantic.BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The keys that a model knows below a path; none where the path does not lead to a model."""
    for part in path:
        field = model.model_fields.get(str(part))
        kind = field and field.annotation
        if not (isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)):
            return []
        model = kind
    return list(model.model_fields)


def laid_over(content: dict, changes: dict) -> dict:
    """`content` with `changes`; mappings are merged one level deep, and null takes a key out."""
    merged = dict(content)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        inner = {**merged[key], **value} if both else value
        merged[key] = {k: v for k, v in inner.items() if v is not None} if isinstance(inner, dict) else inner
    return {key: value for key, value in merged.items() if value is not None}
