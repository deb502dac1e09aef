"""Removing what was deleted, after the answer: the one background thread of a root."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import structlog

from backends.nfs.root import Root
from backends.nfs.sizing import DATA, Sizing
from backends.nfs.trees import opened_directory, remove_tree
from csi_core.errors import CallError, DataLoss
from csi_core.faults import fault
from csi_core.ledger import Ledger

__all__ = ["Trash"]

_log = structlog.get_logger(__name__)
_RETRY_S: Final = 10.0


class _StoppingError(Exception):
    """The thread is to end; what it was removing is taken up at the next start."""


class Trash:
    """Empties ``ROOT/trash``. What lies there is charged until it is gone."""

    def __init__(self, root: Root, sizing: Sizing, ledger: Ledger) -> None:
        self._root = root
        self._sizing = sizing
        self._ledger = ledger
        self._wake = threading.Condition()
        self._new = True
        self._left: dict[str, int] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="nfs-trash", daemon=True)

    def start(self, left: Mapping[str, int]) -> None:
        """Begin, with what an earlier process left behind and its charges in bytes."""
        self._left.update(left)
        self._thread.start()

    def stop(self) -> None:
        """End after the file in hand."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, key: str, charge_bytes: int) -> None:
        """There is something new in the trash, which gives back so many bytes when it has gone."""
        with self._wake:
            self._new = True
            self._left[key] = charge_bytes
            self._wake.notify_all()

    def gone(self, key: str, timeout_s: float) -> bool:
        """Wait until this is removed; False where it is not so after ``timeout_s``."""
        with self._wake:
            return self._wake.wait_for(lambda: key not in self._left, timeout_s)

    def emptied(self, timeout_s: float) -> bool:
        """Wait until everything is removed; False where it is not so after ``timeout_s``."""
        with self._wake:
            return self._wake.wait_for(lambda: not (self._left or self._new), timeout_s)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._new or self._stopping, _RETRY_S if self._left else None)
                if self._stopping:
                    return
                self._new = False
                batch = sorted(self._left)
            for key in batch:
                try:
                    self._remove(key)
                except _StoppingError:
                    return
                except (OSError, CallError) as error:
                    _log.warning("deleted data cannot be removed yet", key=key, error=str(error))

    def _remove(self, key: str) -> None:
        try:
            with self._root.opened("trash", key) as directory:
                self._empty(directory)
            fault("nfs.trash.before_rmdir")
            os.rmdir(key, dir_fd=self._root.place("trash"))
            os.fsync(self._root.place("trash"))
            fault("nfs.trash.after_rmdir")
        except DataLoss:
            pass  # never got as far as the trash
        with self._wake:
            self._ledger.release(self._left.pop(key))
            self._wake.notify_all()

    def _empty(self, directory: int) -> None:
        """Remove content, limit and record."""
        with suppress(FileNotFoundError):
            with opened_directory(DATA, directory) as content:
                tree_id = self._sizing.tree_id(content)
            fault("nfs.trash.before_content")
            if not self._sizing.destroy(directory):
                remove_tree(directory, DATA, self._check)
            fault("nfs.trash.after_content")
            if tree_id:
                self._sizing.forget(tree_id)
        with os.scandir(directory) as entries:
            for entry in entries:
                os.unlink(entry.name, dir_fd=directory)

    def _check(self) -> None:
        if self._stopping:
            raise _StoppingError
