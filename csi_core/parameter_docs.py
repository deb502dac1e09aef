"""What a person needs to know of each key of a pydantic model, read from its JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

__all__ = ["KeyDoc", "key_docs", "markdown_table"]

_TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "array": "list"}
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "matching {}",
}


@dataclass(frozen=True, slots=True)
class KeyDoc:
    """One key. ``default`` is None where the key is required; ``allowed`` is "" where the type says it all."""

    key: str
    type: str
    default: str | None
    allowed: str
    description: str


def key_docs(model: type[BaseModel]) -> tuple[KeyDoc, ...]:
    """Every key of ``model`` in the order of its declaration, each followed by those below it (``pools.NAME.path``)."""
    schema = model.model_json_schema(by_alias=True)
    return tuple(_section(schema, schema.get("$defs", {}), ""))


def markdown_table(model: type[BaseModel]) -> str:
    """The same as a Markdown table; a line that says so for a model without keys."""
    rows = [_row(doc) for doc in key_docs(model)]
    return "\n".join(["| key | value | default | |", "|---|---|---|---|", *rows]) + "\n" if rows else "None.\n"


def _row(doc: KeyDoc) -> str:
    value = f"{doc.type}; {doc.allowed}" if doc.allowed and doc.type else doc.type or doc.allowed
    default = "required" if doc.default is None else f"`{doc.default}`" if doc.default else ""
    return f"| `{doc.key}` | {_escaped(value)} | {_escaped(default)} | {_escaped(doc.description)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _section(section: Mapping[str, Any], definitions: Mapping[str, Any], above: str) -> Iterator[KeyDoc]:
    for name, declared in section.get("properties", {}).items():
        key = f"{above}{name}"
        yield _key_doc(key, declared, definitions, name in section.get("required", []))
        for branch in declared.get("anyOf", [declared]):
            inner = _resolved(branch, definitions)
            yield from _section(inner, definitions, f"{key}.")
            for values, step in (("additionalProperties", ".NAME."), ("items", "[].")):
                if isinstance(inner.get(values), Mapping):
                    yield from _section(_resolved(inner[values], definitions), definitions, key + step)


def _key_doc(key: str, declared: Mapping[str, Any], definitions: Mapping[str, Any], required: bool) -> KeyDoc:
    branches = [
        _resolved(branch, definitions) for branch in declared.get("anyOf", [declared]) if branch.get("type") != "null"
    ]
    default = declared.get("default")
    return KeyDoc(
        key=key,
        type=" or ".join(dict.fromkeys(filter(None, (_type(branch, definitions) for branch in branches)))),
        default=None if required else _text(default),
        allowed=" or ".join(dict.fromkeys(filter(None, map(_allowed, branches)))),
        description=declared.get("description", ""),
    )


def _resolved(branch: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(branch.get("$ref", "")).rpartition("/")[2]
    resolved: Mapping[str, Any] = definitions.get(name, branch)
    return resolved


def _type(branch: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if branch.get("format") == "quantity":
        return "size (10Gi)"
    if branch.get("format") == "path":
        return "path"
    if "enum" in branch or "const" in branch:
        return ""
    if branch.get("type") == "object":
        values = branch.get("additionalProperties")
        return (
            f"{_type(_resolved(values, definitions), definitions)} by name"
            if isinstance(values, Mapping)
            else "section"
        )
    return _TYPES.get(str(branch.get("type")), "anything")


def _allowed(branch: Mapping[str, Any]) -> str:
    if "const" in branch:
        return _text(branch["const"])
    if "enum" in branch:
        return " or ".join(_text(value) for value in branch["enum"])
    return ", ".join(words.format(branch[bound]) for bound, words in _BOUNDS.items() if bound in branch)


def _text(value: object) -> str:
    if value is None or value in ({}, []):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
