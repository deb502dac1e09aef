"""Several volume groups behind one backend: device classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from group_case import BLOCK, lv_of
from volume_group import MIB, clear, lvm, volume_group, volumes

from backends.lvm.plugin import LvmBackend
from csi_core.errors import InvalidArgument, Unavailable
from csi_core.model import CapacityQuery, ContentSource, GroupSnapshotSpec, SourceKind
from csi_core.testing.contract import BackendCase

pytestmark = pytest.mark.needs_kernel("device-mapper")
FAST, BIG = "csi-fast", "csi-big"


@pytest.fixture(scope="module")
def groups(scratch_disks: tuple[Path, ...]) -> Iterator[None]:
    with volume_group(scratch_disks[4:5], FAST, 256 * MIB), volume_group(scratch_disks[5:6], BIG, 512 * MIB):
        yield


@pytest.fixture
def case(groups: None) -> Iterator[BackendCase]:
    classes = {"fast": {"volumeGroup": FAST, "createOptions": ["--addtag=team-a"]}, "big": {"volumeGroup": BIG}}
    options = {"classes": classes, "defaultClass": "fast"}
    with BackendCase(lambda: LvmBackend(options), size_bytes=16 * MIB) as case:
        yield case
    for group in (FAST, BIG):
        clear(group)


def capacity(case: BackendCase) -> int:
    query = CapacityQuery(case.spec("any", BLOCK).parameters, (case.capability(BLOCK),))
    return case.backend.get_capacity(query).available_bytes


def test_a_class_is_chosen_by_parameter(case: BackendCase) -> None:
    first, room = case.create("first", BLOCK), capacity(case)
    case.parameters = {"deviceClass": "big"}
    second = case.create("second", BLOCK)
    assert list(volumes(FAST)) == [lv_of(first)]
    assert "team-a" in volumes(FAST)[lv_of(first)]["lv_tags"].split(","), "an option of the class for lvcreate"
    assert list(volumes(BIG)) == [lv_of(second)]
    assert capacity(case) > room
    assert case.create("first", BLOCK) == first, "a name is a volume's in whatever class"
    for limit in (1, 2, 3):
        assert case.volumes(limit) == [second, first]
    case.parameters = {"deviceClass": "slow"}
    with pytest.raises(InvalidArgument, match="there is no device class 'slow'"):
        case.create("third", BLOCK)


def test_copies_and_groups_stay_in_their_class(case: BackendCase) -> None:
    here = case.create("here", BLOCK)
    case.parameters = {"deviceClass": "big"}
    there = case.create("there", BLOCK)
    case.parameters = {"deviceClass": "fast"}
    with pytest.raises(InvalidArgument, match="deviceClass"):
        case.clone("copy", BLOCK, there)
    case.parameters = {}
    copy = case.create("copy", BLOCK, source=ContentSource(SourceKind.VOLUME, there.handle))
    assert lv_of(copy) in volumes(BIG)
    with pytest.raises(InvalidArgument, match="one device class"):
        case.backend.create_group_snapshot(GroupSnapshotSpec("group", (here.handle, there.handle)))


def test_a_missing_group_keeps_nobody_from_the_others(case: BackendCase) -> None:
    case.parameters = {"deviceClass": "big"}
    away = case.create("away", BLOCK)
    case.parameters = {}
    lvm("vgrename", BIG, "csi-away")
    try:
        case.reopen()
        here = case.create("here", BLOCK)
        assert case.backend.get_volume(here.handle) == here
        assert [problem.reason for problem in case.backend.storage_health()] == ["VolumeGroupMissing"]
        for call in (lambda: case.backend.get_volume(away.handle), case.volumes):
            with pytest.raises(Unavailable, match=BIG):
                call()  # a listing without them would tell that they are gone
    finally:
        lvm("vgrename", "csi-away", BIG)
    assert case.volumes() == [away, here]
