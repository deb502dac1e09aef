"""Mode export, killed (SIGKILL) at every fault point that an operation reaches, opened again, and the call repeated.

In child processes of this one, on a plain directory, with an NFS server that is a file: what the steps leave on the
disk is judged here; the real server's part is tested between machines.
"""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_server import FakeServer, case_on

from backends.nfs.mutable import ExportMutable
from backends.nfs.storage import Storage
from csi_core import faults
from csi_core.model import (
    AccessMode,
    ContentSource,
    GroupSnapshotSpec,
    PublishRequest,
    SizeRange,
    SourceKind,
    Volume,
    VolumeCapability,
    VolumeMode,
)
from csi_core.testing.contract import BackendCase
from csi_core.testing.fault_points import fault_points

FILESYSTEM = VolumeMode.FILESYSTEM
RWX = VolumeCapability(FILESYSTEM, AccessMode.MULTI_NODE_MULTI_WRITER)
REACHED: set[str] = set()
KILLED_ELSEWHERE = {"nfs.share.", "nfs.etab."}
"""Steps of mode share; and of the real server's table (test_etab.py, and tests/nfs)."""


class FileServer(FakeServer):
    """Keeps its table in a file, as the kernel keeps it beyond a process."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file
        if file.exists():
            self.table = {(path, address): ro for path, address, ro in json.loads(file.read_text(encoding="ascii"))}

    def _save(self) -> None:
        self._file.write_text(json.dumps([[*key, ro] for key, ro in self.table.items()]), encoding="ascii")

    def grant(self, path: Path, address: str, options: str) -> None:
        super().grant(path, address, options)
        self._save()

    def revoke(self, path: Path, address: str) -> None:
        super().revoke(path, address)
        self._save()


def opened(place: Path) -> BackendCase:
    place.mkdir(exist_ok=True)
    return case_on(place, FileServer(place / "table"), size_enforcement="none", capacity="1Gi")


def in_child(work: Callable[[], None], *, kill_at: str = "", trace: Path | None = None) -> int:
    """Do it in a child; answer its exit status, negative for a signal."""
    child = os.fork()
    if not child:
        try:
            faults._name, faults._left = kill_at, 1
            faults._trace = str(trace or "")
            faults._armed = True  # type: ignore[misc]
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def share(volume: Volume) -> Path:
    return Path(volume.context["share"])


def found(case: BackendCase, name: str) -> Volume:
    return next(volume for volume in case.volumes() if volume.name == name)


def with_file(case: BackendCase) -> None:
    volume = case.create("data", FILESYSTEM)
    (share(volume) / "sub").mkdir()
    (share(volume) / "sub/file").write_text("content", encoding="ascii")


def published(case: BackendCase) -> None:
    with_file(case)
    case.backend.publish_volume(PublishRequest(found(case, "data").handle, "node-a", RWX))


def publish_second(case: BackendCase) -> None:
    case.backend.publish_volume(PublishRequest(found(case, "data").handle, "node-b", RWX))


def unpublish(case: BackendCase) -> None:
    case.backend.unpublish_volume(found(case, "data").handle, "node-a", case.secrets)


def clone(case: BackendCase) -> None:
    made = case.create("clone", FILESYSTEM, source=ContentSource(SourceKind.VOLUME, found(case, "data").handle))
    assert (share(made) / "sub/file").read_text(encoding="ascii") == "content"


def expand(case: BackendCase) -> None:
    assert case.backend.expand_volume(found(case, "data").handle, SizeRange(64 << 20)) == 64 << 20


def delete(case: BackendCase) -> None:
    for volume in case.volumes():
        case.delete(volume)


def delete_snapshot(case: BackendCase) -> None:
    for snapshot in case.snapshots():
        case.backend.delete_snapshot(snapshot.handle, case.secrets)


def snapshotted(case: BackendCase) -> None:
    with_file(case)
    case.snapshot("snap", found(case, "data"))


def modify(case: BackendCase) -> None:
    volume, given = found(case, "data"), {"squash": "all", "writes": "async"}
    case.backend.modify_volume(volume.handle, ExportMutable.model_validate(given), given)
    (line,) = (file.read_text(encoding="ascii") for file in share(volume).parents[3].glob("exports.d/*.exports"))
    assert ",async," in line
    assert ",all_squash," in line


def group(case: BackendCase) -> None:
    handles = tuple(volume.handle for volume in case.volumes())
    assert len(case.backend.create_group_snapshot(GroupSnapshotSpec("group", handles)).value.snapshots) == 2


def group_of_two(case: BackendCase) -> None:
    with_file(case)
    case.create("other", FILESYSTEM)
    (share(found(case, "other")) / "sub").mkdir()
    (share(found(case, "other")) / "sub/file").write_text("content", encoding="ascii")


def grouped(case: BackendCase) -> None:
    group_of_two(case)
    group(case)


def delete_groups(case: BackendCase) -> None:
    for record in opened_storage(case).index.all("g"):
        case.backend.delete_group_snapshot(record.key, case.secrets)


def opened_storage(case: BackendCase) -> Storage:
    storage = case.backend._manager.get_plugin("tested")._mode._opened
    assert isinstance(storage, Storage)
    return storage


OPERATIONS = {
    "create": (lambda case: None, with_file, 1, 0, set()),
    "clone": (with_file, clone, 2, 0, set()),
    "snapshot": (with_file, lambda case: case.snapshot("snap", found(case, "data")), 1, 1, set()),
    "expand": (with_file, expand, 1, 0, set()),
    "publish": (published, publish_second, 1, 0, {"10.9.1.2", "10.9.2.2"}),
    "modify": (published, modify, 1, 0, {"10.9.1.2"}),
    "group": (group_of_two, group, 2, 2, set()),
    "delete group": (grouped, delete_groups, 2, 0, set()),
    "unpublish": (published, unpublish, 1, 0, set()),
    "delete": (with_file, delete, 0, 0, set()),
    "delete snapshot": (snapshotted, delete_snapshot, 1, 0, set()),
}


def consistent(case: BackendCase, place: Path, *, under_way: int = 0) -> None:
    """What must hold after every start, whatever was killed: the server lets in whom the records name."""
    table = {(path, address) for path, address in FileServer(place / "table").table}
    recorded = {
        (volume.context["share"], {"node-a": "10.9.1.2", "node-b": "10.9.2.2"}[node_id])
        for volume in case.volumes()
        for node_id in volume.published_node_ids
    }
    assert table == recorded
    files = {file.name.split(".")[-2] for file in (place / "exports.d").glob("*.exports")}
    assert files == {volume.handle for volume in case.volumes() if volume.published_node_ids}
    assert len(list((place / "root/new").iterdir())) <= under_way
    groups = {snapshot.group_handle for snapshot in case.snapshots()} - {""}
    assert {path.name for path in (place / "root/groups").iterdir()} == groups
    for handle in groups:
        made = case.backend.get_group_snapshot(handle)
        assert made is not None
        assert len(made.snapshots) == 2
    assert len(list((place / "root/snapshots").iterdir())) == len(case.snapshots())
    assert list(case.backend.diagnose()) == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_at_every_step(name: str, tmp_path: Path) -> None:
    prepare, act, volumes, snapshots, addresses = OPERATIONS[name]

    def prepared(place: Path) -> None:
        with opened(place) as case:
            prepare(case)

    def acted(place: Path) -> None:
        with opened(place) as case:
            act(case)
            assert opened_storage(case).trash.emptied(10)

    def retried(place: Path) -> None:
        with opened(place) as case:
            consistent(case, place, under_way=name in ("clone", "snapshot"))
            act(case)
            consistent(case, place)
            assert (len(case.volumes()), len(case.snapshots())) == (volumes, snapshots)
            assert {address for _, address in FileServer(place / "table").table} == addresses
            assert len(list((place / "root/volumes").iterdir())) == volumes
            for volume in case.volumes():
                assert (share(volume) / "sub/file").read_text(encoding="ascii") == "content"
                case.backend.unpublish_volume(volume.handle, "", case.secrets)
            delete(case)
            delete_groups(case)
            delete_snapshot(case)
            storage = opened_storage(case)
            assert storage.trash.emptied(10)
            assert list((place / "root/trash").iterdir()) == []
            room = storage.ledger.snapshot()
            assert room.promised_bytes == room.reserved_bytes == 0

    trace = tmp_path / "trace"
    assert in_child(lambda: prepared(tmp_path / "traced")) == 0
    assert in_child(lambda: acted(tmp_path / "traced"), trace=trace) == 0
    points = [point for point in dict.fromkeys(trace.read_text(encoding="ascii").split()) if point.startswith("nfs.")]
    assert points
    REACHED.update(points)
    for point in points:
        place = tmp_path / point
        assert in_child(lambda place=place: prepared(place)) == 0
        assert in_child(lambda place=place: acted(place), kill_at=point) == -signal.SIGKILL, point
        assert in_child(lambda place=place: retried(place)) == 0, f"killed at {point}"


def test_no_fault_point_was_left_out() -> None:
    """Runs last, after all of the operations above."""
    known = {point for point in fault_points(["backends.nfs"]) if not point.startswith(tuple(KILLED_ELSEWHERE))}
    assert REACHED, "run this file as a whole"
    assert known - REACHED == set()
