"""Snapshots, restores, clones and groups of volumes that are being written; every byte is checked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.loop import copying, images
from csi_core._allocator import fiemap, shared_bytes
from csi_core.errors import Busy, DataLoss, FailedPrecondition, NotFound, OutOfRange, TimedOut
from csi_core.model import ContentSource, GroupSnapshotSpec, SizeRange, SourceKind, Volume, VolumeSpec

from .cluster import MIB, MOUNTED, NO_SECRETS, Cluster, checksums, read_block, write_block, write_tree

XFS_BYTES = 320 * MIB


def shared_with_others(image: Path) -> int:
    with images.opened(image, write=False) as descriptor:
        return shared_bytes(fiemap(descriptor))


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_a_snapshot_of_a_mounted_volume_restores_what_was_there(cluster: Cluster, fs_type: str) -> None:
    size = XFS_BYTES if fs_type == "xfs" else 64 * MIB
    volume = cluster.create("origin", size)
    with cluster.mounted(volume, fs_type) as tree:
        before = write_tree(tree, "before")  # no sync: freezing is what must flush it
        snapshot = cluster.snapshot("snap", volume)
        after = write_tree(tree, "after")
        restored = cluster.create("restored", size, source=snapshot)
        with cluster.mounted(restored, fs_type) as copy:
            assert checksums(copy) == before
            write_tree(copy, "diverged")
        assert checksums(tree) == after
    with cluster.mounted(volume, fs_type) as tree:
        assert checksums(tree) == after


def test_a_clone_of_a_mounted_volume_holds_what_was_there(cluster: Cluster) -> None:
    volume = cluster.create("origin")
    with cluster.mounted(volume) as tree:
        before = write_tree(tree, "before")
        clone = cluster.create("clone", source=volume)
        after = write_tree(tree, "after")
        with cluster.mounted(clone) as copy:
            assert checksums(copy) == before
            write_tree(copy, "diverged")
        assert checksums(tree) == after


def test_a_raw_block_volume_is_copied_too(cluster: Cluster) -> None:
    volume = cluster.create("origin")
    device = cluster.attach(volume).device
    write_block(device, 12345 * 4096 % (64 * MIB), b"data" * 1024)
    snapshot = cluster.snapshot("snap", volume)
    write_block(device, 12345 * 4096 % (64 * MIB), bytes(4096))
    restored = cluster.attach(cluster.create("restored", source=snapshot))
    assert read_block(restored.device, 12345 * 4096 % (64 * MIB), 4096) == b"data" * 1024


def test_a_torn_copy_of_raw_block_is_no_snapshot(
    make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can hold the writers of raw block; without reflink the copy then holds no single moment."""
    cluster = make_cluster("ext4")
    volume = cluster.create("origin")
    device = cluster.attach(volume).device
    write_block(device, 0, b"old!" * 1024)
    copy_data = images.copy_data

    def copy_while_written(source: int, target: int, *, give_up_at: float | None = None) -> None:
        copy_data(source, target, give_up_at=give_up_at)
        write_block(device, 0, b"new!" * 1024)

    with monkeypatch.context() as patched:
        patched.setattr(images, "copy_data", copy_while_written)
        with pytest.raises(FailedPrecondition, match="was written to"):
            cluster.snapshot("snap", volume)
    assert cluster.backend.list_snapshots("", 10, "").entries == ()
    snapshot = cluster.snapshot("snap", volume)
    restored = cluster.attach(cluster.create("restored", source=snapshot))
    assert read_block(restored.device, 0, 4096) == b"new!" * 1024


def test_a_group_with_raw_block_that_is_written_to_is_none(xfs: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = [xfs.create(name) for name in ("one", "two")]
    device, _ = [xfs.attach(volume).device for volume in volumes]
    write_block(device, 0, b"old!" * 1024)
    clone = images.clone

    def clone_while_written(source: int, target: int) -> bool:
        write_block(device, 0, b"new!" * 1024)
        return clone(source, target)

    monkeypatch.setattr(images, "clone", clone_while_written)
    assert xfs.snapshot("alone", volumes[0]), "one clone is one moment"
    with pytest.raises(FailedPrecondition, match="was written to"):
        xfs.backend.create_group_snapshot(group_of(xfs, "group", *volumes))
    assert len(xfs.backend.list_snapshots("", 10, "").entries) == 1


def test_a_larger_copy_has_a_larger_device(cluster: Cluster) -> None:
    volume = cluster.create("origin")
    snapshot = cluster.snapshot("snap", volume)
    copy = cluster.create("copy", 96 * MIB, source=snapshot)
    assert cluster.attach(copy).size_bytes == copy.size_bytes == 96 * MIB
    with pytest.raises(OutOfRange, match="source has"):
        cluster.create("smaller", 32 * MIB, source=snapshot)


def test_a_copy_knows_that_it_is_one_and_is_not_formatted_again(cluster: Cluster) -> None:
    volume = cluster.create("origin")
    with cluster.mounted(volume):
        pass
    copy = cluster.create("copy", source=cluster.snapshot("snap", volume))
    source = cluster.attach(copy)
    assert (source.formatted, source.copied) == ("ext4", True)
    assert copy.source is not None
    assert copy.source.kind is SourceKind.SNAPSHOT


def test_a_snapshot_outlives_its_volume_and_the_copy_its_snapshot(cluster: Cluster) -> None:
    volume = cluster.create("origin")
    with cluster.mounted(volume) as tree:
        written = write_tree(tree, "seed")
    snapshot = cluster.snapshot("snap", volume)
    cluster.delete(volume)
    cluster.settled()
    assert cluster.backend.get_snapshot(snapshot.handle) == snapshot
    restored = cluster.create("restored", source=snapshot)
    cluster.backend.delete_snapshot(snapshot.handle, NO_SECRETS)
    cluster.settled()
    cluster.restart()
    with cluster.mounted(restored) as tree:
        assert checksums(tree) == written
    assert list(cluster.pool.layout.directory.iterdir()) == [cluster.image(restored)]


def test_snapshot_names_are_idempotent_and_images_read_only(cluster: Cluster) -> None:
    volume = cluster.create("origin")
    snapshot = cluster.snapshot("snap", volume)
    cluster.restart()
    assert cluster.snapshot("snap", volume) == snapshot
    assert cluster.image(snapshot).stat().st_mode & 0o222 == 0
    assert cluster.backend.list_snapshots("", 10, volume.handle).entries == (snapshot,)
    assert cluster.backend.list_snapshots("", 10, "local:v-" + "0" * 20).entries == ()


def test_sources_that_are_gone_are_not_found(cluster: Cluster) -> None:
    for kind, letter in ((SourceKind.SNAPSHOT, "s"), (SourceKind.VOLUME, "v")):
        source = ContentSource(kind, f"local:{letter}-{'0' * 20}")
        spec = VolumeSpec("copy", SizeRange(MIB), (MOUNTED,), NO_SECRETS, source=source)
        with pytest.raises(NotFound):
            cluster.backend.create_volume(spec)
    assert cluster.pool.ledger.snapshot().promised_bytes == 0


def test_a_missing_source_image_is_data_loss_and_leaves_nothing(cluster: Cluster) -> None:
    volume = cluster.create("origin")
    cluster.attach(volume)
    cluster.detach(volume)
    cluster.image(volume).unlink()
    with pytest.raises(DataLoss):
        cluster.snapshot("snap", volume)
    cluster.settled()
    assert cluster.pool.ledger.snapshot().promised_bytes == 64 * MIB
    assert list(cluster.pool.records.unfinished()) == []


# -- thick stays thick ---------------------------------------------------------------------------


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_thick_stays_thick_through_mkfs_and_use(cluster: Cluster, fs_type: str) -> None:
    volume = cluster.create("thick", XFS_BYTES, provisioning="thick")
    assert cluster.image(volume).stat().st_blocks * 512 >= XFS_BYTES
    with cluster.mounted(volume, fs_type) as tree:
        write_tree(tree, "seed")
        for path in list(tree.glob("file-*")):
            path.unlink()
        os.system(f"fstrim {tree} 2>/dev/null")
    assert cluster.image(volume).stat().st_blocks * 512 >= XFS_BYTES
    assert cluster.backend.volume_health(volume.handle) == ()


@pytest.mark.parametrize("origin", ["thin", "thick"])
def test_a_thick_copy_owns_every_block(cluster: Cluster, origin: str) -> None:
    volume = cluster.create("origin", provisioning=origin)
    with cluster.mounted(volume) as tree:
        written = write_tree(tree, "seed")
        clone = cluster.create("clone", 96 * MIB, source=volume, provisioning="thick")
    assert cluster.image(clone).stat().st_blocks * 512 >= 96 * MIB
    assert shared_with_others(cluster.image(clone)) == 0
    with cluster.mounted(clone) as tree:
        assert checksums(tree) == written


def test_a_thin_copy_shares_blocks_where_the_filesystem_can(xfs: Cluster) -> None:
    volume = xfs.create("origin")
    with xfs.mounted(volume) as tree:
        write_tree(tree, "seed")
    clone = xfs.create("clone", source=volume)
    assert shared_with_others(xfs.image(clone)) > 0


def test_writes_to_a_thick_volume_never_find_the_pool_full_after_a_snapshot(
    make_cluster: Callable[..., Cluster],
) -> None:
    """Its blocks are shared then, and each first write takes a new one: the snapshot's charge has set it aside."""
    cluster = make_cluster("xfs", host_bytes=400 * MIB, capacity="250Mi", stopAt=1, warnAt=1)
    volume = cluster.create("thick", 100 * MIB, provisioning="thick")
    device = cluster.attach(volume).device
    write_block(device, 0, b"1" * (100 * MIB))
    cluster.snapshot("snap", volume)
    with pytest.raises(Exception, match="no room"):
        cluster.create("too much", 60 * MIB, provisioning="thick")
    cluster.create("rest", 50 * MIB, provisioning="thick")
    write_block(device, 0, b"2" * (100 * MIB))
    assert read_block(device, 99 * MIB, 4) == b"2222"


def test_holes_punched_into_a_thick_volume_are_seen_and_filled_at_the_next_attach(cluster: Cluster) -> None:
    volume = cluster.create("thick", provisioning="thick")
    cluster.attach(volume)
    cluster.detach(volume)
    os.system(f"fallocate --punch-hole --offset 1MiB --length 4MiB {cluster.image(volume)}")
    assert [p.reason for p in cluster.backend.volume_health(volume.handle)] == ["NotThick"]
    cluster.attach(volume)
    assert cluster.backend.volume_health(volume.handle) == ()


# -- groups --------------------------------------------------------------------------------------


def group_of(cluster: Cluster, name: str, *volumes: Volume) -> GroupSnapshotSpec:
    return GroupSnapshotSpec(name, tuple(volume.handle for volume in volumes))


def test_a_group_is_one_moment_across_its_members(cluster: Cluster) -> None:
    """A writer counts up in two volumes in turn; in the group the second may be at most one behind."""
    first, second = cluster.create("first"), cluster.create("second")
    counts, stop = threading.Event(), threading.Event()
    with cluster.mounted(first) as one, cluster.mounted(second) as two:

        def count() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                for tree in (one, two):
                    # In place: between a truncation and the write after it, too, may be the moment.
                    file = os.open(tree / "counter", os.O_WRONLY | os.O_CREAT)
                    os.pwrite(file, f"{number:08}".encode(), 0)
                    os.fsync(file)
                    os.close(file)
                if number > 1:
                    counts.set()

        writer = threading.Thread(target=count)
        writer.start()
        assert counts.wait(30)
        group = cluster.backend.create_group_snapshot(group_of(cluster, "group", first, second)).value
        stop.set()
        writer.join()
    values = []
    for number, snapshot in enumerate(sorted(group.snapshots, key=lambda s: s.volume_handle != first.handle)):
        with cluster.mounted(cluster.create(f"copy-{number}", source=snapshot)) as tree:
            values.append(int((tree / "counter").read_text()))
    assert values[0] > 1
    assert values[0] - values[1] in (0, 1)
    assert cluster.backend.get_group_snapshot(group.handle) == group
    cluster.backend.delete_group_snapshot(group.handle, NO_SECRETS)
    cluster.backend.delete_group_snapshot(group.handle, NO_SECRETS)
    assert cluster.backend.get_group_snapshot(group.handle) is None
    assert cluster.backend.list_snapshots("", 10, "").entries == ()


def test_a_group_with_a_missing_member_leaves_nothing(cluster: Cluster) -> None:
    volume, lost = cluster.create("kept"), cluster.create("lost")
    for one in (volume, lost):
        cluster.attach(one)
        cluster.detach(one)
    cluster.image(lost).unlink()
    with pytest.raises(DataLoss):
        cluster.backend.create_group_snapshot(group_of(cluster, "group", volume, lost))
    cluster.settled()
    assert cluster.backend.list_snapshots("", 10, "").entries == ()
    assert cluster.pool.ledger.snapshot().promised_bytes == 128 * MIB
    assert list(cluster.pool.layout.directory.iterdir()) == [cluster.image(volume)]


# -- freezing ------------------------------------------------------------------------------------


def test_a_copy_that_takes_too_long_is_refused_and_writers_go_on(
    make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster("ext4", freezeLimitSeconds=0.3)
    monkeypatch.setattr(images, "_COPY_BYTES", 4096)
    really = os.copy_file_range

    def slowly(*arguments: int) -> int:
        time.sleep(0.01)
        return really(*arguments)

    volume = cluster.create("origin")
    with cluster.mounted(volume) as tree:
        write_tree(tree, "seed")
        monkeypatch.setattr(os, "copy_file_range", slowly)
        with pytest.raises(FailedPrecondition, match="unpublish it first"):
            cluster.snapshot("snap", volume)
        (tree / "writable").write_text("yes")
        os.sync()
    cluster.settled()
    assert cluster.backend.list_snapshots("", 10, "").entries == ()
    monkeypatch.setattr(os, "copy_file_range", really)
    cluster.snapshot("snap", volume)  # unattached: no limit


def test_a_reflink_that_is_thawed_too_early_is_thrown_away(xfs: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying.images, "clone", lambda *_: time.sleep(0.5) or True)
    object.__setattr__(xfs.pool.options, "freeze_limit_seconds", 0.1)
    volume = xfs.create("origin")
    with xfs.mounted(volume) as tree:
        with pytest.raises(TimedOut):
            xfs.snapshot("snap", volume)
        (tree / "writable").write_text("yes")
    assert xfs.backend.get_snapshot("snap") is None
    assert list(xfs.pool.records.unfinished()) == []


def test_a_source_is_neither_attached_nor_deleted_while_it_is_copied(
    xfs: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = xfs.create("origin")
    with xfs.mounted(volume):
        pass
    refused = []
    really = images.clone

    def meanwhile(source: int, target: int) -> bool:
        for call in (xfs.attach, xfs.delete, lambda v: xfs.backend.expand_volume(v.handle, SizeRange(128 * MIB))):
            with pytest.raises(Busy):
                call(volume)
            refused.append(call)
        return really(source, target)

    monkeypatch.setattr(copying.images, "clone", meanwhile)
    xfs.snapshot("snap", volume)
    assert len(refused) == 3
    xfs.attach(volume)
