"""A backend over real pools, and volumes that are really mounted and written."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backends.loop.options import LoopParameters
from backends.loop.plugin import LoopBackend
from backends.loop.pool import Pool
from csi_core.model import (
    AccessMode,
    AttachRequest,
    BlockSource,
    ContentSource,
    SizeRange,
    Snapshot,
    SnapshotSpec,
    SourceKind,
    Volume,
    VolumeCapability,
    VolumeMode,
    VolumeSpec,
)
from csi_core.node.freeze import frozen
from csi_core.node.mount import unmount
from csi_core.node.mounted import MountedFilesystem, filesystem_on
from csi_core.parameters import Parameters

MIB = 1 << 20
MOUNTED = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_WRITER, "ext4")
RAW = VolumeCapability(VolumeMode.BLOCK, AccessMode.SINGLE_NODE_WRITER)
NO_SECRETS = Parameters()


class NodeHost:
    """What the core offers a backend, with real freezing and growing."""

    node_id = "node-1"
    backend_name = "loop"

    def frozen(self, devices: tuple[Path, ...], time_limit_s: float) -> AbstractContextManager[None]:
        return frozen(devices, time_limit_s)

    def filesystem_on(self, device: Path) -> MountedFilesystem | None:
        return filesystem_on(device)


@dataclass
class Cluster:
    """A backend over pools in given directories, and shorthands for its calls."""

    options: dict[str, object]
    mounts: Path
    running: bool = True
    backend: LoopBackend = field(init=False)

    def __post_init__(self) -> None:
        if self.running:
            self.start()

    def start(self) -> None:
        self.backend = LoopBackend(self.options)
        self.backend.start(NodeHost())

    def restart(self) -> None:
        self.backend.stop()
        self.start()

    @property
    def pool(self) -> Pool:
        return next(iter(self.backend._pools))

    def create(
        self,
        name: str,
        size_bytes: int = 64 * MIB,
        *,
        source: Volume | Snapshot | None = None,
        capability: VolumeCapability = MOUNTED,
        **parameters: str,
    ) -> Volume:
        content = None
        if source:
            kind = SourceKind.SNAPSHOT if isinstance(source, Snapshot) else SourceKind.VOLUME
            content = ContentSource(kind, source.handle)
        return self.backend.create_volume(
            VolumeSpec(
                name=name,
                size=SizeRange(size_bytes),
                capabilities=(capability,),
                parameters=LoopParameters.model_validate(parameters),
                recorded=parameters,
                source=content,
            )
        ).value

    def snapshot(self, name: str, volume: Volume) -> Snapshot:
        return self.backend.create_snapshot(SnapshotSpec(name, volume.handle)).value

    def attach(self, volume: Volume, capability: VolumeCapability = RAW, *, read_only: bool = False) -> BlockSource:
        return self.backend.attach_volume(AttachRequest(volume.handle, capability, read_only))

    def detach(self, volume: Volume) -> None:
        self.backend.detach_volume(volume.handle)

    def delete(self, volume: Volume) -> None:
        self.backend.delete_volume(volume.handle, NO_SECRETS)

    def settled(self) -> None:
        """Wait until the trash is empty."""
        assert self.pool.trash.emptied(10)

    def key(self, named: Volume | Snapshot) -> str:
        return named.handle.split(":")[1]

    def image(self, named: Volume | Snapshot) -> Path:
        return self.pool.layout.path(self.key(named))

    @contextmanager
    def mounted(self, volume: Volume, fs_type: str = "ext4") -> Iterator[Path]:
        """Attach, format the first time, mount; undo all of it in the end."""
        source = self.attach(volume, VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_WRITER, fs_type))
        try:
            if not source.formatted:
                make_filesystem(source, fs_type)
                self.backend.mark_formatted(volume.handle, fs_type)
            target = self.mounts / self.key(volume)
            target.mkdir(exist_ok=True)
            nouuid = ("-o", "nouuid") if fs_type == "xfs" else ()
            command("mount", "-t", fs_type, *nouuid, str(source.device), str(target))
            try:
                yield target
            finally:
                assert unmount(target), f"{target} is in use"
        finally:
            self.detach(volume)


def make_filesystem(source: BlockSource, fs_type: str) -> None:
    """As the core does it for a source that wants to keep its blocks."""
    keep = {"ext4": ("-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"), "xfs": ("-K",)}[fs_type]
    command(f"mkfs.{fs_type}", "-q", *(keep if source.keep_allocated else ()), str(source.device))


def command(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def write_tree(directory: Path, seed: str, files: int = 20, size_bytes: int = 200_000) -> dict[str, str]:
    """Files of known, incompressible content; answers their checksums."""
    for number in range(files):
        block = hashlib.sha256(f"{seed}/{number}".encode()).digest()
        path = directory / f"file-{number:03}"
        path.write_bytes((block * (size_bytes // len(block) + 1))[: size_bytes + number * 777])
    return checksums(directory)


def checksums(directory: Path) -> dict[str, str]:
    files = [path for path in sorted(directory.iterdir()) if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_block(device: Path, offset_bytes: int, data: bytes) -> None:
    write_blocks(device, {offset_bytes: data})


def write_blocks(device: Path, blocks: Mapping[int, bytes]) -> None:
    descriptor = os.open(device, os.O_WRONLY)
    try:
        for offset_bytes, data in blocks.items():
            os.pwrite(descriptor, data, offset_bytes)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_block(device: Path, offset_bytes: int, length: int) -> bytes:
    descriptor = os.open(device, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, offset_bytes)
    finally:
        os.close(descriptor)
