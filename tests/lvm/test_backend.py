"""What is LVM's own: old data, foreign LVs, tags, layouts, health, and what a process costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from volume_group import MIB, lvm, volume_group, volumes

from backends.lvm import devicemapper, names, tags
from backends.lvm.plugin import LvmBackend
from csi_core.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NoSpace, Unavailable
from csi_core.health import HealthKind
from csi_core.model import ContentSource, GroupSnapshotSpec, SizeRange, SnapshotSpec, SourceKind, Volume, VolumeMode
from csi_core.node import filesystems
from csi_core.parameters import parse_parameters
from csi_core.run import spawned
from csi_core.testing.contract import BackendCase

pytestmark = pytest.mark.needs_kernel("device-mapper")
BLOCK = VolumeMode.BLOCK
SIZE = 16 * MIB

Open = Callable[..., BackendCase]


@pytest.fixture
def opened(group: str) -> Iterator[Open]:
    """Opens a backend on the group, with settings of its class and parameters of volumes."""
    cases: list[BackendCase] = []

    def open_case(parameters: dict[str, str] | None = None, **settings: object) -> BackendCase:
        options = {"classes": {"test": {"volumeGroup": group, **settings}}}
        case = BackendCase(lambda: LvmBackend(options), parameters=parameters or {}, size_bytes=SIZE)
        cases.append(case)
        return case

    yield open_case
    for case in cases:
        case.__exit__(None, None, None)


def lv_of(volume: Volume) -> str:
    return names.lv_name(volume.handle.partition(":")[2])


def snapshot(case: BackendCase, name: str, volume: Volume, **parameters: str):
    model = case.backend.description.snapshot_parameters
    return case.backend.create_snapshot(
        SnapshotSpec(name, volume.handle, parse_parameters(model, parameters, "parameter"))
    ).value


def holds(group_disks: tuple[Path, ...], secret: bytes) -> bool:
    """Whether ``secret`` is anywhere on the first 256 MiB of the disks, past every cache."""
    for disk in group_disks:
        with disk.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while chunk := file.read(64 * MIB):
                if secret in chunk:
                    return True
                if file.tell() >= 256 * MIB:
                    break
    return False


SECRET = b"the tenant's secret, 40 bytes of it ....."


@pytest.mark.parametrize("wipe", ["discard", "zero"])
def test_nothing_of_a_deleted_volume_is_left(opened: Open, scratch_disks: tuple[Path, ...], wipe: str) -> None:
    """Not in the volume's extents, nor in those of its copy-on-write snapshot, nor of copies."""
    case, disks = opened({"wipe": wipe}), scratch_disks[:3]
    volume = case.create("data", BLOCK)
    with case.attached(volume, BLOCK) as content, content.path.open("r+b") as device:
        device.write(SECRET * (4 * MIB // len(SECRET)))
        os.fsync(device.fileno())
        taken = snapshot(case, "snap", volume)
        device.seek(0)
        device.write(bytes(4 * MIB))
        os.fsync(device.fileno())
        assert holds(disks, SECRET), "the test looks in the wrong place"
        copy = case.restore("copy", BLOCK, taken)
        before = content.checksum()
        case.backend.delete_snapshot(taken.handle, case.secrets)  # while its volume is attached
    assert case.checksum(volume, BLOCK) == before
    case.delete(copy)
    case.delete(volume)
    assert not holds(disks, SECRET)


def test_wipe_none_is_for_one_tenant(opened: Open) -> None:
    with pytest.raises(InvalidArgument, match="singleTenant"):
        opened({"wipe": "none"}).create("data", BLOCK)
    case = opened({"wipe": "none"}, singleTenant=True)
    volume = case.create("data", BLOCK)
    case.write(volume, BLOCK, "data")
    case.delete(volume)
    assert case.volumes() == []


def test_signatures_of_others_are_no_content(opened: Open, group: str) -> None:
    """A disk that held a filesystem before: a new volume on it is empty to mkfs."""
    lvm("lvcreate", "-y", "-Wn", "-n", "old", "-L", "16m", group)
    os.system(f"mkfs.ext4 -q /dev/{group}/old")
    lvm("lvremove", "-y", f"{group}/old")
    case = opened()
    volume = case.create("data", BLOCK)
    with case.attached(volume, BLOCK) as content, content.path.open("rb") as device:
        assert device.read(MIB) == bytes(MIB)


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


def test_after_a_reboot_nothing_is_active_until_it_is_attached(opened: Open, group: str) -> None:
    case = opened()
    volume = case.create("data", BLOCK)
    before = case.write(volume, BLOCK, "data")
    assert volumes(group)[lv_of(volume)]["lv_attr"][4] == "-"
    lvm("vgchange", "-aay", group)  # what a boot does
    assert volumes(group)[lv_of(volume)]["lv_attr"][4] == "-"
    assert case.backend.find_source(volume.handle) is None
    assert case.checksum(volume, BLOCK) == before


def test_active_by_hand_is_not_attached(opened: Open, group: str) -> None:
    """An administrator looked into it: it can be deleted all the same."""
    case = opened()
    volume = case.create("data", BLOCK)
    lvm("lvchange", "-ay", "-K", f"{group}/{lv_of(volume)}")
    case.delete(volume)
    assert volumes(group) == {}


def test_layouts(opened: Open, group: str) -> None:
    """What is asked for is what LVM makes."""
    for parameters, fields in (
        ({"type": "striped", "stripes": "3", "stripeSize": "16Ki"}, {"segtype": "striped", "stripes": "3"}),
        ({"type": "raid1", "mirrors": "2"}, {"segtype": "raid1", "stripes": "3"}),
        ({"type": "raid1", "integrity": "true"}, {"segtype": "raid1", "raidintegritymode": "journal"}),
    ):
        case = opened(parameters)
        volume = case.create("data", BLOCK)
        before = case.write(volume, BLOCK, "data")
        found = volumes(group, f"lv_name,{','.join(fields)}")[lv_of(volume)]
        assert {name: found[name] for name in fields} == fields
        assert case.backend.expand_volume(volume.handle, SizeRange(3 * volume.size_bytes)) == 3 * volume.size_bytes
        assert case.checksum(volume, BLOCK, volume.size_bytes) == before
        assert case.backend.volume_health(volume.handle) == ()
        case.delete(volume)
    assert volumes(group) == {}


def test_spare_is_left(opened: Open, group: str) -> None:
    free = int(lvm("vgs", "--noheadings", "--units", "b", "--nosuffix", "-o", "vg_free", group))
    case = opened(spare=str(free - 32 * MIB))
    with pytest.raises(NoSpace, match="spare"):
        case.create("data", BLOCK, 48 * MIB)
    volume = case.create("data", BLOCK, 32 * MIB)
    with pytest.raises(NoSpace, match="spare"):
        case.backend.expand_volume(volume.handle, SizeRange(48 * MIB))


def test_full_copy_outlives_its_volume(opened: Open) -> None:
    case = opened()
    volume = case.create("data", BLOCK)
    before = case.write(volume, BLOCK, "data")
    taken = snapshot(case, "snap", volume, mode="copy")
    assert snapshot(case, "snap", volume, mode="copy") == taken
    case.delete(volume)
    assert case.checksum(case.restore("restored", BLOCK, taken), BLOCK) == before


def test_copy_on_write_snapshot_that_fills_up(opened: Open) -> None:
    """Degraded before, lost afterwards, and said so each time; the volume is whole, and the snapshot can be deleted."""
    case = opened(snapshotWarnAt=0.4)
    volume = case.create("data", BLOCK)
    taken = snapshot(case, "snap", volume, cowSize="4Mi")
    assert case.backend.volume_health(volume.handle) == ()
    with case.attached(volume, BLOCK) as content, content.path.open("r+b") as device:
        device.write(os.urandom(2 * MIB))
        os.fsync(device.fileno())
        (problem,) = case.backend.volume_health(volume.handle)
        assert (problem.kind, problem.reason) == (HealthKind.DEGRADED, "SnapshotNearlyFull")
        assert problem in case.backend.storage_health()
        device.write(os.urandom(8 * MIB))
        os.fsync(device.fileno())
        (problem,) = case.backend.volume_health(volume.handle)
        assert (problem.kind, problem.reason) == (HealthKind.DATA_LOSS, "SnapshotInvalid")
        found = case.backend.get_snapshot(taken.handle)
        assert found is not None
        assert not found.ready
        with pytest.raises(DataLoss, match="ran full"):
            case.restore("restored", BLOCK, taken)
        case.backend.delete_snapshot(taken.handle, case.secrets)
    assert case.backend.volume_health(volume.handle) == ()
    assert [v.name for v in case.volumes()] == ["data"]


def test_an_attached_volume_with_snapshots_does_not_grow(opened: Open) -> None:
    case = opened()
    volume = case.create("data", BLOCK)
    taken = snapshot(case, "snap", volume)
    with case.attached(volume, BLOCK), pytest.raises(FailedPrecondition, match="snapshots"):
        case.backend.expand_volume(volume.handle, SizeRange(2 * SIZE))
    assert case.backend.expand_volume(volume.handle, SizeRange(2 * SIZE)) == 2 * SIZE
    assert taken.size_bytes == SIZE
    assert case.restore("restored", BLOCK, taken).size_bytes == SIZE


def processes() -> int:
    """How many processes the backend has started."""
    return sum(spawned().values())


def test_reads_start_no_process(opened: Open, group: str) -> None:
    """A report for each state of the group, however many volumes and calls; a create is one command."""
    case = opened()
    before = processes()
    case.create("data-0", BLOCK)
    assert processes() - before <= 2, "the first call may need a report for the size of an extent"
    before = processes()
    made = [case.create(f"data-{number}", BLOCK) for number in range(1, 5)]
    assert processes() - before == 4, "lvcreate, and nothing else"
    for volume in made:
        case.backend.attach_volume(case.attach_request(volume, BLOCK))
    case.volumes()
    before = processes()
    for _ in range(3):
        assert len(case.volumes()) == 5
        for volume in made:
            assert case.backend.get_volume(volume.handle) == volume
            assert case.backend.find_source(volume.handle) is not None
            assert case.backend.attach_volume(case.attach_request(volume, BLOCK))
    assert processes() == before
    lvm(
        "lvcreate",
        "-y",
        "-n",
        "foreign",
        "-L",
        "16m",
        case.backend.description.facts["class test"].split()[2].strip(","),
    )
    case.volumes()
    case.volumes()
    assert processes() == before + 1, "a change by somebody else is seen, once"


@contextmanager
def thin_pool(group: str, size_mib: int, *more: str) -> Iterator[dict[str, object]]:
    lvm("lvcreate", "-y", "--type=thin-pool", "-L", f"{size_mib}m", "-n", "pool", *more, group)
    yield {"thinPools": {"pool": {"overcommit": 4}}}


def test_thin_accounting(opened: Open, group: str) -> None:
    """Promised by the ratio, and after a restart the same; snapshots are charged as their volumes."""
    with thin_pool(group, 64) as settings:
        case = opened({"type": "thin"}, **settings)
        volume = case.create("data", BLOCK, 128 * MIB)
        case.snapshot("snap", volume)
        with pytest.raises(NoSpace, match="over-commit"):
            case.create("more", BLOCK, 16 * MIB)
        case.reopen()
        with pytest.raises(NoSpace, match="over-commit"):
            case.backend.expand_volume(volume.handle, SizeRange(144 * MIB))
        lvm("lvextend", "-L", "128m", f"{group}/pool")
        assert case.backend.expand_volume(volume.handle, SizeRange(144 * MIB)) == 144 * MIB


def test_thin_pool_that_does_not_zero(opened: Open, group: str) -> None:
    with thin_pool(group, 64, "-Zn") as settings:
        with pytest.raises(FailedPrecondition, match="zero"):
            opened({"type": "thin"}, **settings).create("data", BLOCK)
        assert opened({"type": "thin"}, singleTenant=True, **settings).create("data", BLOCK)


def test_thin_pool_that_fills_up(opened: Open, group: str) -> None:
    """Health first, then no admission, long before the last block; a write that does not fit fails, and says so."""
    with thin_pool(group, 64) as settings:
        lvm("lvchange", "--errorwhenfull=y", f"{group}/pool")
        case = opened({"type": "thin"}, **settings)
        volume = case.create("data", BLOCK, 128 * MIB)
        case.backend.attach_volume(case.attach_request(volume, BLOCK))
        source = case.backend.find_source(volume.handle)
        with source.device.open("r+b", buffering=0) as device:
            for written_mib in range(0, 62, 2):
                device.write(os.urandom(2 * MIB))
                os.fsync(device.fileno())
                if written_mib == 54:
                    (problem,) = case.backend.volume_health(volume.handle)
                    assert (problem.kind, problem.reason) == (HealthKind.DEGRADED, "ThinPoolDataNearlyFull")
            (problem,) = case.backend.volume_health(volume.handle)
            assert problem.reason == "ThinPoolDataFull"
            clear_reading()
            with pytest.raises(NoSpace, match="too full"):
                case.create("more", BLOCK)
            with pytest.raises(OSError, match="."):
                for _ in range(4):
                    device.write(os.urandom(2 * MIB))
                    os.fsync(device.fileno())
        case.backend.detach_volume(volume.handle)


def clear_reading() -> None:
    """The ledger reads a pool once a second."""
    time.sleep(1.1)


def test_copies_between_thin_and_thick(opened: Open, group: str) -> None:
    """A class may have both; a copy from one to the other is a full one."""
    with thin_pool(group, 256) as settings:
        thin, thick = opened({"type": "thin"}, **settings), opened(**settings)
        volume = thin.create("data", BLOCK)
        before = thin.write(volume, BLOCK, "data")
        taken = thin.snapshot("snap", volume)
        copy = thick.create("thick", BLOCK, source=ContentSource(SourceKind.SNAPSHOT, taken.handle))
        assert thick.checksum(copy, BLOCK) == before
        back = thin.create("back", BLOCK, source=ContentSource(SourceKind.VOLUME, copy.handle))
        assert thin.checksum(back, BLOCK) == before
        assert sorted(volumes(group)) == sorted([lv_of(volume), lv_of(copy), lv_of(back), lv_of(taken), "pool"])


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


WRITER = """
import itertools, os, sys
files = [os.open(path, os.O_RDWR | os.O_CREAT) for path in sys.argv[1:]]
for number in itertools.count(1):
    for file in files:
        os.pwrite(file, number.to_bytes(4096, "big"), 0)
        os.fsync(file)
"""


def last_written(path: Path) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(4096), "big")


@contextmanager
def mounted(device: Path, path: Path, *options: str) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, device, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("mount", [False, True], ids=["block", "mount"])
@pytest.mark.parametrize("thin", [False, True], ids=["linear", "thin"])
def test_a_group_is_of_one_moment(opened: Open, group: str, tmp_path: Path, *, thin: bool, mount: bool) -> None:
    """A writer writes a number to one volume, then to the other: in the snapshots the first is never behind."""
    with ExitStack() as stack:
        settings = stack.enter_context(thin_pool(group, 256)) if thin else {}
        case = opened({"type": "thin"} if thin else {}, **settings)
        made = [case.create(name, BLOCK) for name in ("one", "two")]
        devices = [case.backend.attach_volume(case.attach_request(volume, BLOCK)).device for volume in made]
        targets = devices
        if mount:
            for number, device in enumerate(devices):
                subprocess.run(["mkfs.ext4", "-q", device], check=True)
                stack.enter_context(mounted(device, tmp_path / str(number)))
            targets = [tmp_path / str(number) / "file" for number in range(2)]
        writer = stack.enter_context(subprocess.Popen([sys.executable, "-c", WRITER, *map(str, targets)]))
        stack.callback(writer.kill)
        wait_for(lambda: targets[1].exists() and last_written(targets[1]) > 3)
        spec = GroupSnapshotSpec("group", tuple(volume.handle for volume in made))
        found = case.backend.create_group_snapshot(spec).value
        before = last_written(targets[1])
        wait_for(lambda: last_written(targets[1]) > before)  # writers go on
        writer.kill()
        writer.wait()
        of = {taken.volume_handle: taken for taken in found.snapshots}
        numbers = []
        for number, volume in enumerate(made):
            restored = case.restore(f"restored-{number}", BLOCK, of[volume.handle])
            device = case.backend.attach_volume(case.attach_request(restored, BLOCK)).device
            if mount:
                with mounted(device, tmp_path / "restored") as path:
                    numbers.append(last_written(path / "file"))
            else:
                numbers.append(last_written(device))
            case.backend.detach_volume(restored.handle)
        assert numbers[0] - numbers[1] in (0, 1), numbers
        assert numbers[1] <= before


def wait_for(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


def test_what_was_left_held_is_let_go(opened: Open, group: str) -> None:
    """A driver that is killed while writers stand still: the next one lets them go."""
    case = opened()
    volume = case.create("data", BLOCK)
    with case.attached(volume, BLOCK) as content:
        front = names.front_name(group, lv_of(volume))
        devicemapper.suspend(front)
        case.reopen()
        found = devicemapper.find(front)
        assert found is not None
        assert not found.suspended
        content.write("data")


def test_what_is_on_an_attached_volume_is_seen(opened: Open) -> None:
    """By blkid, on which it depends that nothing is formatted over. Of LVM's inner layers it says nothing."""
    case = opened()
    volume = case.create("data", BLOCK)
    with case.attached(volume, BLOCK) as content:
        assert filesystems.probe(content.path) is None
        subprocess.run(["mkfs.ext4", "-q", content.path], check=True)
        found = filesystems.probe(content.path)
        assert found is not None
        assert found.fs_type == "ext4"


def test_front_devices_are_no_disks_of_lvms(opened: Open, group: str) -> None:
    """Whatever a tenant writes: a label of LVM's on a raw block volume makes no disk of the host's."""
    case = opened()
    volume = case.create("data", BLOCK)
    with case.attached(volume, BLOCK) as content:
        disks = lvm("pvs", "--noheadings", "-o", "pv_name").split()
        with Path(disks[0]).open("rb") as disk:
            head = disk.read(MIB)
        with content.path.open("r+b") as device:
            device.write(head)
            os.fsync(device.fileno())
        assert "duplicate" not in lvm("pvs", "--noheadings", "-o", "pv_name").lower()
        assert "-csi" not in lvm("pvs", "--noheadings", "-a", "-o", "pv_name")
        assert case.create("more", BLOCK)


def test_missing_disk(scratch_disks: tuple[Path, ...]) -> None:
    """Of a mirror one leg: the data is whole, and health says so. Nothing new is made, and a retry may succeed."""
    with volume_group(scratch_disks[4:6], "csi-mirror", 512 * MIB) as group:
        options = {"classes": {"test": {"volumeGroup": group}}}
        with BackendCase(lambda: LvmBackend(options), parameters={"type": "raid1"}, size_bytes=SIZE) as case:
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
            lvm("vgreduce", "--removemissing", "--force", group)
            assert case.checksum(volume, BLOCK) == before


def wait_until_synced(group: str, lv: str) -> None:
    """Until both legs of a mirror hold the same."""
    ends_at = time.monotonic() + 30
    while float(volumes(group, "lv_name,copy_percent")[lv]["copy_percent"]) < 100:
        assert time.monotonic() < ends_at
        time.sleep(0.2)
