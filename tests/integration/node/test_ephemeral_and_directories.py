"""Inline ephemeral volumes, and backends whose volumes are directories."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from csi_core.errors import AlreadyExists, CallError, FailedPrecondition, InvalidArgument
from csi_core.model import AccessMode, SizeRange, VolumeCapability, VolumeSpec
from csi_core.node.mountinfo import MountTable
from csi_core.node.requests import NodePublishRequest

from .capabilities import block, filesystem
from .conftest import SIZE_BYTES, Node

pytestmark = pytest.mark.needs_root


def publish(node: Node, capability: VolumeCapability, name: str = "pod", *, read_only: bool = False) -> Path:
    request = NodePublishRequest("csi-1", None, node.target(name), capability, read_only)
    spec = VolumeSpec("csi-1", SizeRange(SIZE_BYTES), (capability,), node.backend.description.parameters())
    node.volumes.publish_ephemeral(node.backend, "csi-1", spec, request)
    return node.target(name)


def unpublish(node: Node) -> None:
    node.volumes.unpublish_ephemeral(node.backend, "csi-1", node.target())


def gone(node: Node) -> bool:
    return not node.images.image("csi-1").exists() and node.images.device("csi-1") is None


def test_the_whole_life(node: Node) -> None:
    for _ in range(2):
        target = publish(node, filesystem())
    (target / "file").write_text("x")
    for _ in range(2):
        unpublish(node)
    assert not target.exists()
    assert gone(node)


def test_after_a_reboot(node: Node) -> None:
    target = publish(node, filesystem())
    (target / "file").write_text("kept")
    node.reboot()
    assert (publish(node, filesystem()) / "file").read_text() == "kept"
    node.reboot()
    unpublish(node)
    assert gone(node)


@pytest.mark.parametrize("capability", [filesystem("zfs"), filesystem("ext4", "suid"), filesystem("ext4", "dev")])
def test_a_failed_publish_leaves_nothing(node: Node, capability: VolumeCapability) -> None:
    with pytest.raises(CallError):
        publish(node, capability)
    assert gone(node)
    assert not node.target().exists()


def test_another_path_is_refused_and_the_first_is_kept(node: Node) -> None:
    target = publish(node, filesystem())
    with pytest.raises(AlreadyExists, match="another path"):
        publish(node, filesystem(), "other")
    (target / "file").write_text("still here")
    unpublish(node)


def test_what_makes_no_sense(node: Node) -> None:
    for attempt in (lambda: publish(node, block()), lambda: publish(node, filesystem(), read_only=True)):
        with pytest.raises(InvalidArgument):
            attempt()
    assert gone(node)


def test_a_busy_one_is_not_deleted(node: Node) -> None:
    target = publish(node, filesystem())
    with (target / "open").open("w"), pytest.raises(FailedPrecondition, match="held by process"):
        unpublish(node)
    assert node.images.image("csi-1").exists()
    unpublish(node)
    assert gone(node)


@pytest.fixture
def directory(node: Node) -> Path:
    path = node.images.image("d")
    path.mkdir()
    node.images.directories.add("d")
    return path


def test_a_directory_volume(node: Node, directory: Path) -> None:
    for _ in range(2):
        node.stage(filesystem(""), "d")
        target = node.publish(filesystem(""), handle="d")
    (target / "file").write_text("x")
    assert (directory / "file").read_text() == "x"
    reader = node.publish(filesystem(""), "reader", read_only=True, handle="d")
    with pytest.raises(OSError) as refused:
        (reader / "new").touch()
    assert refused.value.errno == errno.EROFS
    wanted = os.statvfs("/").f_blocks
    assert node.volumes.expand(node.backend, "d", target, SizeRange(), None) == directory.stat().st_size
    assert os.statvfs("/").f_blocks == wanted, "the filesystem that it lies on is not ours to grow"
    node.unpublish()
    node.unpublish("reader")
    node.unstage("d")
    assert (directory / "file").exists()


def test_a_directory_volume_with_mount_options(node: Node, directory: Path) -> None:
    for _ in range(2):
        staging = node.stage(filesystem("", "noexec", "noatime"), "d")
    mounted = MountTable.read().at(staging)
    assert mounted is not None
    assert {"noexec", "noatime"} <= mounted.options
    with pytest.raises(AlreadyExists, match="nodev"):
        node.stage(filesystem("", "nodev"), "d")
    assert "detach" not in node.images.calls, "it is in use as it was staged first"
    node.unstage("d")
    with pytest.raises(InvalidArgument, match="commit=5"):
        node.stage(filesystem("", "commit=5"), "d")
    assert directory.exists()


def test_a_directory_volume_that_is_a_filesystem_of_its_own(node: Node, directory: Path) -> None:
    """As a dataset of ZFS is: that the backend has it mounted is no use of the volume."""
    subprocess.run(["mount", "-t", "tmpfs", "none", directory], check=True)
    once = filesystem("", access_mode=AccessMode.SINGLE_NODE_SINGLE_WRITER)
    for _ in range(2):
        node.stage(once, "d")
        node.publish(once, handle="d")
    with pytest.raises(FailedPrecondition, match="allows one path only"):
        node.publish(once, "second", handle="d")
    with pytest.raises(FailedPrecondition, match="still published"):
        node.unstage("d")
    node.unpublish()
    node.images.calls.clear()
    node.unstage("d")
    assert node.images.calls == ["detach"]


def test_a_directory_volume_for_readers(node: Node, directory: Path) -> None:
    capability = filesystem("", access_mode=AccessMode.MULTI_NODE_READER_ONLY)
    for _ in range(2):
        node.stage(capability, "d")
        target = node.publish(capability, handle="d")
    with pytest.raises(OSError) as refused:
        (target / "new").touch()
    assert refused.value.errno == errno.EROFS
    (directory / "new").touch()


def test_a_directory_has_no_block_device(node: Node, directory: Path) -> None:
    with pytest.raises(FailedPrecondition, match="no block device"):
        node.stage(block(), "d")
    assert directory.exists()
