"""Allocated and changed blocks, against a comparison byte by byte."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from csi_core.errors import NotFound
from csi_core.model import BlockMap, BlockRange, SizeRange, Snapshot, SourceKind, Volume, VolumeMode
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.content import DeviceContent
from csi_core.testing.contract.selection import Selection, needs

__all__ = ["BlockTests"]

_BLOCK_BYTES = 4096
_MODE = VolumeMode.BLOCK


class BlockTests(Selection):
    """Snapshot metadata of raw block volumes (CSI "GetMetadataAllocated", "GetMetadataDelta")."""

    def image(self, case: BackendCase, snapshot: Snapshot) -> bytes:
        """All bytes of a snapshot, read from a volume restored from it."""
        restored = case.restore(f"read-{snapshot.handle}", _MODE, snapshot)
        with case.attached(restored, _MODE) as content:
            assert isinstance(content, DeviceContent)
            with content.path.open("rb") as device:
                return device.read()

    def two_snapshots(self, case: BackendCase) -> tuple[Volume, Snapshot, Snapshot]:
        """Of one volume, before and after some writes."""
        volume = case.create("data", _MODE)
        case.write(volume, _MODE, "one")
        first = case.snapshot("one", volume)
        case.write(volume, _MODE, "two")
        return volume, first, case.snapshot("two", volume)

    @needs("allocated_blocks", source=SourceKind.SNAPSHOT, block=True)
    def test_allocated(self, case: BackendCase) -> None:
        """Every block that is not zero is named; a backup of the named ranges is a backup of all."""
        _, snapshot, _ = self.two_snapshots(case)
        image = self.image(case, snapshot)
        ranges = check_map(case.backend.allocated_blocks(snapshot.handle, 0), snapshot)
        assert missed(ranges, differing(image, bytes(len(image)))) == []
        assert sum(r.size_bytes for r in ranges) < snapshot.size_bytes, "holes are not left out"

    @needs("allocated_blocks", block=True)
    def test_nothing_allocated(self, case: BackendCase) -> None:
        """A volume nobody has written to is empty, or nearly."""
        snapshot = case.snapshot("snap", case.create("data", _MODE))
        ranges = check_map(case.backend.allocated_blocks(snapshot.handle, 0), snapshot)
        assert sum(r.size_bytes for r in ranges) <= snapshot.size_bytes // 8

    @needs("changed_blocks", source=SourceKind.SNAPSHOT, block=True)
    def test_changed(self, case: BackendCase) -> None:
        """Every block that differs is named, both ways, also after a restart."""
        _, first, second = self.two_snapshots(case)
        where = differing(self.image(case, first), self.image(case, second))
        assert where
        for _ in range(2):
            for base, target in ((first, second), (second, first)):
                ranges = check_map(case.backend.changed_blocks(base.handle, target.handle, 0), target)
                assert missed(ranges, where) == []
            case.reopen()

    @needs("changed_blocks", block=True)
    def test_nothing_changed(self, case: BackendCase) -> None:
        """Two snapshots with no write between them do not differ, and neither does one from itself."""
        volume = case.create("data", _MODE)
        case.write(volume, _MODE, "data")
        first, second = case.snapshot("one", volume), case.snapshot("two", volume)
        for other in (first, second):
            assert check_map(case.backend.changed_blocks(first.handle, other.handle, 0), other) == []

    @needs("allocated_blocks", "changed_blocks", block=True)
    def test_starting_offset(self, case: BackendCase) -> None:
        """From any offset on: the same ranges, without those that end before it."""
        _, first, second = self.two_snapshots(case)
        reads: tuple[Callable[[int], BlockMap], ...] = (
            lambda start: case.backend.allocated_blocks(second.handle, start),
            lambda start: case.backend.changed_blocks(first.handle, second.handle, start),
        )
        for read in reads:
            everything = covered(check_map(read(0), second))
            for start in (1, _BLOCK_BYTES, case.size_bytes // 2 + 1, case.size_bytes - 1):
                from_there = check_map(read(start), second)
                assert all(r.offset_bytes + r.size_bytes > start for r in from_there)
                first_block = start // _BLOCK_BYTES
                assert {b for b in covered(from_there) if b >= first_block} == {
                    b for b in everything if b >= first_block
                }

    @needs("changed_blocks", "expand_volume", source=SourceKind.SNAPSHOT, block=True)
    def test_changed_after_growing(self, case: BackendCase) -> None:
        """What was written beyond the old end is named."""
        volume = case.create("data", _MODE)
        case.write(volume, _MODE, "one")
        first = case.snapshot("one", volume)
        case.backend.expand_volume(volume.handle, SizeRange(2 * case.size_bytes))
        case.write(volume, _MODE, "two")
        second = case.snapshot("two", volume)
        old, new = self.image(case, first), self.image(case, second)
        ranges = check_map(case.backend.changed_blocks(first.handle, second.handle, 0), second)
        assert missed(ranges, differing(old.ljust(len(new), b"\0"), new)) == []

    @needs("allocated_blocks", "changed_blocks", block=True)
    def test_unknown_snapshots(self, case: BackendCase) -> None:
        """Handles come unverified."""
        snapshot = case.snapshot("snap", case.create("data", _MODE))
        for handle in ("no-such-handle", "../../etc/passwd", ""):
            with pytest.raises(NotFound):
                list(case.backend.allocated_blocks(handle, 0).ranges)
            for pair in ((handle, snapshot.handle), (snapshot.handle, handle)):
                with pytest.raises(NotFound):
                    list(case.backend.changed_blocks(*pair, 0).ranges)


def check_map(blocks: BlockMap, snapshot: Snapshot) -> list[BlockRange]:
    """The ranges, found sound: ascending, apart, within the volume, of one length where one is declared."""
    assert blocks.volume_size_bytes == snapshot.size_bytes
    ranges, end = list(blocks.ranges), 0
    for block in ranges:
        assert block.size_bytes > 0
        assert block.offset_bytes >= end, "ranges overlap or descend"
        end = block.offset_bytes + block.size_bytes
        assert end <= snapshot.size_bytes
        assert blocks.block_size_bytes in (0, block.size_bytes)
    return ranges


def covered(ranges: list[BlockRange]) -> set[int]:
    """The numbers of the 4 KiB blocks that the ranges touch."""
    return {
        number
        for r in ranges
        for number in range(r.offset_bytes // _BLOCK_BYTES, -(-(r.offset_bytes + r.size_bytes) // _BLOCK_BYTES))
    }


def differing(one: bytes, two: bytes) -> set[int]:
    """The numbers of the 4 KiB blocks in which two images differ."""
    assert len(one) == len(two)
    return {
        offset // _BLOCK_BYTES
        for offset in range(0, len(one), _BLOCK_BYTES)
        if one[offset : offset + _BLOCK_BYTES] != two[offset : offset + _BLOCK_BYTES]
    }


def missed(ranges: list[BlockRange], blocks: set[int]) -> list[int]:
    """The blocks that no range touches."""
    return sorted(blocks - covered(ranges))
