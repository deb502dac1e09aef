"""The backend is killed at every fault point of its own, started again, and the call repeated.

It dies in a fork, which takes no second in a guest; whole servers die in the crash tier. A point that several acts
reach is killed at in the first of them.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from volume_group import MIB, clear, lvm, volume_group, volumes

from backends.lvm import names
from backends.lvm.plugin import LvmBackend
from csi_core import faults
from csi_core.errors import Busy
from csi_core.model import GroupSnapshotSpec, SizeRange, Snapshot, SnapshotSpec, Source, Volume, VolumeMode
from csi_core.parameters import Parameters, parse_parameters
from csi_core.testing.contract import BackendCase
from csi_core.testing.contract.content import content_of
from csi_core.testing.fault_points import fault_points

pytestmark = pytest.mark.needs_kernel("device-mapper")
BLOCK = VolumeMode.BLOCK
SIZE = 8 * MIB
POOL = "pool"
SETTLE_S = 20.0
THICK: dict[str, str] = {}
THIN = {"type": "thin"}


@dataclass
class Scene:
    """A case on the group, and what was there before the act."""

    group: str
    parameters: dict[str, str]
    case: BackendCase = field(init=False)
    volumes: dict[str, Volume] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    group_handle: str = ""
    checksum: str = ""

    def open(self) -> None:
        options = {"classes": {"main": {"volumeGroup": self.group, "thinPools": {POOL: {"overcommit": 10}}}}}
        self.case = BackendCase(lambda: LvmBackend(options), parameters=self.parameters, size_bytes=SIZE)

    def volume(self, name: str) -> None:
        self.volumes[name] = self.case.create(name, BLOCK)

    def used(self, name: str, *, stays_attached: bool = False) -> None:
        self.volume(name)
        with content_of(self.attach(name)) as content:
            content.write(name)
            self.checksum = content.checksum()
        if not stays_attached:
            self.case.backend.detach_volume(self.volumes[name].handle)

    def snapshot(self, name: str, volume: str, **parameters: str) -> None:
        model = self.case.backend.description.snapshot_parameters
        spec = SnapshotSpec(name, self.volumes[volume].handle, parse_parameters(model, parameters, "parameter"))
        self.snapshots[name] = self.case.backend.create_snapshot(spec).value

    def take_group(self) -> None:
        handles = tuple(volume.handle for volume in self.volumes.values())
        self.group_handle = self.case.backend.create_group_snapshot(GroupSnapshotSpec("group", handles)).value.handle

    def attach(self, name: str) -> Source:
        return self.case.backend.attach_volume(self.case.attach_request(self.volumes[name], BLOCK))


Step = Callable[[Scene], object]


@dataclass(frozen=True)
class Act:
    """A call, what is there before it, and how many volumes and snapshots are there after it."""

    name: str
    parameters: dict[str, str]
    before: tuple[Step, ...]
    call: Step
    volumes: int
    snapshots: int = 0


def used(name: str = "origin") -> Step:
    return lambda scene: scene.used(name)


def snapshot(**parameters: str) -> Step:
    return lambda scene: scene.snapshot("snap", "origin", **parameters)


def in_use(scene: Scene) -> None:
    scene.used("origin", stays_attached=True)


def attach(scene: Scene) -> None:
    scene.attach("origin")


def create(scene: Scene) -> None:
    scene.case.create("made", BLOCK)


def clone(scene: Scene) -> None:
    scene.case.clone("made", BLOCK, scene.volumes["origin"], 2 * SIZE)


def restore(scene: Scene) -> None:
    scene.case.restore("made", BLOCK, scene.snapshots["snap"])


def expand(scene: Scene) -> None:
    assert scene.case.backend.expand_volume(scene.volumes["origin"].handle, SizeRange(2 * SIZE)) == 2 * SIZE


def delete(scene: Scene) -> None:
    scene.case.delete(scene.volumes["origin"])


def delete_snapshot(scene: Scene) -> None:
    scene.case.backend.delete_snapshot(scene.snapshots["snap"].handle, Parameters())


def delete_group(scene: Scene) -> None:
    scene.case.backend.delete_group_snapshot(scene.group_handle, Parameters())


def detach(scene: Scene) -> None:
    scene.case.backend.detach_volume(scene.volumes["origin"].handle)


def format_(scene: Scene) -> None:
    scene.case.backend.mark_formatted(scene.volumes["origin"].handle, "ext4")


def booted(scene: Scene) -> None:
    lvm("lvchange", "-an", f"{scene.group}/{POOL}")


def fresh(scene: Scene) -> None:
    scene.volume("origin")


ACTS = (
    Act("create", THICK, (), create, 1),
    Act("first-attach", THICK, (fresh,), attach, 1),
    Act("detach", THICK, (in_use,), detach, 1),
    Act("format", THICK, (in_use,), format_, 1),
    Act("expand-attached", THICK, (in_use,), expand, 1),
    Act("snapshot", THICK, (in_use,), snapshot(), 1, 1),
    Act("full-copy-snapshot", THICK, (in_use,), snapshot(mode="copy"), 1, 1),
    Act("restore", THICK, (used(), snapshot()), restore, 2, 1),
    Act("clone-attached", THICK, (in_use,), clone, 2),
    Act("group", THICK, (in_use, used("other")), lambda scene: scene.take_group(), 2, 2),
    Act("delete-group", THICK, (used(), used("other"), lambda scene: scene.take_group()), delete_group, 2, 0),
    Act("delete-snapshot", THICK, (used(), snapshot()), delete_snapshot, 1),
    Act("delete", THICK, (used(),), delete, 0),
    Act("thin-create", THIN, (), create, 1),
    Act("thin-create-after-a-boot", THIN, (booted,), create, 1),
    Act("thin-clone-attached", THIN, (in_use,), clone, 2),
    Act("thin-snapshot", THIN, (in_use,), snapshot(), 1, 1),
    Act("thin-restore", THIN, (used(), snapshot()), restore, 2, 1),
    Act("thin-group", THIN, (in_use, used("other")), lambda scene: scene.take_group(), 2, 2),
    Act("thin-delete", THIN, (used(), snapshot()), delete, 0, 1),
)
REACHED: set[str] = set()


@pytest.fixture(scope="module")
def killing_group(scratch_disks: tuple[Path, ...]) -> Iterator[str]:
    """A small volume group with a thin pool."""
    with volume_group(scratch_disks[5:6], "csi-killed", 1 << 30) as name:
        lvm("lvcreate", "-y", "--type=thin-pool", "-L", "256m", "--poolmetadatasize=8m", "-n", POOL, name)
        yield name


@contextmanager
def prepared(group: str, act: Act) -> Iterator[Scene]:
    scene = Scene(group, act.parameters)
    scene.open()
    try:
        for step in act.before:
            step(scene)
        scene.case.backend.stop()
        yield scene
    except BaseException:
        scene.open()
        raise
    finally:
        with scene.case:  # detaches
            pass
        clear(group, keep=[POOL])


def in_child(scene: Scene, act: Act, *, kill_at: str = "", trace: Path | None = None) -> int:
    """Start the backend in a fork and act there, to be killed or watched; answers the wait status."""
    child = os.fork()
    if child == 0:
        faults._armed, faults._name, faults._left, faults._trace = True, kill_at, 1, str(trace or "")  # type: ignore[misc]
        try:
            scene.open()
            act.call(scene)
            scene.case.backend.stop()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def repeated(call: Callable[[], object]) -> None:
    """Call until nobody is busy with what a start clears away, as a sidecar does on ABORTED."""
    ends_at = time.monotonic() + SETTLE_S
    while True:
        try:
            call()
        except Busy:
            assert time.monotonic() < ends_at, "it is still busy"
            time.sleep(0.1)
        else:
            return


def verify(scene: Scene, act: Act) -> None:
    """Start, repeat the act twice, look: what there should be is there, with its data, and no other LV."""
    scene.open()
    repeated(partial(act.call, scene))
    act.call(scene)
    case = scene.case
    found = {volume.name: volume for volume in case.volumes()}
    assert (len(found), len(case.snapshots())) == (act.volumes, act.snapshots)
    assert not list(case.backend.diagnose())
    if act.name == "expand-attached":
        assert found["origin"].size_bytes == 2 * SIZE
    if scene.checksum and "origin" in found and "other" not in found:
        assert case.checksum(found["origin"], BLOCK, SIZE) == scene.checksum
        if "made" in found:
            assert case.checksum(found["made"], BLOCK, SIZE) == scene.checksum
    shown = [entry.handle for entry in (*found.values(), *case.snapshots())]
    expected = {POOL, *(names.lv_name(handle.partition(":")[2]) for handle in shown)}
    ends_at = time.monotonic() + SETTLE_S
    while (present := set(volumes(scene.group))) != expected:  # what was half made is cleared away in the background
        assert time.monotonic() < ends_at, f"LVs are left or missing: {present ^ expected}"
        time.sleep(0.1)


def delete_all(scene: Scene) -> None:
    """Nothing may be left."""
    case = scene.case
    for volume in case.volumes():
        case.backend.detach_volume(volume.handle)
    for handle in {entry.group_handle for entry in case.snapshots() if entry.group_handle}:
        case.backend.delete_group_snapshot(handle, Parameters())
    for entry in case.snapshots():
        case.backend.delete_snapshot(entry.handle, Parameters())
    for volume in case.volumes():
        case.delete(volume)
    assert list(volumes(scene.group)) == [POOL], "an LV is left"


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_killed_at_every_step(
    act: Act, killing_group: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    trace = tmp_path / "trace"
    with prepared(killing_group, act) as scene:
        assert in_child(scene, act, trace=trace) == 0
        verify(scene, act)
        delete_all(scene)
    points = [point for point in dict.fromkeys(trace.read_text().split()) if point not in REACHED]
    for point in points:
        with prepared(killing_group, act) as scene:
            assert in_child(scene, act, kill_at=point) == 9, f"{point}: it was not killed"
            try:
                verify(scene, act)
            except BaseException as error:
                error.add_note(f"when killed at: {point}")
                raise
        REACHED.add(point)
    print(f"{act.name}: killed at {len(points)} points: {', '.join(points)}")


def test_no_fault_point_is_forgotten() -> None:
    expected = {point for point in fault_points() if point.startswith("lvm.")}
    assert expected <= REACHED, f"no act reaches {sorted(expected - REACHED)}"
