"""Tables of what is allowed to mkfs and to mounts."""

from __future__ import annotations

import re

from csi_core.node import mkfs_options as mkfs
from csi_core.node import mount_options as mounts
from csi_core.node import share_options as shares
from csi_core.node.mount import ATTRIBUTES

__all__ = ["mkfs_options", "mount_options", "share_options"]

_WORDS = {
    mkfs._NUMBER: "a number",
    mkfs._SIZE: "a size (`64k`)",
    mkfs._SWITCH: "`0` or `1`",
    mounts._NUMBER: "a number",
    mounts._SIZE: "a size (`64k`)",
    shares._SECURITY: "`sys`, `krb5`, `krb5i`, `krb5p`, or several with colons between",
    r"3|4|4\.[012]": "`3`, `4`, `4.0`, `4.1`, `4.2`",
    r"tcp6?|rdma6?": "`tcp`, `tcp6`, `rdma`, `rdma6`",
    r"\d{1,2}": "a number",
    r"\d{1,2}(\.\d{1,3})?": "a percentage",
    r"[a-z][a-z0-9]*(,[a-z][a-z0-9]*)*": "usage types, separated by commas",
    r"[012]": "`0`, `1` or `2`",
    r"no|(lzo|zlib|zstd)(:\d{1,2})?": "`no`, `lzo`, `zlib`, `zstd`, with a level (`zstd:3`)",
    r"(lzo|zlib|zstd)(:\d{1,2})?": "`lzo`, `zlib`, `zstd`, with a level (`zstd:3`)",
}


def mkfs_options() -> str:
    """A table for each filesystem."""
    parts = []
    for fs_type, allowed in mkfs._ALLOWED.items():
        parts += [f"### mkfs.{fs_type}", "", "| option | value |", "|---|---|"]
        for flag, value in allowed.items():
            if isinstance(value, str):
                parts.append(f"| `{flag}` | {_value(value)} |")
            else:
                parts += [f"| `{flag} {name}=` | {_value(pattern)} |" for name, pattern in value.items()]
        parts.append("")
    return "\n".join(parts)


def mount_options() -> str:
    """Those of every mount, then a table for each filesystem."""
    everywhere = ", ".join(f"`{name}`" for name in ("rw", *ATTRIBUTES))
    parts = [f"On every mount: {everywhere}. For one filesystem only:", ""]
    for fs_type, allowed in mounts._ALLOWED.items():
        if not allowed:
            continue
        parts += [f"### {fs_type}", "", "| option | value |", "|---|---|"]
        parts += [f"| `{name}` | {_value(pattern)} |" for name, (pattern, _) in allowed.items()]
        parts.append("")
    return "\n".join(parts)


def share_options() -> str:
    """Options of NFS, by what they are about."""
    parts = ["| about | option | value |", "|---|---|---|"]
    for kind, spellings in shares._NFS.items():
        parts += [f"| {kind} | `{name}` | {_value(pattern)} |" for name, pattern in spellings.items()]
    return "\n".join(parts)


def _value(pattern: str) -> str:
    if pattern in _WORDS:
        return _WORDS[pattern]
    repeated = re.fullmatch(r"\\\^\?\((.*)\)\(,\\\^\?\(\1\)\)\*", pattern)
    names = (repeated[1] if repeated else pattern).replace("sparse_super2?", "sparse_super|sparse_super2")
    listed = ", ".join(f"`{name}`" for name in names.split("|") if name)
    return f"{listed}; each may have `^` before it, several are separated by commas" if repeated else listed
