"""Filesystem volumes from stage to unstage, every call repeated."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from functools import partial
from pathlib import Path

import pytest

from csi_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, StorageFailure
from csi_core.model import AccessMode, SizeRange
from csi_core.node.filesystems import Signature, probe
from csi_core.node.mountinfo import MountTable
from csi_core.run import spawned

from .capabilities import FILESYSTEMS, filesystem
from .conftest import SIZE_BYTES, Node

pytestmark = pytest.mark.needs_root

XFS_IOC_GOINGDOWN = 2 << 30 | 4 << 16 | ord("X") << 8 | 125
XFS_LOG_BYTES = 64 << 20
"""What statvfs leaves out of the size of an XFS; ext4 leaves out its inode tables, which are smaller."""


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
def test_the_whole_life_with_every_call_repeated(node: Node, fs_type: str) -> None:
    capability = filesystem(fs_type)
    for _ in range(3):
        node.stage(capability)
    assert node.images.calls.count(f"mark {fs_type}") == 1
    for _ in range(3):
        target = node.publish(capability)
    assert len(MountTable.read().stack(target)) == 1, "a repeated publish must not stack mounts"
    (target / "file").write_text("kept")
    for _ in range(2):
        node.unpublish()
    assert not target.exists()
    assert target.parent.is_dir()
    for _ in range(2):
        node.unstage()
    assert node.images.device("v") is None
    assert node.staging().is_dir(), "the staging directory is the CO's"

    node.stage(capability)
    assert (node.publish(capability) / "file").read_text() == "kept"


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
def test_after_a_reboot_everything_comes_back(node: Node, fs_type: str) -> None:
    node.stage(filesystem(fs_type))
    target = node.publish(filesystem(fs_type))
    (target / "file").write_text("kept")
    node.reboot()
    assert target.is_dir(), "the CO's directories survive a reboot"
    with pytest.raises(FailedPrecondition, match="not staged"):
        node.publish(filesystem(fs_type))
    node.stage(filesystem(fs_type))
    assert (node.publish(filesystem(fs_type)) / "file").read_text() == "kept"


def test_unpublish_and_unstage_after_a_reboot(node: Node) -> None:
    node.stage(filesystem())
    target = node.publish(filesystem())
    node.reboot()
    node.unpublish()
    node.unstage()
    assert not target.exists()


def test_no_label_is_left_on_a_finished_filesystem(node: Node) -> None:
    node.stage(filesystem())
    found = probe(node.images.device("v"))  # type: ignore[arg-type]
    assert found == Signature("ext4", "", "ext4 (filesystem)")


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
def test_a_read_only_publish_beside_a_writable_one(node: Node, fs_type: str) -> None:
    node.stage(filesystem(fs_type))
    writable = node.publish(filesystem(fs_type), "writer")
    reader = node.publish(filesystem(fs_type), "reader", read_only=True)
    (writable / "file").write_text("seen by both")
    assert (reader / "file").read_text() == "seen by both"
    for attempt in (
        partial((reader / "new").touch),
        partial((reader / "file").write_text, "x"),
        partial(reader.chmod, 0o777),
    ):
        with pytest.raises(OSError) as refused:
            attempt()
        assert refused.value.errno == errno.EROFS
    node.publish(filesystem(fs_type), "reader", read_only=True)
    with pytest.raises(AlreadyExists, match="read-only already"):
        node.publish(filesystem(fs_type), "reader", read_only=False)
    with pytest.raises(AlreadyExists, match="writable already"):
        node.publish(filesystem(fs_type), "writer", read_only=True)


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
@pytest.mark.parametrize("mode", [AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY])
def test_reader_only_modes_mount_the_filesystem_itself_read_only(node: Node, fs_type: str, mode: AccessMode) -> None:
    capability = filesystem(fs_type, access_mode=mode)
    for _ in range(2):
        staging = node.stage(capability)  # a new volume: made, finished and marked all the same
    assert node.images.formatted == {"v": fs_type}
    mounted = MountTable.read().at(staging)
    assert mounted is not None
    assert "ro" in mounted.super_options
    target = node.publish(capability)
    with pytest.raises(OSError) as refused:
        (target / "new").touch()
    assert refused.value.errno == errno.EROFS
    with pytest.raises(AlreadyExists, match="read-only"):
        node.stage(filesystem(fs_type))


def test_read_only_pod_of_a_once_only_mode_and_a_second_pod(node: Node) -> None:
    once = filesystem(access_mode=AccessMode.SINGLE_NODE_SINGLE_WRITER)
    node.stage(once)
    first = node.publish(once, "first")
    node.publish(once, "first")
    with pytest.raises(FailedPrecondition, match=str(first)):
        node.publish(once, "second")
    assert not node.target("second").exists()
    node.unpublish("first")
    node.publish(once, "second")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (filesystem("ext4"), filesystem("xfs")),
        (filesystem("ext4"), filesystem("ext4", "noatime")),
        (filesystem("ext4", "noatime"), filesystem("ext4")),
        (filesystem("ext4", "commit=30"), filesystem("ext4", "commit=31")),
        (filesystem("ext4", "strictatime"), filesystem("ext4")),
        (filesystem("ext4"), filesystem("ext4", "data=writeback")),
        (filesystem("xfs", "allocsize=1m"), filesystem("xfs", "allocsize=2m")),
        (filesystem("xfs"), filesystem("xfs", "logbsize=256k")),
        (filesystem("btrfs", "compress=zstd"), filesystem("btrfs")),
        (filesystem("ext4", "ro"), filesystem("ext4")),
    ],
)
def test_staged_in_another_way(node: Node, first, second) -> None:  # type: ignore[no-untyped-def]
    node.stage(first)
    node.stage(first)
    with pytest.raises(AlreadyExists):
        node.stage(second)
    node.stage(first)


@pytest.mark.parametrize(
    "capability",
    [
        filesystem("ext4", "noatime,nodev", "nosuid", "noexec", "discard", "commit=30", "errors=remount-ro"),
        filesystem("ext4", "stripe=16", "nodelalloc", "lazytime", "noinit_itable", "max_batch_time=100", "strictatime"),
        filesystem("xfs", "allocsize=1m", "logbsize=256k", "logbufs=4", "nouuid", "discard", "inode64", "swalloc"),
        filesystem("xfs", "inode32", "noalign", "largeio", "wsync", "filestreams", "lazytime", "nodiratime"),
        filesystem("btrfs", "compress=zstd", "commit=120", "autodefrag", "discard=async", "ssd", "flushoncommit"),
        filesystem("btrfs", "compress-force=zlib:5", "nossd", "max_inline=1024", "nodiscard", "thread_pool=4"),
        filesystem("ext4", "rw", "defaults"),
    ],
)
def test_allowed_mount_options_are_taken_by_the_kernel_and_recognised(node: Node, capability) -> None:  # type: ignore[no-untyped-def]
    staging = node.stage(capability)
    node.stage(capability)
    node.publish(capability)
    mounted = MountTable.read().at(node.target())
    staged = MountTable.read().at(staging)
    assert mounted is not None
    assert staged is not None
    assert mounted.options == staged.options, "a bind keeps noexec and its like"
    if "noatime,nodev" in capability.mount_flags:
        assert {"noatime", "nodev", "nosuid", "noexec"} <= mounted.options


def test_a_refused_mount_option_leaves_nothing(node: Node) -> None:
    with pytest.raises(InvalidArgument, match="'suid'"):
        node.stage(filesystem("ext4", "suid"))
    assert node.images.formatted == {}
    assert node.images.device("v") is None
    assert node.images.image("v").stat().st_blocks == 0


def test_a_filesystem_that_is_not_served(node: Node) -> None:
    with pytest.raises(InvalidArgument, match="zfs"):
        node.stage(filesystem("zfs"))


def test_no_type_asked_for_means_the_first_one_and_then_the_one_that_is_there(node: Node) -> None:
    node.stage(filesystem(""))
    assert node.images.formatted == {"v": "ext4"}
    node.unstage()
    node.images.make("w")
    node.stage(filesystem("xfs"), "w")
    node.unstage("w")
    node.stage(filesystem(""), "w")
    node.stage(filesystem(""), "w")


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
def test_stats(node: Node, fs_type: str) -> None:
    node.stage(filesystem(fs_type))
    target = node.publish(filesystem(fs_type))
    before, *inodes = node.volumes.stats(node.backend, "v", target)
    (target / "file").write_bytes(os.urandom(8 << 20))
    os.sync()
    after, *_ = node.volumes.stats(node.backend, "v", target)
    assert before.used is not None
    assert after.used is not None
    assert after.available is not None
    assert after.used - before.used >= 8 << 20
    assert SIZE_BYTES - XFS_LOG_BYTES <= after.total <= SIZE_BYTES
    assert after.used + after.available <= after.total
    assert bool(inodes) == (fs_type != "btrfs")
    assert node.volumes.stats(node.backend, "v", node.staging())[0].total == after.total


@pytest.mark.parametrize("path", ["relative/path", "/nowhere/at/all", "/tmp", "/no\0where/at", "/" + "n" * 4000])
def test_stats_where_no_volume_is(node: Node, path: str) -> None:
    with pytest.raises(NotFound):
        node.volumes.stats(node.backend, "v", Path(path))


def test_a_stage_of_a_new_volume_spawns_mkfs_alone_and_a_publish_nothing(node: Node) -> None:
    # flock becomes mkfs by exec
    def core_spawns() -> dict[str, int]:
        return {tool: count for tool, count in spawned().items() if tool != "losetup"}

    before = core_spawns()
    node.stage(filesystem())
    after = core_spawns()
    assert {t: n - before.get(t, 0) for t, n in after.items() if n != before.get(t, 0)} == {"flock": 1}
    node.publish(filesystem())
    node.volumes.stats(node.backend, "v", node.target())
    node.unpublish()
    node.unstage()
    assert core_spawns() == after


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
def test_a_delegated_group(node: Node, fs_type: str) -> None:
    capability = filesystem(fs_type, mount_group="2000")
    staging = node.stage(capability)
    assert staging.stat().st_gid == 2000
    assert staging.stat().st_mode & 0o2070 == 0o2070
    (staging / "file").touch()
    assert (staging / "file").stat().st_gid == 2000
    with pytest.raises(InvalidArgument, match="not a group id"):
        node.stage(filesystem(fs_type, mount_group="wheel"))


def test_a_filesystem_that_has_shut_down(node: Node) -> None:
    """XFS does so where its device fails; everything opened on it is an error from then on."""
    staging = node.stage(filesystem("xfs"))
    target = node.publish(filesystem("xfs"))
    device = node.images.device("v")
    assert device is not None
    root = os.open(staging, os.O_RDONLY)
    try:
        fcntl.ioctl(root, XFS_IOC_GOINGDOWN, struct.pack("=I", 2))
    finally:
        os.close(root)
    with pytest.raises(StorageFailure, match="Input/output error; its filesystem has shut down"):
        node.volumes.expand(node.backend, "v", target, SizeRange(SIZE_BYTES + (64 << 20)), None)
    with pytest.raises(StorageFailure, match="Input/output error"), node.volumes.frozen((device,), 60):
        pass
    node.unpublish()
    node.volumes.unstage(node.backend, "v", staging)
    node.stage(filesystem("xfs"))
