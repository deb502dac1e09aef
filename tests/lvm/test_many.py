"""How many processes calls start: with five hundred volumes a report where something has changed, else none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from group_case import BLOCK, Open
from populated import populate
from volume_group import MIB, lvm, volume_group

from backends.lvm.plugin import LvmBackend
from csi_core.model import CapacityQuery, SizeRange, Volume
from csi_core.run import spawned
from csi_core.testing.contract import BackendCase

pytestmark = pytest.mark.needs_kernel("device-mapper")
MANY = 500


@pytest.fixture(scope="module")
def many(scratch_disks: tuple[Path, ...]) -> Iterator[str]:
    """A group of 500 volumes."""
    with volume_group(scratch_disks[3:4], "csi-many", 4 << 30) as group:
        with opened_on(group) as case:
            case.create("template", BLOCK, 4 * MIB)
        populate(group, MANY - 1)
        yield group


def opened_on(group: str) -> BackendCase:
    return BackendCase(lambda: LvmBackend({"classes": {"main": {"volumeGroup": group}}}), size_bytes=4 * MIB)


def processes(call: Callable[[], object]) -> int:
    """How many processes a call starts."""
    before = sum(spawned().values())
    call()
    return sum(spawned().values()) - before


def capacity(case: BackendCase) -> int:
    query = CapacityQuery(case.spec("any", BLOCK).parameters, (case.capability(BLOCK),))
    return case.backend.get_capacity(query).available_bytes


def test_reading_costs_one_report_until_the_group_changes(many: str, record_property) -> None:
    case = opened_on(many)
    try:
        case.reopen()
        volumes = case.volumes()
        assert len(volumes) == MANY
        reads: dict[str, Callable[[], object]] = {
            "list": case.volumes,
            "list in pages": lambda: case.volumes(limit=50),
            "get": lambda: case.backend.get_volume(volumes[0].handle),
            "find by name": lambda: case.backend.find_volume("many-7"),
            "capacity": lambda: capacity(case),
            "source": lambda: case.backend.find_source(volumes[0].handle),
            "health": lambda: case.backend.volume_health(volumes[0].handle),
            "snapshots": case.snapshots,
        }
        assert {name: processes(read) for name, read in reads.items()} == dict.fromkeys(reads, 0)
        for name, read in reads.items():
            if name == "source":
                continue  # asks the kernel, never LVM
            lvm("lvchange", "--addtag", f"by-hand-{hash(name) % 1000}", f"{many}/{lv(many)}")
            assert processes(read) == 1, f"{name}: one report after a change by hand"
            assert processes(read) == 0
        record_property("detail", f"{MANY} LVs: {len(reads)} reads, one report after a change, none otherwise")
    finally:
        case.backend.stop()


def test_changing_costs_one_command_each(many: str) -> None:
    case = opened_on(many)
    try:
        case.volumes()
        made = []
        assert processes(lambda: made.append(case.create("one-more", BLOCK))) == 1, "lvcreate, tags and all"
        case.volumes()
        handle = made[0].handle
        assert processes(lambda: case.backend.expand_volume(handle, SizeRange(8 * MIB))) <= 2, "lvextend, and a report"
        case.volumes()
        assert processes(lambda: case.delete(made[0])) <= 2, "never attached: lvremove, and a report"
        assert len(case.volumes()) == MANY
    finally:
        case.backend.stop()


def test_reads_start_no_process(opened: Open, group: str) -> None:
    """A report for each state of the group, however many volumes and calls; a create is one command."""
    case = opened()
    assert processes(lambda: case.create("data-0", BLOCK)) <= 2, "the first may need a report for the size of an extent"
    made: list[Volume] = []
    for number in range(1, 5):
        assert processes(lambda name=f"data-{number}": made.append(case.create(name, BLOCK))) == 1, "lvcreate"
    for volume in made:
        case.backend.attach_volume(case.attach_request(volume, BLOCK))
    case.volumes()

    def read() -> None:
        assert len(case.volumes()) == 5
        for volume in made:
            assert case.backend.get_volume(volume.handle) == volume
            assert case.backend.find_source(volume.handle) is not None
            assert case.backend.attach_volume(case.attach_request(volume, BLOCK))

    assert processes(read) == 0
    lvm("lvcreate", "-y", "-n", "foreign", "-L", "16m", group)
    assert processes(read) == 1, "a change by somebody else is seen, once"


def lv(group: str) -> str:
    """Some LV of the group."""
    return lvm("lvs", "--noheadings", "-o", "lv_name", group).split()[0]
