"""For backends: looking now and then at what others do to a storage while it is served; no call may ever come."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from csi_core.errors import CallError

__all__ = ["Watch"]

_log = structlog.get_logger(__name__)


class Watch:
    """A thread that takes up what is new.

    Args:
        look: does that.
        every_s: how often.
        trouble: what it means when that fails, for the log.
    """

    def __init__(self, look: Callable[[], None], every_s: float, trouble: str) -> None:
        self._look = look
        self._every_s = every_s
        self._trouble = trouble
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

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
        while not self._stopping.wait(self._every_s):
            try:
                self._look()
                complaint = ""
            except (CallError, OSError) as error:
                if str(error) != complaint:  # once, not every time
                    _log.error(self._trouble, error=str(error))
                complaint = str(error)
