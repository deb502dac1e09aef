"""A backend that lives in dictionaries, a node that only takes notes, and requests to a server over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from csi_core._proto import csi_pb2 as pb
from csi_core._proto import csi_pb2_grpc as services
from csi_core.errors import InvalidArgument, NoSpace
from csi_core.facade import Backend
from csi_core.health import HealthKind, HealthProblem
from csi_core.hookspecs import hookimpl
from csi_core.model import (
    AccessMode,
    BlockMap,
    Capacity,
    Created,
    Description,
    Existing,
    GroupSnapshot,
    Page,
    Reach,
    Snapshot,
    SourceKind,
    Volume,
    VolumeMode,
)
from csi_core.node.requests import VolumeUsage
from csi_core.parameters import Parameters

NODE = "node-1"
DRIVER = "fake.csi-core.dev"
TOPOLOGY_KEY = f"topology.{DRIVER}/node"
MIB = 1 << 20
MODES = pb.VolumeCapability.AccessMode


class FakeParameters(Parameters):
    pool: str = "first"
    iops: int = 100


class FakeMutable(Parameters):
    iops: int = 100
    burst: int = 0


class FakeSecrets(Parameters):
    password: str = ""


class FakeSnapshotParameters(Parameters):
    retain: bool = False


DESCRIPTION = Description(
    summary="dictionaries",
    reach=Reach.NODE_LOCAL,
    access={mode: frozenset(AccessMode) - {AccessMode.MULTI_NODE_SINGLE_WRITER} for mode in VolumeMode},
    filesystems=("ext4", "xfs"),
    sources=frozenset(SourceKind),
    parameters=FakeParameters,
    mutable=FakeMutable,
    secrets=FakeSecrets,
    snapshot_parameters=FakeSnapshotParameters,
    size_granularity_bytes=MIB,
    default_size_bytes=10 * MIB,
    ephemeral=True,
    max_volumes_per_node=7,
)


SMALL_DESCRIPTION = replace(
    DESCRIPTION, sources=frozenset(), mutable=Parameters, snapshot_parameters=Parameters, ephemeral=False
)


class Small:
    """The required hooks only, and what its filesystems need."""

    def __init__(self, description: Description = SMALL_DESCRIPTION) -> None:
        self.description = description
        self.volumes: dict[str, Volume] = {}
        self.specs: list[Any] = []
        self.before: Callable[[str], None] = lambda _hook: None

    @hookimpl
    def describe(self) -> Description:
        return self.description

    @hookimpl
    def create_volume(self, spec):
        self.before("create_volume")
        self.specs.append(spec)
        handle = f"v{sum(map(ord, spec.name))}-{len(spec.name)}"
        if handle in self.volumes:
            return Existing(self.volumes[handle])
        size = spec.size.required_bytes or self.description.default_size_bytes
        volume = Volume(
            handle, spec.name, size, spec.recorded, spec.recorded_mutable, spec.source, {"made": "here"}, ()
        )
        self.volumes[handle] = volume
        return Created(volume)

    @hookimpl
    def delete_volume(self, handle):
        self.before("delete_volume")
        self.volumes.pop(handle, None)

    @hookimpl
    def get_volume(self, handle):
        self.before("get_volume")
        return self.volumes.get(handle)

    @hookimpl
    def list_volumes(self, cursor, limit):
        return page(sorted(self.volumes.items()), cursor, limit)

    @hookimpl
    def attach_volume(self, request):
        raise AssertionError("the node side is a fake here")

    @hookimpl
    def detach_volume(self, handle):
        raise AssertionError("the node side is a fake here")

    @hookimpl
    def mark_formatted(self, handle, fs_type):
        raise AssertionError("the node side is a fake here")

    @hookimpl
    def find_volume(self, name):
        return next((volume for volume in self.volumes.values() if volume.name == name), None)


def page(entries, cursor, limit):
    if cursor and not cursor.startswith("after-"):
        raise InvalidArgument(f"no cursor of mine: {cursor}")
    rest = [(key, value) for key, value in entries if f"after-{key}" > cursor]
    more = f"after-{rest[limit - 1][0]}" if len(rest) > limit else ""
    return Page(tuple(value for _, value in rest[:limit]), more)


class Full(Small):
    """Every hook."""

    def __init__(self, description: Description = DESCRIPTION) -> None:
        super().__init__(description)
        self.snapshots: dict[str, Snapshot] = {}
        self.groups: dict[str, GroupSnapshot] = {}
        self.capacity = Capacity(1000 * MIB, maximum_volume_bytes=500 * MIB, minimum_volume_bytes=MIB)
        self.block_map = BlockMap(64, iter(()))
        self.problems = (HealthProblem(HealthKind.DEGRADED, "NearlyFull", "95 % used"),)

    @hookimpl
    def get_capacity(self, query):
        self.specs.append(query)
        return self.capacity

    @hookimpl
    def expand_volume(self, handle, size):
        volume = self.volumes[handle]
        if size.required_bytes > 500 * MIB:
            raise NoSpace("the fake is full")
        grown = replace(volume, size_bytes=max(volume.size_bytes, size.required_bytes))
        self.volumes[handle] = grown
        return grown.size_bytes

    @hookimpl
    def modify_volume(self, handle, mutable, recorded_mutable):
        self.specs.append(mutable)
        self.volumes[handle] = replace(self.volumes[handle], recorded_mutable=recorded_mutable)

    @hookimpl
    def create_snapshot(self, spec):
        handle = f"s-{spec.name}"
        if handle in self.snapshots:
            return Existing(self.snapshots[handle])
        size = self.volumes[spec.volume_handle].size_bytes
        self.snapshots[handle] = Snapshot(
            handle, spec.name, spec.volume_handle, size, datetime(2026, 1, 2, tzinfo=UTC), recorded=spec.recorded
        )
        return Created(self.snapshots[handle])

    @hookimpl
    def delete_snapshot(self, handle):
        self.snapshots.pop(handle, None)

    @hookimpl
    def get_snapshot(self, handle):
        return self.snapshots.get(handle)

    @hookimpl
    def list_snapshots(self, cursor, limit, volume_handle):
        chosen = [(h, s) for h, s in sorted(self.snapshots.items()) if volume_handle in ("", s.volume_handle)]
        return page(chosen, cursor, limit)

    @hookimpl
    def create_group_snapshot(self, spec):
        handle = f"g-{spec.name}"
        if handle in self.groups:
            return Existing(self.groups[handle])
        moment = datetime(2026, 1, 2, tzinfo=UTC)
        members = tuple(
            Snapshot(f"{handle}.{volume}", "", volume, MIB, moment, group_handle=handle)
            for volume in spec.volume_handles
        )
        self.snapshots |= {member.handle: member for member in members}
        self.groups[handle] = GroupSnapshot(handle, spec.name, members, moment, recorded=spec.recorded)
        return Created(self.groups[handle])

    @hookimpl
    def delete_group_snapshot(self, handle):
        for member in self.groups.pop(handle).snapshots:
            del self.snapshots[member.handle]

    @hookimpl
    def get_group_snapshot(self, handle):
        return self.groups.get(handle)

    @hookimpl
    def allocated_blocks(self, snapshot_handle, start_offset_bytes):
        return self.block_map

    @hookimpl
    def changed_blocks(self, base_handle, target_handle, start_offset_bytes):
        return self.block_map

    @hookimpl
    def volume_health(self, handle):
        return self.problems

    @hookimpl
    def storage_health(self):
        return self.problems


class Network(Full):
    """Reached from every node, after ControllerPublish."""

    def __init__(self, description: Description = DESCRIPTION, reach: Reach = Reach.NETWORK) -> None:
        super().__init__(replace(description, reach=reach))
        self.published: list[Any] = []

    @hookimpl
    def publish_volume(self, request):
        self.published.append(request)
        return {"portal": "here"}

    @hookimpl
    def unpublish_volume(self, handle, node_id):
        self.published.append((handle, node_id))


@dataclass
class FakeNode:
    """Stands in for NodeVolumes: writes down what it is asked for."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def __getattr__(self, call: str) -> Callable[..., Any]:
        def note(backend: Backend, *arguments: Any) -> Any:
            self.calls.append((call, backend.name, *arguments))
            if call == "expand":
                return backend.expand_volume(arguments[0], arguments[2])
            return (VolumeUsage("bytes", 10, 4, 6), VolumeUsage("inodes", 5, None, None)) if call == "stats" else None

        return note


class Client:
    """The five stubs of one server, and what lies behind it."""

    def __init__(self, path: Path, **behind: Any) -> None:
        self.path = path
        self.channel = grpc.insecure_channel(f"unix:{path}")
        self.identity = services.IdentityStub(self.channel)
        self.controller = services.ControllerStub(self.channel)
        self.node = services.NodeStub(self.channel)
        self.group = services.GroupControllerStub(self.channel)
        self.metadata = services.SnapshotMetadataStub(self.channel)
        self.__dict__.update(behind)

    def create(self, name: str = "pvc-1", mib: int = 10, **more: Any) -> pb.Volume:
        return self.controller.CreateVolume(create_request(name, mib, **more)).volume


def capability(
    mode: int = MODES.SINGLE_NODE_WRITER, fs_type: str = "ext4", flags: tuple[str, ...] = (), group: str = ""
) -> pb.VolumeCapability:
    mount = pb.VolumeCapability.MountVolume(fs_type=fs_type, mount_flags=flags, volume_mount_group=group)
    return pb.VolumeCapability(mount=mount, access_mode=MODES(mode=mode))


def raw_block(mode: int = MODES.SINGLE_NODE_WRITER) -> pb.VolumeCapability:
    return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=MODES(mode=mode))


def size(required_mib: int = 0, limit_mib: int = 0) -> pb.CapacityRange:
    return pb.CapacityRange(required_bytes=required_mib * MIB, limit_bytes=limit_mib * MIB)


def create_request(name: str = "pvc-1", mib: int = 10, **more: Any) -> pb.CreateVolumeRequest:
    fields = {"capacity_range": size(mib), "volume_capabilities": [capability()]} | more
    return pb.CreateVolumeRequest(name=name, **fields)


@dataclass
class Refused:
    """What a refused call said."""

    code: grpc.StatusCode | None = None
    details: str = ""
    trailing: tuple[Any, ...] = ()


class refuses:  # noqa: N801 - reads like pytest.raises
    """``with refuses("NOT_FOUND", "some text") as said: call()``"""

    def __init__(self, code: str, text: str = "") -> None:
        self.code = grpc.StatusCode[code]
        self.text = text
        self.said = Refused()

    def __enter__(self) -> Refused:
        return self.said

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        assert isinstance(error, grpc.RpcError), f"not refused: {error!r}"
        self.said.code, self.said.details = error.code(), error.details()
        self.said.trailing = tuple(error.trailing_metadata() or ())
        assert error.code() is self.code, f"{error.code()}: {error.details()}"
        assert self.text in error.details(), error.details()
        return True
