"""Tables from pydantic models."""

from __future__ import annotations

import enum
import typing
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from csi_core.parameters import SizeBytes, parse_size

__all__ = ["section_tables", "table"]

_PLAIN = {str: "text", int: "number", float: "number", bool: "true or false", Path: "path", SecretStr: "text"}


def table(model: type[BaseModel]) -> str:
    """One row for each key of ``model``."""
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        rows.append(f"| `{field.alias or name}` | {_type(field)} | {_default(field)} | {field.description or ''} |")
    return "\n".join(rows) + "\n"


def section_tables(model: type[BaseModel], path: str = "", title: str = "The file") -> str:
    """The table of ``model``, then those of the sections below it, each with its heading."""
    about = (model.__doc__ or "").strip().splitlines()[0].replace("``", "`")
    parts = [f"## {f'`{path}`' if path else title}", "", about, "", table(model)]
    for key, section in _sections(model, path):
        parts.append(section_tables(section, key))
    return "\n".join(parts)


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        key = f"{path}.{field.alias or name}".removeprefix(".")
        for inner in _models(field.annotation):
            many = {dict: ".NAME", tuple: "[]"}.get(typing.get_origin(field.annotation), "")
            yield f"{key}{many}", inner


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not typing.get_args(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _type(field: FieldInfo) -> str:
    size = typing.get_args(SizeBytes)[1]
    if any(getattr(rule, "func", None) is parse_size for rule in field.metadata) or size in field.metadata:
        return "size (`10Gi`)"
    return _name(field.annotation)


def _name(annotation: Any) -> str:  # noqa: PLR0911 - one line for each kind
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (UnionType, typing.Union):
        return " or ".join(_name(part) for part in arguments if part is not NoneType)
    if origin is dict:
        return f"{_name(arguments[1])} by name"
    if origin is tuple:
        return f"list of {_name(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    return "a section" if _models(annotation) else "anything"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None or isinstance(field.default, BaseModel) or field.default is None:
        return ""
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 40 and value % (1 << 40) == 0:
        value = f"{value >> 40}Ti"
    return f"`{value}`" if value not in ("", ()) else ""
