"""A YAML file with the line of every key, and validation errors told in its terms."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from csi_core.errors import ConfigError

__all__ = ["Source", "explain"]

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """What a file holds, and where in it; ``lines`` counts from 1."""

    name: str
    content: Any
    lines: dict[KeyPath, int]

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read a YAML file.

        Raises:
            ConfigError: it cannot be read, is no YAML, or has a key twice.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: is not UTF-8 text") from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, name: str) -> Source:
        """The same from text; ``name`` begins every message."""
        try:
            root = yaml.compose(text, yaml.SafeLoader)
            lines = dict(_lines(root, (), name)) if root else {}
            content = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{name}:{line}: is not YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{name}: is not YAML: {error}") from None
        if not isinstance(content, dict):
            raise ConfigError(f"{name}: is no configuration; it begins with the sections `driver:` and `backends:`")
        return cls(name, content, lines)

    def place(self, keys: KeyPath) -> str:
        """``file:line`` of a key, or of the nearest one above it that is in the file."""
        line = self.line(keys)
        return f"{self.name}:{line}" if line else self.name

    def line(self, keys: KeyPath) -> int:
        """The line of the same; 0 where not even the first key is in the file."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 0)


def explain(error: ValidationError, model: type[BaseModel], source: Source, above: KeyPath = ()) -> str:
    """Pydantic's report in words, one line a problem, in the order of the file.

    Args:
        error: what pydantic raised for ``model``.
        model: to find the known keys, for suggestions.
        source: the file that was checked.
        above: the keys under which the checked part lies.
    """
    problems = sorted(error.errors(include_url=False), key=lambda problem: source.line(above + _location(problem)))
    return "\n".join(_problem(problem, model, source, above) for problem in problems)


def _problem(problem: Any, model: type[BaseModel], source: Source, above: KeyPath) -> str:
    location = _location(problem)
    keys = above + location
    dotted = ".".join(str(key) for key in keys)
    place = source.place(keys)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        return f"{place}: {dotted}: unknown key; {_suggestion(str(location[-1]), known)}"
    if problem["type"] == "missing":
        return f"{place}: {dotted}: missing; it is required"
    return f"{place}: {dotted}: {_said(problem)}" if dotted else f"{place}: {_said(problem)}"


def _location(problem: Any) -> KeyPath:
    return tuple(key for key in problem["loc"] if key != "[key]")  # pydantic's mark for "the key itself"


def _said(problem: Any) -> str:
    kind = str(problem["type"])
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return "must be a section with keys of its own"
    if kind == "too_short":
        return "must not be empty"
    return str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "must")


def _suggestion(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word.lower(), [key.lower() for key in known], n=1)
    match = next((key for key in known if close and key.lower() == close[0]), None)
    return f"did you mean {match!r}?" if match else f"known here: {', '.join(known) or 'none'}"


def _known_keys(model: type[BaseModel], above: KeyPath) -> list[str]:
    """The keys of the section at ``above``, found by walking the models down."""
    sections = [model]
    for key in above:
        deeper: list[type[BaseModel]] = []
        for section in sections:
            field = next((f for name, f in section.model_fields.items() if key in (name, f.alias)), None)
            deeper += _models(field.annotation) if field else []
        sections = deeper or sections
    return [field.alias or name for section in sections for name, field in section.model_fields.items()]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in get_args(annotation) for model in _models(part)]


def _lines(
    node: yaml.Node, keys: KeyPath, name: str, above: tuple[yaml.Node, ...] = ()
) -> Iterator[tuple[KeyPath, int]]:
    if any(node is other for other in above):
        raise ConfigError(f"{name}:{node.start_mark.line + 1}: contains itself, by an alias (*); write it out")
    above = (*above, node)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen and key != "<<":
                dotted = ".".join(str(part) for part in (*keys, key))
                raise ConfigError(f"{name}:{line}: {dotted}: is there already in line {seen[key]}; keep one")
            seen[key] = line
            yield (*keys, key), line
            yield from _lines(value_node, (*keys, key), name, above)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*keys, index), item.start_mark.line + 1
            yield from _lines(item, (*keys, index), name, above)
