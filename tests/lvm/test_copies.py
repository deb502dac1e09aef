"""Snapshots and copies: what is LVM's own about them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from group_case import BLOCK, SIZE, Open, lv_of, snapshot, thin_pool
from volume_group import MIB, volumes

from csi_core.errors import DataLoss, FailedPrecondition
from csi_core.health import HealthKind
from csi_core.model import ContentSource, GroupSnapshotSpec, SizeRange, SourceKind

pytestmark = pytest.mark.needs_kernel("device-mapper")


def test_full_copy_outlives_its_volume(opened: Open) -> None:
    case = opened()
    volume = case.create("data", BLOCK)
    before = case.write(volume, BLOCK, "data")
    taken = snapshot(case, "snap", volume, mode="copy")
    assert snapshot(case, "snap", volume, mode="copy") == taken
    case.delete(volume)
    assert case.checksum(case.restore("restored", BLOCK, taken), BLOCK) == before


def test_copy_on_write_snapshot_that_fills_up(opened: Open) -> None:
    """Degraded before, lost afterwards, and said so each time; the volume is whole, and the snapshot can be deleted."""
    case = opened(snapshotWarnAt=0.4)
    volume = case.create("data", BLOCK)
    taken = snapshot(case, "snap", volume, cowSize="4Mi")
    assert case.backend.volume_health(volume.handle) == ()
    with case.attached(volume, BLOCK) as content, content.path.open("r+b") as device:
        device.write(os.urandom(2 * MIB))
        os.fsync(device.fileno())
        (problem,) = case.backend.volume_health(volume.handle)
        assert (problem.kind, problem.reason) == (HealthKind.DEGRADED, "SnapshotNearlyFull")
        assert problem in case.backend.storage_health()
        device.write(os.urandom(8 * MIB))
        os.fsync(device.fileno())
        (problem,) = case.backend.volume_health(volume.handle)
        assert (problem.kind, problem.reason) == (HealthKind.DATA_LOSS, "SnapshotInvalid")
    assert case.backend.volume_health(volume.handle) == (problem,), "detached, where the kernel says nothing of it"
    found = case.backend.get_snapshot(taken.handle)
    assert found is not None
    assert not found.ready
    with pytest.raises(DataLoss, match="ran full"):
        case.restore("restored", BLOCK, taken)
    with case.attached(volume, BLOCK):
        case.backend.delete_snapshot(taken.handle, case.secrets)
    assert case.backend.volume_health(volume.handle) == ()
    assert [v.name for v in case.volumes()] == ["data"]


def test_an_attached_volume_with_snapshots_does_not_grow(opened: Open) -> None:
    case = opened()
    volume = case.create("data", BLOCK)
    taken = snapshot(case, "snap", volume)
    with case.attached(volume, BLOCK), pytest.raises(FailedPrecondition, match="snapshots"):
        case.backend.expand_volume(volume.handle, SizeRange(2 * SIZE))
    assert case.backend.expand_volume(volume.handle, SizeRange(2 * SIZE)) == 2 * SIZE
    assert taken.size_bytes == SIZE
    assert case.restore("restored", BLOCK, taken).size_bytes == SIZE


def test_copies_between_thin_and_thick(opened: Open, group: str) -> None:
    """A class may have both; a copy from one to the other is a full one."""
    with thin_pool(group, 256) as settings:
        case = opened({"type": "thin"}, **settings)
        volume = case.create("data", BLOCK)
        before = case.write(volume, BLOCK, "data")
        taken = case.snapshot("snap", volume)
        with case.choosing({"type": "linear"}):
            copy = case.create("thick", BLOCK, source=ContentSource(SourceKind.SNAPSHOT, taken.handle))
        assert case.checksum(copy, BLOCK) == before
        back = case.create("back", BLOCK, source=ContentSource(SourceKind.VOLUME, copy.handle))
        assert case.checksum(back, BLOCK) == before
        assert sorted(volumes(group)) == sorted([lv_of(volume), lv_of(copy), lv_of(back), lv_of(taken), "pool"])


WRITER = """
import itertools, os, sys
files = [os.open(path, os.O_RDWR | os.O_CREAT) for path in sys.argv[1:]]
for number in itertools.count(1):
    for file in files:
        os.pwrite(file, number.to_bytes(4096, "big"), 0)
        os.fsync(file)
"""


def last_written(path: Path) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(4096), "big")


@contextmanager
def mounted(device: Path, path: Path, *options: str) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, device, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("mount", [False, True], ids=["block", "mount"])
@pytest.mark.parametrize("thin", [False, True], ids=["linear", "thin"])
def test_a_group_is_of_one_moment(opened: Open, group: str, tmp_path: Path, *, thin: bool, mount: bool) -> None:
    """A writer writes a number to one volume, then to the other: in the snapshots the first is never behind."""
    with ExitStack() as stack:
        settings = stack.enter_context(thin_pool(group, 256)) if thin else {}
        case = opened({"type": "thin"} if thin else {}, **settings)
        made = [case.create(name, BLOCK) for name in ("one", "two")]
        devices = [case.backend.attach_volume(case.attach_request(volume, BLOCK)).device for volume in made]
        targets = devices
        if mount:
            for number, device in enumerate(devices):
                subprocess.run(["mkfs.ext4", "-q", device], check=True)
                stack.enter_context(mounted(device, tmp_path / str(number)))
            targets = [tmp_path / str(number) / "file" for number in range(2)]
        writer = stack.enter_context(subprocess.Popen([sys.executable, "-c", WRITER, *map(str, targets)]))
        stack.callback(writer.kill)
        wait_for(lambda: targets[1].exists() and last_written(targets[1]) > 3)
        spec = GroupSnapshotSpec("group", tuple(volume.handle for volume in made))
        found = case.backend.create_group_snapshot(spec).value
        before = last_written(targets[1])
        wait_for(lambda: last_written(targets[1]) > before)  # writers go on
        writer.kill()
        writer.wait()
        of = {taken.volume_handle: taken for taken in found.snapshots}
        numbers = []
        for number, volume in enumerate(made):
            restored = case.restore(f"restored-{number}", BLOCK, of[volume.handle])
            device = case.backend.attach_volume(case.attach_request(restored, BLOCK)).device
            if mount:
                with mounted(device, tmp_path / "restored") as path:
                    numbers.append(last_written(path / "file"))
            else:
                numbers.append(last_written(device))
            case.backend.detach_volume(restored.handle)
        assert numbers[0] - numbers[1] in (0, 1), numbers
        assert numbers[1] <= before


def wait_for(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)
