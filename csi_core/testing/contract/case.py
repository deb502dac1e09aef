"""A backend under test: how it is opened, reopened, and asked for things in few words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from csi_core.durable import sync
from csi_core.facade import Backend
from csi_core.model import (
    AccessMode,
    AttachRequest,
    ContentSource,
    Page,
    PublishRequest,
    SizeRange,
    Snapshot,
    SnapshotSpec,
    SourceKind,
    Volume,
    VolumeCapability,
    VolumeMode,
    VolumeSpec,
)
from csi_core.parameters import Parameters, parse_parameters
from csi_core.testing.contract.answers import AnswerChecks
from csi_core.testing.contract.content import Content, DeviceContent, content_of

__all__ = ["BackendCase", "KitHost"]

_DEFAULT_BYTES = 16 << 20


class KitHost:
    """The :class:`~csi_core.hookspecs.Host` of the kit: nothing is mounted, so freezing is flushing."""

    def __init__(self, node_id: str, backend_name: str) -> None:
        self.node_id = node_id
        self.backend_name = backend_name

    @contextmanager
    def frozen(self, devices: tuple[Path, ...], time_limit_s: float) -> Iterator[None]:  # noqa: ARG002
        """Flush the devices."""
        for device in devices:
            sync(device)
        yield

    def filesystem_on(self, device: Path) -> None:
        """None: nothing is mounted."""


class BackendCase:
    """One backend on storage of its own, empty at the start of each test.

    ::

        with BackendCase(lambda: MyBackend({"directory": str(tmp_path)})) as case:
            yield case

    Args:
        make: a new plugin on the same storage, each time it is called.
        parameters: StorageClass parameters of the tests' volumes.
        mutable: two settings of mutable parameters, for backends with ``modify_volume``.
        secrets: what calls are made with.
        size_bytes: of the tests' volumes; the least the backend makes, and at least 16 MiB, unless given.
        nodes: two nodes that volumes can be published to, for backends with ``publish_volume``; the first is this one.
        wrappers: plugins around it, as in the configuration.
        elsewhere: parameters that choose another pool than ``parameters`` does, where there are several.
        inventory: names what there is on the storage and this node, such as files and devices, without asking the
            backend: a life in order must end with the names that it began with.
    """

    def __init__(
        self,
        make: Callable[[], object],
        *,
        parameters: Mapping[str, str] | None = None,
        mutable: Sequence[Mapping[str, str]] = (),
        secrets: Mapping[str, str] | None = None,
        size_bytes: int = 0,
        nodes: tuple[str, str] = ("node-a", "node-b"),
        wrappers: Sequence[object] = (),
        elsewhere: Mapping[str, str] | None = None,
        inventory: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self._make = make
        self._wrappers = wrappers
        self._size_bytes = size_bytes
        self._secrets = secrets or {}
        self.parameters = dict(parameters or {})
        self.mutable = mutable
        self.nodes = nodes
        self.elsewhere = elsewhere
        self.inventory = inventory
        self.backend = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for volume in self.volumes():
                self.backend.detach_volume(volume.handle)
        finally:
            self.backend.stop()

    def _open(self) -> Backend:
        backend = Backend.load("tested", self._make(), (*self._wrappers, AnswerChecks()))
        backend.start(KitHost(self.nodes[0], "tested"))
        return backend

    def reopen(self) -> None:
        """The backend's process ends and another begins, on the same storage and the same node."""
        self.backend.stop()
        self.backend = self._open()

    # -- requests -----------------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """The size of a test's volume: one that the backend makes exactly."""
        description = self.backend.description
        return self._size_bytes or self.whole(max(description.minimum_size_bytes, _DEFAULT_BYTES))

    @contextmanager
    def choosing(self, parameters: Mapping[str, str]) -> Iterator[None]:
        """Requests are made with these StorageClass parameters for the time being."""
        before, self.parameters = self.parameters, dict(parameters)
        try:
            yield
        finally:
            self.parameters = before

    @property
    def secrets(self) -> Parameters:
        """What calls are made with, as the backend's own model."""
        return parse_parameters(self.backend.description.secrets, self._secrets, "secret")

    def whole(self, size_bytes: int) -> int:
        """``size_bytes`` rounded up to what the backend makes."""
        granularity = self.backend.description.size_granularity_bytes
        return -(-size_bytes // granularity) * granularity

    def capability(self, mode: VolumeMode) -> VolumeCapability:
        """One writer on one node, as far as the backend serves that."""
        served = self.backend.description.access.get(mode)
        if not served:
            raise AssertionError(f"describe declares no {mode.value} volumes; leave them out of volume_modes")
        preferred = (AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_MULTI_WRITER)
        access_mode = next((m for m in preferred if m in served), None) or min(served, key=lambda m: m.value)
        return VolumeCapability(mode, access_mode)

    def spec(
        self,
        name: str,
        mode: VolumeMode,
        size: SizeRange | None = None,
        source: ContentSource | None = None,
        recorded: Mapping[str, str] | None = None,
        mutable: Mapping[str, str] | None = None,
    ) -> VolumeSpec:
        """What the core would hand over for a claim of the tests' StorageClass."""
        description = self.backend.description
        return VolumeSpec(
            name=name,
            size=SizeRange(self.size_bytes) if size is None else size,
            capabilities=(self.capability(mode),),
            parameters=parse_parameters(description.parameters, self.parameters, "parameter"),
            recorded=self.parameters if recorded is None else recorded,
            mutable=parse_parameters(description.mutable, mutable or {}, "mutable parameter"),
            recorded_mutable=mutable or {},
            secrets=self.secrets,
            source=source,
        )

    def snapshot_spec(self, name: str, volume: Volume) -> SnapshotSpec:
        """What the core would hand over for a VolumeSnapshot."""
        model = self.backend.description.snapshot_parameters
        return SnapshotSpec(name, volume.handle, parse_parameters(model, {}, "parameter"), secrets=self.secrets)

    # -- calls --------------------------------------------------------------------------------------

    def create(
        self, name: str, mode: VolumeMode, size_bytes: int | None = None, source: ContentSource | None = None
    ) -> Volume:
        """Create a volume, of the tests' size unless another is given."""
        size = None if size_bytes is None else SizeRange(size_bytes)
        return self.backend.create_volume(self.spec(name, mode, size, source)).value

    def snapshot(self, name: str, volume: Volume) -> Snapshot:
        """Take a snapshot."""
        return self.backend.create_snapshot(self.snapshot_spec(name, volume)).value

    def restore(self, name: str, mode: VolumeMode, snapshot: Snapshot, size_bytes: int | None = None) -> Volume:
        """Create a volume from a snapshot."""
        return self.create(
            name, mode, size_bytes or snapshot.size_bytes, ContentSource(SourceKind.SNAPSHOT, snapshot.handle)
        )

    def clone(self, name: str, mode: VolumeMode, volume: Volume, size_bytes: int | None = None) -> Volume:
        """Create a volume from a volume."""
        return self.create(name, mode, size_bytes or volume.size_bytes, ContentSource(SourceKind.VOLUME, volume.handle))

    def delete(self, volume: Volume) -> None:
        """Delete a volume."""
        self.backend.delete_volume(volume.handle, self.secrets)

    def attach_request(self, volume: Volume, mode: VolumeMode) -> AttachRequest:
        """What the core would hand over for NodeStageVolume."""
        return AttachRequest(volume.handle, self.capability(mode), context=volume.context, secrets=self.secrets)

    @contextmanager
    def attached(self, volume: Volume, mode: VolumeMode) -> Iterator[Content]:
        """The content of a volume, attached for the time being; a device has exactly the volume's size."""
        with self._published(volume, mode) as request:
            with content_of(self.backend.attach_volume(request)) as content:
                recorded = self.backend.get_volume(volume.handle)
                if isinstance(content, DeviceContent) and recorded is not None:
                    assert content.size_bytes == recorded.size_bytes
                yield content
            self.backend.detach_volume(volume.handle)

    @contextmanager
    def _published(self, volume: Volume, mode: VolumeMode) -> Iterator[AttachRequest]:
        """Let this node have the volume for the time being, where nodes need to be let in."""
        request = self.attach_request(volume, mode)
        if "publish_volume" not in self.backend.hooks:
            yield request
            return
        publish = PublishRequest(
            volume.handle, self.nodes[0], request.capability, context=volume.context, secrets=self.secrets
        )
        yield replace(request, publish_context=self.backend.publish_volume(publish))
        self.backend.unpublish_volume(volume.handle, self.nodes[0], self.secrets)

    def write(self, volume: Volume, mode: VolumeMode, seed: str) -> str:
        """Attach, write what ``seed`` gives, detach; answer the checksum."""
        with self.attached(volume, mode) as content:
            content.write(seed)
            return content.checksum()

    def checksum(self, volume: Volume, mode: VolumeMode, size_bytes: int | None = None) -> str:
        """Attach, read everything (or the first ``size_bytes`` of a device), detach."""
        with self.attached(volume, mode) as content:
            return content.checksum(size_bytes)

    def volumes(self, limit: int = 1000) -> list[Volume]:
        """All volumes, in pages of ``limit``."""
        return list(_entries(self.backend.list_volumes, limit))

    def snapshots(self, volume_handle: str = "", limit: int = 1000) -> list[Snapshot]:
        """All snapshots, of one volume where its handle is given."""
        return list(_entries(lambda cursor, n: self.backend.list_snapshots(cursor, n, volume_handle), limit))


def _entries(read: Callable[[str, int], Page[Volume]] | Callable[[str, int], Page[Snapshot]], limit: int) -> Iterator:  # type: ignore[type-arg]
    cursor = ""
    while True:
        page = read(cursor, limit)
        assert len(page.entries) <= limit, f"asked for {limit} entries, got {len(page.entries)}"
        yield from page.entries
        if not page.next_cursor:
            return
        assert page.next_cursor != cursor, "a page leads to itself"
        cursor = page.next_cursor
