"""Volumes as devices: made, attached, grown, found again, deleted."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from backends.loop import loopdev
from backends.loop.loopdev import Backing
from csi_core.errors import Busy, DataLoss, FailedPrecondition, InvalidArgument, NotFound, OutOfRange
from csi_core.model import AccessMode, AttachRequest, Existing, SizeRange, VolumeCapability, VolumeMode, VolumeSpec

from .cluster import MIB, MOUNTED, NO_SECRETS, RAW, Cluster, checksums, command, read_block, write_block, write_tree

READ_ONLY_BLOCK = VolumeCapability(VolumeMode.BLOCK, AccessMode.SINGLE_NODE_READER_ONLY)


def device_bytes(device: os.PathLike[str]) -> int:
    return int(command("blockdev", "--getsize64", str(device)))


def test_a_thin_volume_has_no_image_before_its_first_attach(cluster: Cluster) -> None:
    volume = cluster.create("a")
    assert not cluster.image(volume).exists()
    source = cluster.attach(volume)
    assert device_bytes(source.device) == volume.size_bytes == 64 * MIB
    assert cluster.image(volume).stat().st_blocks == 0


def test_the_device_has_blocks_of_4096_bytes_and_direct_io(cluster: Cluster) -> None:
    source = cluster.attach(cluster.create("a"))
    assert command("blockdev", "--getss", str(source.device)).strip() == "4096"
    assert command("losetup", "-n", "-O", "DIO", str(source.device)).strip() == "1"
    assert "direct I/O" in cluster.backend.describe().facts["pool local"]


def test_direct_io_can_be_switched_off(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster("xfs", directIo=False)
    source = cluster.attach(cluster.create("a"))
    assert command("losetup", "-n", "-O", "DIO", str(source.device)).strip() == "0"
    assert "direct I/O off" in cluster.backend.describe().facts["pool local"]


def test_attaching_twice_and_after_a_restart_answers_the_same_device(cluster: Cluster) -> None:
    volume = cluster.create("a")
    first = cluster.attach(volume)
    assert cluster.attach(volume) == first
    cluster.restart()
    assert cluster.attach(volume) == first


def test_an_attachment_is_known_by_inode_and_not_by_path(cluster: Cluster) -> None:
    volume = cluster.create("a")
    first = cluster.attach(volume)
    image = cluster.image(volume)
    image.rename(image.with_suffix(".elsewhere"))
    image.with_suffix(".elsewhere").rename(image)
    assert cluster.attach(volume).device == first.device


def test_data_survives_detach_and_restart(cluster: Cluster) -> None:
    volume = cluster.create("a")
    with cluster.mounted(volume) as tree:
        written = write_tree(tree, "seed")
    cluster.restart()
    with cluster.mounted(volume) as tree:
        assert checksums(tree) == written


def test_a_missing_image_is_data_loss_and_never_made_anew(cluster: Cluster) -> None:
    volume = cluster.create("a")
    cluster.attach(volume)
    cluster.detach(volume)
    cluster.image(volume).unlink()
    with pytest.raises(DataLoss, match="missing"):
        cluster.attach(volume)
    assert not cluster.image(volume).exists()
    assert [problem.reason for problem in cluster.backend.volume_health(volume.handle)] == ["ImageMissing"]
    cluster.delete(volume)
    assert cluster.backend.get_volume(volume.handle) is None


def test_a_short_image_is_data_loss(cluster: Cluster) -> None:
    volume = cluster.create("a")
    cluster.attach(volume)
    cluster.detach(volume)
    os.truncate(cluster.image(volume), 4096)
    with pytest.raises(DataLoss, match="4096 bytes of the"):
        cluster.attach(volume)


def test_a_longer_image_shows_only_what_is_recorded(cluster: Cluster) -> None:
    """An expansion was killed between the file and the commit; it is repeated while attached."""
    volume = cluster.create("a")
    cluster.attach(volume)
    cluster.detach(volume)
    os.truncate(cluster.image(volume), 96 * MIB)
    source = cluster.attach(volume)
    assert device_bytes(source.device) == 64 * MIB
    assert cluster.backend.expand_volume(volume.handle, SizeRange(80 * MIB)) == 80 * MIB
    assert device_bytes(source.device) == 80 * MIB


@pytest.mark.parametrize("provisioning", ["thin", "thick"])
def test_online_growth_reaches_the_filesystem(cluster: Cluster, provisioning: str) -> None:
    volume = cluster.create("a", 320 * MIB, provisioning=provisioning)
    with cluster.mounted(volume, "xfs") as tree:
        written = write_tree(tree, "seed")
        before = os.statvfs(tree).f_blocks
        assert cluster.backend.expand_volume(volume.handle, SizeRange(400 * MIB)) == 400 * MIB
        command("xfs_growfs", str(tree))
        assert os.statvfs(tree).f_blocks > before
        assert checksums(tree) == written
    assert cluster.backend.get_volume(volume.handle).size_bytes == 400 * MIB
    if provisioning == "thick":
        assert cluster.backend.volume_health(volume.handle) == ()


def test_growing_a_volume_without_an_image_touches_no_file(cluster: Cluster) -> None:
    volume = cluster.create("a")
    assert cluster.backend.expand_volume(volume.handle, SizeRange(128 * MIB)) == 128 * MIB
    assert not cluster.image(volume).exists()
    assert device_bytes(cluster.attach(volume).device) == 128 * MIB


def test_a_device_left_small_by_a_crash_grows_when_the_call_is_repeated(cluster: Cluster) -> None:
    volume = cluster.create("a")
    source = cluster.attach(volume)
    cluster.pool.layout.ensure(cluster.key(volume), 128 * MIB, thick=False)
    cluster.pool.database.execute("UPDATE volume SET size_bytes = ?", (128 * MIB,))
    assert cluster.backend.expand_volume(volume.handle, SizeRange(128 * MIB)) == 128 * MIB
    assert device_bytes(source.device) == 128 * MIB


def test_expansion_never_shrinks_and_honours_the_limit(cluster: Cluster) -> None:
    volume = cluster.create("a")
    assert cluster.backend.expand_volume(volume.handle, SizeRange(MIB)) == 64 * MIB
    with pytest.raises(OutOfRange, match="limit"):
        cluster.backend.expand_volume(volume.handle, SizeRange(65 * MIB, 65 * MIB - 1))
    with pytest.raises(OutOfRange, match="one file on"):
        cluster.backend.expand_volume(volume.handle, SizeRange((1 << 63) - 1))


def test_a_read_only_block_volume_refuses_writes(cluster: Cluster) -> None:
    volume = cluster.create("a")
    write_block(cluster.attach(volume).device, 0, b"x" * 4096)
    cluster.detach(volume)
    source = cluster.attach(volume, READ_ONLY_BLOCK)
    assert command("blockdev", "--getro", str(source.device)).strip() == "1"
    with pytest.raises(OSError, match=r"not permitted|Read-only"):
        write_block(source.device, 0, b"y" * 4096)
    assert read_block(source.device, 0, 4) == b"xxxx"
    with pytest.raises(FailedPrecondition, match="read-only"):
        cluster.attach(volume, RAW)


def test_a_device_that_an_earlier_user_left_read_only_is_writable(xfs: Cluster) -> None:
    volume = xfs.create("a")
    first = xfs.attach(volume)
    command("blockdev", "--setro", str(first.device))
    xfs.detach(volume)
    while (source := xfs.attach(volume)).device != first.device:
        volume = xfs.create(f"{source.device}")
    write_block(source.device, 0, b"written")


def test_delete_is_refused_while_attached(cluster: Cluster) -> None:
    volume = cluster.create("a")
    source = cluster.attach(volume)
    write_block(source.device, 0, b"kept")
    with pytest.raises(FailedPrecondition, match=str(source.device)):
        cluster.delete(volume)
    assert read_block(source.device, 0, 4) == b"kept"
    cluster.detach(volume)
    cluster.delete(volume)
    cluster.delete(volume)
    cluster.settled()
    assert not cluster.image(volume).exists()
    assert cluster.pool.ledger.snapshot().promised_bytes == 0


def test_detach_of_a_device_in_use_is_not_final_and_ends_by_itself(
    xfs: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopdev, "_DETACH_WAIT_S", 0.2)
    volume = xfs.create("a")
    source = xfs.attach(volume)
    with source.device.open("rb"):
        with pytest.raises(Busy, match="held open"):
            xfs.detach(volume)
        # A pod comes back before the last user has gone: the device must stay.
        assert xfs.attach(volume).device == source.device
    assert xfs.attach(volume).device == source.device
    xfs.detach(volume)
    assert loopdev.find(Backing.of(xfs.image(volume).stat())) is None


def test_the_filesystem_marker_is_written_once(cluster: Cluster) -> None:
    volume = cluster.create("a")
    assert cluster.attach(volume).formatted == ""
    cluster.backend.mark_formatted(volume.handle, "ext4")
    cluster.backend.mark_formatted(volume.handle, "xfs")
    cluster.restart()
    assert cluster.attach(volume).formatted == "ext4"
    with pytest.raises(NotFound):
        cluster.backend.mark_formatted("local:v-00000000000000000000", "ext4")


def test_creating_again_answers_the_same_volume(cluster: Cluster) -> None:
    volume = cluster.create("ä" * 64)
    cluster.restart()
    spec = VolumeSpec("ä" * 64, SizeRange(64 * MIB), (MOUNTED,), NO_SECRETS)
    assert cluster.backend.create_volume(spec) == Existing(volume)
    assert cluster.backend.find_volume("ä" * 64) == volume


def test_a_hundred_creates_at_once(cluster: Cluster) -> None:
    with ThreadPoolExecutor(32) as threads:
        volumes = list(threads.map(lambda n: cluster.create(f"v{n}", 4 * MIB), range(100)))
    assert len({volume.handle for volume in volumes}) == 100
    assert cluster.pool.ledger.snapshot().promised_bytes == 400 * MIB
    listed, cursor = [], ""
    while True:
        page = cluster.backend.list_volumes(cursor, 7)
        listed += page.entries
        if not (cursor := page.next_cursor):
            break
    assert sorted(listed, key=str) == sorted(volumes, key=str)


def test_attaching_many_at_once_gives_each_its_own_device(cluster: Cluster) -> None:
    volumes = [cluster.create(f"v{n}", 4 * MIB) for n in range(16)]
    with ThreadPoolExecutor(8) as threads:
        sources = list(threads.map(cluster.attach, volumes))
    assert len({source.device for source in sources}) == 16
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(cluster.detach, volumes))


@pytest.mark.parametrize("handle", ["", "local", "../../etc/passwd", "local:v-", "local:s-" + "0" * 20, "x" * 400])
def test_malformed_handles_are_no_volumes(xfs: Cluster, handle: str) -> None:
    assert xfs.backend.get_volume(handle) is None
    xfs.backend.delete_volume(handle, NO_SECRETS)
    with pytest.raises(NotFound):
        xfs.backend.attach_volume(AttachRequest(handle, RAW))


def test_a_volume_of_a_pool_that_is_not_configured_is_not_reported_deleted(xfs: Cluster) -> None:
    with pytest.raises(FailedPrecondition, match="'other'"):
        xfs.backend.delete_volume("other:v-" + "0" * 20, NO_SECRETS)


def test_an_unknown_pool_is_named(xfs: Cluster) -> None:
    with pytest.raises(InvalidArgument, match="'fast'; there are local"):
        xfs.create("a", pool="fast")


def test_small_requests_get_a_volume_that_mkfs_accepts(xfs: Cluster) -> None:
    capability = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_WRITER, "xfs")
    with xfs.mounted(xfs.create("a", 5 * MIB, capability=capability), "xfs"):
        pass
