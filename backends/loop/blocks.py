"""Which blocks of a snapshot hold data, and which differ between two snapshots."""

from __future__ import annotations

from collections.abc import Iterator

from backends.loop.comparing import merged
from backends.loop.pool import Pool
from backends.loop.records import SnapshotRecord
from csi_core.errors import InvalidArgument, NotFound
from csi_core.model import BlockMap, BlockRange

__all__ = ["allocated", "changed"]


def allocated(pool: Pool, key: str, start_bytes: int) -> BlockMap:
    """The ranges of the snapshot ``key`` from ``start_bytes`` on that hold data.

    Raises:
        NotFound: no such snapshot.
    """
    snapshot = _existing(pool, key)

    def ranges() -> Iterator[BlockRange]:
        with pool.claims.shared([key]):
            _existing(pool, key)
            yield from merged(pool.layout.data_ranges(key, start_bytes), start_bytes, snapshot.size_bytes)

    return BlockMap(snapshot.size_bytes, ranges())


def changed(pool: Pool, base_key: str, target_key: str, start_bytes: int) -> BlockMap:
    """The ranges that may differ between two snapshots of one volume.

    Where copies share blocks the extent maps tell, whatever the amount of data; elsewhere the data is compared.

    Raises:
        NotFound: no such snapshot.
        InvalidArgument: they are of different volumes.
    """
    base, target = _existing(pool, base_key), _existing(pool, target_key)
    if base.volume_key != target.volume_key:
        raise InvalidArgument(f"{base_key} and {target_key} are snapshots of different volumes")

    def ranges() -> Iterator[BlockRange]:
        with pool.claims.shared([base_key, target_key]):
            for key in (base_key, target_key):
                _existing(pool, key)
            yield from merged(pool.layout.differing(base_key, target_key, start_bytes), start_bytes, target.size_bytes)

    return BlockMap(target.size_bytes, ranges())


def _existing(pool: Pool, key: str) -> SnapshotRecord:
    snapshot = pool.records.snapshot(key)
    if snapshot is None or snapshot.state != "ready":
        raise NotFound(f"pool {pool.name} has no snapshot {key}")
    return snapshot
