"""Mode ``share``: an existing server's share, with one directory for each volume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import structlog

from backends.nfs import access, diagnosis, volumes
from backends.nfs.declaration import DECLARATION
from backends.nfs.export import ExportMode
from backends.nfs.mode import SERVER, SHARE
from backends.nfs.mutable import ShareMutable
from backends.nfs.options import NfsOptions
from backends.nfs.records import Record
from backends.nfs.share_options import ShareOptions
from backends.nfs.share_parameters import OnDelete, ShareParameters
from backends.nfs.share_paths import directory_of
from backends.nfs.share_storage import NoServer, ShareStorage
from csi_core.errors import CallError, ConfigError, FailedPrecondition, InvalidArgument, Unavailable
from csi_core.health import Finding, HealthKind, HealthProblem
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
    PublishRequest,
    SizeRange,
    Snapshot,
    SnapshotSpec,
    Volume,
    VolumeSpec,
)
from csi_core.parameters import Parameters

__all__ = ["ShareMode"]

_log = structlog.get_logger(__name__)


class ShareMode(ExportMode):
    """As mode ``export``, without what takes a server of one's own: exports, quotas, fencing."""

    def __init__(self, options: NfsOptions) -> None:
        if options.share is None:
            raise ConfigError("mode share needs a section share")
        self._options = options
        self._share: ShareOptions = options.share
        self._server = NoServer()
        self._opened: ShareStorage | None = None
        self._name = ""

    def start(self, host: Host) -> None:
        """Open the share; volumes that a crash left beside their records go to their places."""
        self._opened = storage = ShareStorage(self._share, host.backend_name, self._options.max_volumes_per_node)
        self._name = host.backend_name
        for record in storage.index.all("v"):
            try:
                self._settle(storage, record)
            except (CallError, OSError) as error:
                _log.error("a volume is not at its place", volume=record.key, reason=str(error))
        LEDGERS.announce(self._name, "share", storage.ledger)

    def describe(self) -> Description:
        """The declaration, with the parameters of this mode."""
        facts = f"{self._options.server}:{self._share.path} at {self._share.root}, {self._storage.sizing.mechanism}"
        return replace(
            DECLARATION,
            summary="directories of an NFS share",
            parameters=ShareParameters,
            mutable=ShareMutable,
            facts={"share": facts},
        )

    def create_volume(self, spec: VolumeSpec) -> Outcome[Volume]:
        """A directory where the class says, and a record."""
        parameters = spec.parameters if isinstance(spec.parameters, ShareParameters) else ShareParameters()
        self._refuse_elsewhere(parameters)
        storage = self._reached
        if (record := storage.index.named("v", spec.name)) is None:
            directory = directory_of(parameters.template, spec.name, spec.claim)
            storage.place(spec.name, directory)
            try:
                storage.root.refuse_taken(directory, adopt=parameters.fate == "retain" and spec.source is None)
                _, made = volumes.create(storage, spec, parameters)
            except CallError as error:
                if error.final:
                    storage.give_up(spec.name)
                raise
            storage.give_up(spec.name)
            record = storage.named(spec.name)
        else:
            made = False
        self._settle(storage, record)
        return Created(self._volume(record)) if made else Existing(self._volume(record))

    def delete_volume(self, handle: str) -> None:
        """Delete, keep or rename the directory, as the class said."""
        storage = self._reached
        record = storage.index.find("v", handle)
        if record is None:
            return
        if record.publications:
            nodes = ", ".join(sorted(record.publications))
            raise FailedPrecondition(f"volume {handle} is published to {nodes}; unpublish it first")
        storage.index.refuse_read(handle)
        match _fate(record):
            case "delete":
                storage.root.take_back(record)
            case "archive":
                self._settle(storage, record)
                storage.root.archive(record)
            case "retain":
                self._settle(storage, record)
        storage.delete(record)

    def get_capacity(self, query: CapacityQuery) -> Capacity:
        """From the ledger, as far as the share answers."""
        self._reached  # noqa: B018 - raises where it does not
        return super().get_capacity(query)

    def expand_volume(self, handle: str, size: SizeRange) -> int:
        """Record the new size."""
        return volumes.expand(self._reached, handle, size)

    def modify_volume(self, handle: str, mutable: Parameters, recorded_mutable: Mapping[str, str]) -> None:  # noqa: ARG002
        """Record it, for when the volume is deleted."""
        volumes.modify(self._reached, handle, recorded_mutable)

    def publish_volume(self, request: PublishRequest) -> dict[str, str]:
        """Keep single-node volumes to one node, by the record: the server lets all nodes in."""
        storage = self._reached
        if self._share.check_nodes:
            volumes.publish(storage, request)
            return {}
        record = volumes.existing(storage, request.handle)
        storage.admit(access.admitted(record, request, ()), request.node_id)
        return {}

    def unpublish_volume(self, handle: str, node_id: str) -> None:
        """Forget the node."""
        volumes.unpublish(self._reached, handle, node_id)

    def create_snapshot(self, spec: SnapshotSpec) -> Outcome[Snapshot]:
        """A copy beside the records."""
        self._reached  # noqa: B018 - raises where it does not
        return super().create_snapshot(spec)

    def delete_snapshot(self, handle: str) -> None:
        """Into the trash with it."""
        self._reached  # noqa: B018 - raises where it does not
        super().delete_snapshot(handle)

    def create_group_snapshot(self, spec: GroupSnapshotSpec) -> Outcome[GroupSnapshot]:
        """Copies beside the records."""
        self._reached  # noqa: B018 - raises where it does not
        return super().create_group_snapshot(spec)

    def delete_group_snapshot(self, handle: str) -> None:
        """Into the trash with all of it."""
        self._reached  # noqa: B018 - raises where it does not
        super().delete_group_snapshot(handle)

    def volume_health(self, handle: str) -> tuple[HealthProblem, ...]:
        """Whether the content of one volume is there."""
        storage = self._reached
        return tuple(diagnosis.volume_health(storage, volumes.existing(storage, handle)))

    def storage_health(self) -> tuple[HealthProblem, ...]:
        """The share, and whether its server answers."""
        try:
            return tuple(diagnosis.storage_health(self._reached, self._server))
        except Unavailable as error:
            return (HealthProblem(HealthKind.INACCESSIBLE, "ServerUnreachable", str(error)),)

    def diagnose(self) -> Iterator[Finding]:
        """Records against content."""
        return diagnosis.findings(self._reached)

    def repair(self, finding: Finding) -> bool:
        """Nothing can be proved safe here."""
        return diagnosis.repair(self._reached, self._server, finding)

    @property
    def _reached(self) -> ShareStorage:
        """The storage, of whose share the server has just answered."""
        if self._opened is None:
            raise Unavailable("the share is not open")
        self._opened.reach()
        return self._opened

    def _context(self, record: Record) -> Mapping[str, str]:
        return {SERVER: self._options.server, SHARE: f"{self._share.path.rstrip('/')}/{record.directory}"}

    def _settle(self, storage: ShareStorage, record: Record) -> None:
        if record.directory:
            storage.root.settle(record, adopt=_recorded(record).fate == "retain" and record.source is None)

    def _refuse_elsewhere(self, parameters: ShareParameters) -> None:
        for key, given, here in (
            ("server", parameters.server, self._options.server),
            ("share", parameters.share.rstrip("/"), self._share.path.rstrip("/")),
        ):
            if given and given != here:
                raise InvalidArgument(
                    f"{key} {given!r} is not this backend's {here!r}; configure a backend for it, and name it in the "
                    "parameter backend"
                )


def _fate(record: Record) -> OnDelete:
    """What becomes of the directory: as was said last."""
    changed = ShareMutable.model_validate(dict(record.recorded_mutable)).on_delete
    return changed or _recorded(record).fate


def _recorded(record: Record) -> ShareParameters:
    """The parameters that a volume was made with."""
    known = {field.alias or name for name, field in ShareParameters.model_fields.items()}
    return ShareParameters.model_validate({key: value for key, value in record.recorded.items() if key in known})
