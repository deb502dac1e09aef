"""Named fault points: places where the crash tests kill the process.

Every durable step calls :func:`fault` with a literal name just before and after what it makes
durable. The names are collected from the source (:mod:`csi_core.testing.fault_points`), so a new one
cannot be forgotten. Outside the tests a call costs one comparison.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

__all__ = ["FAULT_TRACE_VARIABLE", "FAULT_VARIABLE", "fault"]

FAULT_VARIABLE: Final = "CSICORE_FAULT"
"""``NAME`` or ``NAME:N``: die by SIGKILL when the point NAME is reached for the N-th time.

``@FILE``: die at the point whose name FILE holds at that moment; so a running server can be armed.
"""

FAULT_TRACE_VARIABLE: Final = "CSICORE_FAULT_TRACE"
"""A file that every point reached is appended to, one name a line."""

_name, _, _count = os.environ.get(FAULT_VARIABLE, "").partition(":")
_left = int(_count or 1)
_trace = os.environ.get(FAULT_TRACE_VARIABLE, "")
_armed: Final = bool(_name or _trace)


def fault(name: str) -> None:
    """Die here, as if the process were killed at this very step, where the environment asks for ``name``."""
    if _armed:
        _reached(name)


def _reached(name: str) -> None:
    global _left  # noqa: PLW0603 - counted down once in the life of a process
    if _trace:
        with Path(_trace).open("a", encoding="utf-8") as trace:
            trace.write(f"{name}\n")
    if name == (Path(_name[1:]).read_text(encoding="utf-8") if _name.startswith("@") else _name):
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
