"""CreateVolume on the loop backend: one at a time, and 32 at once."""

from __future__ import annotations

import statistics

from benches.driver import CLIENTS, Driver
from benches.floors import CommitFloor
from benches.ratios import Bound, Findings
from benches.scale import SCALE
from benches.timing import alternate, milliseconds


def test_one_at_a_time(benchmark, driver: Driver, commit_floor: CommitFloor, findings: Findings) -> None:
    """Durable: the answer comes after the commit."""
    floors = {"no-op RPC": driver.probe, "commit": commit_floor.commit}
    found = alternate(benchmark, driver.create, floors, rounds=SCALE.rounds, warm_up=30)
    floor_s = found["no-op RPC"] + found["commit"]
    findings.add(
        "create-one",
        "CreateVolume, one at a time",
        found["subject"] / floor_s,
        Bound(high=2.0, gate_high=4.0),
        subject=f"p50 {milliseconds(found['subject'])}",
        floor=f"no-op RPC {milliseconds(found['no-op RPC'])} + commit {milliseconds(found['commit'])}",
    )


def test_many_at_once(benchmark, driver: Driver, findings: Findings) -> None:
    """Throughput with 32 clients, beside that of the no-op RPC with the same clients."""
    driver.burst(driver.probe, SCALE.burst // 4)
    creates, probes = [], []

    def pair() -> None:
        probes.append(driver.burst(driver.probe, SCALE.burst))
        creates.append(driver.burst(driver.create, SCALE.burst))

    benchmark.pedantic(pair, rounds=SCALE.bursts)
    create_rate, probe_rate = statistics.median(creates), statistics.median(probes)
    findings.add(
        "create-many",
        f"CreateVolume, {CLIENTS} at once",
        statistics.median(create / probe for create, probe in zip(creates, probes, strict=True)),
        Bound(low=0.5, gate_low=0.2),
        subject=f"{create_rate:.0f} a second",
        floor=f"no-op RPC {probe_rate:.0f} a second",
        note=f"the {CLIENTS} clients are threads of one Python process on the same cores as the server",
    )
