"""The mkfs options that a StorageClass may give, and the command line that they become part of.

An allow-list, as for mount options. Left out on purpose: labels and UUIDs (the core uses the label to
tell a half-made filesystem, see :mod:`csi_core.node.filesystems`), external journals, sizes and
offsets (the device decides), and everything that reads files or touches other devices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from csi_core.errors import InvalidArgument

__all__ = ["FILESYSTEMS", "mkfs_command", "mkfs_options"]

FILESYSTEMS: Final = ("ext4", "xfs", "btrfs")
"""What the core can make, mount and grow."""

_NUMBER, _SIZE, _SWITCH = r"\d{1,12}", r"\d{1,12}[kKmMgG]?", r"[01]"
_EXT4_FEATURES: Final = (
    "64bit|bigalloc|casefold|dir_index|dir_nlink|encrypt|ext_attr|extent|extra_isize|fast_commit|filetype|flex_bg|"
    "has_journal|huge_file|inline_data|large_dir|large_file|metadata_csum|metadata_csum_seed|orphan_file|"
    "resize_inode|sparse_super2?|stable_inodes|uninit_bg|verity"
)
_BTRFS_FEATURES: Final = "block-group-tree|extref|free-space-tree|mixed-bg|no-holes|raid1c34|skinny-metadata"

# flag -> the pattern of its value, or the sub-options it takes with the pattern of each
_ALLOWED: Final[dict[str, dict[str, str | dict[str, str]]]] = {
    "ext4": {
        "-b": _NUMBER,
        "-C": _SIZE,
        "-E": {"num_backup_sb": r"[012]", "packed_meta_blocks": _SWITCH, "stride": _NUMBER, "stripe_width": _NUMBER},
        "-g": _NUMBER,
        "-G": _NUMBER,
        "-i": _NUMBER,
        "-I": _NUMBER,
        "-J": {"size": _NUMBER, "fast_commit_size": _NUMBER},
        "-m": r"\d{1,2}(\.\d{1,3})?",
        "-N": _NUMBER,
        "-O": rf"\^?({_EXT4_FEATURES})(,\^?({_EXT4_FEATURES}))*",
        "-T": r"[a-z][a-z0-9]*(,[a-z][a-z0-9]*)*",
    },
    "xfs": {
        "-b": {"size": _SIZE},
        "-d": {"agcount": _NUMBER, "agsize": _SIZE, "su": _SIZE, "sunit": _NUMBER, "sw": _NUMBER, "swidth": _NUMBER},
        "-i": {
            "maxpct": _NUMBER,
            "nrext64": _SWITCH,
            "perblock": _NUMBER,
            "size": _SIZE,
            "sparse": _SWITCH,
        },
        "-l": {"lazy-count": _SWITCH, "size": _SIZE, "su": _SIZE, "sunit": _NUMBER},
        "-m": dict.fromkeys(("bigtime", "crc", "finobt", "inobtcount", "reflink", "rmapbt"), _SWITCH),
        "-n": {"ftype": _SWITCH, "size": _SIZE},
        "-s": {"size": _SIZE},
    },
    "btrfs": {
        "-d": "single|dup",
        "-m": "single|dup",
        "-n": _SIZE,
        "-s": _SIZE,
        "-O": rf"\^?({_BTRFS_FEATURES})(,\^?({_BTRFS_FEATURES}))*",
        "-R": r"free-space-tree|quota",
        "--csum": "crc32c|xxhash|sha256|blake2",
    },
}


def mkfs_options(fs_type: str, options: Sequence[str]) -> tuple[str, ...]:
    """Check mkfs options (the parameter ``mkfsOptions``).

    Args:
        fs_type: one of :data:`FILESYSTEMS`.
        options: words of a command line; a word may be several with blanks between.

    Returns:
        The words, a flag and its value alternating.

    Raises:
        InvalidArgument: names the option that is not allowed and lists those that are.
    """
    allowed = _ALLOWED[fs_type]
    words = " ".join(options).split()
    checked: list[str] = []
    while words:
        flag, value = _next_option(words)
        pattern = allowed.get(flag)
        if pattern is None or not _valid(pattern, value):
            raise InvalidArgument(
                f"mkfs option {f'{flag} {value}'.strip()!r} is not allowed for {fs_type}; allowed: {_listing(allowed)}"
            )
        checked += [flag, value]
    return tuple(checked)


def _next_option(words: list[str]) -> tuple[str, str]:
    """Take one option off ``words``: ``-i 8192``, ``-i8192`` or ``--csum=xxhash``."""
    word = words.pop(0)
    if word.startswith("--"):
        flag, has_value, value = word.partition("=")
    else:
        flag, value = word[:2], word[2:]
        has_value = value
    return flag, value if has_value or not words else words.pop(0)


def _valid(pattern: str | Mapping[str, str], value: str) -> bool:
    if isinstance(pattern, str):
        return re.fullmatch(pattern, value) is not None
    pairs = [pair.partition("=") for pair in value.split(",")]
    return all(name in pattern and re.fullmatch(pattern[name], given) for name, _, given in pairs)


def _listing(allowed: Mapping[str, str | Mapping[str, str]]) -> str:
    return ", ".join(
        flag if isinstance(pattern, str) else f"{flag} {'|'.join(f'{name}=' for name in pattern)}"
        for flag, pattern in allowed.items()
    )


def mkfs_command(fs_type: str, device: str, options: Sequence[str], keep_allocated: bool, label: str) -> list[str]:
    """The command line that makes a filesystem.

    Args:
        fs_type: one of :data:`FILESYSTEMS`.
        device: path of the block device.
        options: answered by :func:`mkfs_options`; they win over the defaults.
        keep_allocated: the space behind the device is preallocated. The device is never discarded, as that would undo
            it, and costs time on a new sparse one; where it is preallocated the kernel must not zero inode tables
            later either, since it does so by punching holes.
        label: to give to the filesystem.
    """
    if fs_type == "ext4":
        lazy = 0 if keep_allocated else 1
        extended = [f"nodiscard,lazy_itable_init={lazy},lazy_journal_init={lazy}"]
        rest: list[str] = []
        for flag, value in zip(options[::2], options[1::2], strict=True):
            if flag == "-E":  # of several -E only the last counts
                extended.append(value)
            else:
                rest += [flag, value]
        return ["mkfs.ext4", "-F", "-q", "-m", "0", "-L", label, "-E", ",".join(extended), *rest, device]
    return [f"mkfs.{fs_type}", "-f", "-q", "-K", "-L", label, *options, device]
