"""Stage and publish, beside mkfs, losetup and mount by hand; and I/O on both."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benches.driver import MIB, WRITER, Driver
from benches.fio import in_turns
from benches.floors import HandMount
from benches.ratios import Bound, Findings
from benches.scale import SCALE
from benches.timing import alternate, milliseconds
from csi_core._proto import csi_pb2 as pb
from csi_core.node.mkfs_options import mkfs_command

SIZE_BYTES = 1024 * MIB
MKFS = mkfs_command("ext4", "", (), keep_allocated=False, label="by-hand")[:-1]
"""As the driver runs it."""


class Published:
    """A volume from creation to publication, and back."""

    def __init__(self, driver: Driver, name: str) -> None:
        self._driver = driver
        self._staging_path = driver.directory / f"{name}-staging"
        self.path = driver.directory / f"{name}-target"
        self._volume = pb.Volume()

    def create(self) -> None:
        self._volume = self._driver.create(SIZE_BYTES)
        self._staging_path.mkdir()

    def stage_and_publish(self) -> None:
        staged = pb.NodeStageVolumeRequest(
            volume_id=self._volume.volume_id,
            staging_target_path=str(self._staging_path),
            volume_capability=WRITER,
            volume_context=self._volume.volume_context,
        )
        published = pb.NodePublishVolumeRequest(
            volume_id=self._volume.volume_id,
            staging_target_path=str(self._staging_path),
            target_path=str(self.path),
            volume_capability=WRITER,
            volume_context=self._volume.volume_context,
        )
        self._driver.node.NodeStageVolume(staged)
        self._driver.node.NodePublishVolume(published)

    def remove(self) -> None:
        volume_id, node = self._volume.volume_id, self._driver.node
        node.NodeUnpublishVolume(pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(self.path)))
        unstage = pb.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(self._staging_path))
        node.NodeUnstageVolume(unstage)
        self._staging_path.rmdir()
        self._driver.delete(self._volume)


def test_stage_and_publish(benchmark, driver: Driver, directory: Path, findings: Findings) -> None:
    numbers = itertools.count()
    volume = Published(driver, "timed")

    def by_hand() -> None:
        nonlocal hand
        hand.make()

    def before() -> None:
        """The floor has just been timed: take it down, and make the volume that is timed next."""
        nonlocal hand
        hand.remove()
        hand = HandMount(directory, f"hand-{next(numbers)}", SIZE_BYTES, MKFS)
        volume.create()

    hand = HandMount(directory, f"hand-{next(numbers)}", SIZE_BYTES, MKFS)
    found = alternate(
        benchmark,
        volume.stage_and_publish,
        {"by hand": by_hand},
        rounds=SCALE.heavy_rounds,
        before=before,
        after=volume.remove,
        warm_up=2,
    )
    findings.add(
        "stage-publish",
        "Stage and publish, 1 GiB ext4",
        found["subject"] / found["by hand"],
        Bound(high=1.3, gate_high=2.6),
        subject=f"p50 {milliseconds(found['subject'])}",
        floor=f"losetup, mkfs, mount by hand {milliseconds(found['by hand'])}",
    )


JOBS = {
    "random-write": (
        "4 KiB random writes",
        ["rw=randwrite", "norandommap", "bs=4k", "iodepth=16", "io_size=16m"],
        "iops",
    ),
    "sequential-write": ("1 MiB sequential writes", ["rw=write", "bs=1m", "iodepth=4", "io_size=256m"], "bw_bytes"),
}


@pytest.mark.parametrize("key", JOBS)
def test_io(benchmark, key: str, driver: Driver, directory: Path, findings: Findings) -> None:
    """fio on a published volume in turns with fio on a mount made by hand."""
    title, options, measure = JOBS[key]
    options = [*options, "ioengine=libaio", f"size={SCALE.fio_size_mib}m"]
    with _both(driver, directory, key) as (published, hand):
        pairs = benchmark.pedantic(lambda: in_turns(published, hand, options, measure, SCALE.fio_pairs), rounds=1)
    scale, unit = (1, "IOPS") if measure == "iops" else (MIB, "MiB/s")
    findings.add(
        f"fio-{key}",
        f"fio, {title}",
        statistics.median(our / their for our, their in pairs),
        Bound(low=0.95, high=1.05, gate_low=0.5),
        subject=f"{statistics.median(our for our, _ in pairs) / scale:,.0f} {unit}",
        floor=f"{statistics.median(their for _, their in pairs) / scale:,.0f} {unit} on a loop mount made by hand",
        note=f"direct I/O, libaio, on laid-out files; the ratio is the median over {len(pairs)} pairs of short runs",
    )


@contextmanager
def _both(driver: Driver, directory: Path, key: str) -> Iterator[tuple[Path, Path]]:
    published, hand = Published(driver, f"fio-{key}"), HandMount(directory, f"fio-{key}", SIZE_BYTES, MKFS)
    published.create()
    published.stage_and_publish()
    hand.make()
    try:
        yield published.path, hand.path
    finally:
        published.remove()
        hand.remove()
