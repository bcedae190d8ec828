"""YAML read strictly: what is missing, unknown or ill-typed is one sentence that names the file and the key."""

from __future__ import annotations

import pathlib
from typing import TypeVar

import pydantic
import yaml

from fedmrg_core.errors import InputError


class Strict(pydantic.BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Strict)
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: pathlib.Path, what: str) -> dict:
    """The keys and values of a YAML file; `what` it holds begins every complaint.

    Raises:
        InputError: the file does not exist, is not YAML in UTF-8, or holds something else than keys and values.
    """
    if not path.is_file():
        raise InputError(f"{what}: file {path} does not exist.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _OnceEach)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{what}: {path} is not valid YAML in UTF-8 ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{what}: {path}: the whole file must hold keys and values.")
    return content


class _OnceEach(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would take the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Keys and values of a node."""
        seen = set()
        for key, _ in node.value:
            if key.tag != _MERGE and isinstance(key.value, str):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


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
