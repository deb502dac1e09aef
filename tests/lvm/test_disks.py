"""Disks that fail, a thin pool that is full: what is written stays, and health says what is wrong."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from group_case import BLOCK, lv_of
from volume_group import MIB, dmsetup, lvm, volume_group, volumes

from backends.lvm.plugin import LvmBackend
from csi_core.errors import NoSpace, Unavailable
from csi_core.health import HealthKind
from csi_core.model import CapacityQuery, Volume
from csi_core.testing.contract import BackendCase

pytestmark = pytest.mark.needs_kernel("device-mapper")
SIZE = 32 * MIB
DISK_BYTES = 512 * MIB
OFFSET_BYTES = 16 * MIB
METADATA_BYTES = 8 * MIB
SETTLE_S = 20.0
FILL_IS_KNOWN_FOR_S = 1.5
"""The ledger asks how full a pool is once a second at most."""


@dataclass(frozen=True)
class Leg:
    """A disk that can be made to fail."""

    name: str
    disk: Path

    @property
    def path(self) -> Path:
        return Path("/dev/mapper", self.name)

    @property
    def start(self) -> str:
        """Past the disk's beginning, where LVM would find the same label a second time."""
        return f"{self.disk} {OFFSET_BYTES // 512}"

    def becomes(self, target: str) -> None:
        """Change what it does; ``target`` as in a device-mapper table."""
        self._becomes(f"0 {DISK_BYTES // 512} {target}")

    def _becomes(self, table: str) -> None:
        dmsetup("suspend", "--nolockfs", "--noflush", self.name)
        dmsetup("reload", self.name, "--table", table)
        dmsetup("resume", self.name)

    def works(self) -> None:
        self.becomes(f"linear {self.start}")

    def takes_no_data(self) -> None:
        """It can be read, and its beginning be written, with LVM's metadata and a mirror's; all else is an error."""
        first, offset = METADATA_BYTES // 512, OFFSET_BYTES // 512
        self._becomes(
            f"0 {first} linear {self.start}\n"
            f"{first} {DISK_BYTES // 512 - first} flakey {self.disk} {offset + first} 0 86400 1 error_writes"
        )

    def fails(self) -> None:
        """Every read and write is an error."""
        self.becomes(f"flakey {self.start} 0 86400")


@pytest.fixture
def legs(scratch_disks: tuple[Path, ...]) -> Iterator[tuple[Leg, Leg]]:
    """Two disks."""
    made = tuple(Leg(f"csi-leg-{number}", disk) for number, disk in enumerate(scratch_disks[:2]))
    for leg in made:
        dmsetup("create", leg.name, "--table", f"0 {DISK_BYTES // 512} linear {leg.start}")
    yield made
    for leg in made:
        leg.works()
        dmsetup("remove", "--retry", leg.name)


def opened(parameters: dict[str, str], **settings: object) -> BackendCase:
    """A backend on the group."""
    options = {"classes": {"main": {"volumeGroup": "csi-disks", **settings}}}
    return BackendCase(lambda: LvmBackend(options), parameters=parameters, size_bytes=SIZE)


@contextmanager
def volume_group_on(legs: tuple[Leg, ...]) -> Iterator[str]:
    with volume_group([leg.path for leg in legs], "csi-disks", DISK_BYTES - 16 * MIB) as name:
        try:
            yield name
        finally:
            for leg in legs:
                leg.works()


def health(case: BackendCase, volume: Volume, kind: HealthKind) -> str:
    """Wait until the volume's health says ``kind``; the reason."""
    ends_at = time.monotonic() + SETTLE_S
    while True:
        problems = case.backend.volume_health(volume.handle)
        if found := [problem.reason for problem in problems if problem.kind is kind]:
            return found[0]
        assert time.monotonic() < ends_at, f"health says {problems}"
        time.sleep(0.2)


def test_a_mirror_survives_the_loss_of_a_disk(legs: tuple[Leg, Leg]) -> None:
    with volume_group_on(legs), opened({"type": "raid1"}) as case:
        volume = case.create("data", BLOCK)
        assert case.backend.volume_health(volume.handle) == ()
        with case.attached(volume, BLOCK) as content:
            content.write("before")
            before = content.checksum()
            legs[1].fails()
            assert content.checksum() == before
            content.write("after")
            after = content.checksum()
            assert health(case, volume, HealthKind.DEGRADED) == "MirrorDegraded"
            assert content.checksum() == after
        assert case.checksum(volume, BLOCK) == after, "attached anew with one disk"
        case.reopen()
        assert [problem.reason for problem in case.backend.storage_health()] == ["PhysicalVolumeMissing"]
        assert health(case, volume, HealthKind.DEGRADED)


def test_a_mirror_is_wiped_on_both_disks_or_not_removed(legs: tuple[Leg, Leg]) -> None:
    """A disk that takes no writes would keep the data, for whoever creates next once it works again."""
    with volume_group_on(legs), opened({"type": "raid1"}) as case:
        volume = case.create("data", BLOCK)
        case.write(volume, BLOCK, "data")
        legs[1].takes_no_data()
        with pytest.raises(Unavailable, match="wiped"):
            case.delete(volume)
        legs[1].works()
        case.delete(volume)
        assert volumes("csi-disks") == {}


def test_a_mirror_reads_around_bad_blocks(legs: tuple[Leg, Leg]) -> None:
    with volume_group_on(legs), opened({"type": "raid1"}) as case:
        volume = case.create("data", BLOCK)
        written = case.write(volume, BLOCK, "data")
        legs[0].becomes(f"dust {legs[0].start} 512")
        for sector in range(MIB // 512, (MIB + SIZE) // 512, 4096):
            dmsetup("message", legs[0].name, "0", "addbadblock", str(sector))
        dmsetup("message", legs[0].name, "0", "enable")
        assert case.checksum(volume, BLOCK) == written


def test_a_disk_that_has_gone(scratch_disks: tuple[Path, ...]) -> None:
    """Of a mirror one leg: the data is whole, and health says so. Nothing new is made, and a retry may succeed."""
    with volume_group(scratch_disks[4:6], "csi-mirror", 512 * MIB) as group:
        options = {"classes": {"main": {"volumeGroup": group}}}
        with BackendCase(lambda: LvmBackend(options), parameters={"type": "raid1"}, size_bytes=16 * MIB) as case:
            volume = case.create("data", BLOCK)
            before = case.write(volume, BLOCK, "data")
            with case.attached(volume, BLOCK):
                wait_until_synced(group, lv_of(volume))
            with scratch_disks[5].open("r+b") as disk:
                disk.write(bytes(MIB))
                os.fsync(disk.fileno())
            case.reopen()
            assert case.checksum(volume, BLOCK) == before
            (problem,) = case.backend.volume_health(volume.handle)
            assert (problem.kind, problem.reason) == (HealthKind.DEGRADED, "MirrorDegraded")
            assert {p.reason for p in case.backend.storage_health()} == {"PhysicalVolumeMissing"}
            with pytest.raises((Unavailable, NoSpace)):
                case.create("more", BLOCK)
            query = CapacityQuery(case.spec("any", BLOCK).parameters, (case.capability(BLOCK),))
            assert case.backend.get_capacity(query).available_bytes == 0, "none is promised what is refused"
            with pytest.raises(Unavailable, match="wiped"):
                case.delete(volume)  # its data is on the disk that may be back
            lvm("vgreduce", "--removemissing", "--force", group)
            assert case.checksum(volume, BLOCK) == before
            case.delete(volume)
            assert volumes(group) == {}


def wait_until_synced(group: str, lv: str) -> None:
    """Until both legs of a mirror hold the same."""
    ends_at = time.monotonic() + 30
    while float(volumes(group, "lv_name,copy_percent")[lv]["copy_percent"]) < 100:
        assert time.monotonic() < ends_at
        time.sleep(0.2)


def test_a_disk_without_a_mirror_is_not_kept_quiet(legs: tuple[Leg, Leg]) -> None:
    """The volume on it is inaccessible, and the one on the other disk is not touched."""
    with volume_group_on(legs), opened({}) as case:
        filling = case.create("filling", BLOCK, DISK_BYTES - 32 * MIB)
        lost = case.create("lost", BLOCK, 64 * MIB)
        written = case.write(filling, BLOCK, "data")
        legs[1].fails()
        case.reopen()
        assert health(case, lost, HealthKind.INACCESSIBLE) == "PhysicalVolumeMissing"
        assert any(problem.reason == "PhysicalVolumeMissing" for problem in case.backend.storage_health())
        assert case.backend.volume_health(filling.handle) == ()
        assert case.checksum(filling, BLOCK) == written


@contextmanager
def full_pool(legs: tuple[Leg, Leg], when_full: str) -> Iterator[tuple[BackendCase, Path, list[Volume]]]:
    """A thin pool of 64 MiB with two attached volumes of 48 MiB: the case, the first one's device, both."""
    with volume_group_on(legs) as group:
        lvm("lvcreate", "-y", "--type=thin-pool", "-L", "64m", "--poolmetadatasize=8m", "-n", "pool", group)
        if when_full == "fail":
            lvm("lvchange", "--errorwhenfull", "y", f"{group}/pool")
        with opened({"type": "thin"}, thinPools={"pool": {"overcommit": 4}}) as case:
            made = [case.create(name, BLOCK, 48 * MIB) for name in ("one", "two")]
            first, second = (case.backend.attach_volume(case.attach_request(volume, BLOCK)) for volume in made)
            assert fill(first.device, 40) == 0
            yield case, second.device, made


def writer(device: Path, size_mib: int) -> subprocess.Popen[bytes]:
    argv = ["dd", "if=/dev/urandom", f"of={device}", "bs=1M", f"count={size_mib}", "oflag=direct", "conv=fsync"]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def fill(device: Path, size_mib: int) -> int:
    """Write so many MiB durably; the exit status."""
    return writer(device, size_mib).wait()


def enlarge() -> None:
    """More room for the pool, by hand; and wait until the driver looks at it again."""
    lvm("lvextend", "-L", "256m", "csi-disks/pool")
    time.sleep(FILL_IS_KNOWN_FOR_S)


def refuses(case: BackendCase) -> None:
    """Nothing more is admitted, and health and capacity say so, once the driver looks at the pool again."""
    time.sleep(FILL_IS_KNOWN_FOR_S)
    with pytest.raises(NoSpace):
        case.create("three", BLOCK, 4 * MIB)
    query = CapacityQuery(case.spec("any", BLOCK).parameters, (case.capability(BLOCK),))
    assert case.backend.get_capacity(query).available_bytes == 0
    assert any(problem.reason == "ThinPoolDataFull" for problem in case.backend.storage_health())


def test_a_full_pool_that_fails_writes(legs: tuple[Leg, Leg]) -> None:
    with full_pool(legs, "fail") as (case, device, made):
        written = case.checksum(made[0], BLOCK)
        assert fill(device, 44) != 0, "a write that has no room fails, and nobody is told that it is durable"
        refuses(case)
        assert case.checksum(made[0], BLOCK) == written, "what was there before is not touched"
        enlarge()
        case.backend.attach_volume(case.attach_request(made[1], BLOCK))
        assert fill(device, 44) == 0
        case.create("three", BLOCK, 4 * MIB)


def test_a_full_pool_that_queues_writes(legs: tuple[Leg, Leg]) -> None:
    with full_pool(legs, "queue") as (case, device, _):
        waiting = writer(device, 44)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(5)
        refuses(case)
        enlarge()
        assert waiting.wait(60) == 0, "it went on when there was room"
        case.create("three", BLOCK, 4 * MIB)
