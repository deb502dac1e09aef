"""How much of what was written to a device may wait in the page cache.

Whoever writes into the page cache is as fast as memory, and so can fill a filesystem before it has grown. Held to a
part of what is free, it goes on at the speed of the disk: the one that growing waits for, so that both slow down
together.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["hold", "let_go", "let_go_of_unbound"]

_SYS_BDI: Final = Path("/sys/class/bdi")
_SYS_DEVICE: Final = Path("/sys/dev/block")
_LOOP_MAJOR: Final = 7


def hold(device: Path, limit_bytes: int) -> None:
    """Make writers wait for the disk while more than ``limit_bytes`` are not written back.

    Best effort: kernels before 6.2 cannot do it, and an unprivileged container may not.
    """
    try:
        settings = _settings(device)
        (settings / "max_bytes").write_text(str(limit_bytes), encoding="ascii")
        # Without this the limit would count only once the machine's own is nearly reached.
        (settings / "strict_limit").write_text("1", encoding="ascii")
    except OSError:  # the kernel refuses what is beyond the whole machine's limit: an earlier, lower one must not stay
        let_go(device)


def let_go(device: Path) -> None:
    """Take the limit away again: it belongs to the device and would meet whatever is attached as it next."""
    with suppress(OSError):
        _release(_settings(device))


def let_go_of_unbound() -> None:
    """Take away what a process that was killed has left on loop devices that were detached by hand since."""
    for limit in _SYS_BDI.glob(f"{_LOOP_MAJOR}:*/strict_limit"):
        with suppress(OSError):
            held = limit.read_text(encoding="ascii").strip() == "1"
            if held and not (_SYS_DEVICE / limit.parent.name / "loop").exists():
                _release(limit.parent)


def _release(settings: Path) -> None:
    (settings / "strict_limit").write_text("0", encoding="ascii")
    (settings / "max_ratio").write_text("100", encoding="ascii")


def _settings(device: Path) -> Path:
    number = device.stat().st_rdev
    return _SYS_BDI / f"{os.major(number)}:{os.minor(number)}"
