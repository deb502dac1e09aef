"""Adding to exportfs's table without exportfs: what is written, and what makes it exportfs's work after all."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backends.nfs import etab
from backends.nfs.etab import Table
from backends.nfs.exportfs import KernelServer
from csi_core import faults

CACHES = ("auth.unix.ip", "auth.unix.gid", "nfsd.fh", "nfsd.export")
LOCKS = ("export-lock", ".etab.lock")
ADDRESS = "10.0.0.1"
FOREIGN = "/home\t*(rw,sync,fsid=7,sec=sys)\n"


def options(number: int, *, read_only: bool = False) -> str:
    return f"{'ro' if read_only else 'rw'},sync,no_root_squash,sec=sys,fsid=0000-{number},mountpoint=/srv"


def line(path: Path, number: int, address: str = ADDRESS, *, read_only: bool = False) -> str:
    """As exportfs writes it: more options than it was given, in an order of its own."""
    access = "ro" if read_only else "rw"
    return (
        f"{path}\t{address}({access},sync,wdelay,no_root_squash,fsid=0000-{number},mountpoint=/srv,sec=sys,{access})\n"
    )


class Server(KernelServer):
    """exportfs is a note of what it was called with, and an append to the same file."""

    def __init__(self, state: Path, caches: Path) -> None:
        super().__init__(Table(state, caches))
        self.state = state
        self.calls: list[tuple[str, ...]] = []

    def _exportfs(self, *arguments: str) -> None:
        self.calls.append(arguments)
        if arguments[0] != "-i":
            return
        address, _, path = arguments[-1].rpartition(":")
        given = arguments[2].split(",")
        number, read_only = int(given[4].partition("-")[2]), given[0] == "ro"
        with (self.state / "etab").open("a", encoding="ascii") as table:
            table.write(line(Path(path), number, address.strip("[]"), read_only=read_only))


@dataclass
class Place:
    """A state directory, caches, and directories to export."""

    root: Path
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 1000)))

    def __post_init__(self) -> None:
        self.state, self.caches = self.root / "state", self.root / "rpc"
        self.state.mkdir(exist_ok=True)
        self.file = self.state / "etab"
        self.file.write_text(FOREIGN, encoding="ascii")
        for name in LOCKS:
            (self.state / name).touch()
        for name in CACHES:
            (self.caches / name).mkdir(parents=True, exist_ok=True)
        self.server = self.opened()

    def opened(self) -> Server:
        return Server(self.state, self.caches)

    def volume(self) -> tuple[Path, int]:
        number = next(self.numbers)
        path = self.root / f"volume-{number}"
        path.mkdir()
        return path, number

    def learned(self) -> None:
        """The first grant is exportfs's."""
        path, number = self.volume()
        self.server.grant(path, ADDRESS, options(number))
        assert len(self.server.calls) == 1
        self.server.calls.clear()
        for name in CACHES:
            (self.caches / name / "flush").unlink(missing_ok=True)

    def flushed(self) -> list[str]:
        return [name for name in CACHES if (self.caches / name / "flush").exists()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_all_but_the_first_are_added_as_exportfs_wrote_the_first(place: Place) -> None:
    place.learned()
    before = place.file.read_text(encoding="ascii")
    (path, number), (other, second) = place.volume(), place.volume()
    with place.file.open(encoding="ascii"):  # as rpc.mountd has it, which reads again what has another inode
        inode = place.file.stat().st_ino
        place.server.grant(path, ADDRESS, options(number))
        assert place.file.stat().st_ino != inode
    place.server.grant(other, "10.0.0.2", options(second))
    assert place.server.calls == []
    assert place.file.read_text(encoding="ascii") == before + line(path, number) + line(other, second, "10.0.0.2")
    assert place.flushed() == list(CACHES)
    assert sorted(file.name for file in place.state.iterdir()) == sorted(("etab", *LOCKS))
    assert place.server.clients(path) == {ADDRESS: False}


def test_caches_are_flushed_after_the_table_is_there_and_each_before_what_it_refers_to(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.learned()
    seen: list[tuple[str, bool]] = []
    write = Path.write_text
    path, number = place.volume()

    def noted(file: Path, *arguments: object, **more: object) -> int:
        seen.append((file.parent.name, bool(place.server.clients(path))))
        return write(file, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", noted)
    place.server.grant(path, ADDRESS, options(number))
    assert seen == [(name, True) for name in CACHES]


def test_other_options_and_other_kinds_of_address_are_learned_of_their_own(place: Place) -> None:
    place.learned()
    for address, read_only in ((ADDRESS, True), ("fd00::7", False)):
        for expected in (1, 0):
            path, number = place.volume()
            place.server.grant(path, address, options(number, read_only=read_only))
            assert len(place.server.calls) == expected
            assert line(path, number, address, read_only=read_only) in place.file.read_text(encoding="ascii")
            place.server.calls.clear()


def test_the_table_keeps_its_permissions(place: Place) -> None:
    place.learned()
    place.file.chmod(0o640)
    path, number = place.volume()
    before = os.umask(0o077)
    try:
        place.server.grant(path, ADDRESS, options(number))
    finally:
        os.umask(before)
    assert place.server.calls == []
    assert place.file.stat().st_mode & 0o777 == 0o640


@contextmanager
def held_elsewhere(lock: Path) -> Iterator[None]:
    """By another process."""
    holder = "import fcntl, sys; file = open(sys.argv[1], 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX); print(); input()"
    argv = [sys.executable, "-u", "-c", holder, str(lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def no_newline(place: Place, path: Path) -> None:
    place.file.write_text(place.file.read_text(encoding="ascii").removesuffix("\n"), encoding="ascii")


def own_line(place: Place, path: Path) -> None:
    with place.file.open("a", encoding="ascii") as table:
        table.write(line(path, 99))


def foreign_line(place: Place, path: Path) -> None:
    with place.file.open("a", encoding="ascii") as table:
        table.write(f"{path}\t*.example.com(rw)\n")


def no_cache(place: Place, path: Path) -> None:
    (place.caches / "nfsd.export").rmdir()


DOUBTS: dict[str, Callable[[Place, Path], object]] = {
    "no table": lambda place, path: place.file.unlink(),
    "a table without an end": no_newline,
    "an entry of the same path and client": own_line,
    "an entry of the same path and another client": foreign_line,
    "no lock of changes": lambda place, path: (place.state / "export-lock").unlink(),
    "no lock of the file": lambda place, path: (place.state / ".etab.lock").unlink(),
    "a cache that cannot be flushed": no_cache,
    "a directory that is gone": lambda place, path: path.rmdir(),
    "a state directory of another form": lambda place, path: (place.state / "etab.tmp").mkdir(),
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_exportfs_does_it_in_doubt(place: Place, doubt: str) -> None:
    place.learned()
    path, number = place.volume()
    DOUBTS[doubt](place, path)
    place.server.grant(path, ADDRESS, options(number))
    assert place.server.calls == [("-i", "-o", options(number), f"{ADDRESS}:{path}")]


@pytest.mark.parametrize("name", LOCKS)
def test_exportfs_does_it_where_the_table_is_held_for_long(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etab, "_LOCK_WAIT_S", 0.05)
    place.learned()
    path, number = place.volume()
    before = place.file.read_text(encoding="ascii")
    with held_elsewhere(place.state / name):
        assert not place.server._table.append(path, ADDRESS, options(number))
        assert place.file.read_text(encoding="ascii") == before
    assert place.server._table.append(path, ADDRESS, options(number))


def test_both_locks_are_held_while_the_table_changes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.learned()
    path, number = place.volume()
    held: list[str] = []
    rename = Path.rename
    attempt = (
        "import fcntl, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: fcntl.lockf(open(name, 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    except BlockingIOError: print(name)"
    )

    def looked_at(file: Path, target: Path) -> Path:
        argv = [sys.executable, "-c", attempt, *(str(place.state / name) for name in LOCKS)]
        held.extend(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())
        return rename(file, target)

    monkeypatch.setattr(Path, "rename", looked_at)
    place.server.grant(path, ADDRESS, options(number))
    assert held == [str(place.state / name) for name in LOCKS]


def test_a_disk_that_is_full_is_seen(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.learned()
    before = place.file.read_text(encoding="ascii")
    path, number = place.volume()
    monkeypatch.setattr(os, "sendfile", lambda *arguments: 0)  # as far as there was room
    assert not place.server._table.append(path, ADDRESS, options(number))
    assert place.file.read_text(encoding="ascii") == before


def test_what_exportfs_wrote_otherwise_is_no_model(place: Place) -> None:
    path, number = place.volume()
    table = place.server._table
    for written in (
        "",
        line(path, number, "node-a.example.com"),  # it has put a name in the address's place
        line(path, number + 1),
        line(path, number).removesuffix("\n"),
        line(path, number).replace(")", ""),
        line(path, number) * 2,
        line(path, number).replace(",sec", f",fsid=0000-{number},sec"),
    ):
        place.file.write_text(written, encoding="ascii")
        table.learn(path, ADDRESS, options(number))
        other, second = place.volume()
        assert not table.append(other, ADDRESS, options(second)), written
    table.learn(path, ADDRESS, "rw,sync")
    assert not table.append(path, ADDRESS, "rw,sync"), "each export needs an id"


def test_many_at_once_lose_nothing(place: Place) -> None:
    place.learned()
    volumes = [place.volume() for _ in range(40)]

    def grant(some: Collection[tuple[Path, int]]) -> None:
        for path, number in some:
            place.server.grant(path, ADDRESS, options(number))

    threads = [threading.Thread(target=grant, args=(volumes[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = place.file.read_text(encoding="ascii").splitlines(keepends=True)
    assert len(found) == 42
    assert {line(path, number) for path, number in volumes} <= set(found)


@pytest.mark.parametrize("point", ["before_write", "before_rename", "after_rename", "after_flush"])
def test_killed(place: Place, point: str) -> None:
    """The table is the old one or the new one, nothing stays locked, and the next one finds its way."""
    place.learned()
    old = place.file.read_text(encoding="ascii")
    path, number = place.volume()
    child = os.fork()
    if not child:
        faults._name, faults._left = f"nfs.etab.{point}", 1
        faults._armed = True  # type: ignore[misc]
        place.server.grant(path, ADDRESS, options(number))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    there = point.startswith("after")
    assert place.file.read_text(encoding="ascii") == (old + line(path, number) if there else old)
    with (place.state / "export-lock").open("r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    other, second = place.volume()
    place.server.grant(other, ADDRESS, options(second))
    if not there:
        place.server.grant(path, ADDRESS, options(number))
    assert place.server.calls == []
    found = place.file.read_text(encoding="ascii").splitlines(keepends=True)
    assert sorted(found[2:]) == sorted([line(path, number), line(other, second)])
    assert not (place.state / "etab.tmp").exists()


def test_a_refresh_flushes_or_has_it_done(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    running = True
    monkeypatch.setattr(Server, "running", lambda server: running)
    place.server.refresh()
    assert place.flushed() == list(CACHES)
    assert place.server.calls == []
    monkeypatch.setattr(Table, "flush", lambda table: (_ for _ in ()).throw(OSError(errno.ENOENT, "gone")))
    place.server.refresh()
    assert place.server.calls == [("-f",)]
    running = False
    place.server.calls.clear()
    place.server.refresh()
    assert place.server.calls == []


def test_what_is_read_of_the_table(place: Place) -> None:
    server = place.server
    place.file.unlink()
    assert (server.granted(), server.clients(Path("/srv/a")), server.serves_beyond(Path("/srv"))) == ({}, {}, False)
    lines = (
        "/srv/a\t10.0.0.1(rw,sync)",
        "/srv/ab\t10.0.0.9(rw)",
        "/srv/a\tfd00:0::7(ro,sync)",
        "/x/srv/a\t10.0.0.8(rw)",
    )
    place.file.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    assert server.clients(Path("/srv/a")) == {"10.0.0.1": False, "fd00::7": True}
    assert server.clients(Path("/srv")) == {}
    for path in {path for path, _ in server.granted()}:
        assert server.clients(Path(path)) == {a: ro for (found, a), ro in server.granted().items() if found == path}
    assert server.serves_beyond(Path("/srv"))
    place.file.write_text("".join(f"{line}\n" for line in lines[:3]), encoding="ascii")
    assert not server.serves_beyond(Path("/srv"))
    assert server.serves_beyond(Path("/srv/a"))
