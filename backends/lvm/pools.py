"""A thin pool: what may still be promised from it, and how full it really is."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from backends.lvm import devicemapper, names
from backends.lvm.options import ThinPoolOptions
from backends.lvm.report import Report, Reports
from backends.lvm.turns import Turns
from csi_core.errors import FailedPrecondition, Unavailable
from csi_core.ledger import Ledger

__all__ = ["PoolStatus", "ThinPool"]

_SECTOR_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """What the kernel says of an active pool. ``mode`` is "rw", or what has gone wrong."""

    total_bytes: int
    data_share: float
    metadata_share: float
    mode: str
    queues_when_full: bool


class ThinPool:
    """The books of one thin pool of a class.

    Under a mutex: what this process makes and removes is booked at once, so that a hundred creates take no hundred
    reports; where the group was changed otherwise, by whomever, the books are made anew from a report.
    """

    def __init__(self, volume_group: str, name: str, options: ThinPoolOptions, reports: Reports) -> None:
        self.name = name
        self._group = volume_group
        self._reports = reports
        self._mutex = Turns()
        self._mappings_mutex = threading.Lock()
        self._sequence: int | None = None
        self._report: Report | None = None
        self.warn_at, self.stop_at = options.warn_at, options.stop_at
        self.ledger = Ledger(
            capacity_bytes=0,
            overcommit_ratio=options.overcommit,
            warn_at=options.warn_at,
            stop_at=options.stop_at,
            physical=self._physical,
        )

    @contextmanager
    def admitted(self, size_bytes: int, present_bytes: int = 0, *, single_tenant: bool = False) -> Iterator[None]:
        """Hold room for a thin volume of ``size_bytes`` while it is made, or while one of ``present_bytes`` grows.

        Raises:
            NoSpace: the ledger says no.
            Unavailable: the pool is not there, or not active.
            FailedPrecondition: it would show one tenant what another has deleted.
        """
        with self._mutex:
            self._refuse_unsafe(self._booked(), single_tenant=single_tenant)
            charge_bytes = self.ledger.charge(True, size_bytes) - self.ledger.charge(True, present_bytes)
            with self.ledger.reserve(max(0, charge_bytes)) as reservation:
                yield
                reservation.commit()
            self._sequence = self._reports.sequence()

    @contextmanager
    def freed(self, size_bytes: int) -> Iterator[None]:
        """Give back the charge of a thin LV that is removed within."""
        with self._mutex:
            booked = self._sequence is not None and self._reports.sequence() == self._sequence
            yield
            if booked:
                self.ledger.release(self.ledger.charge(True, size_bytes))
                self._sequence = self._reports.sequence()

    def available_bytes(self) -> int:
        """The size of the largest thin volume that would be admitted now.

        Raises:
            Unavailable: the pool is not there, or not active.
        """
        with self._mutex:
            self._require_active(self._booked())
            return self.ledger.available_bytes(thin=True)

    def status(self) -> PoolStatus | None:
        """What the kernel says, or None where the pool is not active."""
        for device in (f"{names.dm_name(self._group, self.name)}-tpool", names.dm_name(self._group, self.name)):
            for target in devicemapper.targets(device):
                if target.kind == "thin-pool":
                    return _status(target)
        return None

    @contextmanager
    def metadata_snapshot(self) -> Iterator[None]:
        """Keep the pool's mappings readable as they are now; there is one such snapshot for each pool.

        Raises:
            StorageFailure: the pool refuses it.
        """
        with self._mappings_mutex:
            device = f"{names.dm_name(self._group, self.name)}-tpool"
            if not devicemapper.targets(device):
                device = device.removesuffix("-tpool")
            status = devicemapper.targets(device)
            if status and status[0].text.split()[3:4] not in ([], ["-"]):
                devicemapper.message(device, "release_metadata_snap")  # a process was killed while it read
            devicemapper.message(device, "reserve_metadata_snap")
            try:
                yield
            finally:
                devicemapper.message(device, "release_metadata_snap")

    def _booked(self) -> Report:
        """Bring the books up to date; answer the report that they were last made from."""
        if self._report is None or self._sequence is None or self._reports.sequence() != self._sequence:
            self._report = self._reports.current()
            pool = self._report.volumes.get(self.name)
            self.ledger.resize(pool.size_bytes if pool else 0)
            lvs = [record.lv for record in self._report.records.values() if record.lv.pool == self.name]
            self.ledger.load(sum(self.ledger.charge(True, lv.size_bytes) for lv in lvs))
            self._sequence = self._report.sequence
        return self._report

    def _require_active(self, report: Report) -> None:
        pool = report.volumes.get(self.name)
        if pool is None or not pool.thin_pool:
            raise Unavailable(
                f"volume group {self._group} has no thin pool {self.name!r}; make it (lvcreate --thinpool)"
            )
        if self.status() is None:
            raise Unavailable(f"thin pool {self._group}/{self.name} is not active; activate it (lvchange -ay)")

    def _refuse_unsafe(self, report: Report, *, single_tenant: bool) -> None:
        self._require_active(report)
        if not single_tenant and report.volumes[self.name].attributes[7:8] != "z":
            raise FailedPrecondition(
                f"thin pool {self._group}/{self.name} does not zero new blocks, and would show a volume what another "
                "has deleted; set that (lvchange --zero y), or singleTenant for the class"
            )

    def _physical(self) -> tuple[int, int]:
        """Total and free bytes; metadata that is fuller than the data counts in its place, for it stops writers too."""
        status = self.status()
        if status is None:
            raise OSError(errno.ENODEV, f"thin pool {self._group}/{self.name} is not active")
        used = max(status.data_share, status.metadata_share)
        return status.total_bytes, round(status.total_bytes * (1 - used)) if status.mode == "rw" else 0


def _status(target: devicemapper.Target) -> PoolStatus:
    words = target.text.split()
    total_bytes = target.length_sectors * _SECTOR_BYTES
    if len(words) < 3 or "/" not in words[1]:  # "Fail", "Error"
        return PoolStatus(total_bytes, 1.0, 1.0, target.text or "failed", queues_when_full=False)
    mode = next((word for word in words[3:] if word in ("ro", "out_of_data_space")), "rw")
    if "needs_check" in words:
        mode = "needs_check"
    return PoolStatus(
        total_bytes=total_bytes,
        data_share=_share(words[2]),
        metadata_share=_share(words[1]),
        mode=mode,
        queues_when_full="queue_if_no_space" in words,
    )


def _share(used_of_total: str) -> float:
    used, _, total = used_of_total.partition("/")
    return int(used) / int(total) if int(total) else 1.0
