"""The kernel's device-mapper by ioctl: what is active and how full, without a process; and linear devices of our own.

LVM's own devices are only read. Structures and numbers: linux/dm-ioctl.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from csi_core.errors import FailedPrecondition, StorageFailure, Unavailable

__all__ = [
    "Device",
    "Target",
    "create",
    "find",
    "load_linear",
    "message",
    "node",
    "remove",
    "resume",
    "suspend",
    "targets",
]

_CONTROL: Final = "/dev/mapper/control"
_HEADER: Final = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
_TARGET: Final = struct.Struct("=Q Q i I 16s")
_CREATE, _REMOVE, _SUSPEND, _STATUS, _LOAD, _TABLE_STATUS, _MESSAGE = 3, 4, 6, 7, 9, 12, 14
_READ_ONLY, _SUSPENDED, _TABLE, _BUFFER_FULL, _NO_FLUSH = (1 << bit for bit in (0, 1, 4, 8, 11))
_BUFFER_BYTES: Final = 16 << 10
_BUFFER_LIMIT_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Device:
    """An active device: its name and UUID, its number, how often it is open, and whether I/O is held."""

    name: str
    uuid: str
    number: int
    open_count: int
    read_only: bool
    suspended: bool

    @property
    def minor(self) -> int:
        """The N of ``dm-N``."""
        return os.minor(self.number)


@dataclass(frozen=True, slots=True)
class Target:
    """A line of a device's table: sizes in sectors of 512 bytes; status or parameters in the kernel's words."""

    start_sectors: int
    length_sectors: int
    kind: str
    text: str


def find(name: str) -> Device | None:
    """The device of that name, or None where there is none."""
    header = _call(_STATUS, name, fine=(errno.ENXIO,))
    if isinstance(header, int):
        return None
    fields = _HEADER.unpack_from(header)
    return Device(
        name=_text(fields[11]),
        uuid=_text(fields[12]),
        number=os.makedev(*_decoded(fields[10])),
        open_count=fields[6],
        read_only=bool(fields[7] & _READ_ONLY),
        suspended=bool(fields[7] & _SUSPENDED),
    )


def node(device: Device) -> Path:
    """A node of the device: the kernel's, which is there at once and stays; where /dev is no devtmpfs, LVM's."""
    path = Path(f"/dev/dm-{device.minor}")
    return path if path.exists() else Path("/dev/mapper") / device.name


def targets(name: str, *, table: bool = False) -> tuple[Target, ...]:
    """The status of each target of the device, or its ``table``; () where there is none. Never flushes a thin pool."""
    size_bytes = _BUFFER_BYTES
    while True:
        flags = _NO_FLUSH | (_TABLE if table else 0)
        answer = _call(_TABLE_STATUS, name, flags=flags, size_bytes=size_bytes, fine=(errno.ENXIO,))
        if isinstance(answer, int):
            return ()
        fields = _HEADER.unpack_from(answer)
        if not fields[7] & _BUFFER_FULL or size_bytes >= _BUFFER_LIMIT_BYTES:
            return _targets(answer, start=fields[4], count=fields[5])
        size_bytes *= 4


def create(name: str, uuid: str) -> None:
    """Make a device without a table; one that is there is left as it is."""
    _call(_CREATE, name, uuid=uuid, fine=(errno.EBUSY,))


def load_linear(name: str, number: int, length_sectors: int) -> None:
    """Have the device show the first ``length_sectors`` of the device ``number``, from now on and at once."""
    text = f"{os.major(number)}:{os.minor(number)} 0".encode() + b"\0"
    text += b"\0" * (-len(text) % 8)
    _call(_LOAD, name, data=_TARGET.pack(0, length_sectors, 0, _TARGET.size + len(text), b"linear") + text)
    # Loading keeps it for later; letting I/O go on puts it in force. Nothing has to be flushed for a longer table.
    _call(_SUSPEND, name, flags=_NO_FLUSH)


def remove(name: str) -> bool:
    """Take the device away; not there: nothing to do. Answer False where something has it open."""
    return _call(_REMOVE, name, fine=(errno.ENXIO, errno.EBUSY)) != errno.EBUSY


def suspend(name: str) -> None:
    """Freeze a filesystem that is mounted from the device, and hold all I/O, until :func:`resume`.

    Raises:
        FailedPrecondition: the filesystem is frozen already, by somebody else.
    """
    if _call(_SUSPEND, name, flags=_SUSPENDED, fine=(errno.EBUSY,)) == errno.EBUSY:
        raise FailedPrecondition(f"the filesystem on /dev/mapper/{name} is frozen already; thaw it first (fsfreeze -u)")


def resume(name: str) -> None:
    """Let I/O go on, and thaw; also of a device that is not held, or not there."""
    _call(_SUSPEND, name, fine=(errno.ENXIO,))


def message(name: str, text: str) -> None:
    """Send a message to the device's first target.

    Raises:
        StorageFailure: it refused.
    """
    _call(_MESSAGE, name, data=struct.pack("=Q", 0) + text.encode() + b"\0", size_bytes=_BUFFER_BYTES)


def _call(
    number: int,
    name: str,
    *,
    uuid: str = "",
    flags: int = 0,
    size_bytes: int = 0,
    data: bytes = b"",
    fine: tuple[int, ...] = (),
) -> bytearray | int:
    """Make one call; answer what the kernel wrote, or the error where it is one of ``fine``."""
    buffer = bytearray(max(size_bytes, _HEADER.size + len(data)))
    header = (4, 0, 0, len(buffer), _HEADER.size, number == _LOAD, 0, flags, 0, 0, 0, name.encode(), uuid.encode())
    _HEADER.pack_into(buffer, 0, *header)
    buffer[_HEADER.size : _HEADER.size + len(data)] = data
    try:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"{_CONTROL}: {error.strerror}; load the kernel's module dm-mod") from error
    try:
        fcntl.ioctl(control, 3 << 30 | _HEADER.size << 16 | 0xFD << 8 | number, buffer)
    except OSError as error:
        if error.errno in fine:
            return error.errno
        raise StorageFailure(f"device-mapper device {name}: {error.strerror}") from error
    finally:
        os.close(control)
    return buffer


def _targets(answer: bytearray, start: int, count: int) -> tuple[Target, ...]:
    found, offset = [], start
    for _ in range(count):
        start_sectors, length, _, after, kind = _TARGET.unpack_from(answer, offset)
        text = answer[offset + _TARGET.size : answer.index(0, offset + _TARGET.size)].decode()
        found.append(Target(start_sectors, length, _text(kind), text))
        offset = start + after
    return tuple(found)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")


def _decoded(number: int) -> tuple[int, int]:
    """Major and minor of the kernel's wide device number."""
    return number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
