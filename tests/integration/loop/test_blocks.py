"""Allocated and changed blocks against what a comparison of all bytes says: none may be missed."""

from __future__ import annotations

import random

import pytest

from csi_core.errors import InvalidArgument, NotFound
from csi_core.model import BlockRange, SizeRange, Snapshot

from .cluster import MIB, NO_SECRETS, Cluster, write_block, write_blocks, write_tree

BLOCK = 4096


def blocks_of(ranges: list[BlockRange]) -> set[int]:
    return {
        number
        for r in ranges
        for number in range(r.offset_bytes // BLOCK, -(-(r.offset_bytes + r.size_bytes) // BLOCK))
    }


def assert_well_formed(ranges: list[BlockRange], size_bytes: int) -> None:
    ends = 0
    for found in ranges:
        assert found.offset_bytes >= ends, "ascending, never overlapping"
        assert found.size_bytes > 0
        assert found.offset_bytes % BLOCK == found.size_bytes % BLOCK == 0
        ends = found.offset_bytes + found.size_bytes
    assert ends <= size_bytes


def content(cluster: Cluster, snapshot: Snapshot) -> list[bytes]:
    data = cluster.image(snapshot).read_bytes()
    return [data[place : place + BLOCK] for place in range(0, len(data), BLOCK)]


@pytest.mark.parametrize("provisioning", ["thin", "thick"])
def test_random_writes_are_all_reported(cluster: Cluster, provisioning: str) -> None:
    chance = random.Random(7)
    volume = cluster.create("a", 32 * MIB, provisioning=provisioning)
    device = cluster.attach(volume).device
    write_blocks(device, {n * BLOCK: chance.randbytes(BLOCK) for n in chance.sample(range(8192), 600)})
    base = cluster.snapshot("base", volume)
    write_blocks(device, {n * BLOCK: chance.randbytes(BLOCK) for n in chance.sample(range(8192), 400)})
    write_blocks(device, {n * BLOCK: bytes(BLOCK) for n in chance.sample(range(8192), 50)})
    target = cluster.snapshot("target", volume)

    before, after = content(cluster, base), content(cluster, target)
    differing = {number for number in range(8192) if before[number] != after[number]}
    changed = cluster.backend.changed_blocks(base.handle, target.handle, 0)
    ranges = list(changed.ranges)
    assert changed.volume_size_bytes == 32 * MIB
    assert_well_formed(ranges, 32 * MIB)
    assert differing <= blocks_of(ranges)
    # Written with what was there already, or neighbours in one filesystem block: reported, but not the whole volume.
    assert len(blocks_of(ranges)) <= len(differing) + 100

    holding = {number for number in range(8192) if any(after[number])}
    allocated = list(cluster.backend.allocated_blocks(target.handle, 0).ranges)
    assert_well_formed(allocated, 32 * MIB)
    assert holding <= blocks_of(allocated)
    if provisioning == "thin":  # in preallocated files ext4 writes zeros around small writes
        assert len(blocks_of(allocated)) <= len(holding) + 100


def test_an_unchanged_volume_has_no_changed_blocks(cluster: Cluster) -> None:
    volume = cluster.create("a")
    with cluster.mounted(volume) as tree:
        write_tree(tree, "seed")
    base, target = cluster.snapshot("base", volume), cluster.snapshot("target", volume)
    assert list(cluster.backend.changed_blocks(base.handle, target.handle, 0).ranges) == []


def test_a_volume_never_written_has_no_allocated_blocks(cluster: Cluster) -> None:
    snapshot = cluster.snapshot("snap", cluster.create("a"))
    assert list(cluster.backend.allocated_blocks(snapshot.handle, 0).ranges) == []


def test_growth_is_part_of_the_change(cluster: Cluster) -> None:
    volume = cluster.create("a", 8 * MIB)
    device = cluster.attach(volume).device
    base = cluster.snapshot("base", volume)
    cluster.backend.expand_volume(volume.handle, SizeRange(16 * MIB))
    write_block(device, 12 * MIB, b"n" * BLOCK)
    target = cluster.snapshot("target", volume)
    changed = cluster.backend.changed_blocks(base.handle, target.handle, 0)
    assert changed.volume_size_bytes == 16 * MIB
    assert list(changed.ranges) == [BlockRange(12 * MIB, BLOCK)]


@pytest.mark.parametrize("start", [0, 1, BLOCK, 4 * MIB - 1, 4 * MIB, 4 * MIB + 5000, 7 * MIB, 8 * MIB])
def test_every_range_ends_after_the_offset_asked_for(cluster: Cluster, start: int) -> None:
    volume = cluster.create("a", 8 * MIB)
    device = cluster.attach(volume).device
    base = cluster.snapshot("base", volume)
    written = {0, 1, 1023, 1024, 1025, 1030, 2047}
    for number in written:
        write_block(device, number * BLOCK, b"x" * BLOCK)
    target = cluster.snapshot("target", volume)
    wanted = {number for number in written if (number + 1) * BLOCK > start}
    for found in (
        cluster.backend.changed_blocks(base.handle, target.handle, start),
        cluster.backend.allocated_blocks(target.handle, start),
    ):
        ranges = list(found.ranges)
        assert_well_formed(ranges, 8 * MIB)
        assert wanted <= blocks_of(ranges) <= written
        assert all(r.offset_bytes + r.size_bytes > start for r in ranges)


def test_snapshots_of_different_volumes_or_none_are_refused(cluster: Cluster) -> None:
    one, two = (cluster.snapshot(f"s-{name}", cluster.create(name)) for name in ("a", "b"))
    with pytest.raises(InvalidArgument, match="different volumes"):
        cluster.backend.changed_blocks(one.handle, two.handle, 0)
    cluster.backend.delete_snapshot(two.handle, NO_SECRETS)
    with pytest.raises(NotFound):
        cluster.backend.changed_blocks(one.handle, two.handle, 0)
    with pytest.raises(NotFound):
        cluster.backend.allocated_blocks("nonsense", 0)
