"""Hooks for volumes, in the order of a volume's life."""

from __future__ import annotations

from dataclasses import replace

from backends.sim.injection import Injection, simulated
from backends.sim.options import SimParameters
from backends.sim.records import Publication, SnapshotRecord, VolumeRecord
from backends.sim.storage import DEFAULT_BYTES, GRANULARITY_BYTES, MINIMUM_BYTES, SimStorage, handle_of, page_of
from csi_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NoSpace, NotFound
from csi_core.faults import fault
from csi_core.model import (
    Capacity,
    CapacityQuery,
    ContentSource,
    Created,
    Existing,
    Outcome,
    Page,
    PublishRequest,
    SizeRange,
    SourceKind,
    Volume,
    VolumeMode,
    VolumeSpec,
)
from csi_core.parameters import Parameters
from csi_core.sizes import choose_size, whole_size

__all__ = ["VolumeHooks"]


class VolumeHooks:
    """Create, delete, look up, measure, grow, modify and publish."""

    storage: SimStorage
    injection: Injection

    @simulated
    def create_volume(self, spec: VolumeSpec) -> Outcome[Volume]:
        """Reserve, make the content, record."""
        self.storage.authenticate(spec.secrets)
        handle = handle_of("volume", spec.name)
        with self.storage.alone("create_volume", handle):
            return self._create(spec, handle)

    def _create(self, spec: VolumeSpec, handle: str) -> Outcome[Volume]:
        if record := self.storage.records.volumes.get(handle):
            return Existing(record.answer())
        source_bytes = self._source_bytes(spec.source, spec.volume_mode) if spec.source else 0
        size_bytes = choose_size(
            spec.size,
            granularity_bytes=GRANULARITY_BYTES,
            minimum_bytes=MINIMUM_BYTES,
            default_bytes=DEFAULT_BYTES,
            source_bytes=source_bytes,
        )
        thin = isinstance(spec.parameters, SimParameters) and spec.parameters.provisioning == "thin"
        charge_bytes = self.storage.ledger.charge(thin, size_bytes)
        with self.storage.ledger.reserve(charge_bytes) as reservation:
            if spec.source:
                self.storage.content.copy(spec.source.handle, handle)
                self.storage.content.grow(handle, size_bytes)
            else:
                self.storage.content.create(handle, spec.volume_mode, size_bytes)
            fault("sim.create.before_record")
            recorded, recorded_mutable = dict(spec.recorded), dict(spec.recorded_mutable)
            volume = Volume(handle, spec.name, size_bytes, recorded, recorded_mutable, spec.source)
            with self.storage.records.change():
                self.storage.records.volumes[handle] = VolumeRecord(volume, spec.volume_mode, charge_bytes, thin)
            reservation.commit()
        return Created(volume)

    @simulated
    def delete_volume(self, handle: str, secrets: Parameters) -> None:
        """Forget the volume, then remove its content: also the content that a crash in between left."""
        self.storage.authenticate(secrets)
        with self.storage.alone("delete_volume", handle):
            record = self.storage.records.volumes.get(handle)
            if record and (record.attached or record.publications):
                raise FailedPrecondition(f"volume {handle} is in use; unpublish and unstage it before it is deleted")
            if record:
                with self.storage.records.change():
                    del self.storage.records.volumes[handle]
                self.storage.ledger.release(record.charge_bytes)
                fault("sim.delete.after_record")
            self.storage.remove_content(handle)

    @simulated
    def get_volume(self, handle: str) -> Volume | None:
        """Look it up."""
        record = self.storage.records.volumes.get(handle)
        return record.answer() if record else None

    @simulated
    def find_volume(self, name: str) -> Volume | None:
        """Look it up under the handle that its name gives."""
        record = self.storage.records.volumes.get(handle_of("volume", name))
        return record.answer() if record else None

    @simulated
    def list_volumes(self, cursor: str, limit: int) -> Page[Volume]:
        """By handle; the cursor is the last one of the page before."""
        return page_of((record.answer() for record in self.storage.records.all_volumes()), cursor, limit)

    @simulated
    def get_capacity(self, query: CapacityQuery) -> Capacity:
        """Ask the ledger."""
        thin = isinstance(query.parameters, SimParameters) and query.parameters.provisioning == "thin"
        available_bytes = self.storage.ledger.available_bytes(thin)
        largest_bytes = available_bytes // GRANULARITY_BYTES * GRANULARITY_BYTES
        return Capacity(available_bytes, maximum_volume_bytes=largest_bytes, minimum_volume_bytes=MINIMUM_BYTES)

    @simulated
    def expand_volume(self, handle: str, size: SizeRange) -> int:
        """Reserve the difference, grow the content, record."""
        record = self.storage.volume(handle)
        if record.volume.size_bytes >= size.required_bytes:
            return record.volume.size_bytes
        size_bytes = whole_size(size, size.required_bytes, GRANULARITY_BYTES)
        charge_bytes = self.storage.ledger.charge(record.thin, size_bytes)
        with self.storage.ledger.reserve(charge_bytes - record.charge_bytes) as reservation:
            self.storage.content.grow(handle, size_bytes)
            fault("sim.expand.before_record")
            volume = replace(record.volume, size_bytes=size_bytes)
            self.storage.put(replace(record, volume=volume, charge_bytes=charge_bytes))
            reservation.commit()
        return size_bytes

    @simulated
    def modify_volume(self, handle: str, mutable: Parameters, recorded_mutable: dict[str, str]) -> None:  # noqa: ARG002
        """Nothing to put in force here but the record."""
        record = self.storage.volume(handle)
        self.storage.put(replace(record, volume=replace(record.volume, recorded_mutable=dict(recorded_mutable))))

    @simulated
    def publish_volume(self, request: PublishRequest) -> dict[str, str]:
        """Record the node's access, within the rules of the access mode and the node's limit."""
        self.storage.authenticate(request.secrets)
        record = self.storage.volume(request.handle)
        node_id, wanted = request.node_id, Publication(request.capability, request.read_only)
        if node_id not in self.storage.nodes:
            raise NotFound(f"there is no node {node_id!r}; known: {', '.join(sorted(self.storage.nodes))}")
        context = {"attachment": f"{request.handle}@{node_id}"}
        if node_id in record.publications:
            if record.publications[node_id] != wanted:
                raise AlreadyExists(f"volume {request.handle} is published to {node_id} in another way")
            return context
        if record.publications and not request.capability.access_mode.multi_node:
            raise FailedPrecondition(f"volume {request.handle} is published to {min(record.publications)} already")
        limit = self.storage.max_volumes_per_node
        with self.storage.records.change():
            volumes = self.storage.records.volumes
            if limit and sum(node_id in other.publications for other in volumes.values()) >= limit:
                raise NoSpace(f"node {node_id} has {limit} volumes, which is as many as it can have")
            volumes[request.handle] = replace(record, publications={**record.publications, node_id: wanted})
        return context

    @simulated
    def unpublish_volume(self, handle: str, node_id: str, secrets: Parameters) -> None:
        """Forget the access of one node, or of all."""
        self.storage.authenticate(secrets)
        record = self.storage.records.volumes.get(handle)
        if record:
            left = {node: how for node, how in record.publications.items() if node_id not in ("", node)}
            self.storage.put(replace(record, publications=left))

    def _source_bytes(self, source: ContentSource, mode: VolumeMode) -> int:
        record: VolumeRecord | SnapshotRecord | None
        if source.kind is SourceKind.SNAPSHOT:
            record = self.storage.records.snapshots.get(source.handle)
        else:
            record = self.storage.records.volumes.get(source.handle)
        if record is None:
            raise NotFound(f"there is no {source.kind.value} {source.handle!r}")
        if record.mode is not mode:
            raise InvalidArgument(f"{source.handle} holds a {record.mode.value} volume; it cannot become {mode.value}")
        return record.snapshot.size_bytes if isinstance(record, SnapshotRecord) else record.volume.size_bytes
