"""Growing a filesystem to the size of its device: by ioctl while mounted, without a child process.

Growing online is journaled and thus safe against a crash at any point; it comes first. ext4 asks for
CAP_SYS_RESOURCE, which a privileged container has. Where it is missing, ext4 grows unmounted, at the
next stage.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from pathlib import Path
from typing import Final

from csi_core.deadline import past_deadline, remaining_s
from csi_core.errors import Busy, FailedPrecondition, StorageFailure
from csi_core.faults import fault
from csi_core.node.ext4 import Superblock
from csi_core.run import run

__all__ = ["device_size_bytes", "grow", "grow_unmounted_ext4", "lacks_cap_sys_resource"]

_CAP_SYS_RESOURCE: Final = 24
_EXT4_IOC_RESIZE_FS: Final = 1 << 30 | 8 << 16 | ord("f") << 8 | 16
_XFS_GEOMETRY_BYTES: Final = 112  # struct xfs_fsop_geom_v1
_XFS_IOC_FSGEOMETRY_V1: Final = 2 << 30 | _XFS_GEOMETRY_BYTES << 16 | ord("X") << 8 | 100
_XFS_GROWTH: Final = struct.Struct("=QI4x")  # struct xfs_growfs_data
_XFS_IOC_FSGROWFSDATA: Final = 1 << 30 | _XFS_GROWTH.size << 16 | ord("X") << 8 | 110
_BTRFS_IOC_RESIZE: Final = 1 << 30 | 4096 << 16 | 0x94 << 8 | 3
_BTRFS_EXCLUSIVE: Final = 8  # BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS, a result of ioctl that is no error number
_UNDER_WAY: Final = {"ext4": errno.EBUSY, "xfs": errno.EAGAIN, "btrfs": errno.EBUSY}
_UNDER_WAY_S: Final = 10.0
_POLL_S: Final = 0.01
_FSCK_CORRECTED: Final = 0b1  # others: 2 reboot, 4 errors left, 8 failure
FSCK_TIMEOUT_S: Final = 3600.0


def device_size_bytes(device: Path) -> int:
    """Size of a block device, or of a file in its place."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def grow(root: int, fs_type: str, device: Path) -> None:
    """Grow a mounted filesystem to its device; one that fills it is left alone.

    Args:
        root: descriptor of a directory on a writable mount of it.
        fs_type: ext4, xfs or btrfs.
        device: what it is on.

    Another growth of it that is under way is waited for: an elastic volume grows on its own, also beside a call.

    Raises:
        Busy: another growth, or btrfs's balance, does not end.
        FailedPrecondition: the driver may not do it, or the mount is read-only.
        StorageFailure: the kernel failed.
    """
    size_bytes = device_size_bytes(device)
    fault("node.expand.before_grow")
    waits_until = time.monotonic() + remaining_s(_UNDER_WAY_S)
    while not _grown(root, fs_type, device, size_bytes):
        if time.monotonic() >= waits_until:
            raise Busy(f"{fs_type} on {device} cannot grow: another growth or a balance of it is under way")
        time.sleep(_POLL_S)
    fault("node.expand.after_grow")


def _grown(root: int, fs_type: str, device: Path, size_bytes: int) -> bool:
    """Grow it, or answer that the kernel does something else with it that excludes a growth."""
    try:
        _GROW[fs_type](root, size_bytes)
    except OSError as error:
        if error.errno == _UNDER_WAY[fs_type]:
            return False
        # ext4 asks for the capability first, and then whether there is anything left to grow
        if error.errno != errno.EPERM or fs_type != "ext4" or not Superblock.read(device).fills(size_bytes):
            raise _explain(error, fs_type, device) from error
    return True


def _grow_ext4(root: int, size_bytes: int) -> None:
    block_bytes = os.fstatvfs(root).f_frsize
    fcntl.ioctl(root, _EXT4_IOC_RESIZE_FS, struct.pack("=Q", size_bytes // block_bytes))


def _grow_xfs(root: int, size_bytes: int) -> None:
    geometry = bytearray(_XFS_GEOMETRY_BYTES)
    fcntl.ioctl(root, _XFS_IOC_FSGEOMETRY_V1, geometry)
    block_bytes, *_, imax_percent, data_blocks = struct.unpack_from("=8IQ", geometry)
    if size_bytes // block_bytes > data_blocks:
        fcntl.ioctl(root, _XFS_IOC_FSGROWFSDATA, _XFS_GROWTH.pack(size_bytes // block_bytes, imax_percent))


def _grow_btrfs(root: int, _: int) -> None:
    # a bytearray, as fcntl takes no more than 1024 immutable bytes
    if fcntl.ioctl(root, _BTRFS_IOC_RESIZE, bytearray(struct.pack("=q4088s", 0, b"max"))) == _BTRFS_EXCLUSIVE:
        raise OSError(errno.EBUSY, "a balance or the like is under way")


_GROW: Final = {"ext4": _grow_ext4, "xfs": _grow_xfs, "btrfs": _grow_btrfs}


def _explain(error: OSError, fs_type: str, device: Path) -> FailedPrecondition | StorageFailure:
    what = f"growing {fs_type} on {device}: {error.strerror}"
    if error.errno == errno.EPERM and fs_type == "ext4":
        return FailedPrecondition(
            f"{what} (ext4 grows online only for a driver with CAP_SYS_RESOURCE; run its container privileged, or "
            "unpublish the volume: it grows when it is staged again)"
        )
    if error.errno == errno.EROFS:
        return FailedPrecondition(f"{what} (it grows when it is next staged writable)")
    return StorageFailure(what)


def lacks_cap_sys_resource() -> bool:
    """Whether ext4 cannot be grown online by this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return not int(effective.split()[1], 16) >> _CAP_SYS_RESOURCE & 1


def grow_unmounted_ext4(device: Path) -> None:
    """Grow an unmounted ext4, where the driver lacks CAP_SYS_RESOURCE; one that fills its device is left alone.

    resize2fs insists on a check beforehand; ``e2fsck -p`` mends only what needs no judgement. Cut off by a power
    failure or the end of its container, this growth keeps the content, but may leave a resize inode that a person has
    to let e2fsck rebuild: growing online is journaled and has no such gap, so give the driver the capability.

    Raises:
        FailedPrecondition: e2fsck found what it would not mend without being told to.
    """
    if Superblock.read(device).fills(device_size_bytes(device)):
        return
    check = run(
        ["e2fsck", "-f", "-p", str(device)],
        timeout_s=FSCK_TIMEOUT_S,
        mutates=True,
        ok_codes=frozenset(range(16)),
    )
    if check.exit_code & ~_FSCK_CORRECTED:
        found = next(iter(check.stdout.splitlines()), "no output")
        raise FailedPrecondition(
            f"ext4 on {device} must grow and needs a check first, after a growth that was cut off or for another "
            f"damage ({found}); it is left as it is: take a copy and run e2fsck -f -y {device} by hand"
        )
    fault("node.stage.before_resize")
    with past_deadline():  # the next call would begin with the same check, which may take longer than any call may
        run(["resize2fs", str(device)], timeout_s=FSCK_TIMEOUT_S, mutates=True)
    fault("node.stage.after_resize")
