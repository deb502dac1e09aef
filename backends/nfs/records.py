"""What is recorded of a volume or snapshot: one small JSON file beside its content, the only truth there is."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import secrets
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from csi_core.errors import DataLoss
from csi_core.faults import fault
from csi_core.model import AccessMode, ContentSource, GroupSnapshot, Snapshot, Volume

__all__ = ["KEY", "Kind", "Publication", "Record", "kind_of", "new_key", "read_record", "write_record"]

KEY: Final = re.compile(r"[vsg]-[0-9a-f]{20}")
"""Handles are keys: they come from outside, and what this has not let through reaches no path."""

Kind = Literal["v", "s", "g"]
_FILE: Final = "record.json"
_NEW: Final = "record.new"
_BLOCK_BYTES: Final = 4096
_SET_FLAGS: Final = 0x40086602
_IN_PLACE: Final = (0x00800000).to_bytes(8, sys.byteorder)
"""FS_NOCOW_FL of linux/fs.h."""
_EXCHANGE: Final = 2
_renameat2: Final = getattr(ctypes.CDLL(None), "renameat2", None)


@dataclass(frozen=True, slots=True)
class Publication:
    """How one node was let in: its addresses then, and whether it writes."""

    addresses: tuple[str, ...]
    read_only: bool
    access_mode: AccessMode


@dataclass(frozen=True, slots=True)
class Record:
    """A volume, a snapshot, or a group of snapshots.

    Attributes:
        key: its handle.
        name: the name it was created under.
        size_bytes: what the claim gets; of a snapshot, its volume's size.
        charge_bytes: what it costs in the ledger.
        tree_id: the id by which its content is counted.
        created_us: when, in microseconds since 1970.
        recorded: the parameters that the core compares.
        recorded_mutable: the mutable parameters in force, of a volume.
        source: what it was filled from.
        volume_key: of a snapshot, the volume it is of.
        publications: of a volume, by node id.
        group_key: of a snapshot in a group, the group's key.
        directory: of a volume in mode ``share``, where its content is, relative to the share.
    """

    key: str
    name: str
    size_bytes: int
    charge_bytes: int
    tree_id: int
    created_us: int
    recorded: Mapping[str, str] = field(default_factory=dict)
    source: ContentSource | None = None
    volume_key: str = ""
    publications: Mapping[str, Publication] = field(default_factory=dict)
    directory: str = ""
    recorded_mutable: Mapping[str, str] = field(default_factory=dict)
    group_key: str = ""

    def clients(self) -> dict[str, bool]:
        """The addresses that may mount it, and whether read-only."""
        found: dict[str, bool] = {}
        for publication in self.publications.values():
            for address in publication.addresses:
                found[address] = found.get(address, True) and publication.read_only
        return found

    def volume(self, context: Mapping[str, str]) -> Volume:
        """The volume as the core is told of it."""
        return Volume(
            handle=self.key,
            name=self.name,
            size_bytes=self.size_bytes,
            recorded=dict(self.recorded),
            recorded_mutable=dict(self.recorded_mutable),
            source=self.source,
            context=context,
            published_node_ids=tuple(sorted(self.publications)),
        )

    def snapshot(self) -> Snapshot:
        """The snapshot as the core is told of it."""
        return Snapshot(
            self.key,
            self.name,
            self.volume_key,
            self.size_bytes,
            self._created_at(),
            recorded=dict(self.recorded),
            group_handle=self.group_key,
        )

    def group(self, members: Iterable[Record]) -> GroupSnapshot:
        """The group as the core is told of it."""
        snapshots = tuple(member.snapshot() for member in sorted(members, key=lambda member: member.key))
        return GroupSnapshot(self.key, self.name, snapshots, self._created_at(), recorded=dict(self.recorded))

    def _created_at(self) -> datetime:
        return datetime.fromtimestamp(self.created_us / 1_000_000, UTC)


_JSON: Final = TypeAdapter(Record)


def kind_of(key: str) -> Kind:
    """What a key is of."""
    return "v" if key.startswith("v") else "s" if key.startswith("s") else "g"


def new_key(kind: Kind) -> str:
    """A key that nothing else has, nor ever had: a node's stale handle leads to nobody else's data."""
    return f"{kind}-{secrets.token_hex(10)}"


def write_record(directory: int, record: Record) -> None:
    """Replace the record in an open directory, durably and at once.

    The caller syncs the directory where the record is new: the rename of that directory makes it seen.
    """
    text = _JSON.dump_json(record, indent=1)
    text += b"\n" * (-len(text) % _BLOCK_BYTES)  # whole blocks; btrfs keeps less beside others' metadata
    new = os.open(_NEW, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    with os.fdopen(new, "wb") as out:  # a single write(2) may write a part on a full disk, and call that no error
        if not os.fstat(new).st_size:
            with suppress(OSError):  # only btrfs writes elsewhere than before, unless it is told
                fcntl.ioctl(new, _SET_FLAGS, _IN_PLACE)
        out.write(text)
        out.truncate()
        os.fsync(new)
    fault("nfs.record.before_rename")
    _exchange(directory)
    fault("nfs.record.after_rename")


def _exchange(directory: int) -> None:
    """Put the new record in the old one's place, and the old one in its: the next takes its blocks.

    On a full disk there are no others, and a node that cannot be taken out of a record keeps its volume for ever.
    """
    if _renameat2 is None or _renameat2(directory, _NEW.encode(), directory, _FILE.encode(), _EXCHANGE) < 0:
        os.rename(_NEW, _FILE, src_dir_fd=directory, dst_dir_fd=directory)  # the first one; or on somebody's share


def read_record(directory: int, key: str) -> Record:
    """The record in an open directory.

    Raises:
        DataLoss: it is missing, not readable, or another's.
    """
    try:
        file = os.open(_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        with os.fdopen(file, "rb") as text:
            record = _JSON.validate_json(text.read())
    except (OSError, ValidationError) as error:
        raise DataLoss(f"the record of {key} cannot be read: {error}") from error
    if record.key != key:
        raise DataLoss(f"the record of {key} says that it is of {record.key}")
    return record
