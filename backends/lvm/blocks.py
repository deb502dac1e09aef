"""Allocated and changed blocks of snapshots: from a thin pool's metadata, and by reading the data of all others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from backends.lvm import devicemapper, names
from backends.lvm.copies import readable
from backends.lvm.deviceclass import DeviceClass
from backends.lvm.records import Record
from csi_core.errors import DataLoss, InvalidArgument, StorageFailure, Unavailable
from csi_core.model import BlockMap, BlockRange
from csi_core.run import run

__all__ = ["allocated", "changed"]

_BLOCK_BYTES: Final = 4096
_CHUNK_BYTES: Final = 4 << 20
_SECTOR_BYTES: Final = 512
_TOOL_TIMEOUT_S: Final = 300.0
_BLOCK_SIZE: Final = re.compile(r'data_block_size="(\d+)"')
_DIFFERENCE: Final = re.compile(r'<(?:different|left_only|right_only) begin="(\d+)" length="(\d+)"')
_MAPPING: Final = re.compile(
    r'<(?:single_mapping origin_block="(\d+)"|range_mapping origin_begin="(\d+)" data_begin="\d+" length="(\d+)")'
)


def allocated(cls: DeviceClass, key: str, start_bytes: int) -> BlockMap:
    """The ranges of a snapshot that hold data.

    Raises:
        NotFound: no such snapshot.
    """
    snapshot = cls.snapshot(key)
    return _block_map(cls, None, snapshot, start_bytes)


def changed(cls: DeviceClass, base_key: str, target_key: str, start_bytes: int) -> BlockMap:
    """The ranges in which two snapshots of one volume differ.

    Raises:
        NotFound: no such snapshot.
        InvalidArgument: they are of different volumes.
    """
    base, target = cls.snapshot(base_key), cls.snapshot(target_key)
    if base.fields.get("of") != target.fields.get("of"):
        raise InvalidArgument(f"{base_key} and {target_key} are snapshots of different volumes")
    return _block_map(cls, base, target, start_bytes)


def _block_map(cls: DeviceClass, base: Record | None, target: Record, start_bytes: int) -> BlockMap:
    thin = target.lv.thin and (base is None or base.lv.pool == target.lv.pool)
    find = _from_metadata if thin else _from_data

    def ranges() -> Iterator[BlockRange]:
        held = [target.key, *([base.key] if base else [])]
        with cls.hold("comparing", shared=held):
            yield from _merged(find(cls, base, target, start_bytes), start_bytes, target.size_bytes)

    return BlockMap(target.size_bytes, ranges())


def _from_metadata(
    cls: DeviceClass, base: Record | None, target: Record, start_bytes: int
) -> Iterable[tuple[int, int]]:
    """Ranges by the pool's mappings, of a metadata snapshot that is reserved for as long as the tool reads it."""
    del start_bytes  # the tools know no offset
    ids = _thin_ids(cls, target.lv.pool)
    pool = names.dm_name(cls.options.volume_group, target.lv.pool)
    metadata = devicemapper.find(f"{pool}_tmeta")
    if metadata is None or target.lv.name not in ids or (base and base.lv.name not in ids):
        raise Unavailable(f"thin pool {target.lv.pool} is not active; activate it (lvchange -ay)")
    node = str(devicemapper.node(metadata))
    with cls.pools[target.lv.pool].metadata_snapshot():
        if base:
            argv = ["thin_delta", "--metadata-snap", "--snap1", ids[base.lv.name], "--snap2", ids[target.lv.name], node]
        else:
            argv = ["thin_dump", "--metadata-snap", "--dev-id", ids[target.lv.name], node]
        said = run(argv, timeout_s=_TOOL_TIMEOUT_S, mutates=False).stdout
    block = _BLOCK_SIZE.search(said)
    if block is None:
        raise StorageFailure(f"{argv[0]} answered without a block size; is it of thin-provisioning-tools?")
    unit = int(block[1]) * _SECTOR_BYTES
    if base:
        found = [(int(m[1]), int(m[2])) for m in _DIFFERENCE.finditer(said)]
    else:
        found = [(int(m[1] or m[2]), int(m[3] or 1)) for m in _MAPPING.finditer(said)]
    return ((begin * unit, (begin + length) * unit) for begin, length in sorted(found))


def _thin_ids(cls: DeviceClass, pool: str) -> dict[str, str]:
    """The pool's device ids by LV name."""
    said = cls.lvm.report(
        "lvs", "--noheadings", "--separator=|", "--options=lv_name,thin_id", f"--select=pool_lv={pool}",
        cls.lvm.volume_group,
    )  # fmt: skip
    lines = (line.strip().partition("|") for line in said.splitlines())
    return {name: thin_id for name, _, thin_id in lines if thin_id}


def _from_data(cls: DeviceClass, base: Record | None, target: Record, start_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges by reading: of one snapshot those that are not zero, of two those that differ."""
    with ExitStack() as stack:
        new = _opened(stack, devicemapper.node(stack.enter_context(readable(cls, target))))
        old = _opened(stack, devicemapper.node(stack.enter_context(readable(cls, base)))) if base else None
        first = start_bytes // _CHUNK_BYTES * _CHUNK_BYTES
        for offset in range(first, target.size_bytes, _CHUNK_BYTES):
            length = min(_CHUNK_BYTES, target.size_bytes - offset)
            after = _read(new, target, offset, length)
            base_length = max(0, min(length, base.size_bytes - offset)) if base else 0
            before = _read(old, target, offset, base_length) if old is not None else b""
            yield from _differing(before.ljust(length, b"\0"), after, offset)


def _opened(stack: ExitStack, device: Path) -> int:
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return descriptor


def _read(descriptor: int, snapshot: Record, offset: int, length: int) -> bytes:
    try:
        data = os.pread(descriptor, length, offset)
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise DataLoss(f"snapshot {snapshot.key} cannot be read at {offset}: {error.strerror}") from error
    if len(data) != length:
        raise DataLoss(f"snapshot {snapshot.key} ends at {offset + len(data)} bytes")
    return data


def _differing(before: bytes, after: bytes, offset: int) -> Iterator[tuple[int, int]]:
    if before == after:
        return
    for place in range(0, len(after), _BLOCK_BYTES):
        if before[place : place + _BLOCK_BYTES] != after[place : place + _BLOCK_BYTES]:
            yield offset + place, offset + place + _BLOCK_BYTES


def _merged(ranges: Iterable[tuple[int, int]], start_bytes: int, size_bytes: int) -> Iterator[BlockRange]:
    """Ascending ranges, cut at the end, joined where they touch; all end after ``start_bytes``."""
    first, last = 0, 0
    for start, end in ranges:
        if min(end, size_bytes) <= start_bytes or start >= size_bytes:
            continue
        if last and start <= last:
            last = max(last, min(end, size_bytes))
            continue
        if last:
            yield BlockRange(first, last - first)
        first, last = start, min(end, size_bytes)
    if last:
        yield BlockRange(first, last - first)
