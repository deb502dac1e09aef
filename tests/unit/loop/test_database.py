"""pool.db: what returns is durable, one caller's failure is its own, and many callers share a commit."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backends.loop import database as database_module
from backends.loop.database import PoolDatabase, Row
from csi_core.errors import Busy, ConfigError, DataLoss, NoSpace, NotFound, Unavailable

PUT = "INSERT INTO trash VALUES (?, ?)"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PoolDatabase]:
    opened = PoolDatabase(tmp_path / "pool.db")
    yield opened
    opened.close()


@contextmanager
def queued(database: PoolDatabase) -> Iterator[Callable[..., Future[Any]]]:
    """What is submitted in the block waits for one commit, and then shares the next."""
    entered, go_on = threading.Event(), threading.Event()

    def slow(_: sqlite3.Connection) -> None:
        entered.set()
        assert go_on.wait(5)

    with ThreadPoolExecutor(128) as threads:
        futures = [threads.submit(database.write, slow)]
        assert entered.wait(5)

        def submit(call: Callable[..., Any], *arguments: object) -> Future[Any]:
            futures.append(threads.submit(call, *arguments))
            return futures[-1]

        yield submit
        while len(database._queue) < len(futures) - 1:
            pass
        go_on.set()


def keys(database: PoolDatabase) -> list[str]:
    return [key for (key,) in database.rows("SELECT key FROM trash ORDER BY key")]


def test_what_is_written_is_there_after_reopening(tmp_path: Path) -> None:
    first = PoolDatabase(tmp_path / "pool.db")
    assert first.execute(PUT, ("a", 1)) == 1
    first.close()
    second = PoolDatabase(tmp_path / "pool.db")
    assert second.row("SELECT * FROM trash") == ("a", 1)
    second.close()


def test_an_administrator_who_looks_into_it_takes_nothing_away(database: PoolDatabase, tmp_path: Path) -> None:
    """Whoever closes a database as the last one removes its log, and locks say who else has it open."""
    look = (
        "import contextlib, sqlite3, sys\n"
        "with contextlib.closing(sqlite3.connect(sys.argv[1])) as database:\n"
        "    print(*(key for key, in database.execute('SELECT key FROM trash ORDER BY key')))"
    )

    def seen() -> str:
        command = [sys.executable, "-c", look, str(tmp_path / "pool.db")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    database.execute(PUT, ("a", 1))
    assert seen() == "a"
    database.execute(PUT, ("b", 1))
    assert seen() == "a b"
    assert keys(database) == ["a", "b"]


def test_nobody_else_reads_it(database: PoolDatabase, tmp_path: Path) -> None:
    database.execute(PUT, ("key", 1))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"pool.db": 0o600, "pool.db-wal": 0o600, "pool.db-shm": 0o600}


def test_commits_are_fully_synchronous(database: PoolDatabase) -> None:
    assert database.write(lambda connection: connection.execute("PRAGMA synchronous").fetchone()) == (2,)
    assert database.row("PRAGMA journal_mode") == ("wal",)


def test_many_threads_lose_nothing(database: PoolDatabase) -> None:
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda number: database.execute(PUT, (f"{number:04}", number)), range(800)))
    assert keys(database) == [f"{number:04}" for number in range(800)]


def test_callers_that_wait_share_one_commit(database: PoolDatabase) -> None:
    commits: list[str] = []
    database._writer.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
    with queued(database) as submit:
        for number in range(19):
            submit(database.execute, PUT, (f"{number}", 0))
    assert len(commits) == 2
    assert len(keys(database)) == 19


def test_rows_of_callers_that_wait_are_inserted_by_one_statement(database: PoolDatabase) -> None:
    inserts: list[str] = []
    database._writer.set_trace_callback(lambda text: inserts.append(text) if text.startswith("INSERT") else None)
    with queued(database) as submit:
        futures = [submit(database.insert, [Row("trash", (f"{number:03}", number))]) for number in range(100)]
        futures.append(submit(database.insert, [Row("trash", ("several", 1)), Row("trash", ("rows", 2))]))
    assert [future.result() for future in futures] == [None] * 101
    assert len(keys(database)) == 102
    assert len(inserts) == 2, "64 rows each at most"


def commits(database: PoolDatabase) -> list[int]:
    """How many operations each further commit serves; grows as they happen."""
    served: list[int] = []
    commit = database._commit

    def counted(batch: Sequence[Any]) -> None:
        served.append(len(batch))
        commit(batch)

    database._commit = counted  # type: ignore[method-assign]
    return served


def test_after_a_commit_that_served_many_the_next_waits_for_as_many(
    database: PoolDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    with queued(database) as submit:
        for n in range(7):
            submit(database.insert, [Row("trash", (f"first-{n}", n))])
    monkeypatch.setattr(database_module, "_GATHER_S", 60)
    served = commits(database)
    with ThreadPoolExecutor(7) as threads:
        list(threads.map(lambda n: database.insert([Row("trash", (f"second-{n}", n))]), range(7)))
    assert served == [7]
    assert len(keys(database)) == 14


def test_a_caller_that_is_alone_again_soon_waits_for_nobody(
    database: PoolDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    with queued(database) as submit:
        for n in range(40):
            submit(database.insert, [Row("trash", (f"key-{n}", n))])
    served = commits(database)
    for n in range(4):
        database.execute(PUT, (f"late-{n}", n))
    monkeypatch.setattr(database_module, "_GATHER_S", 5)
    begin_s = time.monotonic()
    database.execute(PUT, ("alone", 1))
    assert time.monotonic() - begin_s < 5
    assert served == [1] * 5


def test_a_row_whose_key_is_taken_hurts_no_other_of_its_batch(database: PoolDatabase) -> None:
    database.execute(PUT, ("taken", 0))
    with queued(database) as submit:
        good = submit(database.insert, [Row("trash (charge_bytes, key)", (1, "good"))])
        taken = submit(database.insert, [Row("trash", ("undone", 0)), Row("trash", ("taken", 0))])
        late = submit(database.execute, PUT, ("late", 0))
    with pytest.raises(Busy, match="repeat"):
        taken.result()
    assert good.result() is None
    assert late.result() == 1
    assert keys(database) == ["good", "late", "taken"]


def test_one_failing_operation_hurts_no_other_of_its_batch(database: PoolDatabase) -> None:
    database.execute(PUT, ("taken", 0))

    def refusing(connection: sqlite3.Connection) -> None:
        connection.execute(PUT, ("undone", 0))
        raise NotFound("refused")

    with queued(database) as submit:
        good = submit(database.execute, PUT, ("good", 0))
        refused = submit(database.write, refusing)
        taken = submit(database.execute, PUT, ("taken", 1))
        late = submit(database.execute, PUT, ("late", 0))
    assert good.result() == late.result() == 1
    with pytest.raises(NotFound, match="refused"):
        refused.result()
    with pytest.raises(Busy, match="repeat"):
        taken.result()
    assert keys(database) == ["good", "late", "taken"]


def test_a_failed_commit_is_told_to_every_caller_as_not_final(
    database: PoolDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self.connection = connection

        def execute(self, statement: str, *values: object) -> object:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return self.connection.execute(statement, *values)

    really = database._writer
    monkeypatch.setattr(database, "_writer", Failing(really))
    with pytest.raises(Unavailable, match="disk I/O error"):
        database.execute(PUT, ("lost", 0))
    monkeypatch.setattr(database, "_writer", really)
    assert keys(database) == []
    database.execute(PUT, ("next", 0))
    assert keys(database) == ["next"]


def test_a_full_database_is_no_space(database: PoolDatabase) -> None:
    (pages,) = database.row("PRAGMA page_count") or (0,)
    database._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(NoSpace, match="ballast"):
        for number in range(1000):
            database.execute(PUT, (f"{number:04}" * 50, number))
    (_, last) = database.row("SELECT max(key), max(charge_bytes) FROM trash") or ("", -1)
    database._writer.execute(f"PRAGMA max_page_count = {pages + 100}")
    database.execute(PUT, ("after", last + 1))


def test_readers_do_not_wait_for_a_commit(database: PoolDatabase) -> None:
    def read_meanwhile(connection: sqlite3.Connection) -> list[str]:
        connection.execute(PUT, ("unseen", 0))
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(keys, database).result(timeout=2)

    assert database.write(read_meanwhile) == []
    assert keys(database) == ["unseen"]


def test_reading_connections_are_bounded(database: PoolDatabase) -> None:
    with ThreadPoolExecutor(32) as threads:
        list(threads.map(lambda _: keys(database), range(500)))
    assert len(database._readers) <= 4


def test_a_reader_that_cannot_be_opened_is_not_final(database: PoolDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_descriptors(*_: object, **__: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", out_of_descriptors)
    with pytest.raises(Unavailable, match="unable to open"):
        keys(database)


def test_a_foreign_or_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("CREATE TABLE precious (x)")
    foreign.close()
    before = (tmp_path / "foreign.db").read_bytes()
    with pytest.raises(ConfigError, match="not a pool database"):
        PoolDatabase(tmp_path / "foreign.db")
    assert (tmp_path / "foreign.db").read_bytes() == before
    PoolDatabase(tmp_path / "pool.db").close()
    newer = sqlite3.connect(tmp_path / "pool.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ConfigError, match="schema 99"):
        PoolDatabase(tmp_path / "pool.db")


def test_damage_is_data_loss(tmp_path: Path) -> None:
    (tmp_path / "pool.db").write_bytes(b"SQLite format 3\0" + b"x" * 8000)
    with pytest.raises(DataLoss, match="restore"):
        PoolDatabase(tmp_path / "pool.db")
