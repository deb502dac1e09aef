"""The forms and sizes of single request fields (CSI specification, "Size Limits", "Field Requirements")."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from csi_core.errors import InvalidArgument

__all__ = [
    "MAX_MAP_BYTES",
    "MAX_NODE_ID_BYTES",
    "MAX_STRING_BYTES",
    "check_id",
    "check_map",
    "check_name",
    "check_string",
    "check_strings",
    "not_negative",
    "parse_path",
    "require",
]

MAX_STRING_BYTES = 128
MAX_MAP_BYTES = 4096
MAX_NODE_ID_BYTES = 256
_MAX_PATH_BYTES = 4095
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UTF8_MAX = 4


def require(value: object, field: str) -> None:
    """Refuse a required field that was left out.

    Raises:
        InvalidArgument: ``value`` is empty.
    """
    if not value:
        raise InvalidArgument(f"{field} is required")


def check_string(text: str, field: str, limit_bytes: int = MAX_STRING_BYTES) -> None:
    """Refuse a string above ``limit_bytes``."""
    if len(text) * _UTF8_MAX > limit_bytes and (size := len(text.encode())) > limit_bytes:
        raise InvalidArgument(f"{field} is {size} bytes long; at most {limit_bytes} are allowed")


def check_name(name: str, field: str) -> None:
    """A name that the CO chose: required, any Unicode but control characters, at most 128 bytes."""
    require(name, field)
    check_string(name, field)
    if _CONTROL.search(name):
        raise InvalidArgument(f"{field} {name!r} holds control characters")


def check_id(identifier: str, field: str) -> None:
    """An id that this driver gave out: required, at most 128 bytes. Its form is the router's to judge."""
    require(identifier, field)
    check_string(identifier, field)


def check_map(entries: Mapping[str, str], field: str) -> None:
    """Refuse a map of more than 4 KiB, keys and values together."""
    if not entries:
        return
    characters = sum(map(len, entries)) + sum(map(len, entries.values()))
    if characters * _UTF8_MAX <= MAX_MAP_BYTES:
        return
    size = sum(len(key.encode()) + len(value.encode()) for key, value in entries.items())
    if size > MAX_MAP_BYTES:
        raise InvalidArgument(f"{field} holds {size} bytes; at most {MAX_MAP_BYTES} are allowed")


def check_strings(texts: Sequence[str], field: str) -> None:
    """Refuse a list of strings of more than 4 KiB in all."""
    size = sum(len(text.encode()) for text in texts)
    if size > MAX_MAP_BYTES:
        raise InvalidArgument(f"{field} hold {size} bytes in all; at most {MAX_MAP_BYTES} are allowed")


def not_negative(number: int, field: str) -> int:
    """Refuse a negative number; answer it otherwise."""
    if number < 0:
        raise InvalidArgument(f"{field} is {number}; it must not be negative")
    return number


def parse_path(text: str, field: str) -> Path:
    """An absolute path that stays where it points.

    Raises:
        InvalidArgument: empty, relative, too long, or with a ``..`` that could lead elsewhere.
    """
    require(text, field)
    check_string(text, field, _MAX_PATH_BYTES)
    path = Path(text)
    if not path.is_absolute():
        raise InvalidArgument(f"{field} {text!r} is not an absolute path")
    if ".." in path.parts or "\0" in text:
        raise InvalidArgument(f"{field} {text!r} must not contain '..' or NUL")
    return path
