"""What is wrong: health for the CO, findings for the administrator, and the repairs that are provably safe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from backends.nfs.exportfs import Server
from backends.nfs.records import Kind, Record
from backends.nfs.root import Place
from backends.nfs.storage import Storage
from csi_core.errors import DataLoss
from csi_core.health import Finding, HealthKind, HealthProblem

__all__ = ["findings", "repair", "storage_health", "volume_health"]

_LIMIT: Final = "its size is not enforced as recorded"
_MISSING: Final = "a node's export is missing"
_STALE: Final = "exported to a client that no record names"
_STRANGER: Final = "unknown entry in the root"
_UNREADABLE: Final = "its record cannot be read"


def storage_health(storage: Storage, server: Server) -> Iterator[HealthProblem]:
    """What is wrong with the root and its server."""
    path = storage.options.root
    try:
        found = os.fstatvfs(storage.root.directory)
    except OSError as error:
        yield HealthProblem(HealthKind.INACCESSIBLE, "RootUnreachable", f"{path}: {error.strerror}")
        return
    if found.f_flag & os.ST_RDONLY:
        message = f"the filesystem of {path} is read-only; look at the kernel's log for its errors"
        yield HealthProblem(HealthKind.INACCESSIBLE, "RootReadOnly", message)
    if not server.running():
        message = "the NFS server of this host does not run; start it: systemctl start nfs-server"
        yield HealthProblem(HealthKind.INACCESSIBLE, "ServerStopped", message)
    if not storage.sizing.enforced():
        message = f"quotas are off on {path}, so no volume is kept within its size; turn them on"
        yield HealthProblem(HealthKind.DEGRADED, "QuotaOff", message)
    state = storage.ledger.snapshot()
    if state.level != "ok" and state.used_bytes is not None and state.free_bytes is not None:
        share = state.used_bytes / max(1, state.used_bytes + state.free_bytes)
        full = state.level == "stop"
        message = (
            f"the filesystem of {path} is {share:.0%} full; {'nothing more is admitted; ' if full else ''}free space"
        )
        yield HealthProblem(HealthKind.DEGRADED, "RootFull" if full else "RootNearlyFull", message)


def volume_health(storage: Storage, record: Record) -> Iterator[HealthProblem]:
    """What is wrong with one volume."""
    try:
        with storage.root.data("volumes", record.key):
            pass
    except DataLoss as error:
        yield HealthProblem(HealthKind.DATA_LOSS, "ContentMissing", f"{error}; restore it from a backup")
        return
    if storage.sizing.counts and not storage.counted(record):
        message = (
            f"volume {record.key} was made without quotas, or restored, so nothing keeps it within its "
            f"{record.size_bytes} bytes; clone it, and the clone is limited"
        )
        yield HealthProblem(HealthKind.DEGRADED, "NotLimited", message)
    elif not _limited(storage, record):
        message = (
            f"the quota of volume {record.key} is not its {record.size_bytes} bytes; `csi-core gc --apply` sets it"
        )
        yield HealthProblem(HealthKind.DEGRADED, "QuotaDiffers", message)
    if missing := storage.exports.missing(record):
        message = f"volume {record.key} is not exported to {', '.join(missing)}; `csi-core gc --apply` exports it"
        yield HealthProblem(HealthKind.INACCESSIBLE, "ExportMissing", message)


def findings(storage: Storage) -> Iterator[Finding]:
    """Compare records, content, limits and exports. Reads only."""
    volumes = storage.index.all("v")
    for record in sorted(volumes, key=lambda record: record.key):
        for problem in volume_health(storage, record):
            known = {"QuotaDiffers": _LIMIT, "ExportMissing": _MISSING}.get(problem.reason)
            yield Finding(record.key, known or problem.reason, problem.message, repairable=known is not None)
    for path, address in storage.exports.stale({record.key: record for record in volumes}):
        yield Finding(f"{path} {address}", _STALE, "the export can be taken back", repairable=True)
    for stranger in storage.root.strangers():
        yield Finding(str(stranger), _STRANGER, "look what it is, then move it away")
    places: tuple[tuple[Place, Kind], ...] = (("volumes", "v"), ("snapshots", "s"), ("groups", "g"))
    for place, kind in places:
        for key in storage.root.keys(place):
            if storage.index.find(kind, key) is None:
                advice = f"look at {storage.options.root / place / key}; its content is as it was"
                yield Finding(key, _UNREADABLE, advice)


def repair(storage: Storage, server: Server, finding: Finding) -> bool:
    """Repair one of :func:`findings` if it still holds."""
    if finding.problem == _STALE:
        volumes = {record.key: record for record in storage.index.all("v")}
        for path, address in storage.exports.stale(volumes):
            if finding.subject == f"{path} {address}":
                server.revoke(path, address)
                return True
        return False
    record = storage.index.find("v", finding.subject)
    if record is None:
        return False
    if finding.problem == _LIMIT and storage.counted(record) and not _limited(storage, record):
        storage.sizing.limit(record.tree_id, record.size_bytes)
        return _limited(storage, record)
    if finding.problem == _MISSING and storage.exports.missing(record):
        storage.exports.let_in(record)
        return True
    return False


def _limited(storage: Storage, record: Record) -> bool:
    if not storage.sizing.counts or not storage.sizing.enforced():
        return True  # nothing to differ, or the root's problem
    return storage.sizing.usage(record.tree_id).limit_bytes == record.size_bytes
