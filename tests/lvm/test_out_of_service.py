"""What takes a group or a pool out of service by and by, or at once: health says so, and calls say what to do."""

from __future__ import annotations

import pytest
from group_case import BLOCK, Open, thin_pool
from volume_group import lvm

from csi_core.errors import NoSpace, Unavailable
from csi_core.testing.contract import BackendCase

pytestmark = pytest.mark.needs_kernel("device-mapper")

TAG_BYTES = 1000


def reasons(case: BackendCase) -> list[str]:
    return [problem.reason for problem in case.backend.storage_health()]


def fill_metadata(group: str, number: int, count: int) -> None:
    """Somebody's LV with so many long tags: what a thousand volumes take, in no time."""
    lvm("lvcreate", "-y", "-an", "-Zn", "-n", f"filler-{number}", "-l", "1", group)
    tags = [f"--addtag={number}-{at:04}-".ljust(TAG_BYTES, "x") for at in range(count)]
    lvm("lvchange", *tags, f"{group}/filler-{number}")


def test_a_group_whose_metadata_area_fills_up(opened: Open, group: str) -> None:
    """Health first; then no volume is made, those that are there stay, and what goes makes room."""
    case = opened()
    used = case.create("used", BLOCK)
    case.write(used, BLOCK, "used")
    fields = lvm("vgs", "--noheadings", "--units", "b", "--nosuffix", "-o", "vg_mda_size", group)
    tags = int(fields) // 2 // TAG_BYTES  # half of the area is for the text that comes next
    fill_metadata(group, 1, int(tags * 0.85))
    assert reasons(case) == []
    fill_metadata(group, 2, int(tags * 0.08))
    assert reasons(case) == ["MetadataAreaNearlyFull"]
    case.create("more", BLOCK)
    left = int(lvm("vgs", "--noheadings", "--units", "b", "--nosuffix", "-o", "vg_mda_free", group))
    fill_metadata(group, 4, left // TAG_BYTES - 1)
    with pytest.raises(NoSpace, match="metadatasize"):
        for number in range(8):
            case.create(f"too-many-{number}", BLOCK)
    assert {"used", "more"} <= {volume.name for volume in case.volumes()}
    case.delete(used)  # wiped first, which is noted in its tags
    lvm("lvremove", "-y", f"{group}/filler-1")
    assert reasons(case) == []
    assert case.create("again", BLOCK)


def test_a_pool_that_is_not_active_or_not_there(opened: Open, group: str) -> None:
    with thin_pool(group, 64) as settings:
        case = opened({"type": "thin"}, **settings)
        assert reasons(case) == []
        lvm("lvchange", "-an", f"{group}/pool")
        assert reasons(case) == ["ThinPoolInactive"]
        with pytest.raises(Unavailable, match="lvchange -ay"):
            case.create("data", BLOCK)
        lvm("lvremove", "-y", f"{group}/pool")
        assert reasons(case) == ["ThinPoolMissing"]
