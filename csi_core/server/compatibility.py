"""A name that comes again: the same thing, or something else under the same name?

CSI: a repeated creating call with the same arguments answers what is there; with other arguments it is
ALREADY_EXISTS. The backend only says that the name is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from csi_core.errors import AlreadyExists, CallError, OutOfRange
from csi_core.model import (
    ContentSource,
    GroupSnapshot,
    GroupSnapshotSpec,
    SizeRange,
    Snapshot,
    SnapshotSpec,
    SourceKind,
    Volume,
    VolumeSpec,
)
from csi_core.server.codec.size import check_reachable
from csi_core.server.driver import existing_snapshot, existing_volume

if TYPE_CHECKING:
    from csi_core.facade import Backend

__all__ = [
    "check_growth",
    "check_not_elsewhere",
    "check_same_group",
    "check_same_snapshot",
    "check_same_volume",
    "check_source",
]

_log = structlog.get_logger(__name__)


def check_same_volume(volume: Volume, spec: VolumeSpec) -> None:
    """Refuse a volume that is not what ``spec`` asks for.

    Raises:
        AlreadyExists: names the difference.
    """
    if not spec.size.admits(volume.size_bytes):
        _differs(
            "volume",
            spec.name,
            f"it has {volume.size_bytes} bytes; asked for are {spec.size.required_bytes} to "
            f"{spec.size.limit_bytes or 'any number of'} bytes",
        )
    _same_parameters("volume", spec.name, volume.recorded, spec.recorded)
    _same_parameters("volume", spec.name, volume.recorded_mutable, spec.recorded_mutable)
    if volume.source != spec.source:
        _differs("volume", spec.name, f"it was made from {_say(volume.source)}; asked for is {_say(spec.source)}")


def check_not_elsewhere(name: str, backend: Backend, others: Sequence[Backend]) -> None:
    """Refuse a name under which another backend has a volume: a name is one volume of the whole driver.

    A backend that cannot answer now keeps nobody from the healthy ones.

    Raises:
        AlreadyExists: names the backend.
    """
    for other in others:
        try:
            taken = other.find_volume(name) is not None
        except CallError as error:
            _log.warning("a backend could not be asked for a volume name", asked=other.name, reason=str(error))
            continue
        if taken:
            _differs("volume", name, f"it is in backend {other.name!r}; asked for is {backend.name!r}")


def check_same_snapshot(snapshot: Snapshot, spec: SnapshotSpec) -> None:
    """Refuse a snapshot of this name that is of another volume or has other parameters.

    Raises:
        AlreadyExists: names the difference.
    """
    if snapshot.volume_handle != spec.volume_handle:
        _differs("snapshot", spec.name, f"it is of volume {snapshot.volume_handle!r}, not of {spec.volume_handle!r}")
    _same_parameters("snapshot", spec.name, snapshot.recorded, spec.recorded)


def check_same_group(group: GroupSnapshot, spec: GroupSnapshotSpec) -> None:
    """Refuse a group of this name that is of other volumes or has other parameters.

    Raises:
        AlreadyExists: names the difference.
    """
    members = {snapshot.volume_handle for snapshot in group.snapshots}
    if members != set(spec.volume_handles):
        _differs("group snapshot", spec.name, f"it is of the volumes {sorted(members)}")
    _same_parameters("group snapshot", spec.name, group.recorded, spec.recorded)


def check_source(backend: Backend, spec: VolumeSpec) -> None:
    """Refuse a source that is not there, or that does not fit into the new volume.

    Raises:
        NotFound: there is no such snapshot or volume.
        OutOfRange: the new volume would be smaller than its source.
    """
    if spec.source is None:
        return
    if spec.source.kind is SourceKind.SNAPSHOT:
        size_bytes = existing_snapshot(backend, spec.source.handle).size_bytes
    else:
        size_bytes = existing_volume(backend, spec.source.handle).size_bytes
    required, limit = spec.size.required_bytes, spec.size.limit_bytes
    if (required and required < size_bytes) or (limit and limit < size_bytes):
        raise OutOfRange(
            f"{_say(spec.source)} has {size_bytes} bytes; a volume of {required or 'at most ' + str(limit)} bytes "
            "cannot hold it"
        )


def check_growth(backend: Backend, handle: str, size: SizeRange) -> None:
    """Refuse an expansion that cannot be: volumes never shrink, and sizes have a granularity.

    Raises:
        NotFound: there is no such volume.
        OutOfRange: the limit is below the present size, or no size within the range can be made.
    """
    check_reachable(size, backend.description)
    present_bytes = existing_volume(backend, handle).size_bytes
    if size.limit_bytes and size.limit_bytes < present_bytes:
        raise OutOfRange(f"the volume has {present_bytes} bytes; it cannot shrink to {size.limit_bytes} bytes")


def _same_parameters(kind: str, name: str, recorded: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    if recorded != wanted:
        key = min(k for k in recorded.keys() | wanted.keys() if recorded.get(k) != wanted.get(k))
        _differs(kind, name, f"parameter {key!r} is {recorded.get(key)!r} there; asked for is {wanted.get(key)!r}")


def _differs(kind: str, name: str, difference: str) -> None:
    raise AlreadyExists(f"a {kind} named {name!r} exists already, and is another one: {difference}")


def _say(source: ContentSource | None) -> str:
    return "nothing" if source is None else f"{source.kind.value} {source.handle!r}"
