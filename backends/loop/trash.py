"""Freeing images after the answer: the one background thread of a pool."""

from __future__ import annotations

import threading
from typing import Final

import structlog

from backends.loop import loopdev
from backends.loop.layout import ImagesLayout
from backends.loop.records import Records
from csi_core.errors import CallError
from csi_core.faults import fault
from csi_core.ledger import Ledger

__all__ = ["Trash"]

_log = structlog.get_logger(__name__)
_BATCH: Final = 64
_RETRY_S: Final = 10.0


class Trash:
    """Frees what delete calls left behind, and only then gives its charge back to the ledger.

    An image in the trash has a row and stays charged until its blocks are really free; killed at any moment, the
    next start takes up from the rows.
    """

    def __init__(self, records: Records, layout: ImagesLayout, ledger: Ledger) -> None:
        self._records = records
        self._layout = layout
        self._ledger = ledger
        self._wake = threading.Condition()
        self._work_there = True
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="loop-trash", daemon=True)

    def start(self) -> None:
        """Begin, with what an earlier process left behind."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch in hand; the rest waits for the next start."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def more(self) -> None:
        """There is something new in the trash."""
        with self._wake:
            self._work_there = True
            self._wake.notify_all()

    def emptied(self, timeout_s: float) -> bool:
        """Wait until all is free; False where it is not so after ``timeout_s``."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._work_there or self._stopping, timeout_s)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._work_there or self._stopping)
                if self._stopping:
                    return
            try:
                stuck = self._empty()
            except (OSError, CallError) as error:
                _log.warning("trash cannot be freed yet", directory=str(self._layout.directory), error=str(error))
                stuck = True
            with self._wake:
                if stuck:
                    self._wake.wait_for(lambda: self._stopping, _RETRY_S)

    def _empty(self) -> bool:
        """Free one batch; True where something in it cannot be freed now."""
        with self._wake:
            rows = self._records.trash(_BATCH)
            if not rows:
                self._work_there = False
                self._wake.notify_all()
                return False
        in_use = {(device.backing_device, device.backing_inode) for device in loopdev.attached()}
        freed: list[str] = []
        charge_bytes = 0
        for key, charge in rows:
            found = self._layout.found(key)
            if found and (found.st_dev, found.st_ino) in in_use:
                _log.warning("deleted image is attached by somebody else", image=str(self._layout.path(key)))
                continue
            fault("loop.trash.before_free")
            self._layout.free(key)
            fault("loop.trash.after_free")
            freed.append(key)
            charge_bytes += charge
        self._layout.sync()
        fault("loop.trash.before_clean")
        self._records.forget_trash(freed)
        fault("loop.trash.after_clean")
        self._ledger.release(charge_bytes)
        return len(freed) < len(rows)
