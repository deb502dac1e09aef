"""Logical volumes through the driver, beside LVM's own commands by hand."""

from __future__ import annotations

import itertools
import statistics
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from populated import populate
from volume_group import lvm, volume_group

from benches.driver import MIB, WRITER, Driver
from benches.ratios import Bound, Findings
from benches.scale import FULL, SCALE
from benches.test_extents import make_pool
from benches.timing import alternate, milliseconds, timed
from csi_core._proto import csi_pb2 as pb
from csi_core.testing.devices import scratch_directory
from csi_core.testing.harness import ServerProcess, create_request

pytestmark = pytest.mark.needs_kernel("device-mapper")

MANY = 500
AT_ONCE = 16
ROUNDS = 40 if SCALE is FULL else 8
BURSTS = SCALE.bursts if SCALE is FULL else 1  # one takes twenty seconds in a guest
TAGS = [f"--addtag=csi.{name}=some-value-of-a-volume" for name in ("name", "made", "parameter", "blank")]


class LvmDriver:
    """A server over one volume group, and the group by hand."""

    def __init__(self, group: str, directory: Path) -> None:
        self.group = group
        self._numbers = itertools.count()
        self._made: deque[Callable[[], object]] = deque()
        config = {
            "driver": {"name": "lvm.bench.csi-core.dev", "nodeId": "bench-node"},
            "log": {"format": "json", "level": "warning"},
            "backends": {"lvm": {"options": {"classes": {"bench": {"volumeGroup": group}}}}},
        }
        self._server = ServerProcess(config, directory)

    def close(self) -> None:
        self._server.close()

    def probe(self) -> None:
        self._server.identity.Probe(pb.ProbeRequest())

    def create(self) -> None:
        request = create_request(f"pvc-{next(self._numbers)}", 4 * MIB, capability=WRITER)
        volume_id = self._server.controller.CreateVolume(request).volume.volume_id
        delete = pb.DeleteVolumeRequest(volume_id=volume_id)
        self._made.append(lambda: self._server.controller.DeleteVolume(delete))

    def lvcreate(self) -> None:
        """By hand what the driver asks for: an inactive LV with tags."""
        name = f"bare-{next(self._numbers)}"
        how = ("--activate=n", "--setactivationskip=y", "--zero=n", "--wipesignatures=n", "--type=linear")
        lvm("lvcreate", "-y", "-q", f"--name={name}", *TAGS, *how, f"--size={4 * MIB}b", self.group)
        self._made.append(lambda: lvm("lvremove", "-y", "-q", f"{self.group}/{name}"))

    def delete_made(self) -> None:
        while self._made:
            self._made.popleft()()

    def changed(self) -> None:
        """Somebody changes the group by hand: what the driver knows of it is outdated."""
        lvm("lvchange", "-q", f"--addtag=by-hand-{next(self._numbers)}", f"{self.group}/{self.some}")

    @property
    def some(self) -> str:
        return lvm("lvs", "--noheadings", "-o", "lv_name", self.group).split()[0]

    def report(self) -> None:
        lvm("lvs", "--reportformat", "json", "-o", "lv_name,lv_uuid,lv_size,lv_attr,lv_tags,pool_lv,origin", self.group)

    def capacity(self) -> None:
        assert self._server.controller.GetCapacity(pb.GetCapacityRequest()).available_capacity

    def page(self) -> None:
        assert len(self._server.controller.ListVolumes(pb.ListVolumesRequest()).entries) == MANY


@pytest.fixture(scope="module")
def lvm_driver(scratch_disks: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LvmDriver]:
    """An empty group."""
    with volume_group(scratch_disks[:1], "csi-bench", 7 << 30) as group:
        driver = LvmDriver(group, tmp_path_factory.mktemp("lvm"))
        yield driver
        driver.close()


@pytest.fixture(scope="module")
def many_driver(scratch_disks: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LvmDriver]:
    """A group of 500 volumes."""
    with volume_group(scratch_disks[1:2], "csi-many", 7 << 30, 16 * MIB) as group:
        driver = LvmDriver(group, tmp_path_factory.mktemp("many"))
        driver.create()
        populate(group, MANY - 1)
        yield driver
        driver.close()


@pytest.fixture(scope="module")
def packed_driver(scratch_disks: tuple[Path, ...]) -> Iterator[Driver]:
    """A pool of the layout extents, on a disk like that of the group."""
    disk = scratch_disks[2]
    subprocess.run(["mkfs.xfs", "-q", "-f", "-K", str(disk)], check=True)
    with scratch_directory() as directory:
        subprocess.run(["mount", str(disk), str(directory)], check=True)
        (directory / "packed" / "pool").mkdir(parents=True)
        make_pool(directory / "packed" / "pool", extents=4096)
        with Driver(directory / "packed", {"layout": "extents"}, provisioning="thick") as driver:
            yield driver


def test_create(benchmark, lvm_driver: LvmDriver, packed_driver: Driver, findings: Findings) -> None:
    """A linear volume: one lvcreate, and little around it."""
    floors = {"lvcreate": lvm_driver.lvcreate, "extents": lambda: packed_driver.create(4 * MIB)}
    found = alternate(benchmark, lvm_driver.create, floors, rounds=ROUNDS, after=lvm_driver.delete_made, warm_up=2)
    measured = f"p50 {milliseconds(found['subject'])}"
    findings.add(
        "lvm-create",
        "LVM: CreateVolume, linear",
        found["subject"] / found["lvcreate"],
        Bound(high=1.15, gate_high=2.3),
        subject=measured,
        floor=f"bare lvcreate {milliseconds(found['lvcreate'])}",
    )
    findings.add(
        "lvm-create-extents",
        "LVM: CreateVolume beside loop's layout extents",
        found["subject"] / found["extents"],
        Bound(low=1.0),
        subject=measured,
        floor=f"layout extents, same kind of disk, {milliseconds(found['extents'])}",
    )


@pytest.mark.parametrize("call", ["GetCapacity", "ListVolumes"])
def test_reading(benchmark, call: str, many_driver: LvmDriver, findings: Findings) -> None:
    """With a report that is outdated, and with a fresh one."""
    read = {"GetCapacity": many_driver.capacity, "ListVolumes": many_driver.page}[call]
    fresh_s: list[float] = []
    floors = {
        "report": many_driver.report,
        "no-op RPC": many_driver.probe,
        "fresh": lambda: fresh_s.append(timed(read)),
    }
    many_driver.changed()
    read()
    found = alternate(benchmark, read, floors, rounds=ROUNDS, before=many_driver.changed, warm_up=2)
    key = call.lower()
    findings.add(
        f"lvm-{key}-cold",
        f"LVM: {call} at {MANY} LVs, after a change",
        found["subject"] / found["report"],
        Bound(high=1.2, gate_high=2.4),
        subject=f"p50 {milliseconds(found['subject'])}",
        floor=f"bare lvs {milliseconds(found['report'])}",
    )
    findings.add(
        f"lvm-{key}-fresh",
        f"LVM: {call} at {MANY} LVs, nothing changed",
        found["fresh"] / found["no-op RPC"],
        Bound(high=2.0, gate_high=4.0),
        subject=f"p50 {milliseconds(found['fresh'])}",
        floor=f"no-op RPC {milliseconds(found['no-op RPC'])}",
    )


def test_many_creates_at_once(benchmark, lvm_driver: LvmDriver, findings: Findings) -> None:
    """LVM takes one command after the other; the driver must not add to the queue."""

    def burst_s(call: Callable[[], object]) -> float:
        with ThreadPoolExecutor(AT_ONCE) as clients:
            spent_s = timed(lambda: list(clients.map(lambda _: call(), range(AT_ONCE))))
        lvm_driver.delete_made()
        return spent_s

    bare, driven = [], []

    def pair() -> None:
        bare.append(burst_s(lvm_driver.lvcreate))
        driven.append(burst_s(lvm_driver.create))

    benchmark.pedantic(pair, rounds=BURSTS, warmup_rounds=SCALE is FULL)
    findings.add(
        "lvm-create-many",
        f"LVM: {AT_ONCE} creates at once",
        statistics.median(floor / subject for floor, subject in zip(bare, driven, strict=True)),
        Bound(low=0.9, gate_low=0.45),
        subject=f"{AT_ONCE / statistics.median(driven):.3g} a second",
        floor=f"bare lvcreate {AT_ONCE / statistics.median(bare):.3g} a second",
    )
