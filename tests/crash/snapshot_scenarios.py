"""Snapshots, groups of them, and what is deleted around them, killed."""

from __future__ import annotations

from typing import Any

from driver import Cluster
from scenario import Scenario, WithPod

from csi_core.testing.harness import from_snapshot


class Snapshot(WithPod):
    """CreateSnapshot of a volume in use."""

    name = "snapshot"

    def act(self, cluster: Cluster) -> Any:
        return cluster.snapshot("snap", self.volume_id)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        pod = self.pod(cluster)
        expected = dict(pod.checksums)
        pod.write("data")  # would hang on a filesystem left frozen
        restored = cluster.create("restored", source=from_snapshot(answer.snapshot_id)).volume_id
        cluster.run_pod(restored).verify(expected)
        assert len(cluster.listed()) == 3, "volume, restored volume and one snapshot"
        cluster.stop_pod(restored)
        cluster.delete(restored)
        cluster.delete_snapshot(answer.snapshot_id)


class GroupSnapshot(Scenario):
    """CreateVolumeGroupSnapshot of two volumes in use."""

    name = "group-snapshot"

    def prepare(self, cluster: Cluster) -> None:
        self.volume_ids = [cluster.create(f"member-{n}").volume_id for n in range(2)]
        for volume_id in self.volume_ids:
            cluster.run_pod(volume_id).write("data")

    def act(self, cluster: Cluster) -> Any:
        return cluster.group("group", self.volume_ids)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        assert len(answer.snapshots) == 2
        assert len(cluster.listed()) == 4, "two volumes and two snapshots"
        for snapshot in answer.snapshots:
            pod = cluster.pod(snapshot.source_volume_id)
            expected = dict(pod.checksums)
            pod.write("data")
            restored = cluster.create("restored", source=from_snapshot(snapshot.snapshot_id)).volume_id
            cluster.run_pod(restored).verify(expected)
            cluster.stop_pod(restored)
            cluster.delete(restored)
        cluster.delete_group(answer)

    def clean(self, cluster: Cluster) -> None:
        for volume_id in self.volume_ids:
            cluster.stop_pod(volume_id)
            cluster.delete(volume_id)


class Delete(Scenario):
    """DeleteVolume of a volume with data; its snapshot lives on."""

    name = "delete"

    def prepare(self, cluster: Cluster) -> None:
        self.volume_id = cluster.create("claim").volume_id
        pod = cluster.run_pod(self.volume_id)
        pod.write("data")
        self.expected = dict(pod.checksums)
        self.snapshot_id = cluster.snapshot("snap", self.volume_id).snapshot_id
        cluster.stop_pod(self.volume_id)

    def act(self, cluster: Cluster) -> Any:
        cluster.delete(self.volume_id)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        assert cluster.listed() == [self.snapshot_id]
        restored = cluster.create("restored", source=from_snapshot(self.snapshot_id)).volume_id
        cluster.run_pod(restored).verify(self.expected)
        cluster.stop_pod(restored)
        cluster.delete(restored)

    def clean(self, cluster: Cluster) -> None:
        cluster.delete_snapshot(self.snapshot_id)


class DeleteSnapshot(Delete):
    """DeleteSnapshot; its source is untouched."""

    name = "delete-snapshot"

    def act(self, cluster: Cluster) -> Any:
        cluster.delete_snapshot(self.snapshot_id)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        assert cluster.listed() == [self.volume_id]
        cluster.run_pod(self.volume_id).verify(self.expected)
        cluster.stop_pod(self.volume_id)

    def clean(self, cluster: Cluster) -> None:
        cluster.delete(self.volume_id)


class DeleteGroup(GroupSnapshot):
    """DeleteVolumeGroupSnapshot; the members are untouched."""

    name = "delete-group"

    def prepare(self, cluster: Cluster) -> None:
        super().prepare(cluster)
        self.group = cluster.group("group", self.volume_ids)

    def act(self, cluster: Cluster) -> Any:
        cluster.delete_group(self.group)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        assert sorted(cluster.listed()) == sorted(self.volume_ids)
        for volume_id in self.volume_ids:
            cluster.pod(volume_id).verify()
