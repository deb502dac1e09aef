"""A pool that volumes are made in, written to and deleted from, and what must be true of it after a power cut."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from backends.loop.database import PoolDatabase
from backends.loop.extents import preparing
from backends.loop.extents.content import Content
from backends.loop.extents.layout import ExtentsLayout
from backends.loop.options import LoopParameters, SegmentOptions
from backends.loop.plugin import LoopBackend
from backends.loop.records import RunRecord
from csi_core.model import (
    AccessMode,
    AttachRequest,
    BlockSource,
    ContentSource,
    SizeRange,
    SnapshotSpec,
    SourceKind,
    VolumeCapability,
    VolumeMode,
    VolumeSpec,
)
from csi_core.node.freeze import frozen
from csi_core.parameters import Parameters

MIB = 1 << 20
DATA_BYTES = 64 << 10
SEGMENT_BYTES = 14 * MIB
"""Holds what PACKED_ACTS leave at any time, with little to spare: what was deleted is soon used again."""
ELASTIC = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_WRITER, "ext4")
RAW = VolumeCapability(VolumeMode.BLOCK, AccessMode.SINGLE_NODE_WRITER)


class NodeHost:
    """What the core offers a backend."""

    node_id = "node-1"
    backend_name = "loop"

    def frozen(self, devices: tuple[Path, ...], time_limit_s: float) -> AbstractContextManager[None]:
        return frozen(devices, time_limit_s)

    def filesystem_on(self, device: Path) -> None:
        """Nothing is mounted: elastic volumes grow when an act says so."""


@dataclass(frozen=True)
class Thing:
    """A volume or snapshot: its size, the one byte that its first 64 KiB are full of, and what an elastic one has."""

    size_bytes: int
    content: int = 0
    present_bytes: int = 0

    @property
    def capability(self) -> VolumeCapability:
        """Raw block, in the shape of which no volume can be elastic."""
        return ELASTIC if self.present_bytes else RAW


Things = dict[str, Thing]


@dataclass
class Life:
    """Acts on a pool; ``things`` is what the acts so far must have led to."""

    backend: LoopBackend
    size_bytes: int
    grown_bytes: int
    things: Things = field(default_factory=dict)

    def create(self, name: str, provisioning: str, source: str = "", kind: SourceKind = SourceKind.SNAPSHOT) -> None:
        size_bytes = self.things[source].size_bytes if source else self.size_bytes
        content = ContentSource(kind, self.handle(source)) if source else None
        parameters = LoopParameters.model_validate({"provisioning": provisioning})
        self.backend.create_volume(VolumeSpec(name, SizeRange(size_bytes), (RAW,), parameters, source=content))
        self.things[name] = Thing(size_bytes, self.things[source].content if source else 0)

    def create_elastic(self, name: str) -> None:
        parameters = LoopParameters.model_validate({"initialSize": str(self.size_bytes)})
        self.backend.create_volume(VolumeSpec(name, SizeRange(self.grown_bytes), (ELASTIC,), parameters))
        self.backend.mark_formatted(self.handle(name), "ext4")  # or the first stage makes room for mkfs
        self.things[name] = Thing(self.grown_bytes, present_bytes=self.size_bytes)

    def lengthen(self, name: str) -> None:
        """As an elastic volume grows while it is attached."""
        with self.attached(name):
            assert packed(self.backend).present_bytes(key(self.handle(name))) == self.size_bytes
            packed(self.backend).lengthen(key(self.handle(name)), self.grown_bytes)
        self.things[name] = replace(self.things[name], present_bytes=self.grown_bytes)

    def write(self, name: str, content: int) -> None:
        with self.attached(name) as device, device.open("rb+", buffering=0) as file:
            file.write(bytes([content]) * DATA_BYTES)
            os.fsync(file.fileno())
        self.things[name] = replace(self.things[name], content=content)

    def expand(self, name: str) -> None:
        self.backend.expand_volume(self.handle(name), SizeRange(self.grown_bytes))
        self.things[name] = replace(self.things[name], size_bytes=self.grown_bytes)

    def snapshot(self, name: str, source: str) -> None:
        self.backend.create_snapshot(SnapshotSpec(name, self.handle(source)))
        self.things[name] = self.things[source]

    def delete(self, name: str) -> None:
        remove = self.backend.delete_snapshot if name.startswith("snap") else self.backend.delete_volume
        remove(self.handle(name), Parameters())
        del self.things[name]

    def attached(self, name: str) -> AbstractContextManager[Path]:
        return attached(self.backend, self.handle(name), self.things[name].capability)

    def handle(self, name: str) -> str:
        return handles(self.backend)[name]


ACTS: tuple[Callable[[Life], None], ...] = (
    lambda life: life.create("thin", "thin"),
    lambda life: life.write("thin", 1),
    lambda life: life.create("thick", "thick"),
    lambda life: life.write("thick", 2),
    lambda life: life.snapshot("snap-thin", "thin"),
    lambda life: life.write("thin", 3),
    lambda life: life.create("restored", "thin", "snap-thin"),
    lambda life: life.expand("thick"),
    lambda life: life.create("cloned", "thick", "thick", SourceKind.VOLUME),
    lambda life: life.delete("thin"),
    lambda life: life.snapshot("snap-thick", "thick"),
    lambda life: life.delete("snap-thin"),
    lambda life: life.create("thin", "thin"),
    lambda life: life.write("thin", 4),
    lambda life: life.expand("thin"),
    lambda life: life.delete("restored"),
    lambda life: life.delete("thick"),
)


PACKED_ACTS: tuple[Callable[[Life], None], ...] = (
    lambda life: life.create("thick", "thick"),
    lambda life: life.write("thick", 1),
    lambda life: life.create_elastic("elastic"),
    lambda life: life.write("elastic", 2),
    lambda life: life.lengthen("elastic"),
    lambda life: life.snapshot("snap", "thick"),
    lambda life: life.expand("thick"),
    lambda life: life.create("restored", "thick", "snap"),
    lambda life: life.delete("thick"),
    lambda life: life.delete("elastic"),
    lambda life: life.create("thick", "thick"),
    lambda life: life.write("thick", 3),
)
"""The same in the layout extents, where every copy is a full one and what was deleted is written over."""


DISK_ACTS: tuple[Callable[[Life], None], ...] = (
    lambda life: life.create("thick", "thick"),
    lambda life: life.write("thick", 1),
    lambda life: life.delete("thick"),
    lambda life: life.create("next", "thick"),
    lambda life: life.write("next", 2),
)
"""What a segment that is a disk does in another way: mapping, flushing, zeroing."""


def made(pool: Path, layout: str, disk: Path | None = None) -> None:
    """What an administrator does first; durable when it returns. Without a disk the segment is a file."""
    pool.mkdir()
    if disk:
        segment_of(pool).symlink_to(disk)
    if layout == "extents":
        database = PoolDatabase(pool / "pool.db")
        segment = SegmentOptions(path=segment_of(pool), size=SEGMENT_BYTES)
        preparing.create(database, [segment], MIB, force=False, progress=lambda *_: None)
        database.close()


def segment_of(pool: Path) -> Path:
    return pool / "segment"


def started(pool: Path) -> LoopBackend:
    layout = "extents" if segment_of(pool).exists() else "images"
    backend = LoopBackend({"pools": {"power": {"path": str(pool), "layout": layout, "allowLoopHost": True}}})
    backend.start(NodeHost())
    return backend


def packed(backend: LoopBackend) -> ExtentsLayout:
    (pool,) = backend._pools
    assert isinstance(pool.layout, ExtentsLayout)
    return pool.layout


def key(handle: str) -> str:
    return handle.split(":")[1]


def handles(backend: LoopBackend) -> dict[str, str]:
    """Handles of all volumes and snapshots by name."""
    volumes = backend.list_volumes("", 1000).entries
    return {entry.name: entry.handle for entry in (*volumes, *backend.list_snapshots("", 1000, "").entries)}


@contextmanager
def attached(backend: LoopBackend, handle: str, capability: VolumeCapability) -> Iterator[Path]:
    source = backend.attach_volume(AttachRequest(handle, capability, read_only=False))
    assert isinstance(source, BlockSource)
    try:
        yield source.device
    finally:
        backend.detach_volume(handle)


def check(pool: Path, before: Things, after: Things) -> None:
    """What a pool must hold when the power was cut between two moments.

    Args:
        pool: its directory, as it was left.
        before: what it held at the last answer.
        after: what it would have held at the next.
    """
    with closing(sqlite3.connect(pool / "pool.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    backend = started(pool)
    try:
        found = handles(backend)
        must, may = before.keys() & after.keys(), before.keys() | after.keys()
        assert must <= found.keys(), f"lost: {sorted(must - found.keys())}"
        assert found.keys() <= may, f"nobody asked for {sorted(found.keys() - may)}"
        for entry in backend.list_volumes("", 1000).entries:
            sizes = {things[entry.name].size_bytes for things in (before, after) if entry.name in things}
            assert entry.size_bytes in sizes, f"{entry.name} has {entry.size_bytes} bytes, not {sizes}"
        for name in must:
            if before[name].content == after[name].content and not name.startswith("snap"):
                with attached(backend, found[name], before[name].capability) as device, device.open("rb") as file:
                    content = file.read(DATA_BYTES)
                assert content == bytes([before[name].content]) * DATA_BYTES, f"{name} has lost what was written"
        if segment_of(pool).exists():
            check_packed(backend, found, {name: before[name] for name in must})
        findings = list(backend.diagnose())
        assert not findings, findings
    finally:
        backend.stop()


def check_packed(backend: LoopBackend, found: dict[str, str], before: Things) -> None:
    """Elastic volumes have what they were told to have, and what could be given out next reads as zeros."""
    layout = packed(backend)
    for name, thing in before.items():
        assert layout.present_bytes(key(found[name])) >= thing.present_bytes, f"{name} has become shorter"
    (pool,) = backend._pools
    assert pool.trash.emptied(20)
    for number, start, length in struct.iter_unpack("=3Q", layout.space_map.pool.free_runs()):
        run = RunRecord(number, start, length)
        assert not any(Content(layout._segments, [run], MIB).data_ranges(0)), f"{run} holds what was deleted"
