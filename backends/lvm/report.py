"""What a volume group holds, from one command, kept for as long as the group does not change."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from backends.lvm import metadata
from backends.lvm.commands import Lvm
from backends.lvm.records import LogicalVolume, Record, record_of
from csi_core.errors import StorageFailure

__all__ = ["PhysicalVolume", "Report", "Reports"]

_UNREADABLE_MAX_AGE_S: Final = 2.0
_JSON_STARTS: Final = ("{", "}", "[", "]", ",", '"')
_FIELDS: Final = {
    "vg": "vg_name,vg_uuid,vg_seqno,vg_extent_size,vg_free,vg_mda_size,vg_mda_free,vg_exported",
    "pv": "pv_name,pv_free,pv_attr",
    "lv": "lv_name,lv_uuid,lv_size,lv_attr,lv_tags,origin,pool_lv,lv_layout,lv_health_status,"
    "data_percent,metadata_percent",
    # These two cannot be left out; their shortest form.
    "pvseg": "pvseg_start",
    "seg": "seg_start",
}
_FREE_RUNS: Final = "pv_name,pvseg_size,segtype"
"""Instead, of pieces of disks, where it matters how long the free ones are."""


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """A disk of the group. ``longest_run_bytes`` is 0 where nobody asked for it."""

    device: str
    free_bytes: int
    longest_run_bytes: int
    allocatable: bool
    missing: bool


@dataclass(frozen=True)
class Report:
    """A volume group at one moment.

    Attributes:
        uuid, sequence: which group, and how often it has been changed.
        extent_bytes, free_bytes: the unit of all sizes, and what no LV has.
        metadata_share: how full the area is that LVM keeps all this in.
        disks: its physical volumes.
        exported: whether an administrator has put it away to move it.
        volumes: all visible LVs by name, foreign ones too.
        records: those of ours by key, in the order of their keys.
        taken_s: when, by the monotonic clock.
    """

    uuid: str
    sequence: int
    extent_bytes: int
    free_bytes: int
    metadata_share: float
    disks: tuple[PhysicalVolume, ...]
    exported: bool
    volumes: Mapping[str, LogicalVolume]
    records: Mapping[str, Record]
    taken_s: float

    def ready(self, key: str) -> Record | None:
        """The record of that key, where it is in order."""
        record = self.records.get(key)
        return record if record and record.ready else None

    @property
    def takes_more(self) -> bool:
        """Whether LVM makes or extends anything in the group: not while a disk is missing, nor while it is exported."""
        return not self.exported and not any(disk.missing for disk in self.disks)

    @cached_property
    def snapshots_of(self) -> Mapping[str, tuple[Record, ...]]:
        """Copy-on-write snapshots by the LV name of their origin; foreign ones are not among them."""
        found: dict[str, tuple[Record, ...]] = {}
        for record in self.records.values():
            if record.copy_on_write:
                found[record.lv.origin] = (*found.get(record.lv.origin, ()), record)
        return found

    @cached_property
    def strangers_on(self) -> Mapping[str, str]:
        """Foreign LVs that cannot live without another, by the LV name of that one; one of them for each.

        They are copy-on-write snapshots, and thin volumes that read a thick one. A thin snapshot of a thin volume
        lives by itself.
        """
        ours = {record.lv.name for record in self.records.values()}
        return {
            lv.origin: lv.name
            for lv in self.volumes.values()
            if lv.origin and lv.name not in ours and not (lv.thin and self._thin(lv.origin))
        }

    def _thin(self, name: str) -> bool:
        lv = self.volumes.get(name)
        return lv is not None and lv.thin


class Reports:
    """The reports of one volume group.

    Args:
        lvm: its commands.
        free_runs: whether they are to say how much each disk has free in one piece.
    """

    def __init__(self, lvm: Lvm, *, free_runs: bool = False) -> None:
        self._lvm = lvm
        self._fields = {**_FIELDS, "pvseg": _FREE_RUNS} if free_runs else _FIELDS
        self._last: Report | None = None
        self._loading = threading.Lock()

    def current(self) -> Report:
        """The group as it is: the last report where nothing has changed, a new one otherwise.

        Raises:
            Unavailable: there is no such group.
        """
        if (report := self.unchanged()) is not None:
            return report
        asked_s = time.monotonic()
        with self._loading:
            # Several callers want the same report; one that was begun after this call is as good as our own.
            last = self._last
            if last is not None and last.taken_s >= asked_s and self.unchanged() is not None:
                return last
            return self._load()

    def latest(self) -> Report:
        """The last report, however old: for what never changes, as the size of an extent."""
        return self._last or self.current()

    def sequence(self) -> int | None:
        """How often the group has been changed, by its disks; None where they cannot be read. No process is started."""
        last = self._last
        if last is None:
            return None
        return metadata.sequence_number(last.uuid, [disk.device for disk in last.disks if not disk.missing])

    def unchanged(self) -> Report | None:
        """The last report where the group has not changed since; None otherwise. No process is started."""
        last = self._last
        if last is None:
            return None
        now = self.sequence()
        if now is None:
            return last if time.monotonic() - last.taken_s < _UNREADABLE_MAX_AGE_S else None
        return last if now == last.sequence else None

    def recent(self, max_age_s: float) -> Report:
        """As :meth:`current`, and not older than that: for what changes without a change of the metadata, as health."""
        report = self.unchanged()
        if report is not None and time.monotonic() - report.taken_s <= max_age_s:
            return report
        with self._loading:
            return self._load()

    @contextmanager
    def retagging(self, lv: str, add: Sequence[str], remove: Sequence[str]) -> Iterator[None]:
        """Around a command that changes the tags of ``lv`` and nothing else: the last report is brought up to date.

        What is made of it has the next sequence number, so it is taken for the group as it is only where this was the
        one change since; and no harm is done where another thread has meanwhile taken a newer one.
        """
        before = self._last
        yield
        found = before.volumes.get(lv) if before else None
        if before is None or found is None:
            return
        changed = replace(found, tags=(*(tag for tag in found.tags if tag not in (*add, *remove)), *add))
        if set(changed.tags) == set(found.tags):
            return  # LVM may have counted no change
        volumes = {**before.volumes, lv: changed}
        records = _records(volumes.values(), before.records)
        self._last = replace(before, sequence=before.sequence + 1, volumes=volumes, records=records)

    def _load(self) -> Report:
        arguments = ["fullreport", self._lvm.volume_group, "--reportformat", "json", "--units", "b", "--nosuffix"]
        for section, fields in self._fields.items():
            arguments += ["--configreport", section, "--options", fields]
        started_s = time.monotonic()
        report = parse(self._lvm.report(*arguments), started_s, self._last)
        self._last = report
        return report


def parse(text: str, taken_s: float, before: Report | None = None) -> Report:
    """A report from LVM's JSON.

    Args:
        text: what LVM printed.
        taken_s: when it was asked.
        before: an earlier report of the group; of LVs that are as they were then, the records are taken over.

    Raises:
        StorageFailure: it is not as expected.
    """
    try:
        (found,) = _loaded(text)["report"]
        (group,) = found["vg"]
        volumes = {line["lv_name"]: _volume(line) for line in found.get("lv", ())}
        return Report(
            uuid=group["vg_uuid"],
            sequence=int(group["vg_seqno"]),
            extent_bytes=int(group["vg_extent_size"]),
            free_bytes=int(group["vg_free"]),
            metadata_share=_metadata_share(int(group["vg_mda_size"]), int(group["vg_mda_free"])),
            disks=_disks(found.get("pv", ()), found.get("pvseg", ()), int(group["vg_extent_size"])),
            exported=bool(group["vg_exported"]),
            volumes=volumes,
            records=_records(volumes.values(), before.records if before else {}),
            taken_s=taken_s,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StorageFailure(f"LVM's report cannot be read: {error!r}; is lvm2 2.03 or newer installed?") from error


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        # LVM may print remarks of its own between the lines of a report.
        lines = (line for line in text.splitlines() if line.lstrip().startswith(_JSON_STARTS))
        return json.loads("\n".join(lines))


def _records(volumes: Iterable[LogicalVolume], before: Mapping[str, Record]) -> dict[str, Record]:
    """Those of ours by key, in order. Decoding tags takes most of the time, and few change between two reports."""
    known = {record.lv.name: record for record in before.values()}
    found: dict[str, Record] = {}
    for lv in volumes:
        record = known.get(lv.name)
        if record is None or record.lv != lv:
            record = record_of(lv)
        if record is not None:
            found[record.key] = record
    return dict(sorted(found.items()))


def _metadata_share(size_bytes: int, free_bytes: int) -> float:
    """How full the metadata area is. Half of it is for the next text, and LVM counts only the other half as free."""
    return max(0.0, 1 - 2 * free_bytes / size_bytes) if size_bytes else 0.0


def _volume(line: Mapping[str, Any]) -> LogicalVolume:
    return LogicalVolume(
        name=line["lv_name"],
        uuid=line["lv_uuid"],
        size_bytes=int(line["lv_size"]),
        attributes=line["lv_attr"],
        tags=tuple(filter(None, line["lv_tags"].split(","))),
        origin=line["origin"].strip("[]"),
        pool=line["pool_lv"].strip("[]"),
        layout=frozenset(line["lv_layout"].split(",")),
        health=line["lv_health_status"],
        data_percent=_percent(line["data_percent"]),
        metadata_percent=_percent(line["metadata_percent"]),
    )


def _disks(
    lines: Iterable[Mapping[str, Any]], pieces: Iterable[Mapping[str, Any]], extent_bytes: int
) -> tuple[PhysicalVolume, ...]:
    longest: dict[str, int] = {}
    for piece in pieces:
        if piece.get("segtype") == "free":
            longest[piece["pv_name"]] = max(longest.get(piece["pv_name"], 0), int(piece["pvseg_size"]) * extent_bytes)
    return tuple(
        PhysicalVolume(
            device=line["pv_name"],
            free_bytes=int(line["pv_free"]),
            longest_run_bytes=longest.get(line["pv_name"], 0),
            allocatable=line["pv_attr"][0] == "a",
            missing="m" in line["pv_attr"],
        )
        for line in lines
    )


def _percent(text: str) -> float | None:
    return float(text) if text else None
