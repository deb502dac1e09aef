"""What health and diagnosis say of exports, server, content and quotas, and what a repair does."""

from __future__ import annotations

import shutil

import pytest
from fake_server import FakeServer, data

from backends.nfs.quota import ProjectUsage
from backends.nfs.sizing import Unsized
from csi_core.errors import DataLoss
from csi_core.health import HealthKind
from csi_core.model import AccessMode, PublishRequest, SizeRange, VolumeCapability, VolumeMode
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
        self.on = True

    def enforced(self) -> bool:
        return self.on

    def make(self, parent: int) -> int:
        super().make(parent)
        return len(self.limits) + 1

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
