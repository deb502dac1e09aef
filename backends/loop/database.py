"""pool.db: one SQLite file beside the images that describes all of them, and commits in groups.

Readable by hand: ``sqlite3 pool.db .dump``.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

import structlog

from backends.loop import images
from backends.loop.schema import APPLICATION_ID, MIGRATIONS, SCHEMA, SCHEMA_VERSION
from csi_core.errors import Busy, CallError, ConfigError, DataLoss, NoSpace, Unavailable
from csi_core.faults import fault

__all__ = ["PoolDatabase", "Row"]

T = TypeVar("T")
_log = structlog.get_logger(__name__)
_LOCK_WAIT_S: Final = 30.0
"""For an administrator with sqlite3 in the middle of a transaction."""
_WRITER_CACHE_KIB: Final = 4096
_READER_CACHE_KIB: Final = 1024
_READERS_KEPT: Final = 4
_CHECKPOINT_PAGES: Final = 2000
_LOG_BYTES: Final = (_CHECKPOINT_PAGES + 500) * 4120
"""What the log needs until it is moved to the file and begun anew, with room for large last commits."""
_GROWTH_BYTES: Final = 4 << 20
_ROWS_A_STATEMENT: Final = 64
_GATHERED: Final = 16
"""A commit waits for no more operations than this; what has queued already is taken all the same."""
_GATHER_S: Final = 0.01
"""And no longer than this: 32 clients of a busy server bring as many in that time."""


class Row(NamedTuple):
    """A row to insert; ``into`` is a table, or ``table (one, other)`` where not in the order of its columns."""

    into: str
    values: tuple[object, ...]


class _Operation(Generic[T]):
    __slots__ = ("error", "leads", "result", "rows", "turn", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], T] | None, rows: Sequence[Row] = ()) -> None:
        self.work = work
        self.rows = rows
        self.turn = threading.Lock()
        """Let go of when the operation is committed, when it is to lead, and when a leader need not wait for more."""
        self.turn.acquire()
        self.leads = False
        self.error: Exception | None = None
        self.result: T | None = None


class PoolDatabase:
    """One pool's records. Safe to call from any thread.

    Writers queue; one of them leads: it runs all that is queued in one transaction, pays one fsync for all of them,
    hands the lead to the first that has queued meanwhile, and wakes the others side by side. Where the last commits
    served many, the next one waits a moment for as many. Alone, a caller commits in its own thread at once. Readers
    have connections of their own and never wait for a commit.
    """

    def __init__(self, path: Path) -> None:
        """Open the database at ``path``; make it where there is none.

        Raises:
            ConfigError: not a pool database, or one of a newer csi-core.
            DataLoss: it is damaged.
            Unavailable: somebody else keeps it locked.
        """
        self.path = path
        self._queue: deque[_Operation[Any]] = deque()
        self._queue_mutex = threading.Lock()
        self._led = False
        self._wanted = 1
        self._gathering: _Operation[Any] | None = None
        self._readers: deque[sqlite3.Connection] = deque()
        if not path.exists():
            path.touch(mode=0o600)  # SQLite gives its log the mode of the database: names of claims are for root alone
        # Before SQLite opens it: closing any descriptor of a file drops all of the process's locks on it (fcntl(2)).
        # Without them the next process that closes it takes itself for the last one, and removes the log in use.
        enough = images.set_aside(path, path.stat().st_size + _GROWTH_BYTES)
        self._writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_LOCK_WAIT_S)
        try:
            self._prepare()
            self._set_space_aside(enough)
        except BaseException as error:
            self._writer.close()
            if isinstance(error, sqlite3.Error):
                raise self._explain(error) from error
            raise

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in a transaction; when this returns, what it did is durable.

        Args:
            work: executes statements only: no begin, no commit, no other side effect, because it is undone, and run
                again, when it or a neighbour in the same transaction raises. What it raises is raised here, and hurts
                no other caller.

        Raises:
            NoSpace: the filesystem is too full to record anything.
            Unavailable: the commit failed; whether it is durable is not known.
        """
        return cast(T, self._committed(_Operation(work)))

    def insert(self, rows: Sequence[Row]) -> None:
        """:meth:`write` for new rows and nothing else: those of many callers are inserted by one statement.

        Each statement lets go of the interpreter, and of a busy server's threads another one goes on with it.
        """
        self._committed(_Operation(None, rows))

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        """:meth:`write` for one statement; answers the number of rows it changed."""
        return self.write(lambda connection: connection.execute(statement, values).rowcount)

    def _committed(self, operation: _Operation[T]) -> T | None:
        with self._queue_mutex:
            self._queue.append(operation)
            operation.leads, self._led = not self._led, True
            if self._gathering and len(self._queue) >= self._wanted:
                self._gathering.turn.release()
                self._gathering = None
        if not operation.leads:
            operation.turn.acquire()
        if operation.leads:
            self._lead(operation)
        if operation.error:
            raise operation.error
        return operation.result

    def row(self, query: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row of ``query``, or None."""
        with self._reader() as connection:
            return cast("tuple[Any, ...] | None", connection.execute(query, values).fetchone())

    def rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of ``query``. Bound it by LIMIT: a pool may hold 100,000 volumes."""
        with self._reader() as connection:
            return connection.execute(query, values).fetchall()

    def close(self) -> None:
        """Close every connection. No call may be running."""
        while self._readers:
            self._readers.pop().close()
        self._writer.close()

    def _prepare(self) -> None:
        writer = self._writer
        (application,) = writer.execute("PRAGMA application_id").fetchone()
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        (tables,) = writer.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION_ID:
            raise ConfigError(f"{self.path} is not a pool database of csi-core; choose another directory for this pool")
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"{self.path} has schema {version}, this csi-core knows {SCHEMA_VERSION}; run the newer csi-core again"
            )
        writer.execute("PRAGMA journal_mode = WAL").fetchall()
        writer.execute("PRAGMA synchronous = FULL")
        writer.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
        writer.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}").fetchall()
        if not tables:
            fault("loop.pool.before_schema")
            writer.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
            fault("loop.pool.after_schema")
        elif version < SCHEMA_VERSION:
            fault("loop.pool.before_migration")
            steps = " ".join(MIGRATIONS[older] for older in range(version, SCHEMA_VERSION))
            writer.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            fault("loop.pool.after_migration")
            _log.info("pool.db migrated", path=str(self.path), schema=SCHEMA_VERSION)

    def _set_space_aside(self, enough: bool) -> None:
        """Let commits succeed on a full filesystem: deleting is what frees it, and begins with a commit."""
        log = self.path.with_name(f"{self.path.name}-wal")  # it has no locks
        if not (images.set_aside(log, _LOG_BYTES) and enough):
            _log.warning("no space can be set aside for pool.db; deleting may fail when full", path=str(self.path))

    def _lead(self, leader: _Operation[Any]) -> None:
        batch = self._gathered(leader)
        try:
            self._commit(batch)
        finally:
            with self._queue_mutex:
                successor = self._queue[0] if self._queue else None
                self._led = successor is not None
            # First, so that the next commit goes to the disk while these callers answer.
            if successor:
                successor.leads = True
                successor.turn.release()
            for operation in batch:
                if operation is not leader:
                    operation.turn.release()

    def _gathered(self, leader: _Operation[Any]) -> list[_Operation[Any]]:
        """What is queued; where commits serve many, also what comes in a moment: that costs no more."""
        with self._queue_mutex:
            waits = len(self._queue) < self._wanted
            self._gathering = leader if waits else None
        if waits:
            leader.turn.acquire(timeout=_GATHER_S)
        with self._queue_mutex:
            self._gathering = None
            batch = list(self._queue)
            self._queue.clear()
            # Halved where they did not come: a caller that is alone again has waited four times.
            self._wanted = min(_GATHERED, max(len(batch), self._wanted // 2))
        return batch

    def _commit(self, batch: Sequence[_Operation[Any]]) -> None:
        try:
            if not self._commit_together(batch):
                self._commit_apart(batch)
        except BaseException as error:
            with suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            for operation in batch:
                operation.error = operation.error or self._explain(error)
            if not isinstance(error, sqlite3.Error):
                raise

    def _commit_together(self, batch: Sequence[_Operation[Any]]) -> bool:
        """The common case: no operation raises. Savepoints would let other threads in between, twice an operation."""
        inserts = list(_inserts(row for operation in batch for row in operation.rows))
        if len(inserts) == 1 and not any(operation.work for operation in batch):
            return self._commit_statement(*inserts[0])
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            for operation in batch:
                if operation.work:
                    operation.result = operation.work(self._writer)
            for insert in inserts:
                self._writer.execute(*insert)
        except Exception:
            if self._writer.in_transaction:  # after some errors SQLite has undone everything by itself
                self._writer.execute("ROLLBACK")
            return False
        self._durably("COMMIT")
        return True

    def _commit_statement(self, statement: str, values: Sequence[object]) -> bool:
        """A transaction of one statement is that statement: other threads are let in between once, not three times."""
        try:
            self._durably(statement, values)
        except sqlite3.IntegrityError:
            return False
        return True

    def _commit_apart(self, batch: Sequence[_Operation[Any]]) -> None:
        """One raises: each in a savepoint of its own, so that only its own work is undone."""
        self._writer.execute("BEGIN IMMEDIATE")
        for operation in batch:
            self._writer.execute("SAVEPOINT operation")
            try:
                if operation.work:
                    operation.result = operation.work(self._writer)
                for insert in _inserts(operation.rows):
                    self._writer.execute(*insert)
            except Exception as error:
                operation.error = self._explain(error)
                # Where SQLite has rolled back everything by itself this fails in turn, and so does the whole batch.
                self._writer.execute("ROLLBACK TO operation")
            self._writer.execute("RELEASE operation")
        self._durably("COMMIT")

    def _durably(self, statement: str, values: Sequence[object] = ()) -> None:
        fault("loop.database.before_commit")
        self._writer.execute(statement, values)
        fault("loop.database.after_commit")

    def _explain(self, error: BaseException) -> Exception:
        if isinstance(error, CallError):
            return error
        if isinstance(error, sqlite3.IntegrityError):
            return Busy("another call has just used this name; repeat the call")
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_FULL:
            return NoSpace(f"{self.path}: the pool's filesystem is full; delete the pool's ballast file or free space")
        if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return DataLoss(f"{self.path}: {error}; restore it from a copy, the images are untouched")
        # Not final: after a failed fsync nobody knows whether the commit survives a power cut.
        return Unavailable(f"{self.path}: {error}")

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        # The one used last is taken first: its page cache is the warm one, and memory stays bounded.
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = self._new_reader()
        try:
            yield connection
        except sqlite3.Error as error:
            raise self._explain(error) from error
        finally:
            if len(self._readers) < _READERS_KEPT:
                self._readers.append(connection)
            else:
                connection.close()

    def _new_reader(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=_LOCK_WAIT_S)
            connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
        except sqlite3.Error as error:
            raise self._explain(error) from error
        return connection


def _inserts(rows: Iterable[Row]) -> Iterator[tuple[str, tuple[object, ...]]]:
    """The fewest statements that insert all of them, with their values."""
    tables: dict[str, list[tuple[object, ...]]] = {}
    for row in rows:
        tables.setdefault(row.into, []).append(row.values)
    for into, values in tables.items():
        for first in range(0, len(values), _ROWS_A_STATEMENT):
            part = values[first : first + _ROWS_A_STATEMENT]
            yield _insertion(into, len(part[0]), len(part)), tuple(chain.from_iterable(part))


@lru_cache
def _insertion(into: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"INSERT INTO {into} VALUES {', '.join([row] * rows)}"  # noqa: S608 - names of ours only
