"""An LV of ours as LVM reports it: its fields decoded, and as the contract's values."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from backends.lvm import names, tags
from csi_core.model import ContentSource, Snapshot, SourceKind, Volume

__all__ = ["LogicalVolume", "Record", "now_us", "parameter_fields", "record_of", "shown_snapshot"]

_PARAMETER = "param."


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A line of the report. ``data_percent`` and ``metadata_percent`` are None where LVM says nothing."""

    name: str
    uuid: str
    size_bytes: int
    attributes: str
    tags: tuple[str, ...]
    origin: str
    pool: str
    layout: frozenset[str]
    health: str
    data_percent: float | None
    metadata_percent: float | None

    @property
    def thin_pool(self) -> bool:
        """Whether it is a thin pool."""
        return {"thin", "pool"} <= self.layout

    @property
    def thin(self) -> bool:
        """Whether it is a thin volume or a snapshot of one."""
        return bool(self.pool)

    @property
    def partial(self) -> bool:
        """Whether a disk that it needs is missing."""
        return self.attributes[8:9] == "p"


@dataclass(frozen=True, slots=True)
class Record:
    """An LV of ours.

    Attributes:
        lv: as LVM reports it.
        key: the key in its name.
        fields: its tags, decoded.
    """

    lv: LogicalVolume
    key: str
    fields: Mapping[str, str]

    @property
    def name(self) -> str:
        """The CO's name for it; "" for a member of a group."""
        return self.fields.get("name", "")

    @property
    def state(self) -> str:
        """ "creating", "deleting", or "" for one that is in order.

        A copy-on-write snapshot is first an LV of its own, with all tags, and then made one in a second change of the
        group. An lvcreate that was killed in between leaves the store alone, which holds nothing of its volume.
        """
        if "cow" in self.fields and not self.lv.origin:
            return self.fields.get("state", "creating")
        return self.fields.get("state", "")

    @property
    def ready(self) -> bool:
        """Whether it is what the CO was, or is to be, told of."""
        return not self.state

    @property
    def copy_on_write(self) -> bool:
        """Whether it is a copy-on-write snapshot, which lives and dies with its origin."""
        return bool(self.lv.origin) and not self.lv.thin

    @property
    def size_bytes(self) -> int:
        """What the claim gets: of a copy-on-write snapshot that of its volume then, not of its store."""
        return int(self.fields.get("size", self.lv.size_bytes))

    @property
    def recorded(self) -> dict[str, str]:
        """The parameters as they were given."""
        return _recorded(self.fields)

    def volume(self, class_name: str) -> Volume:
        """As the contract's value."""
        return Volume(
            handle=names.join(class_name, self.key),
            name=self.name,
            size_bytes=self.size_bytes,
            recorded=self.recorded,
            source=_source(self.fields.get("source", "")),
        )

    def snapshot(self, class_name: str, *, ready: bool = True) -> Snapshot:
        """As the contract's value; ``ready`` False where its data is lost."""
        return shown_snapshot(class_name, self.key, self.fields, self.size_bytes, ready=ready)


def shown_snapshot(
    class_name: str, key: str, fields: Mapping[str, str], size_bytes: int, *, ready: bool = True
) -> Snapshot:
    """A snapshot with these fields as the contract's value."""
    group = fields.get("group", "")
    return Snapshot(
        handle=names.join(class_name, key),
        name=fields.get("name", ""),
        volume_handle=names.join(class_name, fields.get("of", "")),
        size_bytes=size_bytes,
        created_at=created_at(fields),
        ready=ready,
        recorded={} if group else _recorded(fields),
        group_handle=names.join(class_name, group) if group else "",
    )


def record_of(lv: LogicalVolume) -> Record | None:
    """The record of an LV, or None where it is none of ours: another name, or not our tags."""
    key = names.key_of(lv.name)
    fields = tags.decode(lv.tags) if key else {}
    return Record(lv, key, fields) if key and "made" in fields else None


def parameter_fields(recorded: Mapping[str, str]) -> dict[str, str]:
    """The fields that hold parameters as they were given."""
    return {f"{_PARAMETER}{name}": value for name, value in recorded.items()}


def now_us() -> int:
    """The time in microseconds since 1970, for the field ``made``."""
    return time.time_ns() // 1000


def created_at(fields: Mapping[str, str]) -> datetime:
    """When the LV was made, by its field ``made``."""
    made = fields.get("made", "")
    return datetime.fromtimestamp((int(made) if made.isdigit() else 0) / 1e6, UTC)


def _recorded(fields: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(_PARAMETER): value for name, value in fields.items() if name.startswith(_PARAMETER)}


def _source(handle: str) -> ContentSource | None:
    if not handle:
        return None
    kind = SourceKind.SNAPSHOT if names.split(handle, "s") else SourceKind.VOLUME
    return ContentSource(kind, handle)
