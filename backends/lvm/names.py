"""Names: a handle is ``<class>:<key>``, an LV ``csi-<key>``; a key is a kind's letter, a dash and a hash of a name.

The same name leads to the same LV, so a retry after a lost answer finds what the first call made: lvcreate itself
refuses to make it twice. The name as it was given is in a tag (:mod:`backends.lvm.tags`), for an LV's own may hold few
characters.

Handles come from outside unverified. Only what :func:`split` has let through may reach a command line.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final, Literal

__all__ = ["CLASS_NAME", "Kind", "dm_name", "front_name", "join", "key_of", "kind_of", "lv_name", "make_key", "split"]

Kind = Literal["v", "s", "g", "t"]
"""Volume, snapshot, group of snapshots (which has no LV of its own), temporary snapshot that a copy reads from."""

CLASS_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_KEY_BYTES: Final = 10
_KEY: Final = re.compile(r"[vsgt]-[0-9a-f]{20}")
_HANDLE: Final = re.compile(rf"({CLASS_NAME.pattern}):({_KEY.pattern})")
_PREFIX: Final = "csi-"


def make_key(kind: Kind, name: str) -> str:
    """The key of what is created under ``name``: 80 bits of its hash."""
    return f"{kind}-{blake2b(name.encode(), digest_size=_KEY_BYTES).hexdigest()}"


def kind_of(key: str) -> str:
    """The letter that says what ``key`` is of."""
    return key[:1]


def join(class_name: str, key: str) -> str:
    """The handle of the object ``key`` of a device class."""
    return f"{class_name}:{key}"


def split(handle: str, kind: Kind) -> tuple[str, str] | None:
    """Class and key of ``handle``, or None where it is not a well-formed handle of this kind."""
    match = _HANDLE.fullmatch(handle)
    return (match[1], match[2]) if match and kind_of(match[2]) == kind else None


def lv_name(key: str) -> str:
    """The LV of a volume or snapshot."""
    return f"{_PREFIX}{key}"


def key_of(lv: str) -> str | None:
    """The key in an LV's name, or None where it is none of ours."""
    key = lv.removeprefix(_PREFIX)
    return key if key != lv and _KEY.fullmatch(key) else None


def dm_name(vg: str, lv: str) -> str:
    """The name of an LV's device-mapper device: dashes within the two names are doubled."""
    return f"{vg.replace('-', '--')}-{lv.replace('-', '--')}"


def front_name(vg: str, lv: str) -> str:
    """The name of the device-mapper device that a volume is attached as, in the manner of LVM's own layers."""
    return f"{dm_name(vg, lv)}-csi"
