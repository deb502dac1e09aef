"""The mounts of a real node: the kernel's mount table and calls."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from csi_core.errors import Busy, FailedPrecondition, NotFound, StorageFailure
from csi_core.faults import fault
from csi_core.model import BlockSource, DirectorySource, ShareSource, Source, VolumeCapability
from csi_core.node import filesystems, growth, mount
from csi_core.node.holders import holders
from csi_core.node.mkfs_options import FILESYSTEMS
from csi_core.node.mount_options import (
    DIRECTORY,
    MountOptions,
    contradiction,
    directory_contradiction,
    mount_options,
)
from csi_core.node.mounted import MountedFilesystem, filesystem_on
from csi_core.node.mountinfo import Mount, MountTable, canonical
from csi_core.node.ownership import give_to_group
from csi_core.node.requests import VolumeUsage
from csi_core.node.share_options import ShareOptions, share_contradiction, share_options
from csi_core.node.shares import Shares
from csi_core.node.space import local_usage

__all__ = ["KernelMounts"]

_BLKROSET: Final = 0x125D


class KernelMounts:
    """Reads /proc/self/mountinfo and mounts through :mod:`csi_core.node.mount`. Needs CAP_SYS_ADMIN."""

    def __init__(self) -> None:
        self._shares = Shares()

    def at(self, path: Path) -> Mount | None:
        return MountTable.read().at(path)

    def elsewhere(self, mount: Mount) -> tuple[Mount, ...]:
        return MountTable.read().elsewhere(mount)

    def in_use(self, source: Source) -> bool:
        table = MountTable.read()
        match source:
            case BlockSource():
                return bool(table.of_device(source.device)) or bool(table.of_node(source.device))
            case DirectorySource():
                own = table.at(canonical(source.path))  # the backend's, where the directory is a filesystem of its own
                return bool(table.elsewhere(own) if own else table.showing(table.content_of(source.path)))
            case ShareSource():
                return bool(table.of_source(source.remote))

    def shows(self, mount: Mount, source: Source) -> bool:
        match source:
            case BlockSource() if self.is_device(mount):
                bound, device = mount.path.stat(), source.device.stat()
                return (
                    bound.st_rdev == device.st_rdev if stat.S_ISBLK(bound.st_mode) else os.path.samestat(bound, device)
                )
            case BlockSource():
                return mount in MountTable.read().of_device(source.device)
            case DirectorySource():
                return mount.path.samefile(source.path)
            case ShareSource():
                return mount.source == source.remote

    def contradiction(self, mount: Mount, capability: VolumeCapability, source: Source) -> str:
        read_only = capability.access_mode.read_only
        if isinstance(source, ShareSource):
            return share_contradiction(mount, _share_options(source, capability))
        if isinstance(source, DirectorySource):
            return directory_contradiction(mount, mount_options(DIRECTORY, capability.mount_flags, read_only))
        if capability.fs_type not in ("", mount.fs_type):
            return f"it holds {mount.fs_type}, and {capability.fs_type} is asked for"
        return contradiction(mount, mount_options(mount.fs_type, capability.mount_flags, read_only))

    def mount_block(
        self,
        source: BlockSource,
        capability: VolumeCapability,
        served: Sequence[str],
        mark_formatted: Callable[[str], None],
        path: Path,
    ) -> None:
        live = MountTable.read().of_device(source.device)
        if live:  # its mount at the staging path was taken away by hand, and pods still use others
            fs_type, found, fresh = live[0].fs_type, None, False
        else:
            # left by a read-only raw block volume that had this loop device before and was never unstaged
            self.set_device_read_only(source.device, read_only=False)
            found = filesystems.probe(source.device)
            fs_type = filesystems.choose_type(source, capability.fs_type, served, found)
            fresh = not source.formatted and (found is None or found.unfinished)
        options = mount_options(fs_type, capability.mount_flags, capability.access_mode.read_only)
        if fresh:
            _refuse_other_users(source.device)
            filesystems.make(source, fs_type, found)
        elif not live and not options.read_only and fs_type == "ext4" and growth.lacks_cap_sys_resource():
            growth.grow_unmounted_ext4(source.device)
        if fresh and options.read_only:  # the label comes off a writable filesystem only
            writable = MountOptions(options.attributes, options.filesystem)
            self._mount_device(source, fs_type, writable, "", mark_formatted, fresh=True, path=None)
            source = replace(source, formatted=fs_type)
        self._mount_device(source, fs_type, options, capability.mount_group, mark_formatted, fresh=fresh, path=path)

    def _mount_device(
        self,
        source: BlockSource,
        fs_type: str,
        options: MountOptions,
        mount_group: str,
        mark_formatted: Callable[[str], None],
        *,
        fresh: bool,
        path: Path | None,
    ) -> None:
        with mount.detached_filesystem(
            fs_type, str(source.device), options.filesystem, options.attributes, options.read_only
        ) as detached:
            root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=detached)
            try:
                if not options.read_only:
                    if not fresh and (fs_type != "ext4" or not growth.lacks_cap_sys_resource()):
                        growth.grow(root, fs_type, source.device)
                    if not source.formatted:
                        filesystems.finish(root, source.device)
                    if mount_group:
                        give_to_group(root, mount_group)
            finally:
                os.close(root)
            if not source.formatted:
                mark_formatted(fs_type)
                fault("node.stage.after_mark")
            if path is not None:
                mount.attach(detached, path)

    def mount_share(self, source: ShareSource, capability: VolumeCapability, path: Path) -> None:
        self._shares.mount(source, _share_options(source, capability), path)

    def answers(self, mount: Mount) -> bool:
        return not mount.on_network or self._shares.answers(mount)

    def usage(self, mount: Mount) -> tuple[VolumeUsage, ...]:
        return self._shares.usage(mount) if mount.on_network else local_usage(mount.path)

    def bind(self, source: Path, target: Path, attributes: Sequence[str] = ()) -> None:
        mount.bind(source, target, attributes)

    def unmount(self, path: Path) -> None:
        for mounted in reversed(MountTable.read().stack(path)):
            if mounted.on_network:
                self._shares.unmount(mounted)
            elif not mount.unmount(path):
                raise FailedPrecondition(f"{path} is in use and cannot be unmounted; {holders(path)}")

    def set_device_read_only(self, node: Path, read_only: bool) -> None:
        if not stat.S_ISBLK(node.stat().st_mode):
            return  # a file in a device's place: there a read-only bind does keep writers out
        descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _BLKROSET, struct.pack("=i", read_only))
        finally:
            os.close(descriptor)

    def device_size_bytes(self, node: Path) -> int:
        return growth.device_size_bytes(node)

    def is_device(self, mount: Mount) -> bool:
        # the root of a bound file is its name; only then is a stat needed, and none of a share, where it could hang
        return mount.root != "/" and not mount.on_network and not stat.S_ISDIR(mount.path.stat().st_mode)

    def filesystem_on(self, device: Path) -> MountedFilesystem | None:
        return filesystem_on(device)

    def grow(self, mount: Mount) -> int:
        if mount.fs_type not in FILESYSTEMS or mount.root != "/":
            return 0  # a share, or a directory of somebody else's filesystem
        writable = next((m for m in MountTable.read().showing(mount.content) if not m.read_only), None)
        if writable is None:
            raise FailedPrecondition(
                f"{mount.path} is mounted read-only; its filesystem grows when it is next staged writable"
            )
        device = _device_of(mount)
        try:
            root = os.open(writable.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageFailure(
                f"{writable.path} cannot be opened: {error.strerror}; its filesystem has shut down (dmesg says why): "
                "mend its device, then delete the pods that use the volume, so that it is staged again"
            ) from error
        try:
            growth.grow(root, mount.fs_type, device)
        finally:
            os.close(root)
        return growth.device_size_bytes(device)


def _share_options(source: ShareSource, capability: VolumeCapability) -> ShareOptions:
    flags = (*source.mount_flags, *capability.mount_flags)
    return share_options(source.fs_type, flags, capability.access_mode.read_only)


def _device_of(mount: Mount) -> Path:
    """The node of the device that a filesystem is on; its source may name it by a path that has gone."""
    if mount.fs_type == "btrfs":
        return Path(mount.source)
    link = Path("/sys/dev/block") / mount.device
    try:
        return Path("/dev") / link.resolve(strict=True).name
    except FileNotFoundError:
        raise NotFound(f"the block device {mount.device} under {mount.path} is gone") from None


def _refuse_other_users(device: Path) -> None:
    """mkfs may run only where nobody else has the device: an mkfs of a driver that was killed may still be at work."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        raise Busy(
            f"{device} is in use ({error.strerror}), perhaps by an earlier mkfs; repeat the call later"
        ) from error
