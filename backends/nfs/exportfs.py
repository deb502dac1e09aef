"""The kernel's NFS server on this host: who may mount what, and what clients still hold.

exportfs(8) keeps the table and flushes the kernel's caches. From then on a file handle of an export that is
gone is answered ESTALE, also for a file that was open. Opens and locks of a client outlive that in the server's memory;
they go when the client is expired. To let a first client mount a path does without exportfs where that is safe
(:mod:`backends.nfs.etab`).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Protocol

import structlog

from backends.nfs.etab import Table
from csi_core.errors import CommandFailed, StorageFailure
from csi_core.run import run

__all__ = ["KernelServer", "Server", "same_address"]

_log = structlog.get_logger(__name__)
_CONTROL: Final = Path("/proc/fs/nfsd")
_TIMEOUT_S: Final = 30.0
_ETAB_LINE: Final = re.compile(r"(\S+)\t([^\s(]+)\(([^)]*)\)")
_CLIENT_ADDRESS: Final = re.compile(r'^address: "(.*):\d+"$', re.MULTILINE)


class Server(Protocol):
    """An NFS server that this host runs."""

    def running(self) -> bool:
        """Whether it answers clients."""

    def granted(self) -> dict[tuple[str, str], bool]:
        """Whether read-only, by path and client, of all that is exported now, whoever did it."""

    def clients(self, path: Path) -> dict[str, bool]:
        """The same of one path, by client; does not look at the others."""

    def serves_beyond(self, root: Path) -> bool:
        """Whether anything is exported that does not lie below ``root``."""

    def grant(self, path: Path, address: str, options: str) -> None:
        """Let a client mount a path, or change how. Durable only as long as the server runs."""

    def revoke(self, path: Path, address: str) -> None:
        """End that, at once: the next request of that client about this path fails."""

    def refresh(self) -> None:
        """Have the table hold in the kernel too: a process that was killed may have changed one and not the other."""

    def expire(self, addresses: Collection[str]) -> None:
        """Take from these clients every open file, lock and delegation there is. They may have nothing else here."""


class KernelServer:
    """knfsd, through exportfs(8) and /proc/fs/nfsd.

    Args:
        table: exportfs's.
    """

    def __init__(self, table: Table | None = None) -> None:
        self._table = table or Table()

    def running(self) -> bool:
        """It has threads."""
        try:
            return int((_CONTROL / "threads").read_text(encoding="ascii")) > 0
        except (OSError, ValueError):
            return False

    def granted(self) -> dict[tuple[str, str], bool]:
        """The table that exportfs keeps and mountd reads."""
        return {
            (path, same_address(client)): "ro" in options.split(",")
            for path, client, options in _ETAB_LINE.findall(self._table.text())
        }

    def clients(self, path: Path) -> dict[str, bool]:
        """From the same table."""
        lines = map(_ETAB_LINE.match, self._table.lines(path))
        return {same_address(line[2]): "ro" in line[3].split(",") for line in lines if line}

    def serves_beyond(self, root: Path) -> bool:
        """From the same table."""
        below = f"{root}/"
        return any(line and not line.startswith(below) for line in self._table.text().split("\n"))

    def grant(self, path: Path, address: str, options: str) -> None:
        """One entry. With -i nothing else is read: a file of exports.d that another call removes would be an error."""
        if not self._table.append(path, address, options):
            self._exportfs("-i", "-o", options, f"{_bracketed(address)}:{path}")
            self._table.learn(path, address, options)

    def revoke(self, path: Path, address: str) -> None:
        """exportfs flushes the kernel's caches before it ends. One that is not exported is fine."""
        try:
            self._exportfs("-u", f"{_bracketed(address)}:{path}")
        except CommandFailed:
            if address in self.clients(path):
                raise
        if address in self.clients(path):
            raise StorageFailure(f"{path} is still exported to {address}; look at `exportfs -v`")

    def refresh(self) -> None:
        """Every client is asked for anew; nothing is cached where no server runs."""
        if not self.running():
            return
        try:
            self._table.flush()
        except OSError:
            self._exportfs("-f")

    def expire(self, addresses: Collection[str]) -> None:
        """Through ``clients/*/ctl``; waits for requests of theirs that are being served."""
        for client in _CONTROL.glob("clients/*"):
            try:
                found = _CLIENT_ADDRESS.search((client / "info").read_text(encoding="utf-8", errors="replace"))
                if found and same_address(found[1].removeprefix("[").removesuffix("]")) in addresses:
                    (client / "ctl").write_text("expire\n", encoding="ascii")
                    _log.info("client expired", client=found[1])
            except FileNotFoundError:
                continue  # it has gone by itself
            except OSError as error:
                # It is fenced all the same; its locks end with its lease.
                _log.warning("client cannot be expired", client=client.name, error=error.strerror)

    def _exportfs(self, *arguments: str) -> None:
        run(["exportfs", *arguments], timeout_s=_TIMEOUT_S, mutates=True)


def same_address(text: str) -> str:
    """One spelling for each address; what is none stays as it is."""
    try:
        address = ip_address(text)
    except ValueError:
        return text
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
