"""What the node calls need of the node they run on, and its two makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from csi_core.model import BlockSource, ShareSource, Source, VolumeCapability
from csi_core.node.kernel import KernelMounts
from csi_core.node.mounted import MountedFilesystem
from csi_core.node.mountinfo import Mount
from csi_core.node.requests import VolumeUsage
from csi_core.node.simulated import SimulatedMounts

__all__ = ["KernelMounts", "Mounts", "SimulatedMounts"]


class Mounts(Protocol):
    """The mounts of a node. Paths are canonical (:func:`csi_core.node.mountinfo.canonical`)."""

    def at(self, path: Path) -> Mount | None:
        """The mount on top at ``path``, or None."""

    def elsewhere(self, mount: Mount) -> tuple[Mount, ...]:
        """Every mount of what ``mount`` shows that is on another directory or file."""

    def in_use(self, source: Source) -> bool:
        """Whether the filesystem of a source is mounted anywhere here."""

    def shows(self, mount: Mount, source: Source) -> bool:
        """Whether ``mount`` is one of ``source``."""

    def contradiction(self, mount: Mount, capability: VolumeCapability, source: Source) -> str:
        """How a mount of ``source`` differs from what ``capability`` asks for; "" where it does not."""

    def mount_block(
        self,
        source: BlockSource,
        capability: VolumeCapability,
        served: Sequence[str],
        mark_formatted: Callable[[str], None],
        path: Path,
    ) -> None:
        """Mount the filesystem on a device at ``path``; make it first, once, where there is none.

        Args:
            source: the device.
            capability: filesystem type, mount flags, mount group, and whether anybody writes.
            served: the types that the backend declares, the default first.
            mark_formatted: records the type; called before the mount can be seen.
            path: a directory.
        """

    def mount_share(self, source: ShareSource, capability: VolumeCapability, path: Path) -> None:
        """Mount a network share at ``path``.

        Raises:
            Unavailable: its server does not answer.
            PermissionDenied, FailedPrecondition: it does not let this node have it.
            InvalidArgument: a mount option that is not allowed.
        """

    def answers(self, mount: Mount) -> bool:
        """Whether ``mount`` can be used; False where it is of a share and stale, so that it must be mounted anew.

        Raises:
            Unavailable: the share's server does not answer.
        """

    def usage(self, mount: Mount) -> tuple[VolumeUsage, ...]:
        """Bytes and inodes of the filesystem that ``mount`` shows.

        Raises:
            Unavailable: it is a share, and its server does not answer.
        """

    def bind(self, source: Path, target: Path, attributes: Sequence[str] = ()) -> None:
        """Show ``source`` at ``target`` too; ``attributes`` such as ``ro`` hold from the first moment."""

    def unmount(self, path: Path) -> None:
        """Take away every mount at ``path``; nothing mounted is fine.

        Raises:
            FailedPrecondition: it is in use; names who uses it.
        """

    def set_device_read_only(self, node: Path, read_only: bool) -> None:
        """Refuse writes to the block device behind ``node``, or allow them again."""

    def device_size_bytes(self, node: Path) -> int:
        """Size of the block device behind ``node``."""

    def is_device(self, mount: Mount) -> bool:
        """Whether ``mount`` shows a block device rather than a directory."""

    def filesystem_on(self, device: Path) -> MountedFilesystem | None:
        """The filesystem on a device where it is mounted writable, else None."""

    def grow(self, mount: Mount) -> int:
        """Grow the filesystem of ``mount`` to its device; answer the device's size in bytes, 0 where it has none."""
