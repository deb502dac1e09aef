"""Freeing images after the answer: the one background thread of a pool."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

import structlog

from backends.loop.layout import Layout
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

    def __init__(self, records: Records, layout: Layout, ledger: Ledger) -> None:
        self._records = records
        self._layout = layout
        self._ledger = ledger
        self._wake = threading.Condition()
        self._work_there = True
        self._new = True
        self._stopping = False
        self._waited_for = 0
        self._stuck: list[str] = []
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
            self._work_there = self._new = True
            self._wake.notify_all()

    def emptied(self, timeout_s: float) -> bool:
        """Wait until all is free; False where it is not so after ``timeout_s``."""
        with self._wake:
            self._waited_for += timeout_s > 0
            try:
                return self._wake.wait_for(lambda: not self._work_there or self._stopping, timeout_s)
            finally:
                self._waited_for -= timeout_s > 0

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._work_there or self._stopping)
                if self._stopping:
                    return
                self._new = False
            try:
                stuck = self._empty()
            except (OSError, CallError) as error:
                _log.warning("trash cannot be freed yet", error=str(error))
                stuck = True
            except Exception:  # a thread that ends would free nothing until the next start
                _log.exception("trash cannot be freed")
                stuck = True
            with self._wake:
                if stuck:
                    self._wake.wait_for(lambda: self._new or self._stopping, _RETRY_S)
                elif not self._new:
                    self._work_there = False
                    self._wake.notify_all()

    def _empty(self) -> bool:
        """Free all there is, batch by batch; True where something cannot be freed now."""
        stuck: list[str] = []
        last = ""
        while not self._stopping and (rows := self._records.trash(last, _BATCH)):
            stuck += self._free(rows)
            last = rows[-1][0]
        if stuck and stuck != self._stuck:
            _log.warning(
                "deleted images cannot be freed: attached by somebody else, or failing",
                images=len(stuck),
                first=stuck[0],
            )
        self._stuck = stuck
        return bool(stuck) or self._stopping

    def _free(self, rows: list[tuple[str, int]]) -> list[str]:
        """Free one batch; answer the keys of those that cannot be freed now."""
        in_use = self._layout.attached([key for key, _ in rows])
        freed: dict[str, int] = {}
        for key, charge_bytes in rows:
            if key in in_use:
                continue
            fault("loop.trash.before_free")
            with suppress(OSError):
                self._layout.free(key, lambda: self._stopping, lambda: self._waited_for > 0)
                freed[key] = charge_bytes
            fault("loop.trash.after_free")
        if freed:
            self._layout.sync()
            fault("loop.trash.before_clean")
            self._records.forget_trash(list(freed))
            fault("loop.trash.after_clean")
            self._layout.forgotten(list(freed))
            self._ledger.release(sum(freed.values()))
        return [key for key, _ in rows if key not in freed]
