"""A pool that volumes are made in, written to and deleted from, and what must be true of it after a power cut."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from backends.loop.options import LoopParameters
from backends.loop.plugin import LoopBackend
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
SIZE_BYTES = 16 * MIB
GROWN_BYTES = 24 * MIB
DATA_BYTES = 64 << 10
RAW = VolumeCapability(VolumeMode.BLOCK, AccessMode.SINGLE_NODE_WRITER)


class NodeHost:
    """What the core offers a backend."""

    node_id = "node-1"
    backend_name = "loop"

    def frozen(self, devices: tuple[Path, ...], time_limit_s: float) -> AbstractContextManager[None]:
        return frozen(devices, time_limit_s)


@dataclass(frozen=True)
class Thing:
    """A volume or snapshot: its size, and the one byte that its first 64 KiB are full of."""

    size_bytes: int
    content: int = 0


Things = dict[str, Thing]


@dataclass
class Life:
    """Acts on a pool; ``things`` is what the acts so far must have led to."""

    backend: LoopBackend
    things: Things = field(default_factory=dict)

    def create(self, name: str, provisioning: str, source: str = "", kind: SourceKind = SourceKind.SNAPSHOT) -> None:
        size_bytes = self.things[source].size_bytes if source else SIZE_BYTES
        content = ContentSource(kind, self.handle(source)) if source else None
        parameters = LoopParameters.model_validate({"provisioning": provisioning})
        self.backend.create_volume(VolumeSpec(name, SizeRange(size_bytes), (RAW,), parameters, source=content))
        self.things[name] = Thing(size_bytes, self.things[source].content if source else 0)

    def write(self, name: str, content: int) -> None:
        with attached(self.backend, self.handle(name)) as device, device.open("rb+", buffering=0) as file:
            file.write(bytes([content]) * DATA_BYTES)
            os.fsync(file.fileno())
        self.things[name] = replace(self.things[name], content=content)

    def expand(self, name: str) -> None:
        self.backend.expand_volume(self.handle(name), SizeRange(GROWN_BYTES))
        self.things[name] = replace(self.things[name], size_bytes=GROWN_BYTES)

    def snapshot(self, name: str, source: str) -> None:
        self.backend.create_snapshot(SnapshotSpec(name, self.handle(source)))
        self.things[name] = self.things[source]

    def delete(self, name: str) -> None:
        remove = self.backend.delete_snapshot if name.startswith("snap") else self.backend.delete_volume
        remove(self.handle(name), Parameters())
        del self.things[name]

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


def started(pool: Path) -> LoopBackend:
    backend = LoopBackend({"pools": {"power": {"path": str(pool), "allowLoopHost": True}}})
    backend.start(NodeHost())
    return backend


def handles(backend: LoopBackend) -> dict[str, str]:
    """Handles of all volumes and snapshots by name."""
    volumes = backend.list_volumes("", 1000).entries
    return {entry.name: entry.handle for entry in (*volumes, *backend.list_snapshots("", 1000, "").entries)}


@contextmanager
def attached(backend: LoopBackend, handle: str) -> Iterator[Path]:
    source = backend.attach_volume(AttachRequest(handle, RAW, read_only=False))
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
                with attached(backend, found[name]) as device, device.open("rb") as file:
                    content = file.read(DATA_BYTES)
                assert content == bytes([before[name].content]) * DATA_BYTES, f"{name} has lost what was written"
        findings = list(backend.diagnose())
        assert not findings, findings
    finally:
        backend.stop()
