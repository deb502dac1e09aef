"""The life of a volume: created, filled, grown, published, deleted."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from backends.nfs import access
from backends.nfs.addresses import addresses_of
from backends.nfs.copies import filled, more_bytes
from backends.nfs.declaration import DECLARATION
from backends.nfs.options import NfsParameters
from backends.nfs.records import Record, new_key
from backends.nfs.root import storage_errors
from backends.nfs.sizing import DATA
from backends.nfs.storage import Storage
from csi_core.background import Task
from csi_core.errors import Busy, FailedPrecondition, NotFound, OutOfRange
from csi_core.faults import fault
from csi_core.model import ContentSource, PublishRequest, SizeRange, SourceKind, VolumeSpec
from csi_core.sizes import choose_size, whole_size

__all__ = ["create", "delete", "existing", "expand", "modify", "publish", "unpublish"]

_LARGEST_BYTES: Final = 1 << 60
"""No quota counts further."""


def existing(storage: Storage, key: str) -> Record:
    """The volume of this key.

    Raises:
        NotFound: there is none.
    """
    if record := storage.index.find("v", key):
        return record
    raise NotFound(f"there is no volume {key}")


def create(storage: Storage, spec: VolumeSpec, parameters: NfsParameters) -> tuple[Record, bool]:
    """Create a volume, or find the one of this name; answer it and whether this call made it.

    Raises:
        NotFound: the source is gone.
        NoSpace: no room.
        OutOfRange: the size can never be met.
        Busy: the source was written to while it was copied; or a copy of this name is being made for another call.
        TimedOut: the copy goes on.
    """
    if found := storage.index.named("v", spec.name):
        return found, False
    if spec.source is None:
        if storage.work.running(_copy_of(spec)):
            raise Busy(f"an earlier call is making volume {spec.name} as a copy; repeat this one when that has ended")
        return _create_empty(storage, spec, parameters), True
    source = _source(storage, spec.source)
    work = _copy_of(spec)
    joined = storage.work.running(work)
    storage.work.finish(work, lambda task: _create_copy(storage, spec, parameters, source, task))
    if found := storage.index.named("v", spec.name):
        return found, not joined
    raise NotFound(f"volume {spec.name} was deleted as soon as it was made")


def _create_empty(storage: Storage, spec: VolumeSpec, parameters: NfsParameters) -> Record:
    size_bytes = _chosen_size(spec.size, 0)
    charge_bytes = storage.charge(size_bytes)
    key = new_key("v")
    with storage.reserve(charge_bytes) as reservation, storage.making(key) as directory:
        fault("nfs.create.before_content")
        tree_id = storage.sizing.make(directory)
        fault("nfs.create.before_limit")
        storage.sizing.limit(tree_id, size_bytes)
        fault("nfs.create.after_limit")
        os.chmod(DATA, int(parameters.mount_permissions, 8), dir_fd=directory)
        record = _record(spec, key, size_bytes, charge_bytes, tree_id)
        storage.finish(record, reservation)
    return record


def _create_copy(storage: Storage, spec: VolumeSpec, parameters: NfsParameters, source: Record, task: Task) -> None:
    if storage.index.named("v", spec.name):
        return  # by work that ended just before this began
    size_bytes = _chosen_size(spec.size, source.size_bytes)
    charge_bytes = storage.charge(size_bytes)
    work = _copy_of(spec)
    with (
        storage.reserve(charge_bytes) as reservation,
        storage.copying(work, "v", source.key) as (key, directory, half_made),
    ):
        tree_id = filled(
            storage, source, directory, size_bytes, parameters.consistency, task, work=work, half_made=half_made
        )
        with storage.reserve(more_bytes(storage, tree_id, charge_bytes)) as more:
            record = _record(spec, key, size_bytes, charge_bytes + more.charge_bytes, tree_id)
            storage.finish(record, reservation, more)


def _copy_of(spec: VolumeSpec) -> str:
    return f"copy for volume {spec.name}"


def _record(spec: VolumeSpec, key: str, size_bytes: int, charge_bytes: int, tree_id: int) -> Record:
    return Record(
        key=key,
        name=spec.name,
        size_bytes=size_bytes,
        charge_bytes=charge_bytes,
        tree_id=tree_id,
        created_us=time.time_ns() // 1000,
        recorded=dict(spec.recorded),
        recorded_mutable=dict(spec.recorded_mutable),
        source=spec.source,
    )


def _source(storage: Storage, source: ContentSource) -> Record:
    record = storage.index.find("s" if source.kind is SourceKind.SNAPSHOT else "v", source.handle)
    if record is None:
        raise NotFound(f"there is no {source.kind.value} {source.handle}")
    return record


def _chosen_size(size: SizeRange, at_least_bytes: int) -> int:
    size_bytes = choose_size(
        size,
        granularity_bytes=DECLARATION.size_granularity_bytes,
        minimum_bytes=DECLARATION.minimum_size_bytes,
        default_bytes=DECLARATION.default_size_bytes,
        source_bytes=at_least_bytes,
    )
    return _fitting(size_bytes)


def _fitting(size_bytes: int) -> int:
    if size_bytes > _LARGEST_BYTES:
        raise OutOfRange(f"{size_bytes} bytes are asked for, and a volume has at most {_LARGEST_BYTES}")
    return size_bytes


def expand(storage: Storage, key: str, size: SizeRange) -> int:
    """Raise a volume's limit; answer its size in bytes. Never shrinks.

    The record comes first: a limit above what is charged would be somebody else's space.

    Raises:
        NotFound, NoSpace, OutOfRange: nothing was changed.
    """
    record = existing(storage, key)
    if size.required_bytes > record.size_bytes:
        size_bytes = _fitting(whole_size(size, size.required_bytes, DECLARATION.size_granularity_bytes))
        charge_bytes = storage.charge(size_bytes)
        with storage.reserve(max(0, charge_bytes - record.charge_bytes)) as reservation:
            record = replace(record, size_bytes=size_bytes, charge_bytes=max(charge_bytes, record.charge_bytes))
            storage.update(record)
            reservation.commit()
    fault("nfs.expand.before_limit")
    if storage.counted(record):
        with storage_errors(f"the limit of volume {key}"):
            storage.sizing.limit(record.tree_id, record.size_bytes)
            storage.sizing.sync(storage.root.place("volumes"))
    fault("nfs.expand.after_limit")
    return record.size_bytes


def modify(storage: Storage, key: str, recorded_mutable: Mapping[str, str]) -> None:
    """Put mutable parameters in force: recorded first, then in the exports. Nobody loses access meanwhile."""
    record = replace(existing(storage, key), recorded_mutable=dict(recorded_mutable))
    storage.update(record)
    fault("nfs.modify.after_record")
    with storage_errors(f"the export of volume {key}"):
        storage.exports.change(record)
    fault("nfs.modify.after_export")


def publish(storage: Storage, request: PublishRequest) -> None:
    """Let a node in: recorded first, then exported, so that a start after a crash exports what is recorded.

    Raises:
        NotFound: no such volume or node.
        AlreadyExists, FailedPrecondition: as :func:`backends.nfs.access.admitted`.
        DataLoss: the volume's content is gone.
    """
    record = existing(storage, request.handle)
    addresses = addresses_of(request.node_id, storage.options)
    wanted = access.admitted(record, request, addresses)
    with storage.root.data("volumes", record.key):
        pass  # it is there, which exportfs does not look at
    storage.admit(wanted, request.node_id)
    fault("nfs.publish.after_record")
    with storage_errors(f"the export of volume {record.key}"):
        storage.exports.let_in(wanted)


def unpublish(storage: Storage, key: str, node_id: str) -> None:
    """Take a node's access away, or ("") everybody's; the record says so when it is true."""
    record = storage.index.find("v", key)
    if record is None:
        return
    left = access.without(record, node_id)
    if left.publications == record.publications:
        return
    in_use = {address for other in storage.index.all("v") if other.key != key for address in other.clients()}
    with storage_errors(f"the export of volume {key}"):
        storage.exports.keep_out(left, in_use | left.clients().keys())
    fault("nfs.unpublish.before_record")
    storage.update(left)
    fault("nfs.unpublish.after_record")


def delete(storage: Storage, key: str) -> None:
    """Delete a volume; one that is not there is deleted. Its snapshots live on.

    Raises:
        FailedPrecondition: nodes have it.
        Busy: it is being copied.
    """
    record = storage.index.find("v", key)
    if record is None:
        return
    if record.publications:
        nodes = ", ".join(sorted(record.publications))
        raise FailedPrecondition(f"volume {key} is published to {nodes}; unpublish it first")
    storage.delete(record)
