"""What is ours in a volume group, what is somebody else's, and what was never finished."""

from __future__ import annotations

import pytest
from group_case import BLOCK, Open, lv_of, thin_pool
from volume_group import lvm, volumes

from backends.lvm import names, tags
from backends.lvm.plugin import LvmBackend
from csi_core.errors import AlreadyExists, FailedPrecondition, Unavailable
from csi_core.model import GroupSnapshotSpec
from csi_core.testing.contract import BackendCase

pytestmark = pytest.mark.needs_kernel("device-mapper")


def test_foreign_volumes_are_nobodys(opened: Open, group: str) -> None:
    """Not listed, not deleted, not found by their names; what looks like ours is pointed out, and left alone."""
    lvm("lvcreate", "-y", "-n", "root", "-L", "16m", "--addtag", "csi.name=root", group)
    stranger = names.lv_name(names.make_key("v", "planted"))
    lvm("lvcreate", "-y", "-n", stranger, "-L", "16m", group)
    case = opened()
    volume = case.create("data", BLOCK)
    assert case.volumes() == [volume]
    handle = names.join("test", names.make_key("v", "planted"))
    assert case.backend.get_volume(handle) is None
    case.backend.delete_volume(handle, case.secrets)
    assert stranger in volumes(group)
    (finding,) = case.backend.diagnose()
    assert stranger in finding.subject
    assert not finding.repairable
    assert not case.backend.repair(finding)
    with pytest.raises(AlreadyExists, match="not made by this driver"):
        case.create("planted", BLOCK)


def test_a_group_is_served_by_one_process(opened: Open, group: str) -> None:
    """To another one, what is being made is something half done, to be removed."""
    options = {"classes": {"other": {"volumeGroup": group}}}
    first = opened()
    with pytest.raises(Unavailable, match=f"volume group {group} is served by another process"):
        BackendCase(lambda: LvmBackend(options))
    first.create("data", BLOCK)
    first.backend.stop()
    with BackendCase(lambda: LvmBackend(options)) as second:
        assert len(second.volumes()) == 1
        with pytest.raises(Unavailable, match="fuser"):
            first.reopen()
    first.reopen()


def test_half_made_is_found_and_removed(opened: Open, group: str) -> None:
    """Planted behind the server's back: what bears our tags and was never finished."""
    case = opened()
    key = names.make_key("v", "orphan")
    added = [f"--addtag={tag}" for tag in tags.encode({"made": "1", "name": "orphan", "state": "creating"})]
    lvm("lvcreate", "-y", "-an", "-Zn", "-n", names.lv_name(key), "-L", "16m", *added, group)
    assert case.volumes() == []
    (finding,) = case.backend.diagnose()
    assert finding.repairable
    assert case.backend.repair(finding)
    assert list(case.backend.diagnose()) == []
    assert volumes(group) == {}


def test_group_with_missing_member_is_no_group(opened: Open, group: str) -> None:
    case = opened()
    made = [case.create(name, BLOCK) for name in ("one", "two")]
    spec = GroupSnapshotSpec("group", tuple(volume.handle for volume in made))
    found = case.backend.create_group_snapshot(spec).value
    lvm("lvremove", "-y", f"{group}/{names.lv_name(found.snapshots[0].handle.partition(':')[2])}")
    assert case.backend.get_group_snapshot(found.handle) is None
    assert case.backend.get_snapshot(found.snapshots[1].handle) is None
    assert any("group" in finding.problem for finding in case.backend.diagnose())
    case.backend.delete_group_snapshot(found.handle, case.secrets)
    assert list(case.backend.diagnose()) == []


@pytest.mark.parametrize("kind", ["thick", "thin"])
def test_a_snapshot_that_somebody_else_took_is_not_removed(opened: Open, group: str, kind: str) -> None:
    """An administrator's copy-on-write snapshot would go with its volume, with what it kept of the data not wiped."""
    with thin_pool(group, 64) as settings:
        case = opened({"type": "thin"} if kind == "thin" else {}, **settings)
        volume = case.create("data", BLOCK)
        before = case.write(volume, BLOCK, "data")
        lvm("lvcreate", "-y", "-s", "-kn", "-n", "backup", "-L", "8m", f"{group}/{lv_of(volume)}")
        with pytest.raises(FailedPrecondition, match="backup"):
            case.delete(volume)
        assert "backup" in volumes(group)
        assert case.checksum(volume, BLOCK) == before, "nor is the volume wiped"
        lvm("lvremove", "-y", f"{group}/backup")
        case.delete(volume)
        assert case.volumes() == []
