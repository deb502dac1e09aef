"""What is asked for is what LVM makes, and the spare stays free."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from group_case import BLOCK, SIZE, Open, lv_of, snapshot, thin_pool
from volume_group import MIB, lvm, volumes

from csi_core.errors import FailedPrecondition, NoSpace
from csi_core.model import SizeRange

pytestmark = pytest.mark.needs_kernel("device-mapper")


STRIPED = ({"type": "striped", "stripes": "3", "stripeSize": "16Ki"}, {"segtype": "striped", "stripes": "3"})
MIRRORED = ({"type": "raid1", "mirrors": "2"}, {"segtype": "raid1", "stripes": "3"})
CHECKED = ({"type": "raid1", "integrity": "true"}, {"segtype": "raid1", "raidintegritymode": "journal"})


@pytest.mark.parametrize(
    ("parameters", "fields"), [STRIPED, MIRRORED, CHECKED], ids=["striped", "three-mirrors", "integrity"]
)
def test_layouts(opened: Open, group: str, parameters: dict[str, str], fields: dict[str, str]) -> None:
    """What is asked for is what LVM makes, of copies too."""
    case = opened(parameters)
    volume = case.create("data", BLOCK)
    before = case.write(volume, BLOCK, "data")
    made = [volume]
    if "integrity" in parameters:
        refusals: list[Callable[[], object]] = [
            lambda: case.clone("copy", BLOCK, volume),
            lambda: case.snapshot("snap", volume),
            lambda: snapshot(case, "snap", volume, mode="copy"),
        ]
        for refused in refusals:
            with pytest.raises(FailedPrecondition, match="integrity"):
                refused()
    else:
        made.append(case.clone("copy", BLOCK, volume))
    found = volumes(group, f"lv_name,{','.join(fields)}")
    assert {lv: {name: found[lv][name] for name in fields} for lv in found} == {lv_of(each): fields for each in made}
    for each in made:
        assert case.backend.expand_volume(each.handle, SizeRange(3 * SIZE)) >= 3 * SIZE
        assert case.checksum(each, BLOCK, volume.size_bytes) == before
        assert case.backend.volume_health(each.handle) == ()
        case.delete(each)
    assert volumes(group) == {}


@pytest.mark.usefixtures("no_resync")
def test_a_mirror_without_its_checksums_is_snapshotted_again(opened: Open, group: str) -> None:
    case = opened({"type": "raid1", "integrity": "true"})
    volume = case.create("data", BLOCK)
    before = case.write(volume, BLOCK, "data")
    lvm("lvconvert", "-y", "--raidintegrity", "n", f"{group}/{lv_of(volume)}")
    taken = case.snapshot("snap", volume)
    case.parameters = {"type": "raid1"}
    assert case.checksum(case.restore("copy", BLOCK, taken), BLOCK) == before


@pytest.mark.usefixtures("no_resync")
def test_options_of_a_class_are_for_what_takes_them(opened: Open, group: str) -> None:
    """lvcreate refuses those for mirrors elsewhere, such as for the snapshot that a mirror is copied from."""
    # Rates that hold nothing up: guests have panicked where mirrors were removed in the middle of a slow resync.
    rates = ["--maxrecoveryrate=512M", "--minrecoveryrate=128M"]
    options = ["--regionsize=1m", *rates, "--alloc=normal", "--addtag=team-a"]
    with thin_pool(group, 64) as settings:
        case = opened({"type": "raid1"}, createOptions=options, **settings)
        volume = case.create("mirror", BLOCK)
        assert volumes(group, "lv_name,region_size")[lv_of(volume)]["region_size"] == f"{MIB}"
        case.clone("copy", BLOCK, volume)
        case.parameters = {"type": "thin"}
        case.snapshot("snap", case.create("thin", BLOCK))


def test_spare_is_left(opened: Open, group: str) -> None:
    free = int(lvm("vgs", "--noheadings", "--units", "b", "--nosuffix", "-o", "vg_free", group))
    case = opened(spare=str(free - 32 * MIB))
    with pytest.raises(NoSpace, match="spare"):
        case.create("data", BLOCK, 48 * MIB)
    volume = case.create("data", BLOCK, 32 * MIB)
    with pytest.raises(NoSpace, match="spare"):
        case.backend.expand_volume(volume.handle, SizeRange(48 * MIB))


def test_spare_is_left_by_those_who_come_at_once(opened: Open, group: str) -> None:
    free = int(lvm("vgs", "--noheadings", "--units", "b", "--nosuffix", "-o", "vg_free", group))
    case = opened(spare=str(free - 32 * MIB))

    def create(number: int) -> bool:
        try:
            return bool(case.create(f"data-{number}", BLOCK, 32 * MIB))
        except NoSpace:
            return False

    with ThreadPoolExecutor(4) as callers:
        assert sum(callers.map(create, range(4))) == 1
