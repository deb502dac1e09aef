"""CreateVolume on a pool of the layout extents that is nearly full, beside one of the layout images."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from backends.loop.database import PoolDatabase
from backends.loop.extents.segments import Label
from backends.loop.extents.space import Space
from backends.loop.records import Records
from benches.driver import CLIENTS, MIB, Driver
from benches.ratios import Bound, Findings
from benches.scale import SCALE
from benches.timing import alternate, milliseconds, p50
from csi_core._proto import csi_pb2 as pb

LARGEST_MIB = 32
"""Sizes are 1 MiB and more, the smaller the more often: powers of two with a random rest."""
FULL = 0.9
DELETED = 0.2
"""So many of the volumes are deleted again while the pool is filled, so that what is free lies in many places."""


@pytest.fixture(scope="module")
def packed_driver(directory: Path) -> Iterator[Driver]:
    """A server whose pool holds ``SCALE.volumes`` volumes and is 90 % full, all made through CreateVolume."""
    sizes = random.Random(1)
    wanted = [sizes.randrange(1, 2 << sizes.randrange(LARGEST_MIB.bit_length())) * MIB for _ in range(SCALE.volumes)]
    path = directory / "packed" / "pool"
    path.mkdir(parents=True)
    make_pool(path, extents=int(sum(wanted) / MIB / FULL))
    with Driver(directory / "packed", {"layout": "extents"}, provisioning="thick") as driver:
        fill(driver, wanted)
        yield driver


def make_pool(path: Path, extents: int) -> None:
    """A pool with one segment; sparse, since a volume's creation does not touch it."""
    database = PoolDatabase(path / "pool.db")
    label = Label(str(uuid4()), 0, MIB)
    segment = path / "segment"
    with segment.open("wb") as file:
        file.write(label.pack())
        file.truncate((extents + 1) * MIB)
    database.execute("INSERT INTO extent_pool VALUES (?, ?)", (label.pool_uuid, MIB))
    database.execute("INSERT INTO segment VALUES (0, ?, ?, 'ready')", (str(segment), extents))
    database.close()


def fill(driver: Driver, sizes_bytes: list[int]) -> None:
    """Create all of these; some of the first make room for the last."""

    def create(size_bytes: int) -> pb.Volume:
        try:
            return driver.create(size_bytes)
        except grpc.RpcError as error:  # no gap is as large as that any more
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
            return driver.create()

    later = int(len(sizes_bytes) * DELETED)
    with ThreadPoolExecutor(CLIENTS) as clients:
        volumes = list(clients.map(create, sizes_bytes[: len(sizes_bytes) - later]))
        gone = random.Random(2).sample(volumes, later)
        list(clients.map(driver.delete, gone))
        again = [volume.capacity_bytes for volume in gone] + sizes_bytes[len(sizes_bytes) - later :]
        list(clients.map(create, again))


def test_create(benchmark, packed_driver: Driver, large_driver: Driver, findings: Findings) -> None:
    """In turns: CreateVolume of 1 MiB, thick and packed, and thin as an image, each at as many volumes."""
    made: deque[tuple[Driver, object]] = deque()

    def create_on(which: Driver) -> None:
        made.append((which, which.create()))

    def delete_made() -> None:
        while made:
            which, volume = made.popleft()
            which.delete(volume)

    floors = {"images": lambda: create_on(large_driver), "no-op RPC": large_driver.probe}
    found = alternate(
        benchmark, lambda: create_on(packed_driver), floors, rounds=SCALE.rounds, after=delete_made, warm_up=20
    )
    findings.add(
        "create-extents",
        f"CreateVolume, layout extents, {FULL:.0%} full",
        found["subject"] / found["images"],
        Bound(high=1.3, gate_high=2.5),
        subject=f"p50 {milliseconds(found['subject'])} at {SCALE.volumes:,} volumes",
        floor=f"layout images p50 {milliseconds(found['images'])} at {SCALE.volumes:,} volumes",
    )
    share_of_the_allocator(packed_driver.pool, found["subject"], findings)


def share_of_the_allocator(pool: Path, create_s: float, findings: Findings) -> None:
    """What of a CreateVolume goes into finding a place, in the very pool."""
    database = PoolDatabase(pool / "pool.db")
    try:
        segments = [segment.extents for segment in Records(database).segments()]
        begin = time.perf_counter()
        space = Space("bench", database, MIB, segments)
        rebuild_s = time.perf_counter() - begin
    finally:
        database.close()
    figures = space.pool.statistics()

    def place() -> float:
        begin = time.perf_counter()
        with space.placed("v-x", MIB, MIB, 1) as taken:
            pass
        spent_s = time.perf_counter() - begin
        space.pool.free(*taken.runs[0])
        return spent_s

    allocator_s = p50([place() for _ in range(10 * SCALE.rounds)])
    findings.add(
        "extents-allocator-share",
        "Share of CreateVolume that finds the place",
        allocator_s / create_s,
        Bound(high=0.05, gate_high=0.2),
        subject=f"{allocator_s * 1e6:.3g} us of {milliseconds(create_s)}",
        note=f"{1 - figures['free_extents'] / figures['extents']:.1%} used, {figures['free_runs']:,} free runs; "
        f"the map is rebuilt at start in {rebuild_s * 1e3:.3g} ms",
    )
