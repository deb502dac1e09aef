"""Volumes packed into segments: they keep apart, leave nothing to read behind, and say why one does not fit."""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from backends.loop import loopdev
from backends.loop.extents import content, zeroing
from backends.loop.extents.zeroing import zero
from backends.loop.loopdev import LoopDevice
from backends.loop.options import LoopParameters, SegmentOptions
from backends.loop.plugin import LoopBackend
from csi_core.deadline import call_deadline
from csi_core.errors import (
    Busy,
    ConfigError,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NoSpace,
    TimedOut,
    Unavailable,
)
from csi_core.model import CapacityQuery, SizeRange
from csi_core.testing.devices import ext4_filesystem, loop_device, scratch_directory, sparse_file, xfs_filesystem

from .cluster import MIB, RAW, Cluster, NodeHost, checksums, read_block, write_block, write_blocks, write_tree
from .conftest import take_down
from .extent_pools import create, free_bytes_are_zeros, grow, made_pool

MakePacked = Callable[..., Cluster]


@pytest.fixture
def make_packed() -> Iterator[MakePacked]:
    """Clusters over a pool of segments in files; in the end nothing of them may be left."""
    with ExitStack() as stack:

        def make(*sizes_bytes: int, **options: object) -> Cluster:
            host = stack.enter_context(xfs_filesystem(1 << 30))
            (host / "pool").mkdir()
            pool = {**made_pool(host / "pool", *sizes_bytes), **options}
            cluster = Cluster({"pools": {"local": pool}}, stack.enter_context(scratch_directory()))
            stack.callback(take_down, cluster)
            return cluster

        yield make


@pytest.fixture
def packed(make_packed: MakePacked) -> Cluster:
    return make_packed(256 * MIB)


def thick(cluster: Cluster, name: str, size_bytes: int = 16 * MIB, **parameters: str):
    return cluster.create(name, size_bytes, capability=RAW, provisioning="thick", **parameters)


def test_neighbours_in_one_segment_keep_their_data_apart(packed: Cluster) -> None:
    volumes = [thick(packed, f"v{n}") for n in range(8)]
    devices = [packed.attach(volume).device for volume in volumes]
    for number, device in enumerate(devices):
        write_blocks(device, {0: bytes([number + 1]) * MIB, 15 * MIB: bytes([number + 1]) * MIB})
    for number, device in enumerate(devices):
        assert set(read_block(device, 0, MIB)) | set(read_block(device, 15 * MIB, MIB)) == {number + 1}
        assert set(read_block(device, MIB, 14 * MIB)) == {0}
    assert len(set(devices)) == len(devices)


def test_filesystems_survive_a_restart_of_the_server(packed: Cluster) -> None:
    volume = packed.create("data", 64 * MIB, provisioning="thick")
    with packed.mounted(volume) as directory:
        written = write_tree(directory, "seed")
        packed.restart()
        assert checksums(directory) == written
    with packed.mounted(volume) as directory:
        assert checksums(directory) == written


def test_what_a_tenant_leaves_behind_is_never_read_by_the_next(make_packed: MakePacked) -> None:
    """The pool is so small that the second volume gets the very extents of the first."""
    packed = make_packed(33 * MIB)
    for round_ in range(3):
        volume = thick(packed, f"tenant-{round_}", 30 * MIB)
        device = packed.attach(volume).device
        assert set(read_block(device, 0, 30 * MIB)) == {0}
        write_block(device, 0, os.urandom(30 * MIB))
        packed.detach(volume)
        packed.delete(volume)


def test_zeroing_begins_anew_after_a_stop_in_its_middle(packed: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = thick(packed, "secret")
    device = packed.attach(volume).device
    write_block(device, 0, b"s" * (16 * MIB))
    packed.detach(volume)

    def half(descriptor: int, offset: int, length: int, **options: object) -> None:
        zero(descriptor, offset, length // 2, **options)  # type: ignore[arg-type]
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr("backends.loop.extents.layout.zero", half)
        packed.delete(volume)
        assert not packed.pool.trash.emptied(0.3)
        assert packed.pool.layout.space_map.pool.statistics()["quarantined_extents"] == 16
        packed.backend.stop()
    packed.start()
    packed.settled()
    assert packed.pool.layout.space_map.pool.statistics()["quarantined_extents"] == 0
    assert free_bytes_are_zeros(packed.pool.layout)


def test_zeroing_goes_on_while_neighbours_are_detached(packed: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks at how much the others write may find that one of them has just gone."""
    volume = thick(packed, "v")
    write_block(packed.attach(volume).device, 0, os.urandom(4 * MIB))
    packed.detach(volume)
    backing = replace(packed.pool.layout._segments[0].backing(0), offset_bytes=0)
    monkeypatch.setattr(loopdev, "attached", lambda: iter([LoopDevice(4095, backing, 0, 0)]))
    packed.delete(volume)
    packed.settled()
    assert free_bytes_are_zeros(packed.pool.layout)


def test_a_volume_never_attached_needs_no_zeroing(packed: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.loop.extents.layout.zero", lambda *_, **__: pytest.fail("nothing was written"))
    before = packed.pool.layout.space()
    packed.delete(thick(packed, "unused"))
    packed.settled()
    assert packed.pool.layout.space() == before


def test_no_discard_gets_through_to_the_shared_file(packed: Cluster) -> None:
    volume = thick(packed, "a")
    device = packed.attach(volume).device
    assert (Path("/sys/block") / device.name / "queue/discard_max_bytes").read_text() == "0\n"
    blocks = next(packed.pool.options.path.glob("segment-0")).stat().st_blocks
    write_block(device, 0, b"x" * MIB)
    assert os.system(f"blkdiscard -f {device} 2>/dev/null") != 0
    assert os.system(f"blkdiscard -z -f {device}") == 0
    assert next(packed.pool.options.path.glob("segment-0")).stat().st_blocks == blocks, "a hole was punched"
    assert set(read_block(device, 0, 16 * MIB)) == {0}


def test_an_expansion_is_in_place_and_shows_zeros(packed: Cluster) -> None:
    volume = thick(packed, "a")
    device = packed.attach(volume).device
    write_block(device, 0, b"x" * (16 * MIB))
    assert packed.backend.expand_volume(volume.handle, SizeRange(24 * MIB + 4096)) == 24 * MIB + 4096
    assert packed.attach(volume).device == device
    assert set(read_block(device, 0, 16 * MIB)) == {ord("x")}
    assert set(read_block(device, 16 * MIB, 8 * MIB + 4096)) == {0}
    packed.restart()
    assert packed.pool.ledger.snapshot().promised_bytes == 25 * MIB


def test_what_does_not_fit_is_refused_with_the_room_there_is(make_packed: MakePacked) -> None:
    packed = make_packed(65 * MIB)
    volumes = [thick(packed, f"v{n}", 8 * MIB) for n in range(8)]
    with pytest.raises(NoSpace):
        thick(packed, "more", 8 * MIB)
    by_place = sorted(volumes, key=lambda volume: packed.pool.records.runs(packed.key(volume)))
    for volume in by_place[::2]:
        packed.delete(volume)
    with pytest.raises(NoSpace, match=f"{32 * MIB} bytes are free, of which {8 * MIB} in one piece"):
        thick(packed, "large", 16 * MIB)
    query = CapacityQuery(LoopParameters(provisioning="thick"))
    assert packed.backend.get_capacity(query).available_bytes == 32 * MIB
    assert packed.backend.get_capacity(query).maximum_volume_bytes == 8 * MIB
    state = packed.pool.ledger.snapshot()
    assert (state.promised_bytes, state.reserved_bytes) == (32 * MIB, 0)
    thick(packed, "fits", 8 * MIB)


def test_raw_block_is_never_elastic(packed: Cluster) -> None:
    with pytest.raises(InvalidArgument, match="provisioning: thick"):
        packed.create("raw", capability=RAW)
    volume = packed.create("fs", 64 * MIB)
    with pytest.raises(InvalidArgument, match="provisioning: thick"):
        packed.attach(volume, RAW)


@pytest.mark.parametrize("wrong", ["length = 1000", "length = 0", "length = -1", "start = -1", "segment = 7"])
def test_a_pool_that_contradicts_itself_is_not_opened(packed: Cluster, wrong: str) -> None:
    one, other = thick(packed, "one"), thick(packed, "other")
    packed.backend.stop()
    with sqlite3.connect(packed.options["pools"]["local"]["path"] + "/pool.db") as database:
        before = database.execute("SELECT segment, start, length FROM run WHERE key = ?", (packed.key(one),)).fetchone()
        database.execute(f"UPDATE run SET {wrong} WHERE key = ?", (packed.key(one),))
    database.close()
    with pytest.raises(DataLoss, match="contradicts itself") as caught:
        packed.start()
    assert packed.key(one) in str(caught.value)
    with sqlite3.connect(packed.options["pools"]["local"]["path"] + "/pool.db") as database:
        database.execute("UPDATE run SET segment = ?, start = ?, length = ? WHERE key = ?", (*before, packed.key(one)))
    database.close()
    packed.start()
    assert packed.attach(other).size_bytes == 16 * MIB


def test_another_devices_name_is_noticed(packed: Cluster) -> None:
    segment = packed.pool.options.path / "segment-0"
    packed.backend.stop()
    kept = segment.rename(segment.with_name("kept"))
    with pytest.raises(Unavailable, match="attach its disk"):  # so it is waited for
        packed.start()
    segment.write_bytes(bytes(256 * MIB))
    with pytest.raises(DataLoss, match="no segment of any pool"):
        packed.start()
    assert set(segment.read_bytes()) == {0}, "nothing was written to it"
    kept.rename(segment)
    os.truncate(segment, 128 * MIB)
    with pytest.raises(DataLoss, match=f"{128 * MIB} bytes of the"):
        packed.start()
    os.truncate(segment, 256 * MIB)
    packed.start()


def test_a_growing_pool_is_noticed_while_volumes_are_in_use(make_packed: MakePacked) -> None:
    packed = make_packed(33 * MIB)
    volume = thick(packed, "first", 32 * MIB)
    device = packed.attach(volume).device
    write_block(device, 0, b"x" * MIB)
    path = packed.pool.options.path
    added = grow(path, SegmentOptions(path=path / "segment-1", size=65 * MIB))
    assert [growth.added_bytes for growth in added] == [64 * MIB]
    noticed(packed, 96 * MIB)
    second = thick(packed, "second", 48 * MIB)
    write_block(packed.attach(second).device, 0, b"y" * MIB)
    assert set(read_block(device, 0, MIB)) == {ord("x")}
    packed.restart()
    assert set(read_block(packed.attach(second).device, 0, MIB)) == {ord("y")}


def noticed(cluster: Cluster, capacity_bytes: int) -> None:
    """Wait until the server knows that its pool has grown."""
    give_up_at = time.monotonic() + 10
    while cluster.pool.ledger.snapshot().capacity_bytes != capacity_bytes:
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def test_a_block_device_is_a_segment(tmp_path: Path) -> None:
    """Zeroed, labelled, and told again by its own number; it has to be empty, and it can be made longer."""
    with ExitStack() as stack:
        image = stack.enter_context(sparse_file(64 * MIB))
        device = stack.enter_context(loop_device(image))
        host = stack.enter_context(ext4_filesystem(64 * MIB))
        segment = SegmentOptions(path=device)
        write_block(device, 63 * MIB, b"precious")
        with pytest.raises(FailedPrecondition, match="--force"):
            create(host, [segment])
        write_block(device, 63 * MIB, bytes(4096))
        assert [growth.added_bytes for growth in create(host, [segment])] == [63 * MIB]
        pool = {"path": str(host), "layout": "extents", "allowLoopHost": True}
        cluster = Cluster({"pools": {"local": pool}}, tmp_path)
        stack.callback(take_down, cluster)
        volume = thick(cluster, "a")
        attached = cluster.attach(volume)
        write_block(attached.device, 0, b"x" * MIB)
        assert cluster.attach(volume) == attached
        cluster.detach(volume)
        cluster.delete(volume)
        cluster.settled()
        assert free_bytes_are_zeros(cluster.pool.layout)
        os.truncate(image, 96 * MIB)
        os.system(f"losetup -c {device}")
        assert [growth.added_bytes for growth in grow(host, segment)] == [32 * MIB]
        noticed(cluster, 95 * MIB)
        thick(cluster, "large", 90 * MIB)


def test_a_pool_says_what_it_is(packed: Cluster) -> None:
    (facts,) = packed.backend.describe().facts.values()
    assert "snapshots by full copy" in facts
    packed.backend.stop()
    options = {"pools": {"local": {**packed.options["pools"]["local"], "layout": "images"}}}
    with pytest.raises(ConfigError, match="layout must be extents"):
        LoopBackend(options).start(NodeHost())
    packed.start()


def test_devices_of_deleted_volumes_are_not_mistaken_for_others(packed: Cluster) -> None:
    one, other = thick(packed, "one"), thick(packed, "other")
    with pytest.raises(FailedPrecondition, match="attached"):
        packed.attach(one)
        packed.delete(one)
    packed.detach(one)
    assert packed.backend.find_source(one.handle) is None
    assert packed.backend.find_source(other.handle) is None
    packed.attach(other)
    assert packed.backend.find_source(one.handle) is None
    directory = str(packed.pool.options.path)
    shown = [device for device in loopdev.attached() if directory in device.backing_path]
    assert shown == [packed.pool.layout.device(packed.key(other))]


def test_a_copy_that_takes_longer_than_the_call_goes_on(packed: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call is answered "may still be running"; the repeated one joins, and gets the one copy there is."""
    volume = thick(packed, "origin")
    write_block(packed.attach(volume).device, 0, os.urandom(16 * MIB))
    packed.detach(volume)
    go_on, reading = threading.Event(), content.read_into

    def slow(*arguments: object) -> None:
        assert go_on.wait(10)
        reading(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(content, "read_into", slow)
    with call_deadline(0.2), pytest.raises(TimedOut, match="goes on"):
        packed.snapshot("snap", volume)
    with call_deadline(0.2), pytest.raises(TimedOut, match="goes on"):
        packed.snapshot("snap", volume)
    with pytest.raises(Busy):
        packed.delete(volume)
    go_on.set()
    snapshot = packed.snapshot("snap", volume)
    assert len(packed.backend.list_snapshots("", 10, "").entries) == 1
    packed.delete(volume)
    restored = thick(packed, "restored", source=snapshot)
    assert any(read_block(packed.attach(restored).device, 0, MIB))


def test_a_copy_that_is_stopped_with_the_server_leaves_nothing(
    packed: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = thick(packed, "origin")
    write_block(packed.attach(volume).device, 0, os.urandom(16 * MIB))
    packed.detach(volume)
    reading = content.read_into

    def slow(*arguments: object) -> None:
        time.sleep(0.05)
        reading(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(content, "read_into", slow)
    with call_deadline(0.2), pytest.raises(TimedOut, match="goes on"):
        packed.snapshot("snap", volume)
    packed.restart()
    packed.settled()
    assert packed.backend.list_snapshots("", 10, "").entries == ()
    assert packed.pool.layout.space()[1] == packed.pool.layout.space()[0] - 16 * MIB
    assert free_bytes_are_zeros(packed.pool.layout)
    assert packed.snapshot("snap", volume).size_bytes == 16 * MIB


def test_zeroing_spares_the_neighbours(packed: Cluster) -> None:
    """Beside a writer most of the time is the writer's; when somebody waits for the room, none is."""
    written = itertools.count()
    for others, urgent, expected in (
        (lambda: next(written), False, True),
        (lambda: 0, False, False),
        (lambda: next(written), True, False),
    ):
        slept: list[float] = []
        with pytest.MonkeyPatch.context() as patch:
            clock = itertools.count(0, 0.06)
            patch.setattr(zeroing.time, "monotonic", lambda clock=clock: next(clock))
            patch.setattr(zeroing.time, "sleep", slept.append)
            pace = zeroing.Pace(others, lambda urgent=urgent: urgent)
            for _ in range(10):
                pace.slept_after(0.01)
        assert (sum(slept) >= 0.3) is expected
