"""The deadline of the call that is being served, known to everything below it.

The server sets it once a call; whoever waits (a command, a lock, a queue) asks how long it may. It is kept in a
context variable, so a thread that a backend starts for itself has none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from csi_core.errors import TimedOut

__all__ = ["call_deadline", "check", "past_deadline", "remaining_s"]

_ends_at: ContextVar[float | None] = ContextVar("csi_core_deadline", default=None)


@contextmanager
def call_deadline(seconds: float | None) -> Iterator[None]:
    """Give what runs inside at most ``seconds``; None adds no limit. An outer, nearer deadline stays in force."""
    outer = _ends_at.get()
    inner = outer if seconds is None else time.monotonic() + seconds
    token = _ends_at.set(inner if outer is None or inner is None else min(outer, inner))
    try:
        yield
    finally:
        _ends_at.reset(token)


@contextmanager
def past_deadline() -> Iterator[None]:
    """Run without a deadline: for undoing what was begun, which must happen even though the client has gone."""
    token = _ends_at.set(None)
    try:
        yield
    finally:
        _ends_at.reset(token)


def remaining_s(default: float) -> float:
    """Seconds that may still be spent: ``default``, or less where the call's deadline is nearer; never below 0."""
    ends_at = _ends_at.get()
    return default if ends_at is None else max(0.0, min(default, ends_at - time.monotonic()))


def check() -> None:
    """Go on only while there is time left.

    Raises:
        TimedOut: the deadline of this call has passed.
    """
    ends_at = _ends_at.get()
    if ends_at is not None and time.monotonic() >= ends_at:
        raise TimedOut("the deadline of this call has passed; repeat it to learn how far it got")
