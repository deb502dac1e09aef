"""The node calls without root, on mounts that are links: directories and raw block files, through restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from csi_core.facade import Backend
from csi_core.hookspecs import hookimpl
from csi_core.model import (
    AccessMode,
    AttachRequest,
    BlockSource,
    Description,
    DirectorySource,
    Outcome,
    Page,
    Reach,
    Source,
    Volume,
    VolumeCapability,
    VolumeMode,
    VolumeSpec,
)
from csi_core.node.lifecycle import NodeVolumes
from csi_core.node.mounts import SimulatedMounts
from csi_core.node.requests import NodePublishRequest, StageRequest
from csi_core.parameters import Parameters

FILESYSTEM = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_MULTI_WRITER)
ONCE = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_SINGLE_WRITER)
BLOCK = VolumeCapability(VolumeMode.BLOCK, AccessMode.SINGLE_NODE_MULTI_WRITER)


class Paths:
    """A volume is a directory, or a file for raw block."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.attached: set[str] = set()

    @hookimpl
    def describe(self) -> Description:
        access = {mode: frozenset(AccessMode) for mode in VolumeMode}
        return Description("paths", Reach.NODE_LOCAL, access)

    @hookimpl
    def create_volume(self, spec: VolumeSpec) -> Outcome[Volume]:
        raise NotImplementedError

    @hookimpl
    def delete_volume(self, handle: str, secrets: Parameters) -> None:
        raise NotImplementedError

    @hookimpl
    def get_volume(self, handle: str) -> Volume | None:
        raise NotImplementedError

    @hookimpl
    def list_volumes(self, cursor: str, limit: int) -> Page[Volume]:
        raise NotImplementedError

    @hookimpl
    def attach_volume(self, request: AttachRequest) -> Source:
        self.attached.add(request.handle)
        path = self.directory / request.handle
        if request.capability.volume_mode is VolumeMode.BLOCK:
            with path.open("ab") as file:
                file.truncate(8192)
            return BlockSource(path, 8192)
        path.mkdir(exist_ok=True)
        return DirectorySource(path)

    @hookimpl
    def detach_volume(self, handle: str) -> None:
        self.attached.discard(handle)


class _Host:
    node_id = "n"
    backend_name = "paths"


class Node:
    def __init__(self, directory: Path) -> None:
        self.plugin = Paths(directory / "content")
        self.plugin.directory.mkdir()
        self.backend = Backend.load("paths", self.plugin)
        self.backend.start(_Host())  # type: ignore[arg-type]
        self.directory = directory
        self.restart()

    def restart(self) -> None:
        self.volumes = NodeVolumes(SimulatedMounts(), "n")

    def stage(self, capability: VolumeCapability, handle: str = "v") -> Path:
        path = self.directory / "staging" / handle
        if not path.is_symlink():
            path.mkdir(parents=True, exist_ok=True)
        self.volumes.stage(self.backend, StageRequest(handle, path, capability))
        return path

    def publish(
        self, capability: VolumeCapability, name: str = "t", handle: str = "v", *, read_only: bool = False
    ) -> Path:
        target = self.directory / "pods" / name
        staging = self.directory / "staging" / handle
        self.volumes.publish(self.backend, NodePublishRequest(handle, staging, target, capability, read_only))
        return target


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("capability", [FILESYSTEM, BLOCK])
def test_the_whole_life_repeated(node: Node, capability: VolumeCapability, restart: bool) -> None:
    for _ in range(2):
        staging = node.stage(capability)
        if restart:
            node.restart()
    for _ in range(2):
        target = node.publish(capability)
        if restart:
            node.restart()
    if capability is FILESYSTEM:
        (target / "file").write_text("x")
        assert (node.plugin.directory / "v" / "file").read_text() == "x"
    else:
        assert node.volumes.stats(node.backend, "v", target)[0].total == 8192
    for _ in range(2):
        node.volumes.unpublish(node.backend, "v", target)
    assert not target.exists()
    for _ in range(2):
        node.volumes.unstage(node.backend, "v", staging)
    assert staging.is_dir()
    assert list(staging.iterdir()) == []
    assert not node.plugin.attached


def test_the_same_rules_as_on_a_real_node(node: Node) -> None:
    with pytest.raises(FailedPrecondition, match="not staged"):
        node.publish(FILESYSTEM)
    node.stage(ONCE)
    target = node.publish(ONCE)
    with pytest.raises(AlreadyExists, match="writable already"):
        node.publish(ONCE, read_only=True)
    with pytest.raises(FailedPrecondition, match="one path only"):
        node.publish(ONCE, "second")
    with pytest.raises(FailedPrecondition, match="still published"):
        node.volumes.unstage(node.backend, "v", node.directory / "staging" / "v")
    node.stage(FILESYSTEM, "w")
    with pytest.raises(AlreadyExists, match="not of this volume"):
        node.publish(FILESYSTEM, handle="w")
    with pytest.raises(NotFound):
        node.volumes.stats(node.backend, "v", target / "nowhere")
    with pytest.raises(NotFound):
        node.volumes.stats(node.backend, "v", Path("relative"))


def test_read_only_is_remembered(node: Node) -> None:
    node.stage(FILESYSTEM)
    node.publish(FILESYSTEM, read_only=True)
    node.restart()
    node.publish(FILESYSTEM, read_only=True)
    with pytest.raises(AlreadyExists, match="read-only already"):
        node.publish(FILESYSTEM)


def test_no_staging_path(node: Node) -> None:
    request = NodePublishRequest("v", None, node.directory / "t", FILESYSTEM)
    with pytest.raises(FailedPrecondition, match="staging_target_path"):
        node.volumes.publish(node.backend, request)


def test_a_group_that_is_not_served(node: Node) -> None:
    capability = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_WRITER, mount_group="1000")
    with pytest.raises(InvalidArgument, match="volume_mount_group"):
        node.stage(capability)
    assert not node.plugin.attached
