"""What is wrong: health for the CO, findings for the administrator, and the repairs that are provably safe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from backends.loop.loopdev import LoopDevice
from backends.loop.pool import Pool
from backends.loop.records import VolumeRecord
from csi_core import handles
from csi_core.health import Finding, HealthKind, HealthProblem

__all__ = ["findings", "pool_health", "repair", "volume_health"]

_PAGE: Final = 1000
_UNFINISHED: Final = "half-made by a call that failed"
_HOLES: Final = "thick volume with holes"


def pool_health(pool: Pool) -> Iterator[HealthProblem]:
    """What is wrong with the pool itself."""
    try:
        found = os.statvfs(pool.options.path)
    except OSError as error:
        yield HealthProblem(HealthKind.INACCESSIBLE, "PoolUnreachable", f"{pool.options.path}: {error.strerror}")
        return
    if found.f_flag & os.ST_RDONLY:
        message = f"the filesystem of pool {pool.name} is read-only; look at the kernel's log for its errors"
        yield HealthProblem(HealthKind.INACCESSIBLE, "PoolReadOnly", message)
    state = pool.ledger.snapshot()
    if state.level != "ok" and state.used_bytes is not None and state.free_bytes is not None:
        share = state.used_bytes / max(1, state.used_bytes + state.free_bytes)
        full = state.level == "stop"
        message = (
            f"the filesystem of pool {pool.name} is {share:.0%} full; "
            + ("nothing more is admitted. " if full else "")
            + "Writes to thin volumes fail, and may be lost, when it is full: free space or delete the ballast file"
        )
        yield HealthProblem(HealthKind.DEGRADED, "PoolFull" if full else "PoolNearlyFull", message)


def volume_health(pool: Pool, record: VolumeRecord) -> Iterator[HealthProblem]:
    """What is wrong with one volume."""
    yield from pool.layout.volume_problems(record)
    device = pool.layout.device(record.key)
    granted = not isinstance(device, LoopDevice) or device.direct_io
    if device and pool.options.direct_io and pool.filesystem.direct_io and not granted:
        message = f"{device.node} goes through the host's page cache: the kernel has refused direct I/O"
        yield HealthProblem(HealthKind.DEGRADED, "DirectIoRefused", message)


def findings(pool: Pool) -> Iterator[Finding]:
    """Compare records, files and loop devices. Reads only; what a running call holds is left out."""
    yield from _record_findings(pool)
    yield from pool.layout.findings()


def repair(pool: Pool, finding: Finding) -> bool:
    """Repair one of :func:`findings` if it still holds and nothing can be lost by it."""
    if finding.problem == _UNFINISHED:
        return _discard_unfinished(pool, finding.subject)
    if finding.problem == _HOLES:
        return _fill_holes(pool, finding.subject)
    return pool.layout.repair(finding)


def _record_findings(pool: Pool) -> Iterator[Finding]:
    for key in pool.records.unfinished():
        if not pool.claims.held(key):
            advice = "it was never handed out; it can be discarded"
            yield Finding(handles.join(pool.name, key), _UNFINISHED, advice, repairable=True)
    cursor = ""
    while page := pool.records.volumes_after(cursor, _PAGE):
        for record in page:
            for problem in pool.layout.volume_problems(record):
                handle = handles.join(pool.name, record.key)
                if problem.reason == "NotThick":
                    yield Finding(handle, _HOLES, problem.message, repairable=True)
                else:
                    yield Finding(handle, problem.reason, problem.message)
        cursor = page[-1].key
    cursor = ""
    while snapshots := pool.records.snapshots_after(cursor, _PAGE):
        for snapshot in snapshots:
            if advice := pool.layout.snapshot_problem(snapshot.key, snapshot.size_bytes):
                yield Finding(handles.join(pool.name, snapshot.key), "lost data", advice)
        cursor = snapshots[-1].key


def _discard_unfinished(pool: Pool, handle: str) -> bool:
    key = handle.removeprefix(f"{pool.name}:")
    with pool.claims.exclusive(key):
        if key not in pool.records.unfinished():
            return False
        pool.discard(key)
        return True


def _fill_holes(pool: Pool, handle: str) -> bool:
    key = handle.removeprefix(f"{pool.name}:")
    with pool.claims.exclusive(key):
        record = pool.records.volume(key)
        return record is not None and pool.layout.fill_holes(record)
