"""Work that outlives the call that began it: full copies, which take longer than a CO waits.

The call begins the work and waits as long as it may; then it answers DEADLINE_EXCEEDED ("may still be running") and the
work goes on. The CO repeats the call, and that joins the same work. No worker thread is held longer than
``patience_s``, whatever the copy takes.

What this does not do is remember: work ends with the process. A backend records durably what it is about to make
before it begins, and does it again, or removes it, where the record says that it never ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Final

import structlog

from csi_core.deadline import remaining_s
from csi_core.errors import TimedOut, Unavailable

__all__ = ["BackgroundWork", "Cancelled", "Task"]

_log = structlog.get_logger(__name__)
_PROGRESS_EVERY_S: Final = 10.0
_OF_THE_DEADLINE: Final = 0.9
"""The rest is for the answer's way to the client, who has gone when it comes too late."""


class Cancelled(Unavailable):
    """The work was stopped, because what it made was deleted meanwhile or the server stops."""


class Task:
    """One piece of work under way; handed to the function that does it."""

    def __init__(self, key: Hashable) -> None:
        self._key = key
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        self._error: Exception | None = None
        self._progress = ""
        self._told_s = time.monotonic()

    def check(self) -> None:
        """Go on only while the work is wanted. Call it at least once a second.

        Raises:
            Cancelled: it is not; undo what is half done, or leave it to the record that was made beforehand.
        """
        if self._cancelled.is_set():
            raise Cancelled(f"{self._key} was stopped; repeat the call if it is still wanted")

    def sleep(self, duration_s: float) -> None:
        """Pace the work; wakes up, and raises as :meth:`check` does, when it is cancelled."""
        self._cancelled.wait(duration_s)
        self.check()

    def progress(self, done_bytes: int, total_bytes: int) -> None:
        """Say how far it got, for the log and for whoever asks; raises as :meth:`check` does."""
        self._progress = f"{done_bytes >> 20} of {total_bytes >> 20} MiB"
        now_s = time.monotonic()
        if now_s - self._told_s >= _PROGRESS_EVERY_S:
            self._told_s = now_s
            _log.info("long work goes on", work=str(self._key), done_bytes=done_bytes, total_bytes=total_bytes)
        self.check()

    def _run(self, work: Callable[[Task], None], turns: threading.Semaphore) -> None:
        try:
            while not turns.acquire(timeout=1.0):
                self.check()
            try:
                self.check()
                work(self)
            finally:
                turns.release()
        except Exception as error:
            self._error = error
            _log.warning("long work failed", work=str(self._key), error=str(error))

    def _wait(self, patience_s: float) -> None:
        if not self._ended.wait(remaining_s(patience_s / _OF_THE_DEADLINE) * _OF_THE_DEADLINE):
            so_far = f" ({self._progress})" if self._progress else ""
            raise TimedOut(f"{self._key} is still under way{so_far} and goes on; repeat the call to learn how it ended")
        if self._error:
            raise self._error


class BackgroundWork:
    """The long work of one backend, by key: at most one at a time for each."""

    def __init__(self, limit: int = 2, patience_s: float = 20.0) -> None:
        """``limit``: how many run at once, the others queue; ``patience_s``: how long a call waits at most."""
        self._turns = threading.Semaphore(limit)
        self._patience_s = patience_s
        self._mutex = threading.Lock()
        self._tasks: dict[Hashable, tuple[Task, threading.Thread]] = {}
        self._stopping = False

    def finish(self, key: Hashable, work: Callable[[Task], None]) -> None:
        """Have ``work`` done: begin it, or join it where one of this key runs, and wait for its end.

        Args:
            key: names the work, for people too.
            work: does it in a thread of its own, without the call's deadline; it can be begun anew after a failure.

        Raises:
            TimedOut: it goes on; repeat the call.
            Cancelled: it was cancelled, or the server is stopping.
            Exception: whatever the work raised.
        """
        self._begun(key, work)._wait(self._patience_s)

    def begin(self, key: Hashable, work: Callable[[Task], None]) -> None:
        """As :meth:`finish`, and wait for nothing: what is resumed at start, or zeroed after a delete.

        Raises:
            Cancelled: the server is stopping.
        """
        self._begun(key, work)

    def running(self, key: Hashable) -> bool:
        """Whether work of this key is queued or under way."""
        with self._mutex:
            return key in self._tasks

    def cancel(self, key: Hashable) -> None:
        """Stop the work of this key and wait until it has stopped; nothing to do where there is none.

        Raises:
            TimedOut: it has been told to stop and has not done so within the call's deadline.
        """
        with self._mutex:
            task, thread = self._tasks.get(key, (None, None))
        if task and thread:
            task._cancelled.set()
            thread.join(remaining_s(self._patience_s))
            if thread.is_alive():
                raise TimedOut(f"{key} has been told to stop and has not stopped yet; repeat the call")

    def stop(self) -> None:
        """Cancel everything, and take no more."""
        with self._mutex:
            self._stopping = True
            under_way = list(self._tasks.values())
        for task, _ in under_way:
            task._cancelled.set()
        for _, thread in under_way:
            thread.join()

    def _begun(self, key: Hashable, work: Callable[[Task], None]) -> Task:
        with self._mutex:
            if key in self._tasks:
                return self._tasks[key][0]
            if self._stopping:
                raise Cancelled(f"{key} is not begun: the server is stopping; repeat the call")
            task = Task(key)
            thread = threading.Thread(target=self._do, args=(task, key, work), name=f"long work: {key}", daemon=True)
            self._tasks[key] = (task, thread)
            thread.start()
            return task

    def _do(self, task: Task, key: Hashable, work: Callable[[Task], None]) -> None:
        try:
            task._run(work, self._turns)
        finally:
            with self._mutex:
                del self._tasks[key]
            task._ended.set()
