"""The same calls when the pool is full of volumes; memory and start."""

from __future__ import annotations

from collections import deque

from benches.driver import Driver
from benches.ratios import Bound, Findings
from benches.scale import SCALE
from benches.timing import alternate, milliseconds

SMALL_VOLUMES = 100
PAGE_ENTRIES = 1000
AT_SCALE = f"{SCALE.volumes:,} volumes"


def test_create(benchmark, driver: Driver, large_driver: Driver, findings: Findings) -> None:
    """CreateVolume on the full pool, in turns with one on a pool of 100 volumes."""
    _keep(driver, SMALL_VOLUMES)
    made: deque[tuple[Driver, object]] = deque()

    def create_on(which: Driver) -> None:
        made.append((which, which.create()))

    def delete_made() -> None:
        while made:
            which, volume = made.popleft()
            which.delete(volume)

    floors = {"small pool": lambda: create_on(driver)}
    found = alternate(
        benchmark, lambda: create_on(large_driver), floors, rounds=SCALE.rounds, after=delete_made, warm_up=20
    )
    findings.add(
        "create-at-scale",
        f"CreateVolume at {AT_SCALE}",
        found["subject"] / found["small pool"],
        Bound(high=1.2, gate_high=2.5),
        subject=f"p50 {milliseconds(found['subject'])}",
        floor=f"p50 {milliseconds(found['small pool'])} at {SMALL_VOLUMES} volumes",
    )


def test_capacity(benchmark, large_driver: Driver, findings: Findings) -> None:
    found = alternate(
        benchmark, large_driver.capacity, {"no-op RPC": large_driver.probe}, rounds=SCALE.rounds, warm_up=20
    )
    findings.add(
        "capacity-at-scale",
        f"GetCapacity at {AT_SCALE}",
        found["subject"] / found["no-op RPC"],
        Bound(high=1.5, gate_high=3.0),
        subject=f"p50 {milliseconds(found['subject'])}",
        floor=f"no-op RPC {milliseconds(found['no-op RPC'])}",
    )


def test_list(benchmark, large_driver: Driver, findings: Findings) -> None:
    """A page of 1,000, from everywhere in the list."""
    tokens = [""]
    while next_token := large_driver.page(tokens[-1], PAGE_ENTRIES).next_token:
        tokens.append(next_token)
    pages = iter(tokens * SCALE.rounds)
    found = alternate(
        benchmark, lambda: large_driver.page(next(pages), PAGE_ENTRIES), {}, rounds=min(SCALE.rounds, 100), warm_up=2
    )
    findings.add(
        "list-page",
        f"ListVolumes, {PAGE_ENTRIES} of {AT_SCALE}",
        found["subject"] * 1e3,
        Bound(high=40),
        unit="ms",
        subject=f"p50 over {len(tokens)} different pages",
    )


def test_memory_and_start(large_driver: Driver, findings: Findings) -> None:
    findings.add(
        "memory-at-scale",
        f"Server memory at {AT_SCALE}",
        large_driver.resident_mib(),
        Bound(high=200),
        unit="MiB",
        subject="resident, after creating them all and all of the above",
    )
    findings.add(
        "start-at-scale",
        f"Server start at {AT_SCALE}",
        large_driver.restart_s(),
        Bound(high=3.0),
        unit="s",
        subject="from spawning the process until Probe says ready",
    )


def _keep(driver: Driver, volumes: int) -> None:
    """Bring the pool to this many volumes."""
    found = []
    token = ""
    while True:
        page = driver.page(token)
        found += [entry.volume for entry in page.entries]
        token = page.next_token
        if not token:
            break
    for volume in found[volumes:]:
        driver.delete(volume)
    for _ in range(volumes - len(found)):
        driver.create()
