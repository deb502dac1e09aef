"""Power cuts at every flush while loop volumes are made, written to, grown, snapshotted, copied and deleted.

On one disk, any flush makes durable what was written before it. So a packed pool has its segment on a second one, too:
there, what pool.db says is durable must not run ahead of what it speaks of.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from csi_core.testing.devices import unmount_below

from . import lives
from .write_log import FLUSH, FUA, Entry, Replay, branch, entries, logged, mapped, mark

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_kernel("device-mapper")]

DEVICE = "csi-power-loss"
MIB = 1 << 20
DISK_BYTES = 512 * MIB
FILESYSTEM_BYTES = DISK_BYTES - lives.SEGMENT_BYTES
MKFS = {"xfs": ("mkfs.xfs", "-q", "-K"), "ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard")}
FORMATTED = "formatted"
FLUSHES_HAVE_NO_OFFSET = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 11)
"""From then on device-mapper hands them on without. Whose cache was flushed is unknown then, so both count as flushed:
a lesser test than on older kernels."""


@contextmanager
def mounted(fs_type: str, device: Path, path: Path) -> Iterator[Path]:
    """The same path each time: pool.db says where the segments are."""
    subprocess.run(["mount", "-t", fs_type, str(device), str(path)], check=True)
    try:
        yield path / "pool"
    finally:
        unmount_below(path)


@contextmanager
def cut_in_two(device: Path) -> Iterator[tuple[Path, Path]]:
    """A part of it for the filesystem with pool.db and a part for a segment, under the same names each time."""
    with (
        mapped(f"{DEVICE}-filesystem", FILESYSTEM_BYTES, f"linear {device} 0") as filesystem,
        mapped(f"{DEVICE}-segment", lives.SEGMENT_BYTES, f"linear {device} {FILESYSTEM_BYTES // 512}") as segment,
    ):
        yield filesystem, segment


@contextmanager
def laid_out(case: Case, device: Path) -> Iterator[tuple[Path, Path | None]]:
    """Where the filesystem is, and the segment if it is a disk."""
    if case.on_disk:
        with cut_in_two(device) as parts:
            yield parts
    else:
        yield device, None


@dataclass(frozen=True)
class Case:
    """What is lived through, and on what; bytes of a volume, and after it has grown.

    All that is free in a packed pool is read after each cut, so that is small.
    """

    fs_type: str
    layout: str
    acts: Sequence[Callable[[lives.Life], None]]
    size_bytes: int
    grown_bytes: int
    on_disk: bool = False


CASES = {
    "xfs-images": Case("xfs", "images", lives.ACTS, 16 * MIB, 24 * MIB),
    "ext4-images": Case("ext4", "images", lives.ACTS, 16 * MIB, 24 * MIB),
    "xfs-extents": Case("xfs", "extents", lives.PACKED_ACTS, 2 * MIB, 3 * MIB),
    "disk-extents": Case("xfs", "extents", lives.DISK_ACTS, 2 * MIB, 3 * MIB, on_disk=True),
}


def live(case: Case, device: Path, segment: Path | None, path: Path) -> list[lives.Things]:
    """Perform every act, with a mark in the log after each answer; what must be there after each."""
    subprocess.run([*MKFS[case.fs_type], str(device)], check=True)
    answered = []
    with mounted(case.fs_type, device, path) as pool:
        lives.made(pool, case.layout, segment)
        backend = lives.started(pool)
        try:
            life = lives.Life(backend, case.size_bytes, case.grown_bytes)
            mark(DEVICE, FORMATTED)
            answered.append(dict(life.things))
            for act in case.acts:
                act(life)
                mark(DEVICE, f"answered-{len(answered)}")
                answered.append(dict(life.things))
        finally:
            backend.stop()
    return answered


class Caches:
    """Each part of the disk as a disk of its own, which loses what was written to it since its own last flush."""

    def __init__(self, replay: Replay, split_bytes: int) -> None:
        self._replay = replay
        self._split_bytes = split_bytes
        self._held: tuple[list[Entry], list[Entry]] = ([], [])

    def take(self, entry: Entry) -> None:
        # A flush has an offset, too: that of the part that was told to.
        told = self._held[entry.offset_bytes >= self._split_bytes]
        told.append(entry)
        for held in self._held if entry.flags & FLUSH and FLUSHES_HAVE_NO_OFFSET else (told,):
            if entry.flags & (FLUSH | FUA):
                for durable in held:
                    self._replay.apply(durable)
                held.clear()


def moments(log: Path) -> Iterator[tuple[Entry, int | None]]:
    """The log, and after each entry at which a power cut is worth a look the number of answers given before it.

    That is every flush, and every mark, but not the flush right before a mark: the mark asks more of the same disk.
    """
    answers, shown = -1, list(entries(log))
    for entry, following in zip(shown, [*shown[1:], None], strict=True):
        answers += entry.mark.startswith((FORMATTED, "answered"))
        worth = entry.durable and answers >= 0 and not (following and following.mark)
        yield entry, answers if worth else None


@pytest.fixture
def disks(scratch_disks: tuple[Path, ...]) -> Iterator[tuple[Path, ...]]:
    """Disks for the data, the log, the replay and what a replay is tried with; the log begins with a blank disk."""
    disk, log, replayed, spare = scratch_disks[:4]
    for blank in (disk, replayed):
        zero(blank, DISK_BYTES)
    yield disk, log, replayed, spare
    for used in (disk, log, replayed, spare):
        zero(used, MIB)


def zero(disk: Path, size_bytes: int) -> None:
    """Write zeros over its beginning."""
    with disk.open("rb+", buffering=0) as file:
        for _ in range(size_bytes // MIB):
            file.write(bytes(MIB))
        os.fsync(file.fileno())


@pytest.mark.parametrize("name", CASES)
def test_a_power_cut_at_any_flush_loses_nothing_that_was_answered(
    name: str, disks: tuple[Path, ...], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    case = CASES[name]
    disk, log, replayed, spare = disks
    with logged(disk, log, DISK_BYTES, DEVICE) as device, laid_out(case, device) as (filesystem, segment):
        answered = live(case, filesystem, segment, tmp_path)
    cuts = 0
    with closing(Replay(log, replayed)) as replay:
        caches = Caches(replay, FILESYSTEM_BYTES if case.on_disk else 0)
        for entry, answers in moments(log):
            caches.take(entry)
            if answers is None:
                continue
            replay.sync()
            cuts += 1
            with (
                branch(replayed, spare, DISK_BYTES, f"{DEVICE}-cut") as device,
                laid_out(case, device) as (filesystem, _),
                mounted(case.fs_type, filesystem, tmp_path) as pool,
            ):
                try:
                    lives.check(pool, answered[answers], answered[min(answers + 1, len(answered) - 1)])
                except BaseException as error:
                    error.add_note(f"power cut number {cuts}, after {answers} answers")
                    raise
    assert cuts > 2 * len(case.acts), "the log holds the flushes of every act"
    record_property("detail", f"{name}: {cuts} power cuts")
