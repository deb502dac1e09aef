"""The root: a directory whose entries are the truth. What is in ``volumes``, ``snapshots`` or ``groups`` exists.

::

    ROOT/volumes/KEY/record.json   what is recorded of a volume
    ROOT/volumes/KEY/record.new    blocks for the next record, with the one before; never read
    ROOT/volumes/KEY/data          its content, and what nodes mount
    ROOT/snapshots/KEY/...         the same for a snapshot
    ROOT/groups/KEY/record.json    a group; snapshots of one that is not there are no more than trash
    ROOT/new/KEY                   being made; of no worth after a crash
    ROOT/trash/KEY                 deleted; being removed

Nothing else exists. One rename makes an object or deletes it, so there is no half of one, and another host that gets
the filesystem finds everything.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

import structlog

from backends.nfs.guarded import guarded
from backends.nfs.records import KEY, Kind, Record, kind_of, read_record, write_record
from backends.nfs.sizing import DATA, Sizing
from backends.nfs.trees import opened_directory
from csi_core.errors import ConfigError, DataLoss, StorageFailure, Unavailable
from csi_core.faults import fault

__all__ = ["Place", "Root", "place_of", "storage_errors"]

Place = Literal["volumes", "snapshots", "groups", "new", "trash"]

_PERMISSIONS: Final[dict[Place, int]] = {
    "volumes": 0o711,
    "snapshots": 0o700,
    "groups": 0o700,
    "new": 0o700,
    "trash": 0o700,
}
"""Nodes walk through ``volumes`` on their way, as whoever they are; they see no names in it."""

_PLACES: Final[dict[Kind, Place]] = {"v": "volumes", "s": "snapshots", "g": "groups"}

_log = structlog.get_logger(__name__)


def place_of(key: str) -> Place:
    """Where an object is once it is made."""
    return _PLACES[kind_of(key)]


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Say of an error of the filesystem what it struck."""
    try:
        yield
    except OSError as error:
        raise StorageFailure(f"{what}: {error.strerror}") from error


class Root:
    """An open root, this process's alone.

    Attributes:
        path: where it is.
        directory: itself, open.
        guarded: whether no link below it is followed and no device opened (:mod:`backends.nfs.guarded`).
    """

    def __init__(self, path: Path) -> None:
        """Lock it and make its directories.

        Raises:
            ConfigError: it is missing or cannot be written.
            Unavailable: another process serves it.
        """
        self.path = path
        try:
            self._seen = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"export.root {path}: {error.strerror}; make it, and mount its disk") from error
        private = guarded(self._seen)
        self.guarded = private is not None
        self.directory = self._own(os.dup(self._seen) if private is None else private)
        try:
            self._lock()
            for place, permissions in _PERMISSIONS.items():
                with suppress(FileExistsError):
                    os.mkdir(place, permissions, dir_fd=self.directory)
            os.fsync(self.directory)
            self._places = {place: self._open(place) for place in _PERMISSIONS}
        except BaseException as error:
            os.close(self.directory)
            os.close(self._seen)
            if isinstance(error, OSError):
                raise ConfigError(f"export.root {path}: {error.strerror}") from error
            raise

    def close(self) -> None:
        """Let go of it."""
        for directory in (*self._places.values(), self.directory, self._seen):
            os.close(directory)

    def share(self, key: str) -> Path:
        """What nodes mount of a volume."""
        return self.path / "volumes" / key / DATA

    def place(self, place: Place) -> int:
        """One of the directories, open."""
        return self._places[place]

    @contextmanager
    def opened(self, place: Place, key: str) -> Iterator[int]:
        """An object's directory, open.

        Raises:
            DataLoss: it is gone.
        """
        try:
            with opened_directory(key, self._places[place]) as directory:
                yield directory
        except FileNotFoundError as error:
            raise DataLoss(f"{self.path / place / key} is gone, or what was in it") from error

    @contextmanager
    def data(self, place: Place, key: str) -> Iterator[int]:
        """An object's content, open.

        Raises:
            DataLoss: it is gone.
        """
        with self.opened(place, key) as directory, opened_directory(DATA, directory) as content:
            yield content

    def keys(self, place: Place) -> list[str]:
        """What is in a place; other names are passed over."""
        return sorted(name for name in _names(self._places[place]) if KEY.fullmatch(name))

    def strangers(self) -> list[Path]:
        """Entries that no version of this backend made."""
        found = []
        for place, directory in self._places.items():
            found += [self.path / place / name for name in _names(directory) if not KEY.fullmatch(name)]
        return sorted(found)

    def records(self, place: Place) -> list[Record]:
        """All records of a place; one that cannot be read is logged, and its object stays as it is."""
        found = []
        for key in self.keys(place):
            try:
                with self.opened(place, key) as directory:
                    found.append(read_record(directory, key))
            except DataLoss as error:
                if place != "trash":  # there it may never have been finished
                    _log.error("an object of the root cannot be used", key=key, reason=str(error))
        return found

    def finish(self, record: Record, sizing: Sizing) -> None:
        """Make what lies in ``new`` a volume or snapshot: when this returns, it is one for good."""
        place = place_of(record.key)
        with self.opened("new", record.key) as directory:
            write_record(directory, record)
            os.fsync(directory)
        fault("nfs.create.before_rename")
        os.rename(record.key, record.key, src_dir_fd=self._places["new"], dst_dir_fd=self._places[place])
        fault("nfs.create.after_rename")
        sizing.sync(self._places[place])
        fault("nfs.create.after_sync")

    def update(self, record: Record) -> None:
        """Replace a volume's record, durably."""
        with self.opened("volumes", record.key) as directory:
            write_record(directory, record)
            os.fsync(directory)
        fault("nfs.record.after_sync")

    def discard(self, place: Place, key: str) -> None:
        """Move an object to the trash, durably; one that is not there is fine."""
        fault("nfs.discard.before_rename")
        with suppress(FileNotFoundError):
            os.rename(key, key, src_dir_fd=self._places[place], dst_dir_fd=self._places["trash"])
        fault("nfs.discard.after_rename")
        os.fsync(self._places["trash"])
        os.fsync(self._places[place])
        fault("nfs.discard.after_sync")

    def _own(self, opened: int) -> int:
        """The directory that the places are in, given the opened root: that root itself."""
        return opened

    def _open(self, place: Place) -> int:
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory)

    def _lock(self) -> None:
        try:
            fcntl.flock(self.directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Of the process before this one, perhaps, which is just ending.
            raise Unavailable(
                f"export.root {self.path} is served by another process; each needs a root of its own"
            ) from None


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]
