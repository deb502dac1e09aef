"""The values that cross the contract: frozen dataclasses, sizes in bytes, no protobuf and no gRPC.

A *handle* is a backend's own name for a volume, snapshot or group; the core puts the backend's
configured name before it (``<backend>/<handle>``) to make the CSI id. A handle is at most
``MAX_HANDLE_BYTES`` of ``[A-Za-z0-9._:-]``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

from csi_core.parameters import Parameters

MAX_HANDLE_BYTES = 96


class VolumeMode(enum.Enum):
    """How a claim is consumed: a mounted filesystem, or the raw block device."""

    FILESYSTEM = "filesystem"
    BLOCK = "block"


class AccessMode(enum.Enum):
    """CSI ``VolumeCapability.AccessMode.Mode``; the values are CSI's names in lower case."""

    SINGLE_NODE_WRITER = "single_node_writer"
    SINGLE_NODE_READER_ONLY = "single_node_reader_only"
    MULTI_NODE_READER_ONLY = "multi_node_reader_only"
    MULTI_NODE_SINGLE_WRITER = "multi_node_single_writer"
    MULTI_NODE_MULTI_WRITER = "multi_node_multi_writer"
    SINGLE_NODE_SINGLE_WRITER = "single_node_single_writer"
    SINGLE_NODE_MULTI_WRITER = "single_node_multi_writer"

    @property
    def read_only(self) -> bool:
        """True where no node may write."""
        return self in (AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY)

    @property
    def single_publish(self) -> bool:
        """True where one target path on a node is all there may be (ReadWriteOncePod)."""
        return self in (AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_SINGLE_WRITER)

    @property
    def multi_node(self) -> bool:
        """True where several nodes may hold the volume at once."""
        return self.value.startswith("multi_node")


class Reach(enum.Enum):
    """From where a backend's volumes can be used."""

    NODE_LOCAL = "node-local"
    NETWORK = "network"


class SourceKind(enum.Enum):
    """What a new volume's content may come from."""

    SNAPSHOT = "snapshot"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True)
class VolumeCapability:
    """One way in which a volume is to be used (CSI ``VolumeCapability``).

    ``fs_type`` is "" where the request leaves it to the driver and for raw block.
    """

    volume_mode: VolumeMode
    access_mode: AccessMode
    fs_type: str = ""
    mount_flags: tuple[str, ...] = ()
    mount_group: str = ""


@dataclass(frozen=True, slots=True)
class SizeRange:
    """CSI ``CapacityRange`` in bytes; 0 means not said."""

    required_bytes: int = 0
    limit_bytes: int = 0

    def admits(self, size_bytes: int) -> bool:
        """Whether a volume of ``size_bytes`` satisfies this range."""
        return size_bytes >= self.required_bytes and (not self.limit_bytes or size_bytes <= self.limit_bytes)


@dataclass(frozen=True, slots=True)
class ContentSource:
    """The snapshot or volume, of the same backend, that a new volume is filled from."""

    kind: SourceKind
    handle: str


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A volume to create, after all validation that the core can do (CSI ``CreateVolumeRequest``).

    Attributes:
        name: the CO's idempotency key: any Unicode but control characters, at most 128 bytes.
        size: what was asked for, in bytes.
        capabilities: every way in which it is to be used; never empty.
        parameters: the StorageClass parameters as the backend's own model, ``mutable`` ones merged over it.
        recorded: the same parameters as the strings to record with the volume; the core compares them
            when the name comes again.
        mutable: VolumeAttributesClass parameters as the backend's model.
        recorded_mutable: the same as strings.
        secrets: the backend's secrets model.
        source: the content to start with.
        claim: namespace/name of the claim where the provisioner said so, else "".
    """

    name: str
    size: SizeRange
    capabilities: tuple[VolumeCapability, ...]
    parameters: Parameters
    recorded: Mapping[str, str] = field(default_factory=dict)
    mutable: Parameters = field(default_factory=Parameters)
    recorded_mutable: Mapping[str, str] = field(default_factory=dict)
    secrets: Parameters = field(default_factory=Parameters)
    source: ContentSource | None = None
    claim: str = ""

    @property
    def volume_mode(self) -> VolumeMode:
        """BLOCK where any capability asks for raw block."""
        block = any(c.volume_mode is VolumeMode.BLOCK for c in self.capabilities)
        return VolumeMode.BLOCK if block else VolumeMode.FILESYSTEM


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as the storage knows it.

    Attributes:
        handle: the backend's own name for it.
        name: the name it was created under.
        size_bytes: what the claim gets.
        recorded: ``VolumeSpec.recorded`` as it was stored at creation.
        recorded_mutable: the mutable parameters now in force.
        source: what it was created from.
        context: given to every node call (CSI ``volume_context``); no secrets, at most 4 KiB.
        published_node_ids: nodes it is published to, for backends with ``publish_volume``.
    """

    handle: str
    name: str
    size_bytes: int
    recorded: Mapping[str, str] = field(default_factory=dict)
    recorded_mutable: Mapping[str, str] = field(default_factory=dict)
    source: ContentSource | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    published_node_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotSpec:
    """A snapshot to take (CSI ``CreateSnapshotRequest``). ``name`` as in :class:`VolumeSpec`."""

    name: str
    volume_handle: str
    parameters: Parameters = field(default_factory=Parameters)
    recorded: Mapping[str, str] = field(default_factory=dict)
    secrets: Parameters = field(default_factory=Parameters)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as the storage knows it. ``group_handle`` is "" outside a group."""

    handle: str
    name: str
    volume_handle: str
    size_bytes: int
    created_at: datetime
    ready: bool = True
    recorded: Mapping[str, str] = field(default_factory=dict)
    group_handle: str = ""


@dataclass(frozen=True, slots=True)
class GroupSnapshotSpec:
    """Snapshots of several volumes at one point in time (CSI ``CreateVolumeGroupSnapshotRequest``)."""

    name: str
    volume_handles: tuple[str, ...]
    parameters: Parameters = field(default_factory=Parameters)
    recorded: Mapping[str, str] = field(default_factory=dict)
    secrets: Parameters = field(default_factory=Parameters)


@dataclass(frozen=True, slots=True)
class GroupSnapshot:
    """A group as the storage knows it: crash-consistent across all members."""

    handle: str
    name: str
    snapshots: tuple[Snapshot, ...]
    created_at: datetime
    ready: bool = True
    recorded: Mapping[str, str] = field(default_factory=dict)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Created(Generic[T]):
    """The call made ``value``."""

    value: T


@dataclass(frozen=True, slots=True)
class Existing(Generic[T]):
    """Something of that name is there already; the core judges whether it is compatible."""

    value: T


Outcome = Created[T] | Existing[T]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing. ``next_cursor`` is "" on the last one.

    A cursor is the backend's own, opaque to all others; it must stay usable while entries come and go.
    """

    entries: tuple[T, ...]
    next_cursor: str = ""


@dataclass(frozen=True, slots=True)
class CapacityQuery:
    """What room is asked about (CSI ``GetCapacityRequest``)."""

    parameters: Parameters
    capabilities: tuple[VolumeCapability, ...] = ()


@dataclass(frozen=True, slots=True)
class Capacity:
    """Room for new volumes in bytes. ``maximum_volume_bytes`` is the largest single one that fits."""

    available_bytes: int
    maximum_volume_bytes: int | None = None
    minimum_volume_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """Make a volume usable on this node. ``capability`` says how; ``read_only`` is the CO's wish."""

    handle: str
    capability: VolumeCapability
    read_only: bool = False
    context: Mapping[str, str] = field(default_factory=dict)
    publish_context: Mapping[str, str] = field(default_factory=dict)
    secrets: Parameters = field(default_factory=Parameters)


@dataclass(frozen=True, slots=True)
class BlockSource:
    """A block device on this node. The core formats it (once), mounts it or hands it out raw.

    Attributes:
        device: path of the device node.
        size_bytes: what the claim gets.
        formatted: the filesystem type recorded by ``mark_formatted``, "" before the first format.
        mkfs_options: further options for mkfs, allow-listed by the core.
        keep_allocated: true where mkfs must not discard (thick provisioning).
        copied: true where the content is a copy whose filesystem UUID is still its source's.
        elastic: true where the device is smaller than ``size_bytes`` and grows as its filesystem fills up.
    """

    device: Path
    size_bytes: int
    formatted: str = ""
    mkfs_options: tuple[str, ...] = ()
    keep_allocated: bool = False
    copied: bool = False
    elastic: bool = False


@dataclass(frozen=True, slots=True)
class DirectorySource:
    """A directory on this node that is the volume itself; the core binds it."""

    path: Path


@dataclass(frozen=True, slots=True)
class ShareSource:
    """A network share; the core mounts it. ``remote`` is what mount(8) takes as its source."""

    fs_type: str
    remote: str
    mount_flags: tuple[str, ...] = ()


Source = BlockSource | DirectorySource | ShareSource


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """Give one node access to a volume (CSI ``ControllerPublishVolumeRequest``)."""

    handle: str
    node_id: str
    capability: VolumeCapability
    read_only: bool = False
    context: Mapping[str, str] = field(default_factory=dict)
    secrets: Parameters = field(default_factory=Parameters)


@dataclass(frozen=True, slots=True)
class BlockRange:
    """``size_bytes`` bytes of a snapshot from ``offset_bytes`` on."""

    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class BlockMap:
    """Allocated or changed ranges: ascending, never overlapping, ends after the asked offset.

    ``block_size_bytes`` is the constant length of every range, or 0 for variable lengths.
    """

    volume_size_bytes: int
    ranges: Iterator[BlockRange]
    block_size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Description:
    """What a backend declares; capabilities are derived from this and the hooks it implements.

    Attributes:
        summary: one line for ``csi-core backends``.
        reach: node-local volumes get a topology key with the node's name.
        access: the access modes served for each volume mode; a mode left out is refused.
        filesystems: mkfs types for block sources, the default first; () where sources are directories.
        sources: what new volumes can be filled from.
        parameters, mutable, secrets, snapshot_parameters: pydantic models of the keys it takes.
        size_granularity_bytes: sizes are rounded up to a multiple of this.
        minimum_size_bytes, default_size_bytes: the smallest volume, and the one for "no size said".
        online_expansion: whether ``expand_volume`` works while published.
        ephemeral: serve inline ephemeral volumes (needs ``find_volume``).
        single_node_multi_writer: tell ReadWriteOnce and ReadWriteOncePod apart.
        mount_group: volumes are mounted with a group id (fsGroup is delegated to the driver).
        max_volumes_per_node: 0 for no limit.
        facts: further facts for people (which snapshot mechanism is in use, say).
    """

    summary: str
    reach: Reach
    access: Mapping[VolumeMode, frozenset[AccessMode]]
    filesystems: tuple[str, ...] = ()
    sources: frozenset[SourceKind] = frozenset()
    parameters: type[Parameters] = Parameters
    mutable: type[Parameters] = Parameters
    secrets: type[Parameters] = Parameters
    snapshot_parameters: type[Parameters] = Parameters
    size_granularity_bytes: int = 4096
    minimum_size_bytes: int = 1 << 20
    default_size_bytes: int = 1 << 30
    online_expansion: bool = True
    ephemeral: bool = False
    single_node_multi_writer: bool = True
    mount_group: bool = False
    max_volumes_per_node: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)
