"""Groups of snapshots: of one moment, or none at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.nfs import groups
from backends.nfs.options import NfsSnapshotParameters
from csi_core.errors import Busy, FailedPrecondition, InvalidArgument, StorageFailure
from csi_core.model import AccessMode, GroupSnapshotSpec, PublishRequest, Volume, VolumeCapability, VolumeMode
from csi_core.testing.contract import BackendCase

FILESYSTEM = VolumeMode.FILESYSTEM
RWX = VolumeCapability(FILESYSTEM, AccessMode.MULTI_NODE_MULTI_WRITER)


@pytest.fixture
def volumes(case: BackendCase) -> list[Volume]:
    """Two that a node has, with a file each."""
    found = [case.create(name, FILESYSTEM) for name in ("one", "two")]
    for volume in found:
        file(volume).write_text("content", encoding="ascii")
        case.backend.publish_volume(PublishRequest(volume.handle, "node-a", RWX))
    return found


def file(volume: Volume) -> Path:
    return Path(volume.context["share"]) / "file"


def group(case: BackendCase, volumes: list[Volume], **parameters: str) -> None:
    chosen = NfsSnapshotParameters.model_validate(parameters)
    handles = tuple(volume.handle for volume in volumes)
    case.backend.create_group_snapshot(GroupSnapshotSpec("group", handles, chosen))


def nothing_is_left(case: BackendCase, root: Path) -> None:
    assert case.snapshots() == []
    case.reopen()
    assert case.snapshots() == []
    for place in ("snapshots", "groups", "new"):
        assert list((root / place).iterdir()) == []


def test_published_and_quiet(case: BackendCase, volumes: list[Volume]) -> None:
    group(case, volumes)
    assert len(case.snapshots()) == 2


@pytest.mark.parametrize("written", [0, 1])
@pytest.mark.parametrize("after", [0, 1])
def test_a_write_to_any_member_while_the_group_is_copied_spoils_it(
    case: BackendCase, volumes: list[Volume], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, after: int
) -> None:
    real = groups.filled

    def meanwhile(storage, source, *rest):
        tree_id = real(storage, source, *rest)
        if source.key == volumes[after].handle:
            file(volumes[written]).write_text("more", encoding="ascii")
        return tree_id

    monkeypatch.setattr(groups, "filled", meanwhile)
    with pytest.raises(Busy, match=volumes[written].handle):
        group(case, volumes)
    nothing_is_left(case, tmp_path / "root")
    monkeypatch.undo()
    group(case, volumes)


def test_consistency_of_each_file_is_not_of_one_moment(case: BackendCase, volumes: list[Volume]) -> None:
    with pytest.raises(InvalidArgument, match="consistency file"):
        group(case, volumes, consistency="file")


def test_a_static_volume_is_in_no_group(case: BackendCase, volumes: list[Volume]) -> None:
    with pytest.raises(FailedPrecondition, match="did not make"):
        case.backend.create_group_snapshot(GroupSnapshotSpec("group", (volumes[0].handle, "static.mine")))


@pytest.mark.parametrize("kind", ["s", "g"])
def test_one_that_cannot_be_finished_takes_the_others_with_it(
    case: BackendCase, volumes: list[Volume], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    storage = case.backend._manager.get_plugin("tested")._mode._opened
    real, calls = storage.root.finish, []

    def failing(record, sizing):
        real(record, sizing)
        calls.append(record.key)
        if len(calls) == {"s": 2, "g": 3}[kind]:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage.root, "finish", failing)
    with pytest.raises(StorageFailure, match="Input/output error"):
        group(case, volumes)
    assert calls[-1].startswith(kind)
    assert storage.ledger.snapshot().reserved_bytes == 0
    nothing_is_left(case, tmp_path / "root")


def test_a_member_that_is_restored_keeps_its_group(case: BackendCase, volumes: list[Volume]) -> None:
    group(case, volumes)
    member = case.snapshots()[0]
    storage = case.backend._manager.get_plugin("tested")._mode._opened
    with storage.index.reading(member.handle), pytest.raises(Busy):
        case.backend.delete_group_snapshot(member.group_handle, case.secrets)
    assert len(case.snapshots()) == 2
    assert case.backend.get_group_snapshot(member.group_handle) is not None


def test_a_deletion_that_fails_half_way_can_be_repeated(
    case: BackendCase, volumes: list[Volume], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group(case, volumes)
    handle = case.snapshots()[0].group_handle
    storage = case.backend._manager.get_plugin("tested")._mode._opened
    real, calls = storage.root.discard, []

    def failing(place, key):
        calls.append(key)
        if len(calls) == 3:
            raise OSError(5, "Input/output error")
        real(place, key)

    monkeypatch.setattr(storage.root, "discard", failing)
    with pytest.raises(StorageFailure, match="Input/output error"):
        case.backend.delete_group_snapshot(handle, case.secrets)
    assert len(case.backend.get_group_snapshot(handle).snapshots) == 1
    case.backend.delete_group_snapshot(handle, case.secrets)
    assert storage.trash.emptied(10)
    assert storage.ledger.snapshot().promised_bytes == sum(record.charge_bytes for record in storage.index.all("v"))
    nothing_is_left(case, tmp_path / "root")


def test_a_broken_record_of_a_group_loses_no_member(case: BackendCase, volumes: list[Volume], tmp_path: Path) -> None:
    group(case, volumes)
    members = case.snapshots()
    record = tmp_path / "root/groups" / members[0].group_handle / "record.json"
    kept = record.read_bytes()
    record.write_bytes(b"{")
    case.reopen()
    assert case.snapshots() == members
    assert members[0].group_handle in [finding.subject for finding in case.backend.diagnose()]
    record.write_bytes(kept)
    case.reopen()
    assert case.backend.get_group_snapshot(members[0].group_handle) is not None
