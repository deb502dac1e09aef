"""The exports of all volumes: a file for each in exports.d, so that they outlive the server, and its running table."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from backends.nfs.exportfs import Server
from backends.nfs.mutable import in_force
from backends.nfs.options import ExportOptions
from backends.nfs.records import KEY, Record
from backends.nfs.root import Root
from csi_core.faults import fault

__all__ = ["Exports"]

_SUFFIX: Final = ".exports"
_SQUASH: Final = {"none": "no_root_squash", "root": "root_squash", "all": "all_squash"}


class Exports:
    """Keeps what is exported to what the records say.

    Args:
        server: the NFS server.
        options: how volumes are exported.
        root: where they lie.
        backend_name: marks this backend's files among others' in exports.d.
    """

    def __init__(self, server: Server, options: ExportOptions, root: Root, backend_name: str) -> None:
        self._server = server
        self._options = options
        self._root = root
        self._prefix = f"csi-core.{backend_name}."

    def let_in(self, record: Record) -> None:
        """Export a volume to the clients of its record, and first to the file. Repeated: nothing more."""
        self._write(record)
        self._grant(record, {address: record.clients()[address] for address in self.missing(record)})

    def change(self, record: Record) -> None:
        """Export a volume in another way, and then to the file: where the two differ, a start does it again."""
        self._grant(record, record.clients())
        self._write(record)

    def keep_out(self, record: Record, in_use: Iterable[str]) -> None:
        """End the access of every address that the record names no more.

        Args:
            record: of the volume as it shall be.
            in_use: addresses that have another volume of this backend; what they hold of that is left to them.
        """
        self._write(record)
        path = self._root.share(record.key)
        gone = self._server.clients(path).keys() - record.clients().keys()
        for address in sorted(gone):
            fault("nfs.export.before_revoke")
            self._server.revoke(path, address)
            fault("nfs.export.after_revoke")
        if gone and not self._server.serves_beyond(self._root.path):
            # Whom somebody else exports to as well may hold files there, and a client is expired as a whole.
            self._server.expire(gone - set(in_use))
            fault("nfs.export.after_expire")

    def reconcile(self, records: Iterable[Record]) -> None:
        """Make files and table what the records say; at start."""
        known = {record.key: record for record in records}
        self._options.exports_directory.mkdir(parents=True, exist_ok=True)
        for path, address in self.stale(known):
            self._server.revoke(path, address)
        published = [record for record in known.values() if record.publications]
        for key in self._recorded_keys() - {record.key for record in published}:
            self._file(key).unlink(missing_ok=True)
        for record in published:
            if self._text(record) != self._read(record.key):  # exported in another way than is configured now
                self.change(record)
            self.let_in(record)
        self._server.refresh()

    def stale(self, known: Mapping[str, Record]) -> list[tuple[Path, str]]:
        """What is exported below the root and stands in no record."""
        found = []
        for path, address in self._server.granted():
            below = Path(path)
            if not below.is_relative_to(self._root.path / "volumes"):
                continue
            parts = below.relative_to(self._root.path / "volumes").parts
            record = known.get(parts[0]) if parts else None
            if record is None or self._root.share(record.key) != below or address not in record.clients():
                found.append((below, address))
        return found

    def missing(self, record: Record) -> list[str]:
        """Addresses that the record names and the server does not know."""
        granted = self._server.clients(self._root.share(record.key))
        return [a for a, read_only in record.clients().items() if granted.get(a) is not read_only]

    def _grant(self, record: Record, clients: Mapping[str, bool]) -> None:
        for address, read_only in clients.items():
            fault("nfs.export.before_grant")
            self._server.grant(self._root.share(record.key), address, self._line_options(record, read_only))
            fault("nfs.export.after_grant")

    def _write(self, record: Record) -> None:
        """Replace the volume's file, durably; none where nobody is let in."""
        file = self._file(record.key)
        if self._read(record.key) == (text := self._text(record)):
            return
        fault("nfs.export.before_file")
        if not text:
            file.unlink(missing_ok=True)
        else:
            new = file.with_suffix(".new")  # exportfs(8) looks at names that end in .exports only
            with new.open("w", encoding="ascii") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            new.rename(file)
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        fault("nfs.export.after_file")

    def _text(self, record: Record) -> str:
        clients = sorted(record.clients().items())
        if not clients:
            return ""
        entries = (f"{address}({self._line_options(record, read_only)})" for address, read_only in clients)
        return f"{self._root.share(record.key)} {' '.join(entries)}\n"

    def _line_options(self, record: Record, read_only: bool) -> str:
        options, mutable = self._options, in_force(record.recorded_mutable)
        # The id stays when the filesystem moves to another host, and with it every file handle that nodes have.
        fsid = uuid.UUID(bytes=hashlib.sha256(record.key.encode()).digest()[:16])
        chosen = [
            "ro" if read_only else "rw",
            mutable.writes or "sync",
            "subtree_check" if options.subtree_check else "no_subtree_check",
            _SQUASH[mutable.squash or options.squash],
            f"sec={options.sec}",
            f"fsid={fsid}",
        ]
        if options.require_mount:
            chosen.append(f"mountpoint={options.root}")
        return ",".join(chosen)

    def _file(self, key: str) -> Path:
        return self._options.exports_directory / f"{self._prefix}{key}{_SUFFIX}"

    def _recorded_keys(self) -> set[str]:
        names = (file.name for file in self._options.exports_directory.glob(f"{self._prefix}*{_SUFFIX}"))
        return {key for name in names if KEY.fullmatch(key := name.removeprefix(self._prefix).removesuffix(_SUFFIX))}

    def _read(self, key: str) -> str:
        try:
            return self._file(key).read_text(encoding="ascii")
        except FileNotFoundError:
            return ""
