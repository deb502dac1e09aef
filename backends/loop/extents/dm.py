"""Device-mapper, driven by ioctl: linear devices that join several pieces. No process is spawned.

A device is known by its UUID, which names the pool and the volume; so it is found again after a restart.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from csi_core.errors import Busy, StorageFailure

__all__ = ["DmDevice", "Piece", "available", "create", "find", "refuse_discards", "reload", "remove"]

_CONTROL: Final = Path("/dev/mapper/control")
_MISC: Final = Path("/proc/misc")
_SYS_BLOCK: Final = Path("/sys/block")
_MISC_MAJOR: Final = 10
_VERSION: Final = (4, 0, 0)
_HEAD: Final = struct.Struct("=3I2IIiIIIQ128s129s7x")  # struct dm_ioctl
_TARGET: Final = struct.Struct("=QQiI16s")  # struct dm_target_spec
_BUFFER_BYTES: Final = 16384
_DM_VERSION: Final = 0
_DM_DEV_CREATE: Final = 3
_DM_DEV_REMOVE: Final = 4
_DM_DEV_SUSPEND: Final = 6
_DM_DEV_STATUS: Final = 7
_DM_TABLE_LOAD: Final = 9
_DM_TABLE_CLEAR: Final = 10
_READ_ONLY: Final = 1
_ACTIVE: Final = 32
_SKIP_LOCKFS: Final = 1 << 10
_NOFLUSH: Final = 1 << 11
_SECTOR_BYTES: Final = 512
_REMOVE_WAIT_S: Final = 5.0
_NODE_WAIT_S: Final = 2.0
_POLL_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Piece:
    """``length_bytes`` of the block device with this number, from ``offset_bytes`` on."""

    device: int
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class DmDevice:
    """A mapped device.

    Attributes:
        number: the N of ``/dev/dm-N``.
        read_only: whether it refuses writes.
        active: whether it has a table; a process may have been killed before it got one.
    """

    number: int
    read_only: bool
    active: bool

    @property
    def node(self) -> Path:
        """The device node."""
        return Path(f"/dev/dm-{self.number}")

    @property
    def writes(self) -> tuple[int, int, int]:
        """How many writes and discards have ended since the device was made, and how many are under way."""
        directory = _SYS_BLOCK / self.node.name
        ended, under_way = ((directory / name).read_text(encoding="ascii").split() for name in ("stat", "inflight"))
        return int(ended[4]), int(ended[11]), int(under_way[1])


def available() -> bool:
    """Whether this kernel has device-mapper, and this process may use it."""
    try:
        _call(_DM_VERSION)
    except OSError:
        return False
    return True


def find(uuid: str) -> DmDevice | None:
    """The device with this UUID, or None."""
    try:
        answer = _call(_DM_DEV_STATUS, uuid=uuid)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    return _device(answer)


def create(name: str, uuid: str, pieces: Sequence[Piece], *, read_only: bool) -> DmDevice:
    """Make a device of ``pieces``, one behind the other; one of that UUID without a table is finished.

    Raises:
        StorageFailure: the kernel refused.
    """
    flags = _READ_ONLY if read_only else 0
    try:
        with suppress(FileExistsError):
            _call(_DM_DEV_CREATE, name=name, uuid=uuid, flags=flags)
        _call(_DM_TABLE_LOAD, uuid=uuid, flags=flags, pieces=pieces)
        device = _device(_call(_DM_DEV_SUSPEND, uuid=uuid))  # without the flag to suspend it resumes
    except OSError as error:
        raise StorageFailure(f"device-mapper refuses {name}: {error.strerror}") from error
    _wait_for_node(device)
    refuse_discards(device)
    return device


def refuse_discards(device: DmDevice) -> None:
    """Let none get through: one would punch a hole into a shared file. It is a hint, so nobody misses it."""
    with suppress(OSError):
        (_SYS_BLOCK / device.node.name / "queue/discard_max_bytes").write_text("0", encoding="ascii")


def reload(uuid: str, pieces: Sequence[Piece], *, read_only: bool) -> None:
    """Give a device that is in use other, longer pieces; its users wait for a moment.

    Raises:
        StorageFailure: the kernel refused; it is as before.
    """
    try:
        _call(_DM_TABLE_LOAD, uuid=uuid, flags=_READ_ONLY if read_only else 0, pieces=pieces)
        # One call suspends, swaps the tables and resumes: killed around it, the device is never left suspended.
        device = _device(_call(_DM_DEV_SUSPEND, uuid=uuid, flags=_SKIP_LOCKFS | _NOFLUSH))
    except OSError as error:
        with suppress(OSError):
            _call(_DM_TABLE_CLEAR, uuid=uuid)
        raise StorageFailure(f"device-mapper refuses to grow {uuid}: {error.strerror}") from error
    refuse_discards(device)  # the kernel sets a device's limits anew with each table


def remove(uuid: str) -> None:
    """Take a device away; one that is not there is fine.

    Raises:
        Busy: something holds it open.
    """
    give_up = time.monotonic() + _REMOVE_WAIT_S
    while True:
        try:
            _call(_DM_DEV_REMOVE, uuid=uuid)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno != errno.EBUSY:
                raise StorageFailure(f"device-mapper cannot remove {uuid}: {error.strerror}") from error
            if time.monotonic() >= give_up:
                raise Busy(f"{uuid} is still held open by a process or a mount; repeat the call") from error
            time.sleep(_POLL_S)
        else:
            return


def _call(command: int, *, name: str = "", uuid: str = "", flags: int = 0, pieces: Sequence[Piece] = ()) -> bytes:
    table = b"".join(_targets(pieces))
    size = max(_BUFFER_BYTES, _HEAD.size + len(table))
    head = _HEAD.pack(
        *_VERSION, size, _HEAD.size, len(pieces), 0, flags, 0, 0, 0, b"" if uuid and not name else name.encode(),
        uuid.encode(),
    )  # fmt: skip
    buffer = bytearray(head + table.ljust(size - _HEAD.size, b"\0"))
    control = _open_control()
    try:
        fcntl.ioctl(control, 3 << 30 | _HEAD.size << 16 | 0xFD << 8 | command, buffer)
    finally:
        os.close(control)
    return bytes(buffer)


def _targets(pieces: Sequence[Piece]) -> list[bytes]:
    targets, begin = [], 0
    for piece in pieces:
        where = f"{os.major(piece.device)}:{os.minor(piece.device)} {piece.offset_bytes // _SECTOR_BYTES}\0"
        arguments = where.encode().ljust(-(-len(where) // 8) * 8, b"\0")
        length = piece.length_bytes // _SECTOR_BYTES
        targets.append(_TARGET.pack(begin, length, 0, _TARGET.size + len(arguments), b"linear") + arguments)
        begin += length
    return targets


def _device(answer: bytes) -> DmDevice:
    *_, flags, _, _, number, _, _ = _HEAD.unpack_from(answer)
    return DmDevice(os.minor(number), bool(flags & _READ_ONLY), bool(flags & _ACTIVE))


def _open_control() -> int:
    if not _CONTROL.exists():
        # A container's own /dev: the number is in the list of misc devices.
        lines = (line.split() for line in _MISC.read_text(encoding="ascii").splitlines())
        minor = next((int(number) for number, name in lines if name == "device-mapper"), None)
        if minor is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), str(_CONTROL))
        _CONTROL.parent.mkdir(exist_ok=True)
        with suppress(FileExistsError):
            os.mknod(_CONTROL, 0o600 | stat.S_IFCHR, os.makedev(_MISC_MAJOR, minor))
    return os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)


def _wait_for_node(device: DmDevice) -> None:
    give_up = time.monotonic() + _NODE_WAIT_S
    while not device.node.exists():
        if time.monotonic() >= give_up:
            text = (_SYS_BLOCK / device.node.name / "dev").read_text(encoding="ascii").strip()
            major, minor = text.split(":")
            with suppress(FileExistsError):
                os.mknod(device.node, 0o600 | stat.S_IFBLK, os.makedev(int(major), int(minor)))
            return
        time.sleep(_POLL_S)
