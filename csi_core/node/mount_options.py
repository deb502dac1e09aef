"""The mount options that a user may ask for, and what becomes of them.

An allow-list: what it does not name is refused, so no option reaches the kernel that could redirect a
mount (``loop``, ``bind``, ``subvol``), reach devices (``dev``), crash the node (``errors=panic``), or
give up data on power loss (``nobarrier``). By default a mount carries no option at all: ``nosuid`` and
``nodev`` are up to the user, as everywhere in Kubernetes, where images rely on setuid programs; device
nodes on a volume are already held back by the container's device control group.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from csi_core.errors import InvalidArgument
from csi_core.node.mount import ATTRIBUTES
from csi_core.node.mountinfo import Mount

__all__ = ["DIRECTORY", "MountOptions", "contradiction", "directory_contradiction", "mount_options", "without_secret"]

DIRECTORY: Final = "directory"
"""In place of a filesystem type: a bound directory takes the options of a mount only."""

Shown = Literal["explicit", "always", "never"]
"""Whether the kernel lists an option in mountinfo: if and only if it was set, also where it was not, or not reliably
(some are the default; ``discard`` is dropped where the device cannot)."""

_FLAG, _NUMBER, _SIZE = "", r"\d{1,9}", r"\d{1,9}[kKmMgG]?"

_ALLOWED: Final[dict[str, dict[str, tuple[str, Shown]]]] = {
    "ext4": {
        "acl": (_FLAG, "never"),
        "auto_da_alloc": (_FLAG, "never"),
        "noauto_da_alloc": (_FLAG, "explicit"),
        "commit": (_NUMBER, "explicit"),
        "data": ("ordered|journal|writeback", "explicit"),
        "delalloc": (_FLAG, "never"),
        "nodelalloc": (_FLAG, "explicit"),
        "discard": (_FLAG, "never"),
        "nodiscard": (_FLAG, "never"),
        "errors": ("continue|remount-ro", "never"),
        "init_itable": (_NUMBER, "explicit"),
        "noinit_itable": (_FLAG, "explicit"),
        "inode_readahead_blks": (_NUMBER, "explicit"),
        "lazytime": (_FLAG, "explicit"),
        "max_batch_time": (_NUMBER, "explicit"),
        "min_batch_time": (_NUMBER, "explicit"),
        "stripe": (_NUMBER, "always"),  # mkfs writes down the stripes of RAID and thin devices
        "user_xattr": (_FLAG, "never"),
    },
    "xfs": {
        "allocsize": (_SIZE, "explicit"),
        "discard": (_FLAG, "never"),
        "nodiscard": (_FLAG, "never"),
        "filestreams": (_FLAG, "explicit"),
        "inode32": (_FLAG, "explicit"),
        "inode64": (_FLAG, "always"),
        "largeio": (_FLAG, "explicit"),
        "nolargeio": (_FLAG, "never"),
        "lazytime": (_FLAG, "explicit"),
        "logbsize": (_SIZE, "always"),
        "logbufs": (_NUMBER, "always"),
        "noalign": (_FLAG, "explicit"),
        "nouuid": (_FLAG, "always"),
        "swalloc": (_FLAG, "explicit"),
        "wsync": (_FLAG, "explicit"),
    },
    "btrfs": {
        "acl": (_FLAG, "never"),
        "autodefrag": (_FLAG, "explicit"),
        "noautodefrag": (_FLAG, "never"),
        "commit": (_NUMBER, "explicit"),
        "compress": (r"no|(lzo|zlib|zstd)(:\d{1,2})?", "explicit"),
        "compress-force": (r"(lzo|zlib|zstd)(:\d{1,2})?", "explicit"),
        "discard": ("async|sync", "never"),
        "nodiscard": (_FLAG, "never"),
        "flushoncommit": (_FLAG, "explicit"),
        "lazytime": (_FLAG, "explicit"),
        "max_inline": (_NUMBER, "explicit"),
        "metadata_ratio": (_NUMBER, "explicit"),
        "skip_balance": (_FLAG, "explicit"),
        "ssd": (_FLAG, "always"),
        "nossd": (_FLAG, "explicit"),
        "ssd_spread": (_FLAG, "explicit"),
        "thread_pool": (_NUMBER, "never"),
    },
    DIRECTORY: {},
}
_KNOWN: Final = frozenset(name for options in _ALLOWED.values() for name in options)
_ACCESS_TIMES: Final = ("noatime", "strictatime", "relatime")
_FLAGS: Final = frozenset(ATTRIBUTES) - {"ro", *_ACCESS_TIMES}
_ALWAYS: Final = {"xfs": ("nouuid",)}
"""Set by the core. XFS refuses a second filesystem of one UUID, and snapshots and clones have their source's."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """Checked options, apart: of the mount, of the filesystem, and whether it is read-only."""

    attributes: tuple[str, ...] = ()
    filesystem: tuple[str, ...] = ()
    read_only: bool = False


def mount_options(fs_type: str, flags: Sequence[str], read_only: bool = False) -> MountOptions:
    """Check a capability's mount flags (CSI ``VolumeCapability.MountVolume.mount_flags``).

    Args:
        fs_type: the filesystem, or :data:`DIRECTORY`.
        flags: options, each of which may be several with commas between, as in a StorageClass.
        read_only: the access mode has no writer; the option ``ro`` asks for the same.

    Raises:
        InvalidArgument: names the option that is not allowed and lists those that are.
    """
    attributes: dict[str, None] = {}
    filesystem = dict.fromkeys(_ALWAYS.get(fs_type, ()))
    for option in (part.strip() for flag in flags for part in flag.split(",")):
        if option in ("", "rw", "defaults"):
            continue
        if option == "ro":
            read_only = True
        elif option in ATTRIBUTES:
            attributes[option] = None
        elif _allowed(fs_type, option):
            filesystem[option] = None
        else:
            raise InvalidArgument(_refusal(fs_type, option))
    return MountOptions(tuple(attributes), tuple(filesystem), read_only)


def _allowed(fs_type: str, option: str) -> bool:
    name, has_value, value = option.partition("=")
    pattern, _ = _ALLOWED.get(fs_type, {}).get(name, (None, None))
    if pattern is None:
        return False
    if fs_type == "btrfs" and name == "discard" and not has_value:
        return True
    return bool(has_value) == bool(pattern) and re.fullmatch(pattern, value) is not None


def _refusal(fs_type: str, option: str) -> str:
    known = [f"{name}={values}" if values else name for name, (values, _) in _ALLOWED.get(fs_type, {}).items()]
    known = [k.replace(_SIZE, "SIZE").replace(_NUMBER, "NUMBER") for k in known]
    return (
        f"mount option {without_secret(option, _KNOWN)!r} is not allowed for {fs_type}; "
        f"allowed: {', '.join(sorted({'ro', 'rw', *ATTRIBUTES, *known}))}"
    )


def without_secret(option: str, known: Container[str]) -> str:
    """An option as a message may show it, to those who see a pod's events.

    CSI calls mount flags sensitive ("VolumeCapability"): the value of one that is not known may be a password.
    """
    name, has_value, _ = option.partition("=")
    return f"{name}=***" if has_value and name not in known else option


def contradiction(mount: Mount, wanted: MountOptions) -> str:
    """How a mounted filesystem differs from the options now asked for; "" where it does not.

    Options that the kernel does not list (:data:`Shown` "never") cannot be compared.
    """
    if mount.read_only != wanted.read_only:
        return f"it is mounted {_mode(mount.read_only)}, and {_mode(wanted.read_only)} is asked for"
    if differing := (mount.options & _FLAGS) ^ (set(wanted.attributes) & _FLAGS):
        return f"it differs in the mount options {', '.join(sorted(differing))}"
    present_times, asked_times = (
        _access_times(mount.options, "strictatime"),
        _access_times(wanted.attributes, "relatime"),
    )
    if present_times != asked_times:
        return f"it is mounted with {present_times}, and {asked_times} is asked for"
    allowed = _ALLOWED.get(mount.fs_type, {})
    present = dict(option.partition("=")[::2] for option in mount.super_options)
    asked = dict(option.partition("=")[::2] for option in wanted.filesystem)
    for name, (_, shown) in allowed.items():
        if shown == "never" or (shown == "always" and name not in asked):
            continue
        if (name in present) != (name in asked) or not _same(present.get(name, ""), asked.get(name, "")):
            return f"it differs in the mount option {name}"
    return ""


def directory_contradiction(mount: Mount, wanted: MountOptions) -> str:
    """The same for a bound directory, which has the options of the mount it lies on besides."""
    if wanted.read_only and not mount.read_only:
        return "it is mounted writable, and read-only is asked for"
    missing = set(wanted.attributes) & _FLAGS - mount.options
    return f"it lacks the mount options {', '.join(sorted(missing))}" if missing else ""


def _access_times(options: Collection[str], default: str) -> str:
    """How access times are kept; the kernel lists ``strictatime`` as the absence of the others."""
    return next((times for times in _ACCESS_TIMES if times in options), default)


def _mode(read_only: bool) -> str:
    return "read-only" if read_only else "writable"


def _same(present: str, asked: str) -> bool:
    """Compare values: the kernel writes ``1m`` as ``1024k`` and ``zstd`` as ``zstd:3``."""
    return present == asked or _bytes(present) == _bytes(asked) or (bool(asked) and present.startswith(f"{asked}:"))


def _bytes(value: str) -> int | str:
    match = re.fullmatch(r"(\d+)([kmg]?)", value.lower())
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2]] if match else value
