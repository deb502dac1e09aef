"""The kernel's mount table, read from /proc/self/mountinfo (proc(5)).

It is the only record of what is staged and published where: it survives the driver and ends with the
kernel, exactly as the mounts do. It is read once a call, and only lines that can match are parsed: a
node may have thousands of mounts.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NETWORK_TYPES", "Mount", "MountTable", "canonical", "escape", "unescape"]

NETWORK_TYPES = frozenset({"ceph", "cifs", "nfs", "nfs4", "smb3"})
"""Filesystems whose server can fail: any call on a path of theirs may then wait for ever."""

MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
_ESCAPED = str.maketrans({" ": "\\040", "\t": "\\011", "\n": "\\012", "\\": "\\134"})


def unescape(field: str) -> str:
    """A field of mountinfo as it was before the kernel wrote blanks and backslashes in octal."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field) if "\\" in field else field


def escape(path: str) -> str:
    """``path`` as the kernel writes it in mountinfo's path fields."""
    return path.translate(_ESCAPED)


def canonical(path: Path) -> Path:
    """``path`` with the links in its parents resolved, as mountinfo names it; a link in the last place stays."""
    return Path(os.path.realpath(path.parent)) / path.name


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table.

    Attributes:
        id, parent_id: the kernel's numbers; of several mounts stacked on a path the last line is on top.
        device: ``major:minor``; anonymous for btrfs, NFS and tmpfs.
        root: what of the filesystem is shown: "/" for all, the node's name for a device node bound to a file.
        path: where it is mounted.
        options: of this mount, such as ``ro`` or ``noexec``.
        fs_type, source: as given to mount(2).
        super_options: of the whole filesystem.
        peers: the number of its group of shared mounts, in which a bind of it is too; "" where it is not shared.
    """

    id: int
    parent_id: int
    device: str
    root: str
    path: Path
    options: frozenset[str]
    fs_type: str
    source: str
    super_options: frozenset[str]
    peers: str = ""

    @property
    def read_only(self) -> bool:
        """Whether writing through this mount is refused, by the mount or by its filesystem."""
        return "ro" in self.options or "ro" in self.super_options

    @property
    def on_network(self) -> bool:
        """Whether what is mounted is on a server."""
        return self.fs_type in NETWORK_TYPES

    @property
    def content(self) -> tuple[str, str, str]:
        """What the mount shows: equal for a filesystem and all binds of it.

        Shares of one server may have one device number, and "/" as the root each; their sources tell them apart.
        """
        return self.device, self.root, self.source if self.on_network else ""

    def shown_at(self, path: Path) -> tuple[str, str, str]:
        """What it shows at ``path``, which is at or below its own: the content of a mount of that."""
        device, root, source = self.content
        return device, str(Path(root) / path.relative_to(self.path)), source


def parse(line: str) -> Mount:
    """One line; of the optional fields between the sixth and the lone hyphen, one is of interest."""
    mount_fields, _, filesystem_fields = line.partition(" - ")
    mount_id, parent_id, device, root, path, options, *optional = mount_fields.split(" ")
    fs_type, source, *super_options = filesystem_fields.split(" ")
    return Mount(
        id=int(mount_id),
        parent_id=int(parent_id),
        device=device,
        root=unescape(root),
        path=Path(unescape(path)),
        options=frozenset(options.split(",")),
        fs_type=unescape(fs_type),
        source=unescape(source),
        super_options=frozenset(unescape(" ".join(super_options)).split(",")),
        peers=next((field.removeprefix("shared:") for field in optional if field.startswith("shared:")), ""),
    )


class MountTable:
    """A snapshot of the mount table."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")  # splitlines() would also split at a \r or a form feed within a path

    @classmethod
    def read(cls) -> MountTable:
        """The table as it is now."""
        return cls(os.fsdecode(MOUNTINFO.read_bytes()))

    def all(self) -> tuple[Mount, ...]:
        """Every mount, in the order in which they were made as far as the kernel tells."""
        return tuple(self._matching(" "))

    def at(self, path: Path) -> Mount | None:
        """The mount on top at ``path`` (canonical), or None where nothing is mounted on it."""
        stack = self.stack(path)
        return stack[-1] if stack else None

    def stack(self, path: Path) -> tuple[Mount, ...]:
        """Every mount on ``path``, the top one last."""
        return tuple(m for m in self._matching(f" {escape(str(path))} ") if m.path == path)

    def showing(self, content: tuple[str, str, str]) -> tuple[Mount, ...]:
        """Every mount that shows this content (:attr:`Mount.content`)."""
        device, root, _ = content
        return tuple(m for m in self._matching(f" {device} {escape(root)} ") if m.content == content)

    def elsewhere(self, mount: Mount) -> tuple[Mount, ...]:
        """Every mount of what ``mount`` shows that is on another directory.

        One directory may be seen at several paths, such as the kubelet's own where it is bound from a data disk; what
        is mounted on it is then listed at each of them, and is one mount all the same.
        """
        others = [m for m in self.showing(mount.content) if m.path != mount.path]
        if mount.on_network and mount.peers:  # two volumes may be of one export; only binds are of the same group
            others = [m for m in others if m.peers == mount.peers]
        if not others:
            return ()
        here = {self._place(m) for m in self.stack(mount.path)}
        return tuple(m for m in others if self._place(m) not in here)

    def _place(self, mount: Mount) -> tuple[str, str, str]:
        """The directory or file that a mount is on, by the filesystem that it belongs to."""
        parent = next((parse(line) for line in self._lines if line.startswith(f"{mount.parent_id} ")), None)
        if parent is None or not mount.path.is_relative_to(parent.path):  # outside of what this process sees
            return "", str(mount.path), ""
        return parent.shown_at(mount.path)

    def of_device(self, device: Path) -> tuple[Mount, ...]:
        """Every mount of the filesystem on the block device ``device``."""
        number = device.stat().st_rdev
        by_number = f" {os.major(number)}:{os.minor(number)} "
        found = [m for m in self._matching(by_number) if m.device == by_number.strip()]
        # btrfs has anonymous device numbers and names its device as the source
        found += [m for m in self._matching(" - btrfs ") if m.fs_type == "btrfs" and _is_device(m.source, number)]
        return tuple(found)

    def of_node(self, device: Path) -> tuple[Mount, ...]:
        """Every file that the node of ``device`` is bound to, as raw block volumes are."""
        return tuple(m for m in self._matching(" - devtmpfs ") if m.root == f"/{device.name}")

    def of_source(self, source: str) -> tuple[Mount, ...]:
        """Every mount of a network share."""
        return tuple(m for m in self._matching(f" {escape(source)} ") if m.source == source)

    def content_of(self, path: Path) -> tuple[str, str, str]:
        """What a mount of the directory ``path`` would show."""
        resolved = Path(os.path.realpath(path))
        for parent in (resolved, *resolved.parents):
            if (mount := self.at(parent)) is not None:
                return mount.shown_at(resolved)
        return "", "", ""

    def is_on_network(self, path: Path) -> bool:
        """Whether ``path`` (canonical) lies on a share; found out without touching it."""
        mount = next((m for m in map(self.at, (path, *path.parents)) if m is not None), None)
        return mount is not None and mount.on_network

    def of_types(self, fs_types: frozenset[str]) -> tuple[Mount, ...]:
        """Every mount of a filesystem of one of these types."""
        return tuple(m for fs_type in sorted(fs_types) for m in self._matching(f" - {fs_type} "))

    def _matching(self, needle: str) -> list[Mount]:
        return [parse(line) for line in self._lines if needle in line]


def _is_device(source: str, number: int) -> bool:
    try:
        return Path(source).stat().st_rdev == number
    except OSError:
        return False
