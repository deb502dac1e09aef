"""A backend over one packed pool, whose segments are disks, pieces of disks or files."""

from __future__ import annotations

from pathlib import Path

from backends.loop.database import PoolDatabase
from backends.loop.extents import preparing
from backends.loop.options import LoopParameters, SegmentOptions
from backends.loop.plugin import LoopBackend
from backends.loop.pool import Pool
from csi_core.model import (
    AccessMode,
    AttachRequest,
    SizeRange,
    Volume,
    VolumeCapability,
    VolumeMode,
    VolumeSpec,
)
from csi_core.node.mounted import filesystem_on
from csi_core.parameters import Parameters

MIB = 1 << 20
RAW = VolumeCapability(VolumeMode.BLOCK, AccessMode.SINGLE_NODE_WRITER)
EXT4 = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_WRITER, "ext4")
THICK = LoopParameters.model_validate({"provisioning": "thick"})


class NodeHost:
    """Nothing is frozen here; what is mounted grows."""

    node_id = "node-1"
    backend_name = "loop"

    filesystem_on = staticmethod(filesystem_on)

    def frozen(self, devices: tuple[Path, ...], time_limit_s: float) -> object:
        raise NotImplementedError


class Packed:
    """A backend over one pool of some segments."""

    def __init__(self, path: Path, segments: list[SegmentOptions]) -> None:
        self._path = path
        database = PoolDatabase(path / "pool.db")
        preparing.create(database, segments, MIB, force=True, progress=lambda *_: None)
        database.close()
        pool = {"path": str(path), "layout": "extents", "allowLoopHost": True}
        self.options = {"pools": {"p": pool}}
        self.start()

    def start(self) -> None:
        self.backend = LoopBackend(self.options)
        self.backend.start(NodeHost())  # type: ignore[arg-type]

    @property
    def pool(self) -> Pool:
        return next(iter(self.backend._pools))

    def grow(self, segments: list[SegmentOptions]) -> None:
        """As csi-core pool grow does it, beside the backend that runs."""
        database = PoolDatabase(self._path / "pool.db")
        preparing.grow(database, segments, force=False, progress=lambda *_: None)
        database.close()

    def create(self, name: str, size_bytes: int) -> Volume:
        return self.backend.create_volume(VolumeSpec(name, SizeRange(size_bytes), (RAW,), THICK)).value

    def create_elastic(self, name: str, size_bytes: int, initial_bytes: int) -> Volume:
        parameters = LoopParameters.model_validate({"initialSize": str(initial_bytes)})
        return self.backend.create_volume(VolumeSpec(name, SizeRange(size_bytes), (EXT4,), parameters)).value

    def attach(self, volume: Volume, capability: VolumeCapability = RAW) -> Path:
        return self.backend.attach_volume(AttachRequest(volume.handle, capability)).device

    def delete(self, volume: Volume) -> None:
        self.backend.detach_volume(volume.handle)
        self.backend.delete_volume(volume.handle, Parameters())

    def runs(self, volume: Volume) -> int:
        return len(self.pool.records.runs(volume.handle.split(":")[1]))

    def close(self) -> None:
        for volume in self.backend.list_volumes("", 100).entries:
            self.backend.detach_volume(volume.handle)
        self.backend.stop()


def holes(packed: Packed, size_bytes: int = 8 * MIB) -> list[Volume]:
    """Fill the pool with eight volumes and delete every second one: half of it is free, in four pieces."""
    volumes = [packed.create(f"v{n}", size_bytes) for n in range(8)]
    volumes.sort(key=lambda volume: packed.pool.records.runs(volume.handle.split(":")[1]))
    for volume in volumes[::2]:
        packed.delete(volume)
    return volumes[1::2]
