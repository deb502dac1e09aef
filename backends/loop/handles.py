"""Handles of the loop backend: ``<pool>:<key>``, where a key is a kind's letter, a dash and 20 random hex digits.

Handles come from outside unverified. Only what :func:`split` has let through may reach a path or a query.
"""

from __future__ import annotations

import re
import secrets
from typing import Final, Literal

__all__ = ["KEY", "POOL_NAME", "Kind", "join", "new_key", "split"]

Kind = Literal["v", "s", "g"]
"""Volume, snapshot, group snapshot."""

POOL_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
KEY: Final = re.compile(r"[vsg]-[0-9a-f]{20}")
_HANDLE: Final = re.compile(rf"({POOL_NAME.pattern}):([vsg])-([0-9a-f]{{20}})")


def new_key(kind: Kind) -> str:
    """A key that no other volume, snapshot or group has: 80 random bits."""
    return f"{kind}-{secrets.token_hex(10)}"


def join(pool: str, key: str) -> str:
    """The handle of the object ``key`` of ``pool``."""
    return f"{pool}:{key}"


def split(handle: str, kind: Kind) -> tuple[str, str] | None:
    """Pool name and key of ``handle``, or None where it is not a well-formed handle of this kind."""
    match = _HANDLE.fullmatch(handle)
    if not match or match[2] != kind:
        return None
    return match[1], f"{match[2]}-{match[3]}"
