"""What health and diagnosis say of exports, server, content and quotas, and what a repair does."""

from __future__ import annotations

import os
import shutil

import pytest
from fake_server import FakeServer, data

from backends.nfs.quota import ProjectUsage
from backends.nfs.sizing import DATA, Unsized
from backends.nfs.storage import Storage
from csi_core.errors import DataLoss, NoSpace
from csi_core.health import HealthKind
from csi_core.model import AccessMode, GroupSnapshotSpec, PublishRequest, SizeRange, VolumeCapability, VolumeMode
from csi_core.testing.contract import BackendCase

FILESYSTEM = VolumeMode.FILESYSTEM
RWX = VolumeCapability(FILESYSTEM, AccessMode.MULTI_NODE_MULTI_WRITER)


def test_health_and_repair_of_exports(case: BackendCase, server: FakeServer) -> None:
    volume = case.create("data", FILESYSTEM)
    case.backend.publish_volume(PublishRequest(volume.handle, "node-a", RWX))
    server.table.clear()
    server.table[volume.context["share"], "10.9.9.9"] = False
    (problem,) = case.backend.volume_health(volume.handle)
    assert (problem.kind, problem.reason) == (HealthKind.INACCESSIBLE, "ExportMissing")
    found = list(case.backend.diagnose())
    assert [finding.repairable for finding in found] == [True, True]
    assert server.table.keys() == {(volume.context["share"], "10.9.9.9")}
    assert all(case.backend.repair(finding) for finding in found)
    assert server.table.keys() == {(volume.context["share"], "10.9.1.2")}
    assert list(case.backend.diagnose()) == []
    assert not any(case.backend.repair(finding) for finding in found)


def test_a_server_that_stopped_is_said(case: BackendCase, server: FakeServer) -> None:
    server.up = False
    assert [problem.reason for problem in case.backend.storage_health()] == ["ServerStopped"]


def test_content_that_is_gone_is_data_loss(case: BackendCase) -> None:
    volume = case.create("data", FILESYSTEM)
    shutil.rmtree(data(case, volume.handle))
    assert [problem.kind for problem in case.backend.volume_health(volume.handle)] == [HealthKind.DATA_LOSS]
    with pytest.raises(DataLoss):
        case.backend.publish_volume(PublishRequest(volume.handle, "node-a", RWX))


class CountingSizing(Unsized):
    """Limits that are only noted down."""

    counts = True

    def __init__(self) -> None:
        self.limits: dict[int, int] = {}
        self.inodes: list[int] = []
        self.on = True

    def enforced(self) -> bool:
        return self.on

    def make(self, parent: int) -> int:
        super().make(parent)
        self.inodes.append(os.stat(DATA, dir_fd=parent).st_ino)
        return len(self.inodes)

    def tree_id(self, directory: int) -> int:
        inode = os.fstat(directory).st_ino
        return self.inodes.index(inode) + 1 if inode in self.inodes else 0

    def limit(self, tree_id: int, limit_bytes: int) -> None:
        self.limits[tree_id] = limit_bytes

    def usage(self, tree_id: int) -> ProjectUsage:
        return ProjectUsage(0, self.limits.get(tree_id, 0), 0)


def test_limits_are_put_right(case: BackendCase) -> None:
    sizing = CountingSizing()
    case.backend._manager.get_plugin("tested")._mode._opened.sizing = sizing
    volume = case.create("data", FILESYSTEM)
    assert case.backend.expand_volume(volume.handle, SizeRange(2 * volume.size_bytes)) == 2 * volume.size_bytes
    assert sizing.limits == {1: 2 * volume.size_bytes}
    assert case.backend.volume_health(volume.handle) == ()
    sizing.limits[1] = 0
    assert [problem.reason for problem in case.backend.volume_health(volume.handle)] == ["QuotaDiffers"]
    (finding,) = case.backend.diagnose()
    assert case.backend.repair(finding)
    assert sizing.limits == {1: 2 * volume.size_bytes}
    sizing.on = False
    assert [problem.reason for problem in case.backend.storage_health()] == ["QuotaOff"]


def test_what_was_made_without_quotas_has_no_id_to_be_limited_by(
    case: BackendCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id 0 is everybody else's: of XFS's projects the default limit, of btrfs's qgroups the root's own."""
    volume, sizing = case.create("data", FILESYSTEM), CountingSizing()
    monkeypatch.setattr(Storage, "_chosen_sizing", lambda _: sizing)
    case.reopen()
    assert case.backend.expand_volume(volume.handle, SizeRange(2 * volume.size_bytes)) == 2 * volume.size_bytes
    assert [problem.reason for problem in case.backend.volume_health(volume.handle)] == ["NotLimited"]
    assert not any(case.backend.repair(finding) for finding in case.backend.diagnose())
    assert sizing.limits == {}
    case.snapshot("snap", volume)
    (snapshot,) = case.backend._manager.get_plugin("tested")._mode._opened.index.all("s")
    assert snapshot.charge_bytes == 2 * volume.size_bytes


@pytest.mark.parametrize("grouped", [False, True])
def test_a_snapshot_is_charged_what_it_has(
    case: BackendCase, monkeypatch: pytest.MonkeyPatch, *, grouped: bool
) -> None:
    """Its volume had less when the copy began, or so its count said."""
    storage, sizing = case.backend._manager.get_plugin("tested")._mode._opened, CountingSizing()
    storage.sizing = sizing
    volume = case.create("data", FILESYSTEM, 64 << 20)
    before_bytes = storage.ledger.snapshot().promised_bytes
    used = {1: 10 << 20}
    monkeypatch.setattr(sizing, "usage", lambda tree_id: ProjectUsage(used.get(tree_id, 30 << 20), 0, 0))
    if grouped:
        case.backend.create_group_snapshot(GroupSnapshotSpec("group", (volume.handle,)))
    else:
        case.snapshot("snap", volume)
    assert storage.ledger.snapshot().promised_bytes == before_bytes + (30 << 20)
    (snapshot,) = case.snapshots()
    assert storage.index.find("s", snapshot.handle).charge_bytes == 30 << 20
    storage.ledger.load(storage.ledger.snapshot().capacity_bytes - (20 << 20))
    with pytest.raises(NoSpace):
        case.snapshot("no-room", volume)
    assert storage.ledger.snapshot().reserved_bytes == 0
    assert len(case.snapshots()) == 1


def test_content_restored_from_a_backup_is_not_what_its_id_counts(
    case: BackendCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the id keeps nothing within its size any more, or another volume, which has the id by now."""
    sizing = CountingSizing()
    monkeypatch.setattr(Storage, "_chosen_sizing", lambda _: sizing)
    case.reopen()
    volume = case.create("data", FILESYSTEM)
    content = data(case, volume.handle)
    content.rename(content.with_name("lost"))
    content.mkdir()
    assert [problem.reason for problem in case.backend.volume_health(volume.handle)] == ["NotLimited"]
    sizing.limits.clear()
    case.reopen()
    case.backend.expand_volume(volume.handle, SizeRange(2 * volume.size_bytes))
    assert sizing.limits == {}
    content.rmdir()
    content.with_name("lost").rename(content)
    case.reopen()
    assert sizing.limits == {1: 2 * volume.size_bytes}
    assert case.backend.volume_health(volume.handle) == ()
