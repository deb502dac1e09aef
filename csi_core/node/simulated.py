"""Mounts without root, for the simulator: a mount is a symbolic link in place of the directory or file.

The link itself is the record: it survives the driver. A read-only mount is a link spelled with a
leading ``/.``, which changes nothing about where it leads. Nobody is kept from writing through it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from csi_core.errors import FailedPrecondition
from csi_core.model import BlockSource, DirectorySource, ShareSource, Source, VolumeCapability
from csi_core.node.mount_options import DIRECTORY, mount_options
from csi_core.node.mountinfo import Mount
from csi_core.node.requests import VolumeUsage
from csi_core.node.space import local_usage

__all__ = ["SimulatedMounts"]

_READ_ONLY: Final = "/."
_FS_TYPE: Final = "simulated"


class SimulatedMounts:
    """A node on which nothing needs privileges. Which paths are mounts is remembered for one process."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._paths: set[Path] = set()

    def at(self, path: Path) -> Mount | None:
        try:
            link = os.readlink(path)  # noqa: PTH115 - Path.readlink() would take the "/." out
        except OSError:
            return None
        read_only = link.startswith(f"{_READ_ONLY}/")
        with self._mutex:
            self._paths.add(path)
        return Mount(
            id=0,
            parent_id=0,
            device="simulated",
            root=link.removeprefix(_READ_ONLY) if read_only else link,
            path=path,
            options=frozenset({"ro" if read_only else "rw"}),
            fs_type=_FS_TYPE,
            source="none",
            super_options=frozenset({"rw"}),
        )

    def elsewhere(self, mount: Mount) -> tuple[Mount, ...]:
        with self._mutex:
            paths = sorted(self._paths - {mount.path})
        return tuple(m for m in map(self.at, paths) if m is not None and m.content == mount.content)

    def in_use(self, source: Source) -> bool:
        content = _content(source)
        with self._mutex:
            paths = sorted(self._paths)
        return any(m.root == content for m in map(self.at, paths) if m is not None)

    def shows(self, mount: Mount, source: Source) -> bool:
        return mount.root == _content(source)

    def contradiction(self, mount: Mount, capability: VolumeCapability, source: Source) -> str:  # noqa: ARG002
        wanted = mount_options(DIRECTORY, capability.mount_flags, capability.access_mode.read_only)
        return "" if mount.read_only == wanted.read_only else "it is mounted with another access mode"

    def mount_block(
        self,
        source: BlockSource,
        capability: VolumeCapability,  # noqa: ARG002
        served: Sequence[str],  # noqa: ARG002
        mark_formatted: Callable[[str], None],  # noqa: ARG002
        path: Path,
    ) -> None:
        raise FailedPrecondition(f"{source.device} cannot be mounted at {path}: mounts are simulated on this node")

    def mount_share(self, source: ShareSource, capability: VolumeCapability, path: Path) -> None:  # noqa: ARG002
        raise FailedPrecondition(f"{source.remote} cannot be mounted at {path}: mounts are simulated on this node")

    def answers(self, mount: Mount) -> bool:  # noqa: ARG002
        """A link is never stale."""
        return True

    def usage(self, mount: Mount) -> tuple[VolumeUsage, ...]:
        return local_usage(mount.path)

    def bind(self, source: Path, target: Path, attributes: Sequence[str] = ()) -> None:
        content = os.path.realpath(source)
        if target.is_dir() and not target.is_symlink():
            target.rmdir()
        else:
            target.unlink(missing_ok=True)
        target.symlink_to(f"{_READ_ONLY}{content}" if "ro" in attributes else content)
        with self._mutex:
            self._paths.add(target)

    def unmount(self, path: Path) -> None:
        if not path.is_symlink():
            return
        was_file = path.is_file()
        path.unlink()
        if was_file:
            path.touch()
        else:
            path.mkdir(exist_ok=True)
        with self._mutex:
            self._paths.discard(path)

    def set_device_read_only(self, node: Path, read_only: bool) -> None:
        """Nothing to do: a simulated device is an ordinary file."""

    def device_size_bytes(self, node: Path) -> int:
        return node.stat().st_size

    def is_device(self, mount: Mount) -> bool:
        return mount.path.is_file()

    def filesystem_on(self, device: Path) -> None:  # noqa: ARG002
        return None  # nothing here fills up

    def grow(self, mount: Mount) -> int:  # noqa: ARG002
        """A simulated filesystem has no size of its own; 0 means not known."""
        return 0


def _content(source: Source) -> str:
    match source:
        case BlockSource():
            return os.path.realpath(source.device)
        case DirectorySource():
            return os.path.realpath(source.path)
        case ShareSource():
            return source.remote
