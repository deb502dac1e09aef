"""Handles of a backend that has several stores: ``<store>:<key>``, a key being a kind's letter, a dash, 20 hex digits.

Handles come from outside unverified. Only what :func:`split` has let through may reach a path, a query or a command
line. :class:`csi_core.stores.Stores` finds the store that one names.
"""

from __future__ import annotations

import re
import secrets
from hashlib import blake2b
from typing import Final, Literal

__all__ = ["KEY", "STORE_NAME", "Kind", "join", "make_key", "new_key", "split"]

Kind = Literal["v", "s", "g"]
"""Volume, snapshot, group snapshot."""

STORE_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
"""What a store may be called: check it where the options are read."""

KEY: Final = re.compile(r"[vsg]-[0-9a-f]{20}")
_HANDLE: Final = re.compile(rf"({STORE_NAME.pattern}):({KEY.pattern})")
_KEY_BYTES: Final = 10


def make_key(kind: str, name: str) -> str:
    """The key of what is created under ``name``, 80 bits of its hash: a retry finds what the first call made.

    Args:
        kind: the letter of a :data:`Kind`, or of one that the backend keeps to itself.
        name: as the call gave it. It cannot be had back from the key, so record it.
    """
    return f"{kind}-{blake2b(name.encode(), digest_size=_KEY_BYTES).hexdigest()}"


def new_key(kind: Kind) -> str:
    """A key that nothing else has, 80 random bits, for a backend that records each name once."""
    return f"{kind}-{secrets.token_hex(_KEY_BYTES)}"


def join(store: str, key: str) -> str:
    """The handle of the object ``key`` of a store."""
    return f"{store}:{key}"


def split(handle: str, kind: Kind) -> tuple[str, str] | None:
    """Store name and key of ``handle``, or None where it is not a well-formed handle of this kind."""
    match = _HANDLE.fullmatch(handle)
    return (match[1], match[2]) if match and match[2].startswith(kind) else None
