"""Power cuts at every flush while loop volumes are made, written to, grown, snapshotted, copied and deleted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from csi_core.testing.devices import unmount_below

from . import lives
from .write_log import Entry, Replay, branch, entries, logged, mark

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_kernel("device-mapper")]

DEVICE = "csi-power-loss"
MIB = 1 << 20
DISK_BYTES = 512 * MIB
MKFS = {"xfs": ("mkfs.xfs", "-q", "-K"), "ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard")}
FORMATTED = "formatted"


@contextmanager
def mounted(fs_type: str, device: Path, path: Path) -> Iterator[Path]:
    """The same path each time: pool.db says where the segments are."""
    subprocess.run(["mount", "-t", fs_type, str(device), str(path)], check=True)
    try:
        yield path / "pool"
    finally:
        unmount_below(path)


ACTS = {"images": lives.ACTS, "extents": lives.PACKED_ACTS}
SIZES_BYTES = {"images": (16 * MIB, 24 * MIB), "extents": (2 * MIB, 3 * MIB)}
"""Of a volume, and after it has grown. All that is free in a packed pool is read after each cut, so that is small."""


def live(fs_type: str, layout: str, device: Path, path: Path) -> list[lives.Things]:
    """Perform every act, with a mark in the log after each answer; what must be there after each."""
    subprocess.run([*MKFS[fs_type], str(device)], check=True)
    answered = []
    with mounted(fs_type, device, path) as pool:
        lives.made(pool, layout)
        backend = lives.started(pool)
        life = lives.Life(backend, *SIZES_BYTES[layout])
        mark(DEVICE, FORMATTED)
        answered.append(dict(life.things))
        for act in ACTS[layout]:
            act(life)
            mark(DEVICE, f"answered-{len(answered)}")
            answered.append(dict(life.things))
        backend.stop()
    return answered


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


@pytest.mark.parametrize(("fs_type", "layout"), [("xfs", "images"), ("ext4", "images"), ("xfs", "extents")])
def test_a_power_cut_at_any_flush_loses_nothing_that_was_answered(
    fs_type: str, layout: str, disks: tuple[Path, ...], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    disk, log, replayed, spare = disks
    with logged(disk, log, DISK_BYTES, DEVICE) as device:
        answered = live(fs_type, layout, device, tmp_path)
    replay = Replay(log, replayed)
    cuts = 0
    for entry, answers in moments(log):
        replay.apply(entry)
        if answers is None:
            continue
        replay.sync()
        cuts += 1
        with branch(replayed, spare, DISK_BYTES, f"{DEVICE}-cut") as device, mounted(fs_type, device, tmp_path) as pool:
            try:
                lives.check(pool, answered[answers], answered[min(answers + 1, len(answered) - 1)])
            except BaseException as error:
                error.add_note(f"power cut number {cuts}, after {answers} answers")
                raise
    replay.close()
    assert cuts > 2 * len(ACTS[layout]), "the log holds the flushes of every act"
    record_property("detail", f"{layout} on {fs_type}: {cuts} power cuts")
