"""Named fault points: places where the crash tests kill the process.

Every durable step calls :func:`fault` with a literal name just before and after what it makes
durable. The names are collected from the source (``csi_core.testing.fault_points``), so a new one
cannot be forgotten. Outside the tests a call costs one comparison.
"""

from __future__ import annotations

import os
import signal
from typing import Final

__all__ = ["FAULT_VARIABLE", "fault"]

FAULT_VARIABLE: Final = "CSICORE_FAULT"
"""``NAME`` or ``NAME:N``: die by SIGKILL when the point NAME is reached for the N-th time."""

_name, _, _count = os.environ.get(FAULT_VARIABLE, "").partition(":")
_left = int(_count or 1)


def fault(name: str) -> None:
    """Die here, as by a power cut of this process, if the environment asked for ``name``."""
    if name == _name:
        _die_in_turn()


def _die_in_turn() -> None:
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
