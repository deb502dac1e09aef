"""Where a demo runs: its directories, a filesystem for its pool, and the proof that nothing stays behind."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from csi_core.run import run

__all__ = ["Place", "make_place", "missing_privilege"]

IMAGE_BYTES = 8 << 30
"""Of the pool's filesystem; the file is sparse and a run writes about 200 MB into it."""

TOOL_TIMEOUT_S = 60.0
CAP_SYS_ADMIN = 21


def missing_privilege() -> str:
    """Why loop devices and mounts cannot be made here, for people; "" where they can."""
    if os.geteuid() != 0:
        return "not root"
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    if not int(effective, 16) >> CAP_SYS_ADMIN & 1:
        return "root without CAP_SYS_ADMIN; run the container privileged"
    return "" if Path("/dev/loop-control").exists() else "there is no /dev/loop-control"


@dataclass(frozen=True, slots=True)
class Place:
    """The directories of one run.

    Attributes:
        root: holds all of the others, except a pool below a directory that the user named.
        pool: an empty directory for the pool.
        about: what the pool lies on, for people.
        on_loop: whether that is a loop device of this demo's.
    """

    root: Path
    pool: Path
    about: str
    on_loop: bool

    @property
    def kubelet(self) -> Path:
        """Below it are staging and target paths."""
        return self.root / "kubelet"

    def left_mounts(self) -> list[Path]:
        """Mount points of volumes below ``root``, the last one mounted first."""
        fields = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
        paths = [Path(_unescape(field[4])) for field in fields]
        return [
            p
            for p in reversed(paths)
            if p.is_relative_to(self.kubelet) or (p.is_relative_to(self.pool) and p != self.pool)
        ]

    def left_loop_devices(self) -> list[Path]:
        """Loop devices whose file lies in the pool."""
        found = []
        for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                file = Path(backing.read_text().removesuffix("\n").removesuffix(" (deleted)"))
            except OSError:
                continue  # detached between the listing and the read
            if file.is_relative_to(self.pool):
                found.append(Path("/dev", backing.parts[3]))
        return found

    def left_data(self) -> list[Path]:
        """Files that still hold data in the pool's subdirectories; its own records lie beside those."""
        return [p for p in self.pool.glob("*/**/*") if p.is_file() and p.stat().st_blocks]

    def left(self) -> list[str]:
        """Everything that a finished run must not leave, for people."""
        return [
            *(f"mount {path}" for path in self.left_mounts()),
            *(f"loop device {path}" for path in self.left_loop_devices()),
            *(f"file {path}" for path in self.left_data()),
        ]

    def sweep(self) -> None:
        """Take away by force what a failed run left mounted or attached."""
        for path in self.left_mounts():
            run(["umount", str(path)], timeout_s=TOOL_TIMEOUT_S, mutates=True)
        for device in self.left_loop_devices():
            run(["losetup", "-d", str(device)], timeout_s=TOOL_TIMEOUT_S, mutates=True)


@contextmanager
def make_place(pool_dir: Path | None, *, own_filesystem: bool, keep: bool) -> Iterator[Place]:
    """Make the directories, and take them away afterwards.

    Args:
        pool_dir: make the pool in a new directory below this one; None for a place of the demo's own.
        own_filesystem: without ``pool_dir``: make an XFS filesystem, which has reflinks, on an image file.
        keep: leave the directories, and the filesystem mounted.
    """
    root = Path(tempfile.mkdtemp(prefix="csi-core-demo-")).resolve()
    own_filesystem = own_filesystem and pool_dir is None
    pool = Path(tempfile.mkdtemp(prefix="csi-core-demo-", dir=pool_dir)).resolve() if pool_dir else root / "pool"
    pool.mkdir(exist_ok=True)
    try:
        if own_filesystem:
            _mount_image(root / "host.img", pool)
        yield Place(root, pool, _about(pool, own_filesystem), on_loop=own_filesystem)
    finally:
        if not keep:
            if pool.is_mount():
                run(["umount", str(pool)], timeout_s=TOOL_TIMEOUT_S, mutates=True)
            for directory in (pool, root):
                shutil.rmtree(directory, ignore_errors=True)


def _mount_image(image: Path, directory: Path) -> None:
    with image.open("xb") as file:
        os.truncate(file.fileno(), IMAGE_BYTES)
    run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], timeout_s=TOOL_TIMEOUT_S, mutates=True)
    # mount(8) sets up the loop device itself and the kernel takes it down at umount: nothing to leak in between.
    run(["mount", "-o", "loop", str(image), str(directory)], timeout_s=TOOL_TIMEOUT_S, mutates=True)


def _about(pool: Path, mounted: bool) -> str:
    if mounted:
        return f"XFS with reflink on an image file of {IMAGE_BYTES >> 30} GiB (sparse)"
    return f"the directory {pool}"


def _unescape(path: str) -> str:
    """A path from mountinfo, where white space is written as octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
