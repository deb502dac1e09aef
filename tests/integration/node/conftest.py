"""A node with a backend of loop images, as small as one can be: the node side is what is tested here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from csi_core.facade import Backend
from csi_core.hookspecs import hookimpl
from csi_core.model import (
    AccessMode,
    AttachRequest,
    BlockSource,
    Created,
    Description,
    DirectorySource,
    Existing,
    Outcome,
    Page,
    Reach,
    SizeRange,
    Source,
    Volume,
    VolumeCapability,
    VolumeMode,
    VolumeSpec,
)
from csi_core.node.lifecycle import NodeVolumes
from csi_core.node.mounts import KernelMounts
from csi_core.node.requests import NodePublishRequest, StageRequest
from csi_core.parameters import Parameters
from csi_core.run import run
from csi_core.testing.devices import leak_check, scratch_directory, unmount_below

TIMEOUT_S = 60.0
SIZE_BYTES = 320 << 20


def losetup(*arguments: str) -> str:
    return run(["losetup", *arguments], timeout_s=TIMEOUT_S, mutates=True).stdout.strip()


class Images:
    """Volumes are sparse files; a handle is a file's name. Its state besides the files is in memory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.formatted: dict[str, str] = {}
        self.mkfs_options: tuple[str, ...] = ()
        self.keep_allocated = False
        self.directories: set[str] = set()
        self.calls: list[str] = []

    def image(self, handle: str) -> Path:
        return self.directory / handle

    def device(self, handle: str) -> Path | None:
        answer = losetup("--associated", str(self.image(handle)), "--noheadings", "--output", "NAME")
        return Path(answer) if answer else None

    @hookimpl
    def describe(self) -> Description:
        return Description(
            summary="sparse files",
            reach=Reach.NODE_LOCAL,
            access={mode: frozenset(AccessMode) for mode in VolumeMode},
            filesystems=("ext4", "xfs", "btrfs"),
            ephemeral=True,
            mount_group=True,
        )

    @hookimpl
    def create_volume(self, spec: VolumeSpec) -> Outcome[Volume]:
        volume = Volume(spec.name, spec.name, spec.size.required_bytes)
        if self.image(spec.name).exists():
            return Existing(volume)
        self.make(spec.name, spec.size.required_bytes)
        return Created(volume)

    def make(self, handle: str, size_bytes: int = SIZE_BYTES) -> None:
        with self.image(handle).open("wb") as file:
            file.truncate(size_bytes)

    @hookimpl
    def delete_volume(self, handle: str, secrets: Parameters) -> None:
        self.image(handle).unlink(missing_ok=True)
        self.formatted.pop(handle, None)

    @hookimpl
    def get_volume(self, handle: str) -> Volume | None:
        image = self.image(handle)
        return Volume(handle, handle, image.stat().st_size) if image.exists() else None

    @hookimpl
    def find_volume(self, name: str) -> Volume | None:
        return self.get_volume(name)

    @hookimpl
    def list_volumes(self, cursor: str, limit: int) -> Page[Volume]:
        return Page(())

    @hookimpl
    def attach_volume(self, request: AttachRequest) -> Source:
        self.calls.append("attach")
        image = self.image(request.handle)
        if request.handle in self.directories:
            return DirectorySource(image)
        device = self.device(request.handle)
        if device is None:
            read_only = ["--read-only"] if request.read_only else []
            device = Path(losetup("--find", "--show", "--sector-size", "4096", *read_only, str(image)))
        return BlockSource(
            device,
            image.stat().st_size,
            self.formatted.get(request.handle, ""),
            self.mkfs_options,
            self.keep_allocated,
        )

    @hookimpl
    def detach_volume(self, handle: str) -> None:
        self.calls.append("detach")
        if (device := self.device(handle)) is not None:
            losetup("--detach", str(device))

    @hookimpl
    def find_source(self, handle: str) -> Source | None:
        if handle in self.directories:
            return DirectorySource(self.image(handle))
        device = self.device(handle)
        return BlockSource(device, self.image(handle).stat().st_size) if device else None

    @hookimpl
    def mark_formatted(self, handle: str, fs_type: str) -> None:
        self.calls.append(f"mark {fs_type}")
        assert handle not in self.formatted, "marked twice"
        self.formatted[handle] = fs_type

    @hookimpl
    def expand_volume(self, handle: str, size: SizeRange) -> int:
        image = self.image(handle)
        if size.required_bytes > image.stat().st_size:
            with image.open("r+b") as file:
                file.truncate(size.required_bytes)
            if (device := self.device(handle)) is not None:
                losetup("--set-capacity", str(device))
        return image.stat().st_size


class _Host:
    node_id = "node-1"
    backend_name = "images"


@dataclass
class Node:
    """One node, its backend, and short spellings of the calls."""

    directory: Path
    images: Images
    backend: Backend
    volumes: NodeVolumes = field(default_factory=lambda: NodeVolumes(KernelMounts(), "node-1"))

    def staging(self, handle: str = "v") -> Path:
        path = self.directory / "staging" / handle
        path.mkdir(parents=True, exist_ok=True)
        return path

    def target(self, name: str = "pod") -> Path:
        return self.directory / "targets" / name / "mount"

    def stage(self, capability: VolumeCapability, handle: str = "v") -> Path:
        self.volumes.stage(self.backend, StageRequest(handle, self.staging(handle), capability))
        return self.staging(handle)

    def publish(
        self, capability: VolumeCapability, name: str = "pod", *, read_only: bool = False, handle: str = "v"
    ) -> Path:
        request = NodePublishRequest(handle, self.staging(handle), self.target(name), capability, read_only)
        self.volumes.publish(self.backend, request)
        return self.target(name)

    def unpublish(self, name: str = "pod") -> None:
        self.volumes.unpublish(self.backend, "v", self.target(name))

    def unstage(self, handle: str = "v") -> None:
        self.volumes.unstage(self.backend, handle, self.staging(handle))

    def reboot(self) -> None:
        """What the kernel forgets: mounts and loop devices. Directories, files and marks stay."""
        unmount_below(self.directory)
        for image in self.images.directory.iterdir():
            if (device := self.images.device(image.name)) is not None:
                run(["blockdev", "--setrw", str(device)], timeout_s=TIMEOUT_S, mutates=True)
                losetup("--detach", str(device))
        self.volumes = NodeVolumes(KernelMounts(), "node-1")


@pytest.fixture
def node() -> Iterator[Node]:
    with scratch_directory() as directory, leak_check(directory):
        (directory / "images").mkdir()
        images = Images(directory / "images")
        backend = Backend.load("images", images)
        backend.start(_Host())  # type: ignore[arg-type]
        made = Node(directory, images, backend)
        images.make("v")
        try:
            yield made
        finally:
            made.reboot()
