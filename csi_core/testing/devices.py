"""Real block devices and filesystems for tests. Needs root; everything made is taken away again, also after a failure.

Each is a context manager, to be used in a fixture::

    @pytest.fixture
    def pool() -> Iterator[Path]:
        with xfs_filesystem(2 << 30) as path:
            yield path
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from csi_core.node import mount
from csi_core.node.mountinfo import MountTable
from csi_core.run import run

__all__ = [
    "btrfs_filesystem",
    "ext4_filesystem",
    "leak_check",
    "loop_device",
    "scratch_directory",
    "sparse_file",
    "unmount_below",
    "xfs_filesystem",
]

_TIMEOUT_S = 60.0
_SETTLE_S = 5.0
"""Detaching a loop device is lazy: it may show for a moment after the call."""


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """An empty directory; what is mounted below it is unmounted in the end."""
    with tempfile.TemporaryDirectory(prefix="csi-core-test-", ignore_cleanup_errors=True) as name:
        path = Path(name).resolve()
        try:
            yield path
        finally:
            unmount_below(path)


def unmount_below(path: Path) -> None:
    """Unmount everything at or below ``path``, the newest first, as a reboot would.

    Raises:
        AssertionError: something is in use.
    """
    for mounted in reversed(MountTable.read().all()):
        if mounted.path.is_relative_to(path):
            assert mount.unmount(mounted.path), f"{mounted.path} is in use"


@contextmanager
def sparse_file(size_bytes: int) -> Iterator[Path]:
    """A file of ``size_bytes`` with nothing allocated."""
    with scratch_directory() as directory:
        image = directory / "image"
        with image.open("wb") as file:
            file.truncate(size_bytes)
        yield image


@contextmanager
def loop_device(image: Path, sector_bytes: int = 4096) -> Iterator[Path]:
    """A loop device over a file."""
    answer = run(
        ["losetup", "--find", "--show", "--sector-size", str(sector_bytes), str(image)],
        timeout_s=_TIMEOUT_S,
        mutates=True,
    )
    device = Path(answer.stdout.strip())
    try:
        yield device
    finally:
        run(["losetup", "--detach", str(device)], timeout_s=_TIMEOUT_S, mutates=True, ok_codes=frozenset({0, 1}))


@contextmanager
def _filesystem(fs_type: str, size_bytes: int, *options: str) -> Iterator[Path]:
    with ExitStack() as stack:
        image = stack.enter_context(sparse_file(size_bytes))
        device = stack.enter_context(loop_device(image))
        path = stack.enter_context(scratch_directory())
        run([f"mkfs.{fs_type}", "-q", *options, str(device)], timeout_s=_TIMEOUT_S, mutates=True)
        with mount.detached_filesystem(fs_type, str(device), (), (), read_only=False) as detached:
            mount.attach(detached, path)
        yield path


def xfs_filesystem(size_bytes: int = 1 << 30) -> AbstractContextManager[Path]:
    """A mounted XFS with reflinks, at least 300 MiB."""
    return _filesystem("xfs", size_bytes, "-K")


def ext4_filesystem(size_bytes: int = 1 << 30) -> AbstractContextManager[Path]:
    """A mounted ext4, which has no reflinks."""
    return _filesystem("ext4", size_bytes, "-E", "nodiscard")


def btrfs_filesystem(size_bytes: int = 1 << 30) -> AbstractContextManager[Path]:
    """A mounted btrfs."""
    return _filesystem("btrfs", size_bytes, "-K")


@contextmanager
def leak_check(below: Path = Path("/")) -> Iterator[None]:
    """What runs inside must leave no loop device and no mount behind.

    Args:
        below: look only at mounts, and at loop devices over files, below this directory; for machines where others
            work at the same time.

    Raises:
        AssertionError: names what was left.
    """
    before = _in_use(below)
    yield
    ends_at = time.monotonic() + _SETTLE_S
    while (left := _in_use(below) - before) and time.monotonic() < ends_at:
        time.sleep(0.05)
    assert not left, f"left behind: {', '.join(sorted(left))}"


def _in_use(below: Path) -> set[str]:
    mounts = {f"mount {m.path} of {m.source}" for m in MountTable.read().all() if m.path.is_relative_to(below)}
    answer = run(
        ["losetup", "--noheadings", "--output", "NAME,BACK-FILE", "--raw"], timeout_s=_TIMEOUT_S, mutates=False
    )
    loops = (line.partition(" ") for line in answer.stdout.splitlines())
    return mounts | {f"loop device {name} over {file}" for name, _, file in loops if Path(file).is_relative_to(below)}
