"""What is wrong: health for the CO, findings for the administrator, and the repairs that are provably safe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backends.loop import handles, images, loopdev
from backends.loop.loopdev import LoopDevice
from backends.loop.pool import Pool
from backends.loop.records import VolumeRecord
from csi_core.health import Finding, HealthKind, HealthProblem

__all__ = ["findings", "pool_health", "repair", "volume_health"]

_PAGE: Final = 1000
_ORPHAN: Final = "unknown file among the images"
_LEAKED: Final = "loop device of a deleted volume"
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
    yield from _image_problems(pool, record)
    found = pool.layout.found(record.key)
    device = loopdev.find(found) if found else None
    if device and pool.options.direct_io and pool.filesystem.direct_io and not device.direct_io:
        message = f"{device.node} goes through the host's page cache: the kernel has refused direct I/O"
        yield HealthProblem(HealthKind.DEGRADED, "DirectIoRefused", message)


def findings(pool: Pool) -> Iterator[Finding]:
    """Compare records, files and loop devices. Reads only; what a running call holds is left out."""
    yield from _record_findings(pool)
    for stranger in pool.layout.strangers(pool.records.images_known):
        yield Finding(str(stranger), _ORPHAN, f"it can be moved to {pool.layout.quarantine}", repairable=True)
    for stranger in sorted(pool.layout.quarantine.iterdir()):
        yield Finding(str(stranger), "quarantined file", "look what it is, then move it away or delete it")
    for device in loopdev.attached():
        if _leaked(pool, device):
            yield Finding(
                str(device.node), _LEAKED, f"it holds {device.backing_path}; it can be detached", repairable=True
            )


def repair(pool: Pool, finding: Finding) -> bool:
    """Repair one of :func:`findings` if it still holds and nothing can be lost by it."""
    if finding.problem == _ORPHAN:
        for stranger in pool.layout.strangers(pool.records.images_known):
            if str(stranger) == finding.subject:
                pool.layout.isolate(stranger)
                return True
    elif finding.problem == _LEAKED:
        for device in loopdev.attached():
            if str(device.node) == finding.subject and _leaked(pool, device):
                loopdev.detach(device)
                return True
    elif finding.problem == _UNFINISHED:
        return _discard_unfinished(pool, finding.subject)
    elif finding.problem == _HOLES:
        return _fill_holes(pool, finding.subject)
    return False


def _record_findings(pool: Pool) -> Iterator[Finding]:
    for key in pool.records.unfinished():
        if not pool.claims.held(key):
            advice = "it was never handed out; it can be discarded"
            yield Finding(handles.join(pool.name, key), _UNFINISHED, advice, repairable=True)
    cursor = ""
    while page := pool.records.volumes_after(cursor, _PAGE):
        for record in page:
            for problem in _image_problems(pool, record):
                handle = handles.join(pool.name, record.key)
                if problem.reason == "NotThick":
                    yield Finding(handle, _HOLES, problem.message, repairable=True)
                else:
                    yield Finding(handle, problem.reason, problem.message)
        cursor = page[-1].key
    cursor = ""
    while snapshots := pool.records.snapshots_after(cursor, _PAGE):
        for snapshot in snapshots:
            found = pool.layout.found(snapshot.key)
            if found is None or found.st_size < snapshot.size_bytes:
                advice = f"{pool.layout.path(snapshot.key)} is missing or cut off; restore it, or delete the snapshot"
                yield Finding(handles.join(pool.name, snapshot.key), "lost data", advice)
        cursor = snapshots[-1].key


def _image_problems(pool: Pool, record: VolumeRecord) -> Iterator[HealthProblem]:
    if record.state == "promised":  # no image was ever made
        return
    path, found = pool.layout.path(record.key), pool.layout.found(record.key)
    if found is None:
        yield HealthProblem(HealthKind.DATA_LOSS, "ImageMissing", f"{path} is missing; restore it from a backup")
        return
    if found.st_size < record.size_bytes:
        message = f"{path} has {found.st_size} of {record.size_bytes} bytes; restore it from a backup"
        yield HealthProblem(HealthKind.DATA_LOSS, "ImageCutOff", message)
    if record.thick and (holes := images.holes_bytes(found)):
        message = (
            f"{holes} bytes of this thick volume have no blocks; they are allocated again when it is next attached"
        )
        yield HealthProblem(HealthKind.DEGRADED, "NotThick", message)


def _leaked(pool: Pool, device: LoopDevice) -> bool:
    """Whether ``device`` shows an image of this pool that no record has any more, and nobody uses it."""
    path = Path(device.backing_path.removesuffix(" (deleted)"))
    key = path.stem
    if path.parent != pool.layout.directory or not handles.KEY.fullmatch(key):
        return False
    return not (pool.records.volume(key) or pool.records.snapshot(key) or device.held)


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
        if record is None or not record.thick or pool.layout.found(key) is None:
            return False
        pool.layout.ensure(key, record.size_bytes, thick=True)
        return True
