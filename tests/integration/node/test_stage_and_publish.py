"""Filesystem volumes from stage to unstage, every call repeated."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

from csi_core.errors import AlreadyExists, Busy, FailedPrecondition, InvalidArgument, NotFound
from csi_core.model import AccessMode, SizeRange
from csi_core.node.filesystems import Signature, probe
from csi_core.node.mountinfo import MountTable
from csi_core.node.requests import StageRequest
from csi_core.run import spawned

from .capabilities import FILESYSTEMS, filesystem
from .conftest import SIZE_BYTES, Node

pytestmark = pytest.mark.needs_root

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


def test_another_volume_at_the_same_target(node: Node) -> None:
    node.images.make("w")
    node.stage(filesystem())
    node.stage(filesystem(), "w")
    node.publish(filesystem())
    with pytest.raises(AlreadyExists, match="not of this volume"):
        node.publish(filesystem(), handle="w")
    node.unpublish()
    node.unstage()
    node.unstage("w")


def test_another_volume_at_the_same_staging_path(node: Node) -> None:
    node.images.make("w")
    node.stage(filesystem())
    request_path = node.staging("v")
    with pytest.raises(AlreadyExists, match="not of this volume"):
        node.volumes.stage(node.backend, StageRequest("w", request_path, filesystem()))
    assert node.images.device("w") is None, "what was attached for the refused call is let go"


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


def test_unstage_is_refused_while_published(node: Node) -> None:
    node.stage(filesystem())
    target = node.publish(filesystem())
    with pytest.raises(FailedPrecondition, match=str(target)):
        node.unstage()
    (target / "file").write_text("still there")


def test_unpublish_says_who_holds_it(node: Node) -> None:
    node.stage(filesystem())
    target = node.publish(filesystem())
    with (target / "open").open("w"), pytest.raises(FailedPrecondition, match=f"process {os.getpid()}"):
        node.unpublish()
    node.unpublish()


def test_what_is_looked_at_for_a_moment_is_waited_for(node: Node) -> None:
    node.stage(filesystem())
    looking = (node.publish(filesystem()) / "file").open("w")
    threading.Timer(0.3, looking.close).start()
    node.unpublish()
    assert looking.closed


def test_stacked_mounts_are_all_taken_away(node: Node) -> None:
    node.stage(filesystem())
    target = node.publish(filesystem())
    subprocess.run(["mount", "--bind", str(node.staging()), str(target)], check=True)
    node.unpublish()
    assert not target.exists()


def test_targets_that_are_not_ours(node: Node) -> None:
    node.stage(filesystem())
    target = node.target()
    target.mkdir(parents=True)
    (target / "precious").write_text("x")
    with pytest.raises(FailedPrecondition, match="not empty"):
        node.publish(filesystem())
    with pytest.raises(FailedPrecondition):
        node.unpublish()
    assert (target / "precious").exists()

    link = node.target("link")
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    with pytest.raises(FailedPrecondition, match="symbolic link"):
        node.publish(filesystem(), "link")
    with pytest.raises(FailedPrecondition, match="symbolic link"):
        node.unpublish("link")
    assert (target / "precious").exists()

    file = node.target("file")
    file.parent.mkdir(parents=True)
    file.write_text("content")
    with pytest.raises(FailedPrecondition, match="file with content"):
        node.publish(filesystem(), "file")
    with pytest.raises(FailedPrecondition, match="file with content"):
        node.unpublish("file")


def test_paths_through_a_link_and_with_blanks(node: Node) -> None:
    real = node.directory / "real dir\twith\\odd\nname"
    real.mkdir()
    link = node.directory / "link"
    link.symlink_to(real)
    node.directory = link  # as a kubelet directory that was moved to another disk
    node.stage(filesystem())
    for _ in range(2):
        target = node.publish(filesystem())
    (target / "file").write_text("x")
    assert (real / "targets" / "pod" / "mount" / "file").exists()
    node.unpublish()
    node.unstage()
    node.directory = real.parent
    assert not MountTable.read().of_types(frozenset({"ext4"})) or all(
        not m.path.is_relative_to(real) for m in MountTable.read().all()
    )


def test_an_empty_missing_or_wrong_staging_path(node: Node) -> None:
    node.staging().rmdir()
    with pytest.raises(FailedPrecondition, match="must be a directory"):
        node.volumes.stage(node.backend, StageRequest("v", node.directory / "staging" / "v", filesystem()))
    assert node.images.device("v") is None


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


@pytest.mark.parametrize("path", ["relative/path", "/nowhere/at/all", "/tmp"])
def test_stats_where_no_volume_is(node: Node, path: str) -> None:
    with pytest.raises(NotFound):
        node.volumes.stats(node.backend, "v", Path(path))


def test_a_call_for_a_path_that_is_busy_is_told_so(node: Node) -> None:
    node.stage(filesystem())
    inside, leave = threading.Event(), threading.Event()
    publish = node.volumes._mounts.bind

    def slow(*arguments: object) -> None:
        inside.set()
        leave.wait(10)
        publish(*arguments)  # type: ignore[arg-type]

    node.volumes._mounts.bind = slow  # type: ignore[method-assign]
    first = threading.Thread(target=node.publish, args=(filesystem(),))
    first.start()
    inside.wait(10)
    try:
        with pytest.raises(Busy, match="path"):
            node.publish(filesystem())
    finally:
        leave.set()
        first.join()


def test_a_stage_spawns_no_more_than_blkid_and_mkfs_and_a_publish_nothing(node: Node) -> None:
    # flock becomes mkfs by exec
    def core_spawns() -> dict[str, int]:
        return {tool: count for tool, count in spawned().items() if tool != "losetup"}

    before = core_spawns()
    node.stage(filesystem())
    after = core_spawns()
    assert {t: n - before.get(t, 0) for t, n in after.items() if n != before.get(t, 0)} == {"blkid": 1, "flock": 1}
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


def test_growth_of_what_is_published(node: Node) -> None:
    for fs_type in ("xfs", "btrfs"):
        node.images.make(fs_type)
        node.stage(filesystem(fs_type), fs_type)
        target = node.publish(filesystem(fs_type), fs_type, handle=fs_type)
        reader = node.publish(filesystem(fs_type), f"{fs_type}-reader", read_only=True, handle=fs_type)
        for path in (target, reader):  # a reader's path will do: the filesystem is grown through a writable mount
            wanted = node.images.image(fs_type).stat().st_size + (64 << 20)
            for _ in range(2):
                assert node.volumes.expand(node.backend, fs_type, path, SizeRange(wanted), None) == wanted
            status = os.statvfs(target)
            assert status.f_blocks * status.f_frsize >= wanted - XFS_LOG_BYTES
