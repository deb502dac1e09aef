"""Mode ``export``: the exports of the NFS server on this host, one for each volume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from backends.nfs import diagnosis, groups, snapshots, volumes
from backends.nfs.declaration import DECLARATION
from backends.nfs.exportfs import KernelServer, Server
from backends.nfs.mode import SERVER, SHARE
from backends.nfs.mutable import ExportMutable
from backends.nfs.options import NfsOptions, NfsParameters, NfsSnapshotParameters
from backends.nfs.records import KEY, Record
from backends.nfs.storage import Storage
from csi_core.errors import ConfigError, InvalidArgument, Unavailable
from csi_core.health import Finding, HealthProblem
from csi_core.hookspecs import Host
from csi_core.ledger_metrics import LEDGERS
from csi_core.model import (
    Capacity,
    CapacityQuery,
    Created,
    Description,
    Existing,
    GroupSnapshot,
    GroupSnapshotSpec,
    Outcome,
    Page,
    PublishRequest,
    SizeRange,
    Snapshot,
    SnapshotSpec,
    Volume,
    VolumeSpec,
)
from csi_core.parameters import Parameters

__all__ = ["ExportMode"]


class ExportMode:
    """See :class:`backends.nfs.mode.Mode`.

    Args:
        options: checked; with a section ``export``.
        server: the NFS server; the kernel's unless another is given.
    """

    def __init__(self, options: NfsOptions, server: Server | None = None) -> None:
        if options.export is None:
            raise ConfigError("mode export needs a section export with a root")
        self._options = options
        self._export = options.export
        self._server = server or KernelServer()
        self._opened: Storage | None = None
        self._name = ""

    def start(self, host: Host) -> None:
        """Open the root and export what is published."""
        self._opened = Storage(self._export, self._server, host.backend_name, self._options.max_volumes_per_node)
        self._name = host.backend_name
        LEDGERS.announce(self._name, "export", self._opened.ledger)

    def stop(self) -> None:
        """Close it; what is exported stays exported."""
        LEDGERS.withdraw(self._name)
        if self._opened:
            self._opened.close()
            self._opened = None

    def describe(self) -> Description:
        """The declaration, and what the root is like."""
        storage = self._storage
        facts = f"{self._export.root} on {storage.fs_type}, {storage.sizing.mechanism}"
        return replace(DECLARATION, facts={"root": facts})

    def create_volume(self, spec: VolumeSpec) -> Outcome[Volume]:
        """A directory with a limit and a record; nobody may mount it yet."""
        self._refuse_unlimited(spec.mutable)
        record, made = volumes.create(self._storage, spec, _parameters(spec.parameters))
        return Created(self._volume(record)) if made else Existing(self._volume(record))

    def delete_volume(self, handle: str) -> None:
        """Into the trash with it."""
        volumes.delete(self._storage, handle)

    def get_volume(self, handle: str) -> Volume | None:
        """From memory."""
        record = self._storage.index.find("v", handle)
        return self._volume(record) if record else None

    def find_volume(self, name: str) -> Volume | None:
        """From memory."""
        record = self._storage.index.named("v", name)
        return self._volume(record) if record else None

    def list_volumes(self, cursor: str, limit: int) -> Page[Volume]:
        """By handle; a cursor is the handle of the last entry."""
        found = self._page("v", cursor, limit, "")
        return Page(tuple(self._volume(record) for record in found.entries), found.next_cursor)

    def get_capacity(self, query: CapacityQuery) -> Capacity:  # noqa: ARG002
        """From the ledger."""
        granularity = DECLARATION.size_granularity_bytes
        available = self._storage.ledger.available_bytes(thin=True) // granularity * granularity
        return Capacity(available, available, DECLARATION.minimum_size_bytes)

    def expand_volume(self, handle: str, size: SizeRange) -> int:
        """Raise the limit."""
        return volumes.expand(self._storage, handle, size)

    def modify_volume(self, handle: str, mutable: Parameters, recorded_mutable: Mapping[str, str]) -> None:
        """Export it in another way, where it is exported."""
        self._refuse_unlimited(mutable)
        volumes.modify(self._storage, handle, recorded_mutable)

    def publish_volume(self, request: PublishRequest) -> dict[str, str]:
        """Export it to the node's addresses."""
        volumes.publish(self._storage, request)
        return {}

    def unpublish_volume(self, handle: str, node_id: str) -> None:
        """Take the export back, and what the node holds."""
        volumes.unpublish(self._storage, handle, node_id)

    def create_snapshot(self, spec: SnapshotSpec) -> Outcome[Snapshot]:
        """A copy that nobody mounts."""
        parameters = spec.parameters if isinstance(spec.parameters, NfsSnapshotParameters) else NfsSnapshotParameters()
        record, made = snapshots.create(self._storage, spec, parameters)
        return Created(record.snapshot()) if made else Existing(record.snapshot())

    def delete_snapshot(self, handle: str) -> None:
        """Into the trash with it."""
        snapshots.delete(self._storage, handle)

    def get_snapshot(self, handle: str) -> Snapshot | None:
        """From memory."""
        record = self._storage.index.find("s", handle)
        return record.snapshot() if record else None

    def list_snapshots(self, cursor: str, limit: int, volume_handle: str) -> Page[Snapshot]:
        """As ``list_volumes``."""
        if volume_handle and not KEY.fullmatch(volume_handle):
            return Page(())
        found = self._page("s", cursor, limit, volume_handle)
        return Page(tuple(record.snapshot() for record in found.entries), found.next_cursor)

    def create_group_snapshot(self, spec: GroupSnapshotSpec) -> Outcome[GroupSnapshot]:
        """A copy of each, if all of them are quiet."""
        parameters = spec.parameters
        if isinstance(parameters, NfsSnapshotParameters) and parameters.consistency == "file":
            raise InvalidArgument(
                "consistency file cannot be had of a group, whose members are of one moment; leave it out"
            )
        record, made = groups.create(self._storage, spec)
        return Created(self._group(record)) if made else Existing(self._group(record))

    def delete_group_snapshot(self, handle: str) -> None:
        """Into the trash with all of it."""
        groups.delete(self._storage, handle)

    def get_group_snapshot(self, handle: str) -> GroupSnapshot | None:
        """From memory."""
        record = self._storage.index.find("g", handle)
        return self._group(record) if record else None

    def volume_health(self, handle: str) -> tuple[HealthProblem, ...]:
        """Content, limit and exports of one volume."""
        return tuple(diagnosis.volume_health(self._storage, volumes.existing(self._storage, handle)))

    def storage_health(self) -> tuple[HealthProblem, ...]:
        """The root and the server."""
        return tuple(diagnosis.storage_health(self._storage, self._server))

    def diagnose(self) -> Iterator[Finding]:
        """Records, content, limits, exports."""
        return diagnosis.findings(self._storage)

    def repair(self, finding: Finding) -> bool:
        """Limits and exports, from the records."""
        return diagnosis.repair(self._storage, self._server, finding)

    @property
    def _storage(self) -> Storage:
        if self._opened is None:
            raise Unavailable("the root is not open")
        return self._opened

    def _refuse_unlimited(self, mutable: Parameters) -> None:
        """The start refuses the same of the option."""
        squash = mutable.squash if isinstance(mutable, ExportMutable) else None
        if squash == "none" and self._storage.fs_type == "ext4" and self._export.size_enforcement == "quota":
            raise InvalidArgument(
                f"squash none cannot be had on {self._export.root}: it is on ext4, which lets root of a pod exceed the "
                "volume's size; say root or all"
            )

    def _context(self, record: Record) -> Mapping[str, str]:
        return {SERVER: self._options.server, SHARE: str(self._storage.root.share(record.key))}

    def _volume(self, record: Record) -> Volume:
        return record.volume(self._context(record))

    def _group(self, record: Record) -> GroupSnapshot:
        return record.group(self._storage.index.members(record.key))

    def _page(self, kind: str, cursor: str, limit: int, volume_key: str) -> Page[Record]:
        chosen = "s" if kind == "s" else "v"
        if cursor and not (KEY.fullmatch(cursor) and cursor.startswith(chosen)):
            raise InvalidArgument(f"{cursor!r} is no cursor of this listing")
        found = self._storage.index.after("s" if kind == "s" else "v", cursor, limit + 1, volume_key)
        more = found[limit - 1].key if len(found) > limit else ""
        return Page(tuple(found[:limit]), more)


def _parameters(parameters: Parameters) -> NfsParameters:
    """The backend's own model; a caller that has none gets the defaults."""
    return parameters if isinstance(parameters, NfsParameters) else NfsParameters()
