"""exportfs(8)'s table of what is exported, and one way to change it that does not cost what exportfs costs.

exportfs parses the whole table, looks up every component of every path in it and writes it anew, for one entry as for
all. To add an entry takes one line more. That is done here by exportfs's own rules: its two locks, a new file renamed
over the old one (rpc.mountd looks for a new inode), then the kernel's caches. The line is not made up: it is one that
this host's exportfs wrote for another volume with the same options, with this volume's path, client and fsid.

Lines are only ever added, and for a path that has none. To change or take away an entry is exportfs's business, and so
is whatever is not exactly as expected here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import structlog

from csi_core.faults import fault

__all__ = ["Table"]

_log = structlog.get_logger(__name__)
_STATE: Final = Path("/var/lib/nfs")
_CACHES: Final = Path("/proc/net/rpc")
_CACHE_NAMES: Final = ("auth.unix.ip", "auth.unix.gid", "nfsd.fh", "nfsd.export")
"""In the order in which one refers to the next, as exportfs flushes them."""

_LOCKS: Final = ("export-lock", ".etab.lock")
"""Of whoever changes the table, from reading it to its end; and of whoever reads or writes the file. In this order."""

_CHUNK_BYTES: Final = 1 << 16
_LOCK_WAIT_S: Final = 2.0
_FSID: Final = re.compile(r"(?<=,)fsid=[^,]+")
_ALONE: Final = threading.Lock()
"""The locks are of the process: they do not hold off its own threads, and end when any thread closes the file."""


class Table:
    """The file ``etab``.

    Args:
        state: where exportfs keeps it.
        caches: where the kernel's caches of it are.
    """

    def __init__(self, state: Path = _STATE, caches: Path = _CACHES) -> None:
        self._state = state
        self._file = state / "etab"
        self._caches = caches
        self._learned: dict[tuple[int, str], str] = {}

    def text(self) -> str:
        """All of it; nothing before the first export."""
        try:
            return self._file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def lines(self, path: Path) -> list[str]:
        """The entries of one path. Line by line: large buffers cost more than what is done with them."""
        start = f"{path}\t".encode()
        try:
            with self._file.open("rb", _CHUNK_BYTES) as table:
                return [line.decode(errors="replace") for line in table if line.startswith(start)]
        except FileNotFoundError:
            return []

    def learn(self, path: Path, address: str, options: str) -> None:
        """Remember how exportfs wrote an entry that it has just made with these options."""
        start, fsid = f"{path}\t{address}(", _FSID.findall(options)
        written = [line.removeprefix(start) for line in self.lines(path) if line.startswith(start)]
        if len(written) == len(fsid) == 1 and written[0].endswith(")\n") and _FSID.findall(written[0]) == fsid:
            self._learned[_like(address, options)] = written[0]

    def append(self, path: Path, address: str, options: str) -> bool:
        """Add an entry, and have the kernel forget what it was told before.

        Returns:
            Whether it is done. If not, exportfs has to do it, whatever has become of it here.
        """
        model = self._learned.get(_like(address, options))
        if model is None or not path.is_dir():
            return False
        (fsid,) = _FSID.findall(options)
        try:
            with self._locked():
                return self._add(path, f"{path}\t{address}({_FSID.sub(fsid, model)}")
        except OSError as error:
            _log.info("the table of exports is left to exportfs", path=str(path), reason=str(error))
            return False

    def flush(self) -> None:
        """Have the kernel ask mountd anew about every client and export."""
        for name in _CACHE_NAMES:
            # Kernels before 4.17 take the number for a time: what was cached before it is forgotten.
            (self._caches / name / "flush").write_text(f"{int(time.time()) + 1}\n", encoding="ascii")

    def _add(self, path: Path, line: str) -> bool:
        if self.lines(path):
            return False
        new = self._state / "etab.tmp"  # exportfs's name: what a kill leaves there is overwritten by whoever is next
        fault("nfs.etab.before_write")
        with self._file.open("rb", 0) as old, new.open("wb", 0) as out:
            size_bytes = os.fstat(old.fileno()).st_size
            if size_bytes and os.pread(old.fileno(), 1, size_bytes - 1) != b"\n":
                return False
            os.fchmod(out.fileno(), os.fstat(old.fileno()).st_mode & 0o777)
            while os.sendfile(out.fileno(), old.fileno(), None, size_bytes):
                pass
            out.write(line.encode())
            if os.fstat(out.fileno()).st_size != size_bytes + len(line.encode()):
                raise OSError(errno.ENOSPC, "the table has not become as long as it should")
        fault("nfs.etab.before_rename")
        new.rename(self._file)
        fault("nfs.etab.after_rename")
        self.flush()
        fault("nfs.etab.after_flush")
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Raises an OSError where a lock is missing, since then exportfs uses other ones; or is held for long."""
        with _ALONE, ExitStack() as stack:
            deadline = time.monotonic() + _LOCK_WAIT_S
            for name in _LOCKS:
                file = stack.enter_context((self._state / name).open("r+b"))
                while True:
                    try:
                        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.002)
            yield


def _like(address: str, options: str) -> tuple[int, str]:
    """Entries of which exportfs writes the same, but for path, address and fsid."""
    return ip_address(address).version, _FSID.sub("fsid=", options)
