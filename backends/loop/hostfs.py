"""What the filesystem under a pool can do, found out by trying."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backends.loop import images, loopdev
from backends.loop.loopdev import Backing
from csi_core.errors import ConfigError, NoSpace
from csi_core.faults import fault

__all__ = ["HostFilesystem", "is_on_loop", "mount_of", "probe"]

_LOOP_MAJOR: Final = 7
_PROBE_BYTES: Final = 1 << 20
_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class HostFilesystem:
    """The result of :func:`probe`.

    Attributes:
        fs_type: as mount(8) calls it.
        reflink: whether files can share blocks (FICLONE).
        direct_io: whether a loop device over it was granted direct I/O; False where it was not asked for.
        largest_image_bytes: the largest file it can hold.
    """

    fs_type: str
    reflink: bool
    direct_io: bool
    largest_image_bytes: int


def probe(directory: Path, *, direct_io: bool) -> HostFilesystem:
    """Try out the filesystem that holds ``directory``, with two short-lived files in it.

    Raises:
        ConfigError: no loop device can be made of its files.
        NoSpace: it is full.
    """
    first, second = directory / "probe-1", directory / "probe-2"
    try:
        with images.opened(first, create=True) as image, images.opened(second, create=True) as copy:
            left_behind = loopdev.find(Backing.of(os.fstat(image)))
            if left_behind:  # by a process that was killed here; the pool's lock says that it is gone
                loopdev.detach(left_behind)
            largest = _largest_file_bytes(image)
            os.ftruncate(image, _PROBE_BYTES)  # no data: a full filesystem has no block for it
            reflink = images.clone(image, copy)
            device = loopdev.attach(image, read_only=False, direct_io=direct_io)
            fault("loop.probe.after_bind")
            try:
                granted = device.direct_io
            finally:
                loopdev.detach(device)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"pool directory {directory}: {error.strerror}") from error
        raise ConfigError(
            f"pool directory {directory}: {error.strerror}; loop images need a filesystem like ext4, XFS or btrfs"
        ) from error
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)
    return HostFilesystem(mount_of(directory)[0], reflink, granted, largest)


def is_on_loop(directory: Path) -> bool:
    """Whether the filesystem of ``directory`` lies on a loop device."""
    if os.major(directory.stat().st_dev) == _LOOP_MAJOR:
        return True
    # btrfs shows a device number of its own; what is mounted says where it lies.
    source = Path(mount_of(directory)[1])
    return source.is_block_device() and os.major(source.stat().st_rdev) == _LOOP_MAJOR


def mount_of(directory: Path) -> tuple[str, str]:
    """Filesystem type and source of the mount that holds ``directory``."""
    path = str(directory.resolve())
    best, answer = -1, ("unknown", "")
    for line in _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        point = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), before.split()[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # the later of two on one point hides the earlier
            best, answer = len(point), (after.split()[0], after.split()[1])
    return answer


def _largest_file_bytes(image: int) -> int:
    """The largest size, a multiple of 4096, that ftruncate accepts."""
    low, high = 0, (1 << 63) // 4096 - 1
    while low < high:
        middle = (low + high + 1) // 2
        try:
            os.ftruncate(image, middle * 4096)
        except OSError as error:
            if error.errno not in (errno.EFBIG, errno.EINVAL, errno.ENOSPC, errno.EOVERFLOW):
                raise
            high = middle - 1
        else:
            low = middle
    return low * 4096
