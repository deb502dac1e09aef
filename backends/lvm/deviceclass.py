"""One device class: a volume group, its reports, its thin pools, and who works on which LV just now."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import structlog

from backends.lvm import devicemapper, names, tags
from backends.lvm.commands import LogicalVolumeExists, Lvm
from backends.lvm.devicemapper import Device
from backends.lvm.lock import locked
from backends.lvm.options import ClassOptions, LvmParameters
from backends.lvm.pools import ThinPool
from backends.lvm.records import Record, now_us
from backends.lvm.report import Report, Reports
from backends.lvm.turns import Turns
from csi_core.background import BackgroundWork
from csi_core.errors import CallError, CommandFailed, FailedPrecondition, InvalidArgument, NotFound, StorageFailure
from csi_core.faults import fault
from csi_core.locks import Held, Key, KeyedLocks
from csi_core.model import Volume

__all__ = ["DeviceClass"]

_log = structlog.get_logger(__name__)
_COPIES_AT_ONCE: Final = 2
_WIPES_AT_ONCE: Final = 4
_PATIENCE_S: Final = 60.0
"""How long a call waits for them that has no deadline of its own."""


class DeviceClass:
    """A volume group and all that is needed to work in it. Nothing is remembered here that the group does not say.

    Attributes:
        name: as in the configuration and in every handle.
        options: its configuration.
        lvm: its commands; reports: what they say of it.
        pools: its thin pools by name.
        spare_turns: held while space is taken of a group of which some is to be left.
        copies, wipes: long work by the key of what it makes or removes, which outlives the call that began it.
    """

    def __init__(self, name: str, options: ClassOptions, device_filter: Sequence[str]) -> None:
        self.name = name
        self.options = options
        self.lvm = Lvm(options.volume_group, device_filter)
        self.reports = Reports(self.lvm, free_runs=options.allocation == "contiguous")
        self.pools = {
            pool: ThinPool(options.volume_group, pool, settings, self.reports)
            for pool, settings in options.thin_pools.items()
        }
        self.spare_turns = Turns()
        self.copies = BackgroundWork(_COPIES_AT_ONCE, _PATIENCE_S)
        self.wipes = BackgroundWork(_WIPES_AT_ONCE, _PATIENCE_S)
        self._users: Counter[str] = Counter()
        self._users_mutex = threading.Lock()
        self._locks = KeyedLocks()
        self._listed: tuple[Report, tuple[Volume, ...]] | None = None
        self._lock: int | None = None

    def lock(self) -> None:
        """Keep every other process from serving the group, until it is closed.

        Raises:
            Unavailable, StorageFailure: as :func:`backends.lvm.lock.locked`.
        """
        self._lock = locked(self.options.volume_group)

    def close(self) -> None:
        """Stop all long work; the next start goes on with it."""
        self.copies.stop()
        self.wipes.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def hold(self, doing: str, *keys: str, shared: Sequence[str] = ()) -> Held:
        """Work on the LVs ``keys`` alone, and on ``shared`` beside others who read them.

        Raises:
            Busy: somebody else works on one of them.
        """
        return self._locks.hold(
            doing,
            *(Key("LV", names.lv_name(key)) for key in keys),
            shared=[Key("LV", names.lv_name(k)) for k in shared],
        )

    def under_way(self, key: str) -> bool:
        """Whether anybody works on ``key`` at this moment."""
        return self.copies.running(key) or self.wipes.running(key) or self._held(key)

    def _held(self, key: str) -> bool:
        return any(line.startswith(f"LV {names.lv_name(key)}:") for line in self._locks.held())

    def volumes(self) -> tuple[Volume, ...]:
        """The finished volumes in the order of their keys; the same objects while the group does not change."""
        report = self.reports.current()
        listed = self._listed
        if listed is None or listed[0] is not report:
            found = (r for r in report.records.values() if r.ready and names.kind_of(r.key) == "v")
            listed = self._listed = report, tuple(record.volume(self.name) for record in found)
        return listed[1]

    def volume(self, key: str) -> Record:
        """The finished volume ``key``.

        Raises:
            NotFound: there is none.
        """
        record = self.reports.current().ready(key)
        if record is None or names.kind_of(key) != "v":
            raise NotFound(f"device class {self.name} has no volume {key}")
        return record

    def snapshot(self, key: str) -> Record:
        """The finished snapshot ``key``.

        Raises:
            NotFound: there is none.
        """
        record = visible_snapshot(self.reports.current(), key)
        if record is None:
            raise NotFound(f"device class {self.name} has no snapshot {key}")
        return record

    def pool(self, parameters: LvmParameters) -> ThinPool:
        """The thin pool that the parameters name, or the class's default.

        Raises:
            InvalidArgument: there is none.
        """
        only = next(iter(self.pools)) if len(self.pools) == 1 else ""
        chosen = self.pools.get(parameters.thin_pool or self.options.default_thin_pool or only)
        if chosen is None:
            known = ", ".join(self.pools) or "none"
            raise InvalidArgument(
                f"parameter 'thinPool': class {self.name} has no thin pool {parameters.thin_pool or 'by default'!r}; "
                f"configured: {known}"
            )
        return chosen

    def pool_of(self, record: Record) -> ThinPool:
        """The thin pool that a thin LV lies in.

        Raises:
            FailedPrecondition: it is not configured.
        """
        if record.lv.pool not in self.pools:
            raise FailedPrecondition(
                f"thin pool {record.lv.pool!r} of {record.key} is not among thinPools of class {self.name}; add it"
            )
        return self.pools[record.lv.pool]

    def activate_pools(self) -> None:
        """Activate thin pools that are not: after a boot nobody else may have. For starts only, so that one that an
        administrator has deactivated to repair it stays so."""
        report = self.reports.current()
        for pool in self.pools.values():
            lv = report.volumes.get(pool.name)
            if lv is None or not lv.thin_pool or pool.status() is not None:
                continue
            try:
                fault("lvm.start.before_activate")
                self.lvm.change("lvchange", "--activate=y", self.lvm.path(pool.name))
                fault("lvm.start.after_activate")
            except CallError as error:
                _log.warning("thin pool stays inactive", pool=self.lvm.path(pool.name), error=str(error))

    # -- the LV on this node ------------------------------------------------------------------------

    def device(self, key: str) -> Device | None:
        """The LV's own device where it is active."""
        return devicemapper.find(names.dm_name(self.options.volume_group, names.lv_name(key)))

    def front(self, key: str) -> Device | None:
        """The device that the volume is attached as; None where it is not attached."""
        return devicemapper.find(names.front_name(self.options.volume_group, names.lv_name(key)))

    def fill(self, record: Record) -> float | None:
        """How full a copy-on-write snapshot is, as a share; None where it ran full and is lost. 0 for any other."""
        if not record.copy_on_write:
            return 0.0
        if "lost" in record.fields:
            return None
        for target in devicemapper.targets(names.dm_name(self.options.volume_group, record.lv.name)):
            used, _, total = target.text.partition(" ")[0].partition("/")
            return int(used) / int(total) if total else None  # else "Invalid", "Overflow", "Merge failed"
        # Not active, so nothing has changed since LVM looked at it.
        return None if record.lv.attributes[4:5] in "IS" else (record.lv.data_percent or 0.0) / 100

    def failed_legs(self, record: Record) -> str:
        """The kernel's letter for each disk of an active mirror of which one has failed (D), such as AD; "" otherwise.

        LVM learns of it late.
        """
        if "raid" not in record.lv.layout:
            return ""
        for target in devicemapper.targets(names.dm_name(self.options.volume_group, record.lv.name)):
            words = target.text.split()
            if target.kind == "raid" and len(words) > 2 and "D" in words[2]:
                return words[2]
        return ""

    @contextmanager
    def active(self, key: str) -> Iterator[Device]:
        """Have the LV active; deactivated by the last who leaves, unless it is attached by then.

        Raises:
            Unavailable: a disk that it needs is missing.
        """
        with self._users_mutex:
            self._users[key] += 1
        try:
            yield self._activated(key)
        finally:
            self._leave(key)

    def deactivate_unused(self, key: str) -> None:
        """Deactivate the LV unless it is attached or a copy reads it."""
        with self._users_mutex:
            if not self._users[key] and self.front(key) is None and self.device(key) is not None:
                self.lvm.change("lvchange", "--activate=n", self.lvm.path(names.lv_name(key)))

    def _leave(self, key: str) -> None:
        with self._users_mutex:
            self._users[key] -= 1
        try:
            self.deactivate_unused(key)
        except CallError as error:
            # It stays active, which harms nobody: not being attached is what counts.
            _log.warning("LV stays active", lv=self.lvm.path(names.lv_name(key)), error=str(error))

    def _activated(self, key: str) -> Device:
        with self._users_mutex:
            device = self.device(key)
            if device is None:
                activate = "--activate=y", "--ignoreactivationskip", self.lvm.path(names.lv_name(key))
                try:
                    self.lvm.change("lvchange", *activate)
                except CommandFailed:
                    if not self._send_pending(key):
                        raise
                    self.lvm.change("lvchange", *activate)
                device = self.device(key)
        if device is None:
            raise StorageFailure(
                f"LVM says that {names.lv_name(key)} is active, and it has no device; does volume_list in lvm.conf "
                "leave it out?"
            )
        return device

    def _send_pending(self, key: str) -> bool:
        """Have LVM tell a thin pool what it has not told it yet; answer False where ``key`` is in none.

        lvcreate notes a thin LV in the group, then has the pool make it. Where it was killed in between, LVM makes up
        for that at the next lvcreate or lvremove in the pool, and at no activation.
        """
        record = self.reports.current().records.get(key)
        if record is None or not record.lv.thin:
            return False
        name = names.lv_name(names.make_key("t", f"pending/{record.lv.pool}"))
        added = [f"--addtag={tag}" for tag in tags.encode({"made": str(now_us()), "state": "deleting"})]
        size = f"--virtualsize={record.lv.size_bytes}b"
        shape = ["--activate=n", "--type=thin", f"--thinpool={record.lv.pool}", size]
        with suppress(LogicalVolumeExists):  # that of a driver that was killed here
            self.lvm.change("lvcreate", f"--name={name}", *added, *shape, self.lvm.volume_group)
        self.lvm.change("lvremove", self.lvm.path(name))
        return True

    def retag(self, key: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        """Change the LV's tags, in one change of the group."""
        lv = names.lv_name(key)
        changes = [*(f"--addtag={tag}" for tag in add), *(f"--deltag={tag}" for tag in remove)]
        with self.reports.retagging(lv, add, remove):
            self.lvm.change("lvchange", *changes, self.lvm.path(lv))


def visible_snapshot(report: Report, key: str) -> Record | None:
    """A snapshot that is in order, its whole group included; None otherwise."""
    record = report.ready(key)
    if record is None or names.kind_of(key) != "s":
        return None
    group = record.fields.get("group", "")
    return record if not group or group_complete(report, group) else None


def group_members(report: Report, group_key: str) -> list[Record]:
    """The members of a group that are there, finished or not, in the order of their keys."""
    return [record for record in report.records.values() if record.fields.get("group") == group_key]


def group_complete(report: Report, group_key: str) -> bool:
    """Whether every member of a group is there and in order."""
    members = group_members(report, group_key)
    return bool(members) and all(m.ready for m in members) and len(members) == int(members[0].fields["members"])
