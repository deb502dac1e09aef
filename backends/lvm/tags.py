"""What an LV carries: fields as LVM tags, so that the volume group describes itself and nothing else is stored.

A tag is at most 1024 characters of ``A-Z a-z 0-9 _ + . - / = ! : & #``. A field ``name: value`` becomes
``csi.name=VALUE``, where each byte outside ``A-Z a-z 0-9 _ . - / :`` is written as ``&`` and two hex digits; what is
too long for one tag goes on in ``csi.name+1=...``, ``csi.name+2=...``. So ``lvs -o +lv_tags`` is readable for people,
and any Unicode comes back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["decode", "encode"]

_PREFIX: Final = "csi."
_LONGEST: Final = 1000
_NUMBER: Final = len("+999=")
_UNSAFE: Final = re.compile(rb"[^A-Za-z0-9_./:-]")
_ESCAPED: Final = re.compile(rb"&([0-9A-F]{2})")
_TAG: Final = re.compile(r"csi\.([A-Za-z0-9_./:&-]+)(?:\+(\d+))?=([A-Za-z0-9_./:&-]*)")


def encode(fields: Mapping[str, str]) -> list[str]:
    """The tags of ``fields``, whose names are short beside a tag. A field that is longer than one tag has several."""
    found = []
    for name, value in fields.items():
        called, safe = f"{_PREFIX}{_escape(name)}", _escape(value)
        length = _LONGEST - len(called) - _NUMBER
        for number, start in enumerate(range(0, max(1, len(safe)), length)):
            more = f"+{number}" if number else ""
            found.append(f"{called}{more}={safe[start : start + length]}")
    return found


def decode(tags: Iterable[str]) -> dict[str, str]:
    """The fields of ``tags``; tags that are none of ours are left out."""
    parts: dict[str, dict[int, str]] = {}
    for tag in tags:
        if match := _TAG.fullmatch(tag):
            parts.setdefault(match[1], {})[int(match[2] or 0)] = match[3]
    return {
        _unescape(name): _unescape("".join(chunks[number] for number in sorted(chunks)))
        for name, chunks in parts.items()
    }


def _escape(text: str) -> str:
    return _UNSAFE.sub(lambda match: b"&%02X" % match[0][0], text.encode()).decode("ascii")


def _unescape(text: str) -> str:
    if "&" not in text:
        return text
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode("ascii")).decode(errors="replace")
