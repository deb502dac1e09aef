"""Which blocks of a snapshot hold data, and which differ between two snapshots."""

from __future__ import annotations

import heapq
import os
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from backends.loop import images
from backends.loop.pool import Pool
from backends.loop.records import SnapshotRecord
from csi_core._allocator import diff_extents, fiemap
from csi_core.errors import InvalidArgument, NotFound
from csi_core.model import BlockMap, BlockRange

__all__ = ["allocated", "changed"]

_BLOCK_BYTES: Final = 4096
_COMPARE_BYTES: Final = 1 << 20


def allocated(pool: Pool, key: str, start_bytes: int) -> BlockMap:
    """The ranges of the snapshot ``key`` from ``start_bytes`` on that hold data.

    Raises:
        NotFound: no such snapshot.
    """
    snapshot = _existing(pool, key)

    def ranges() -> Iterator[BlockRange]:
        with pool.claims.shared([key]):
            _existing(pool, key)
            with images.storage_errors(f"image {key}"), pool.layout.opened(key, write=False) as image:
                yield from _merged(images.data_ranges(image, start_bytes), start_bytes, snapshot.size_bytes)

    return BlockMap(snapshot.size_bytes, ranges())


def changed(pool: Pool, base_key: str, target_key: str, start_bytes: int) -> BlockMap:
    """The ranges that may differ between two snapshots of one volume.

    With reflink the extent maps tell, whatever the amount of data; without, the data is compared.

    Raises:
        NotFound: no such snapshot.
        InvalidArgument: they are of different volumes.
    """
    base, target = _existing(pool, base_key), _existing(pool, target_key)
    if base.volume_key != target.volume_key:
        raise InvalidArgument(f"{base_key} and {target_key} are snapshots of different volumes")
    find = _differing_extents if pool.filesystem.reflink else _differing_data

    def ranges() -> Iterator[BlockRange]:
        with pool.claims.shared([base_key, target_key]):
            for key in (base_key, target_key):
                _existing(pool, key)
            with (
                images.storage_errors("comparing snapshots"),
                pool.layout.opened(base_key, write=False) as old,
                pool.layout.opened(target_key, write=False) as new,
            ):
                yield from _merged(find(old, new, start_bytes), start_bytes, target.size_bytes)

    return BlockMap(target.size_bytes, ranges())


def _existing(pool: Pool, key: str) -> SnapshotRecord:
    snapshot = pool.records.snapshot(key)
    if snapshot is None or snapshot.state != "ready":
        raise NotFound(f"pool {pool.name} has no snapshot {key}")
    return snapshot


def _differing_extents(old: int, new: int, start_bytes: int) -> Iterator[tuple[int, int]]:
    # Both maps are read while both snapshots are held: a block cannot be freed and used again in between.
    differing = diff_extents(fiemap(old, start_bytes), fiemap(new, start_bytes))
    for offset, length in struct.iter_unpack("=2Q", differing):
        yield offset, offset + length


def _differing_data(old: int, new: int, start_bytes: int) -> Iterator[tuple[int, int]]:
    either = heapq.merge(images.data_ranges(old, start_bytes), images.data_ranges(new, start_bytes))
    for data in _merged(either, start_bytes, os.fstat(new).st_size):
        end = data.offset_bytes + data.size_bytes
        for offset in range(data.offset_bytes, end, _COMPARE_BYTES):
            yield from _differing_blocks(old, new, offset, min(_COMPARE_BYTES, end - offset))


def _differing_blocks(old: int, new: int, offset: int, length: int) -> Iterator[tuple[int, int]]:
    before = os.pread(old, length, offset).ljust(length, b"\0")
    after = os.pread(new, length, offset).ljust(length, b"\0")
    if before == after:
        return
    for place in range(0, length, _BLOCK_BYTES):
        if before[place : place + _BLOCK_BYTES] != after[place : place + _BLOCK_BYTES]:
            yield offset + place, offset + place + _BLOCK_BYTES


def _merged(ranges: Iterable[tuple[int, int]], start_bytes: int, size_bytes: int) -> Iterator[BlockRange]:
    """Ascending ranges, rounded outwards to whole blocks, joined where they touch; all end after ``start_bytes``."""
    first, last = 0, 0
    for start, end in ranges:
        if min(end, size_bytes) <= start_bytes or start >= size_bytes:
            continue
        start_block = start // _BLOCK_BYTES * _BLOCK_BYTES
        end_block = min(-(-end // _BLOCK_BYTES) * _BLOCK_BYTES, size_bytes)
        if last and start_block <= last:
            last = max(last, end_block)
            continue
        if last:
            yield BlockRange(first, last - first)
        first, last = start_block, end_block
    if last:
        yield BlockRange(first, last - first)
