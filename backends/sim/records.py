"""What the simulator knows, and how it survives the process: one JSON file, replaced whole at every change.

Writing all of it for one change is slow with thousands of volumes and simple with ten; a real
backend would use a database or the storage's own tags.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from csi_core import durable
from csi_core.errors import DataLoss
from csi_core.faults import fault
from csi_core.model import GroupSnapshot, Snapshot, Volume, VolumeCapability, VolumeMode

__all__ = ["Publication", "Records", "SnapshotRecord", "VolumeRecord"]


@dataclass(frozen=True, slots=True)
class Publication:
    """How one node was given access."""

    capability: VolumeCapability
    read_only: bool


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """A volume; ``charge_bytes`` is what it takes from the ledger, ``publications`` are by node."""

    volume: Volume
    mode: VolumeMode
    charge_bytes: int
    thin: bool
    formatted: str = ""
    attached: bool = False
    publications: dict[str, Publication] = field(default_factory=dict)

    def answer(self) -> Volume:
        """The volume as the core is told of it."""
        return replace(self.volume, published_node_ids=tuple(self.publications))


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A snapshot, and whether its content is a directory or a block device's."""

    snapshot: Snapshot
    mode: VolumeMode


@dataclass
class _Tables:
    volumes: dict[str, VolumeRecord] = field(default_factory=dict)
    snapshots: dict[str, SnapshotRecord] = field(default_factory=dict)
    groups: dict[str, GroupSnapshot] = field(default_factory=dict)


_JSON = TypeAdapter(_Tables)


class Records:
    """Volumes, snapshots and groups by handle. Read freely; change them within :meth:`change` only."""

    def __init__(self, file: Path | None) -> None:
        """Open the records.

        Args:
            file: where they are kept; None keeps them in memory.

        Raises:
            DataLoss: the file is there and cannot be understood.
        """
        self._file = file
        self._lock = threading.Lock()
        self._tables = self._load()

    @property
    def volumes(self) -> dict[str, VolumeRecord]:
        """Volumes by handle."""
        return self._tables.volumes

    @property
    def snapshots(self) -> dict[str, SnapshotRecord]:
        """Snapshots by handle, members of groups included."""
        return self._tables.snapshots

    @property
    def groups(self) -> dict[str, GroupSnapshot]:
        """Group snapshots by handle."""
        return self._tables.groups

    @contextmanager
    def change(self) -> Iterator[None]:
        """What is changed within is durable when this is left, or is not changed at all."""
        with self._lock:
            try:
                yield
                self._save()
            except BaseException:
                if self._file:
                    self._tables = self._load()
                raise

    def all_volumes(self) -> tuple[VolumeRecord, ...]:
        """The volumes of one moment, while others change them."""
        with self._lock:
            return tuple(self._tables.volumes.values())

    def all_snapshots(self) -> tuple[SnapshotRecord, ...]:
        """The snapshots of one moment, while others change them."""
        with self._lock:
            return tuple(self._tables.snapshots.values())

    def _load(self) -> _Tables:
        if not self._file or not self._file.exists():
            return _Tables()
        try:
            return _JSON.validate_json(self._file.read_bytes())
        except ValidationError as error:
            raise DataLoss(f"{self._file} is not what the simulator wrote: {error}; restore or remove it") from error

    def _save(self) -> None:
        if not self._file:
            return
        new = self._file.with_suffix(".new")
        durable.write(new, _JSON.dump_json(self._tables, indent=1))
        fault("sim.records.before_rename")
        new.rename(self._file)
        durable.sync(self._file.parent)
        fault("sim.records.after_rename")
