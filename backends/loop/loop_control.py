"""The doors to the kernel's loop driver: its control device, its nodes under /dev, its attributes under /sys."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from csi_core.errors import Unavailable

__all__ = ["free_number", "opened", "read_attribute", "renew", "write_attribute"]

_CONTROL: Final = Path("/dev/loop-control")
_SYS_BLOCK: Final = Path("/sys/block")
_LOOP_CTL_REMOVE: Final = 0x4C81
_LOOP_CTL_GET_FREE: Final = 0x4C82
_NODE_WAIT_S: Final = 2.0
_POLL_S: Final = 0.005


def free_number() -> int:
    """The number of a device that is bound to nothing; it is not reserved.

    Raises:
        Unavailable: there is no control device.
    """
    return _control(_LOOP_CTL_GET_FREE)


def renew(number: int) -> bool:
    """Remove an unbound device on which discards were forbidden; the kernel makes a new one when it is wanted.

    It takes no other limit any more, so that thin images on it would never give back a block. Answers whether it was
    removed: one that somebody has open, or has bound meanwhile, stays.
    """
    if (
        read_attribute(number, "queue/discard_max_bytes") != "0"
        or read_attribute(number, "queue/discard_max_hw_bytes") == "0"
    ):
        return False
    with suppress(OSError):
        _control(_LOOP_CTL_REMOVE, number)
        return True
    return False


@contextmanager
def opened(number: int, mode: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of a device, for as long as the block runs.

    Raises:
        FileNotFoundError: the kernel has no such device.
    """
    # Read-only wherever that will do: closing a writable descriptor makes udev probe the device again and hold it open.
    descriptor = os.open(_node(number), mode | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_attribute(number: int, name: str) -> str:
    """An attribute of a device; "" where it has none of this name."""
    try:
        return (_SYS_BLOCK / f"loop{number}" / name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def write_attribute(number: int, name: str, value: int) -> None:
    """Set an attribute where that can be done: without it, or with a read-only /sys, an optimisation is missed."""
    with suppress(OSError):
        (_SYS_BLOCK / f"loop{number}" / name).write_text(str(value), encoding="ascii")


def _control(request: int, number: int = 0) -> int:
    try:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"{_CONTROL}: {error.strerror}; run as root, with the host's /dev") from error
    try:
        return fcntl.ioctl(control, request, number)
    finally:
        os.close(control)


def _node(number: int) -> Path:
    """The device node; made where /dev is a static one that the kernel does not fill."""
    node = Path(f"/dev/loop{number}")
    give_up = time.monotonic() + _NODE_WAIT_S
    while not node.exists():
        text = read_attribute(number, "dev")
        if text and time.monotonic() >= give_up:
            major, minor = text.split(":")
            with suppress(FileExistsError):
                os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(int(major), int(minor)))
            break
        if not text:
            raise FileNotFoundError(errno.ENOENT, "no such loop device", str(node))
        time.sleep(_POLL_S)
    return node
