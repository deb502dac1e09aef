"""The calls that the crash tests kill, each in a form that can be repeated."""

from __future__ import annotations

from collections.abc import Callable

from backends.loop.options import LoopParameters
from backends.loop.plugin import LoopBackend
from csi_core.model import (
    AttachRequest,
    ContentSource,
    GroupSnapshotSpec,
    SizeRange,
    SnapshotSpec,
    SourceKind,
    VolumeSpec,
)
from csi_core.node.freeze import thaw_left_frozen
from csi_core.parameters import Parameters

from .cluster import RAW, NodeHost

SIZE_BYTES = 8 << 20
GROWN_BYTES = 12 << 20


def started(options: dict[str, object]) -> LoopBackend:
    """A started backend; the core thaws first, so this does."""
    thaw_left_frozen()
    backend = LoopBackend(options)
    backend.start(NodeHost())
    return backend


def volume(backend: LoopBackend, name: str) -> str:
    found = backend.find_volume(name)
    return found.handle if found else "local:v-" + "0" * 20


def snapshot(backend: LoopBackend) -> str:
    entries = [s for s in backend.list_snapshots("", 10, "").entries if s.name == "snap"]
    return entries[0].handle if entries else "local:s-" + "0" * 20


def create(backend: LoopBackend, provisioning: str, source: ContentSource | None = None) -> None:
    parameters = LoopParameters.model_validate({"provisioning": provisioning})
    size = SizeRange(GROWN_BYTES if source else SIZE_BYTES)
    backend.create_volume(VolumeSpec("made", size, (RAW,), parameters, source=source))


def restore(backend: LoopBackend, provisioning: str) -> None:
    create(backend, provisioning, ContentSource(SourceKind.SNAPSHOT, snapshot(backend)))


def clone(backend: LoopBackend) -> None:
    create(backend, "thin", ContentSource(SourceKind.VOLUME, volume(backend, "origin")))


def take_snapshot(backend: LoopBackend) -> None:
    backend.create_snapshot(SnapshotSpec("made", volume(backend, "origin")))


def take_group(backend: LoopBackend) -> None:
    backend.create_group_snapshot(GroupSnapshotSpec("made", (volume(backend, "origin"), volume(backend, "other"))))


def delete_volume(backend: LoopBackend, name: str) -> None:
    backend.delete_volume(volume(backend, name), Parameters())
    settle(backend)


def delete_snapshot(backend: LoopBackend) -> None:
    backend.delete_snapshot(snapshot(backend), Parameters())
    settle(backend)


def delete_group(backend: LoopBackend) -> None:
    for entry in backend.list_snapshots("", 10, "").entries:
        if entry.group_handle:
            backend.delete_group_snapshot(entry.group_handle, Parameters())
    settle(backend)


def settle(backend: LoopBackend) -> None:
    """Wait for the trash."""
    for pool in backend._pools:
        if not pool.trash.emptied(10):
            raise AssertionError("the trash is not emptied")


def expand(backend: LoopBackend, name: str) -> None:
    backend.expand_volume(volume(backend, name), SizeRange(GROWN_BYTES))


def attach(backend: LoopBackend, name: str) -> None:
    backend.attach_volume(AttachRequest(volume(backend, name), RAW))


def detach(backend: LoopBackend) -> None:
    backend.detach_volume(volume(backend, "origin"))


def mark(backend: LoopBackend) -> None:
    backend.mark_formatted(volume(backend, "fresh"), "xfs")


ACTS: dict[str, Callable[[LoopBackend], None]] = {
    "start": settle,
    "create-thin": lambda backend: create(backend, "thin"),
    "create-thick": lambda backend: create(backend, "thick"),
    "restore-thin": lambda backend: restore(backend, "thin"),
    "restore-thick": lambda backend: restore(backend, "thick"),
    "clone-attached": clone,
    "snapshot": take_snapshot,
    "group": take_group,
    "attach-first": lambda backend: attach(backend, "fresh"),
    "attach-again": lambda backend: attach(backend, "other"),
    "expand-attached": lambda backend: expand(backend, "origin"),
    "expand-thick": lambda backend: expand(backend, "thick"),
    "expand-fresh": lambda backend: expand(backend, "fresh"),
    "mark-formatted": mark,
    "detach": detach,
    "delete-used": lambda backend: delete_volume(backend, "other"),
    "delete-fresh": lambda backend: delete_volume(backend, "fresh"),
    "delete-snapshot": delete_snapshot,
    "delete-group": delete_group,
}
