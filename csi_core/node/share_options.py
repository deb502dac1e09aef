"""The mount options of network shares that may be asked for, and what becomes of them.

An allow-list, as for local filesystems (:mod:`csi_core.node.mount_options`): what it does not name is refused, so that
no option leads a mount elsewhere (``addr``, ``mountaddr``, ``clientaddr``), leaves it trying behind everybody's back
(``bg``, ``retry``), or keeps the volumes of one server from sharing its connections (``nosharecache``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from csi_core.errors import InvalidArgument
from csi_core.node.mount_options import without_secret
from csi_core.node.mountinfo import Mount

__all__ = ["ShareOptions", "share_contradiction", "share_options"]

_FLAG, _NUMBER = "", r"\d{1,9}"
_SECURITY: Final = r"(sys|krb5|krb5i|krb5p)(:(sys|krb5|krb5i|krb5p))*"

_NFS: Final[dict[str, dict[str, str]]] = {
    # what the options of one line say is one thing: the last one asked for holds
    "version": {"nfsvers": r"3|4|4\.[012]", "vers": r"3|4|4\.[012]"},
    "minor version": {"minorversion": "[012]"},
    "patience": {"hard": _FLAG, "soft": _FLAG, "softerr": _FLAG},
    "transport": {"proto": "tcp6?|rdma6?", "tcp": _FLAG, "rdma": _FLAG},
    "transport security": {"xprtsec": "none|tls|mtls"},
    "security": {"sec": _SECURITY},
    "port": {"port": _NUMBER},
    "time-out": {"timeo": _NUMBER},
    "retransmissions": {"retrans": _NUMBER},
    "read size": {"rsize": _NUMBER},
    "write size": {"wsize": _NUMBER},
    "connections": {"nconnect": r"\d{1,2}"},
    "trunks": {"max_connect": r"\d{1,2}"},
    "source port": {"resvport": _FLAG, "noresvport": _FLAG},
    "attribute caching": {"ac": _FLAG, "noac": _FLAG, "actimeo": _NUMBER},
    "acregmin": {"acregmin": _NUMBER},
    "acregmax": {"acregmax": _NUMBER},
    "acdirmin": {"acdirmin": _NUMBER},
    "acdirmax": {"acdirmax": _NUMBER},
    "look-up caching": {"lookupcache": "all|none|pos|positive"},
    "close-to-open": {"cto": _FLAG, "nocto": _FLAG},
    "access control lists": {"acl": _FLAG, "noacl": _FLAG},
    "directory reading": {"rdirplus": _FLAG, "nordirplus": _FLAG},
    "locks": {"lock": _FLAG, "nolock": _FLAG},
    "locks kept locally": {"local_lock": "all|flock|posix|none"},
    "local cache": {"fsc": _FLAG, "nofsc": _FLAG},
    # of the mount, not of NFS
    "set-user-id": {"suid": _FLAG, "nosuid": _FLAG},
    "device nodes": {"dev": _FLAG, "nodev": _FLAG},
    "programs": {"exec": _FLAG, "noexec": _FLAG},
    "access times": {"atime": _FLAG, "noatime": _FLAG, "relatime": _FLAG},
    "access times of directories": {"diratime": _FLAG, "nodiratime": _FLAG},
}
_ALLOWED: Final = {"nfs": _NFS, "nfs4": _NFS}
_COMPARED: Final = ("patience", "security", "time-out", "retransmissions", "transport")
"""What the kernel lists just as it was asked for; sizes and connections it settles with the server."""
_MOUNT_FLAGS: Final = frozenset({"nosuid", "nodev", "noexec"})


@dataclass(frozen=True, slots=True)
class ShareOptions:
    """Checked options of a share, one of each kind, by kind; and whether it is mounted read-only."""

    by_kind: dict[str, str]
    read_only: bool

    @property
    def text(self) -> str:
        """As mount(8) takes them. ``retry=0``: whether to try again is the orchestrator's to say."""
        return ",".join(("ro" if self.read_only else "rw", *self.by_kind.values(), "retry=0"))


def share_options(fs_type: str, flags: Sequence[str], read_only: bool) -> ShareOptions:
    """Check the mount options of a share.

    Args:
        fs_type: of the share: ``nfs``.
        flags: the backend's, then the capability's; each may be several with commas between. Of two that contradict
            each other the last one holds.
        read_only: the access mode has no writer; the option ``ro`` asks for the same.

    Raises:
        InvalidArgument: names the option that is not allowed and lists those that are.
    """
    kinds = _ALLOWED.get(fs_type, {})
    by_kind: dict[str, str] = {}
    for option in (part.strip() for flag in flags for part in flag.split(",")):
        if option == "ro":
            read_only = True
        elif option not in ("", "rw", "defaults"):
            kind = _kind(kinds, option)
            by_kind.pop(kind, None)
            by_kind[kind] = option
    return ShareOptions(by_kind, read_only)


def _kind(kinds: dict[str, dict[str, str]], option: str) -> str:
    name, has_value, value = option.partition("=")
    for kind, spellings in kinds.items():
        pattern = spellings.get(name)
        if pattern is not None and bool(has_value) == bool(pattern) and re.fullmatch(pattern, value):
            return kind
    known = sorted(f"{name}={p}" if p else name for spellings in kinds.values() for name, p in spellings.items())
    readable = ", ".join(known).replace(_SECURITY, "FLAVOURS").replace(_NUMBER, "NUMBER").replace(r"\d{1,2}", "NUMBER")
    shown = without_secret(option, {name for spellings in kinds.values() for name in spellings})
    raise InvalidArgument(
        f"mount option {shown!r} is not allowed for a network share; allowed: ro, rw"
        + (f", {readable}".replace("\\", "") if readable else "")
    )


def share_contradiction(mount: Mount, wanted: ShareOptions) -> str:
    """How a mounted share differs from the options now asked for; "" where it does not, as far as can be told."""
    if mount.read_only != wanted.read_only:
        modes = ("writable", "read-only")
        return f"it is mounted {modes[mount.read_only]}, and {modes[wanted.read_only]} is asked for"
    asked_flags = _MOUNT_FLAGS & set(wanted.by_kind.values())
    if differing := asked_flags ^ (mount.options & _MOUNT_FLAGS):
        return f"it differs in the mount options {', '.join(sorted(differing))}"
    version = wanted.by_kind.get("version", "").partition("=")[2]
    mounted_version = next((o.removeprefix("vers=") for o in mount.super_options if o.startswith("vers=")), version)
    if version and not (f"{mounted_version}.").startswith(f"{version}."):
        return f"it is mounted with NFS {mounted_version}, and {version} is asked for"
    for kind in _COMPARED:
        asked = wanted.by_kind.get(kind, "")
        asked = f"proto={asked}" if kind == "transport" and asked and "=" not in asked else asked
        if asked and asked not in mount.super_options:
            return f"it is mounted without the option {asked}"
    return ""
