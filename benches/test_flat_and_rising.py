"""CreateVolume as a packed pool fills, and bare lvcreate as a volume group fills: one line is flat, one rises.

All in one kernel, on the same kind of disk, in turns. Each lvcreate reads, checks and writes the metadata of all LVs;
the layout extents knows its free extents from memory, and commits some rows of a database.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from populated import populate
from volume_group import lvm

from backends.loop.database import PoolDatabase, Row
from backends.loop.records import VolumeRecord, dump, now_us, row_of
from benches.driver import MIB, Driver
from benches.lines import short
from benches.ratios import Bound, Findings
from benches.scale import FULL, SCALE
from benches.test_extents import LARGEST_MIB, make_pool
from benches.timing import milliseconds, p50, timed
from csi_core.testing.devices import scratch_directory

pytestmark = pytest.mark.needs_kernel("device-mapper")

VOLUMES = (10, 1_000, 10_000, 100_000) if SCALE is FULL else (10, 1_000)
LVS = (10, 1_000, 10_000) if SCALE is FULL else (10, 300)
ROUNDS = 7 if SCALE is FULL else 3
CREATES = 10 if SCALE is FULL else 5
GAP_EVERY = 10
"""So many volumes in a row, and a gap as long as another: 90 % full, and what is free lies in many places."""
SPARE_EXTENTS = 64
LV_KIB = 64
METADATA_BYTES = 64 * MIB
TAGS = [f"--addtag=csi.{name}=some-value-of-a-volume" for name in ("name", "made", "parameter")]


def fill(pool: Path, volumes: int) -> None:
    """Make a pool of ``volumes`` volumes, by the rows that CreateVolume would have written."""
    chosen = random.Random(volumes)
    recorded, now = dump({"provisioning": "thick"}), now_us()
    rows, begin = [], 0
    for number in range(volumes):
        size_mib = chosen.randrange(1, 2 << chosen.randrange(LARGEST_MIB.bit_length()))
        size_bytes = size_mib * MIB
        begin += size_mib * (number % GAP_EVERY == 0)
        key = f"v-{chosen.getrandbits(80):020x}"
        record = VolumeRecord(
            key, f"pvc-{key}", "promised", size_bytes, True, size_bytes, "", "", "", recorded, now + number
        )
        rows += [row_of(record), Row("run", (key, 0, 0, begin, size_mib))]
        begin += size_mib
    make_pool(pool, begin + SPARE_EXTENTS)
    database = PoolDatabase(pool / "pool.db")
    database.insert(rows)
    database.close()


@pytest.fixture(scope="module")
def drivers(scratch_disks: tuple[Path, ...]) -> Iterator[dict[int, Driver]]:
    """By the number of volumes in its pool, a server; all pools lie on one disk."""
    disk = scratch_disks[4]
    subprocess.run(["mkfs.xfs", "-q", "-f", "-K", str(disk)], check=True)
    with ExitStack() as stack:
        stack.callback(wipe, disk)
        directory = stack.enter_context(scratch_directory())
        subprocess.run(["mount", str(disk), str(directory)], check=True)
        found = {}
        for volumes in VOLUMES:
            pool = directory / str(volumes) / "pool"
            pool.mkdir(parents=True)
            fill(pool, volumes)
            found[volumes] = stack.enter_context(Driver(pool.parent, {"layout": "extents"}, provisioning="thick"))
        yield found


@contextmanager
def group_of(count: int, disk: Path) -> Iterator[Callable[[], float]]:
    """A group of so many inactive LVs; answers how long one more takes, which is removed again."""
    lvm("pvcreate", "-y", "-ff", f"--metadatasize={METADATA_BYTES}b", str(disk))
    lvm("vgcreate", f"--physicalextentsize={LV_KIB}k", "csi-rises", str(disk))
    how = ("lvcreate", "-y", "-an", "-Zn", "--extents=1", *TAGS)

    def lvcreate() -> float:
        spent_s = timed(lambda: lvm(*how, "--name=next", "csi-rises"))
        lvm("lvremove", "-y", "-q", "csi-rises/next")
        return spent_s

    try:
        lvm(*how, "--name=template", "csi-rises")
        populate("csi-rises", count - 1)
        yield lvcreate
    finally:  # no LV was ever active, so the labels are all there is to take away
        wipe(disk)


def wipe(disk: Path) -> None:
    subprocess.run(["wipefs", "--quiet", "--all", str(disk)], check=True)


def test_creates_as_pool_and_group_fill(
    drivers: dict[int, Driver], scratch_disks: tuple[Path, ...], findings: Findings
) -> None:
    """In turns: each round has one lvcreate and some CreateVolume on every pool."""
    creates_s: dict[int, list[float]] = {volumes: [] for volumes in VOLUMES}
    lvcreates_s: dict[int, list[float]] = {lvs: [] for lvs in LVS}
    create_on_each(drivers)  # throws the first away
    for lvs, spent_s in lvcreates_s.items():
        with group_of(lvs, scratch_disks[5]) as lvcreate:
            for _ in range(ROUNDS):
                spent_s.append(lvcreate())
                for volumes, more_s in create_on_each(drivers).items():
                    creates_s[volumes] += more_s
    flat = {volumes: p50(spent_s) for volumes, spent_s in creates_s.items()}
    rising = {lvs: p50(spent_s) for lvs, spent_s in lvcreates_s.items()}
    findings.add(
        "extents-flat",
        f"CreateVolume, extents, at {VOLUMES[-1]:,} volumes beside {VOLUMES[0]}",
        flat[VOLUMES[-1]] / flat[VOLUMES[0]],
        Bound(high=1.2, gate_high=2.5),
        subject=said(flat),
        floor=f"p50 {milliseconds(flat[VOLUMES[0]])} at {VOLUMES[0]}",
        note="the pools' records were written into pool.db, all but those of the volumes that are timed",
        plot={
            "title": "CreateVolume as a pool fills, lvcreate as a volume group fills",
            "how": "in one kernel on the same kind of disk, in turns; pools 90 % full; lvcreate -an -Zn of 64 KiB",
            "x": "volumes in the pool, or LVs in the group",
            "y": "p50 in ms",
            "lines": {
                "CreateVolume, layout extents": [[count, flat[count] * 1e3] for count in flat],
                "bare lvcreate": [[count, rising[count] * 1e3] for count in rising],
            },
        },
    )
    findings.add(
        "lvcreate-rising",
        f"Bare lvcreate at {LVS[-1]:,} LVs beside {LVS[0]}",
        rising[LVS[-1]] / rising[LVS[0]],
        Bound(low=1.0),
        subject=said(rising),
        floor=f"p50 {milliseconds(rising[LVS[0]])} at {LVS[0]}",
        note="the groups' metadata were written by vgcfgrestore; the start of the process is included",
    )


def create_on_each(drivers: dict[int, Driver]) -> dict[int, list[float]]:
    """Some creates on every pool, one after the other, whose volumes are deleted again; seconds of each."""
    found: dict[int, list[float]] = {volumes: [] for volumes in drivers}
    for _ in range(CREATES):
        for volumes, driver in drivers.items():
            begin = time.perf_counter()
            volume = driver.create()
            found[volumes].append(time.perf_counter() - begin)
            driver.delete(volume)
    return found


def said(p50_s: dict[int, float]) -> str:
    return "p50 " + "; ".join(f"{short(value * 1e3)} ms at {count:,}" for count, value in p50_s.items())
