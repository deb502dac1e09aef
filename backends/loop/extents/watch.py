"""Noticing that csi-core pool grow has made a pool larger, while it is being served."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog

from csi_core.errors import CallError

__all__ = ["Watch"]

_log = structlog.get_logger(__name__)
_EVERY_S: Final = 1.0


class Watch:
    """Looks into pool.db once a second; a thread of its own, since no call may ever come."""

    def __init__(self, look: Callable[[], None]) -> None:
        """``look`` takes up what is new."""
        self._look = look
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loop-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        complaint = ""
        while not self._stopping.wait(_EVERY_S):
            try:
                self._look()
                complaint = ""
            except (CallError, OSError) as error:
                if str(error) != complaint:  # once, not every second
                    _log.error("pool cannot be grown", error=str(error))
                complaint = str(error)
