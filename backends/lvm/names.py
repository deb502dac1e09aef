"""Names: a handle is as :mod:`csi_core.handles` has it, an LV is ``csi-<key>``, and a key follows from a name.

The same name leads to the same LV, so a retry after a lost answer finds what the first call made: lvcreate itself
refuses to make it twice. The name as it was given is in a tag (:mod:`backends.lvm.tags`), for an LV's own may hold few
characters. Beside the kinds of handles, keys have the letter ``t``: a temporary snapshot that a copy reads from.
"""

from __future__ import annotations

import re
from typing import Final

from csi_core.handles import join, make_key, split

__all__ = ["dm_name", "front_name", "join", "key_of", "kind_of", "lv_name", "make_key", "split"]

_KEY: Final = re.compile(r"[vsgt]-[0-9a-f]{20}")
_PREFIX: Final = "csi-"


def kind_of(key: str) -> str:
    """The letter that says what ``key`` is of."""
    return key[:1]


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
