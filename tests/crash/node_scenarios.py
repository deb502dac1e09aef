"""Stage, publish and their undoing, killed."""

from __future__ import annotations

import shutil
from typing import Any, ClassVar

from driver import VOLUME_BYTES, Cluster
from scenario import GROWN_BYTES, Scenario, WithPod

from csi_core.testing.harness import from_snapshot


class Stage(Scenario):
    """NodeStageVolume of a fresh volume: mkfs, the marker, the mount."""

    name = "stage"
    fs_type: ClassVar[str] = "xfs"

    def prepare(self, cluster: Cluster) -> None:
        self.volume_id = cluster.create("claim", fs_type=self.fs_type).volume_id

    def act(self, cluster: Cluster) -> Any:
        cluster.stage(self.volume_id, self.fs_type)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        pod = cluster.publish(self.volume_id, self.fs_type)
        pod.write("data")
        cluster.stop_pod(self.volume_id)
        again = cluster.run_pod(self.volume_id, self.fs_type)
        again.verify(pod.checksums)

    def clean(self, cluster: Cluster) -> None:
        cluster.stop_pod(self.volume_id)
        cluster.delete(self.volume_id)


class StageExt4(Stage):
    """The same with ext4."""

    name = "stage-ext4"
    fs_type: ClassVar[str] = "ext4"


class StageLargerClone(Scenario):
    """NodeStageVolume of an ext4 restored into a larger volume: the filesystem grows before it is mounted."""

    name = "stage-larger-clone"

    def prepare(self, cluster: Cluster) -> None:
        self.origin = cluster.create("origin", fs_type="ext4").volume_id
        pod = cluster.run_pod(self.origin, "ext4")
        pod.write("kept")
        self.expected = dict(pod.checksums)
        self.snapshot = cluster.snapshot("snap", self.origin).snapshot_id
        source = from_snapshot(self.snapshot)
        self.copy = cluster.create("copy", source=source, size_bytes=GROWN_BYTES, fs_type="ext4").volume_id

    def act(self, cluster: Cluster) -> Any:
        cluster.stage(self.copy, "ext4")

    def verify(self, cluster: Cluster, answer: Any) -> None:
        pod = cluster.publish(self.copy, "ext4")
        pod.verify(self.expected)
        assert shutil.disk_usage(pod.target).total > VOLUME_BYTES, "the filesystem has grown with its volume"

    def clean(self, cluster: Cluster) -> None:
        for volume_id in (self.copy, self.origin):
            cluster.stop_pod(volume_id)
            cluster.delete(volume_id)
        cluster.delete_snapshot(self.snapshot)


class Publish(Stage):
    """NodePublishVolume of a staged volume."""

    name = "publish"

    def prepare(self, cluster: Cluster) -> None:
        super().prepare(cluster)
        cluster.stage(self.volume_id)

    def act(self, cluster: Cluster) -> Any:
        cluster.publish(self.volume_id)


class Unstage(WithPod):
    """NodeUnpublishVolume and NodeUnstageVolume."""

    name = "unstage"

    def act(self, cluster: Cluster) -> Any:
        cluster.unpublish(self.volume_id)
        cluster.unstage(self.volume_id)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        expected = self.pod(cluster).checksums
        cluster.run_pod(self.volume_id).verify(expected)


class Ephemeral(Scenario):
    """NodePublishVolume of an inline volume: create, format and mount in one call."""

    name = "ephemeral-publish"

    def act(self, cluster: Cluster) -> Any:
        return cluster.publish_ephemeral("csi-0123")

    def verify(self, cluster: Cluster, answer: Any) -> None:
        assert len(cluster.listed()) == 1, "exactly one volume for the pod"
        answer.write("data")
        answer.verify()

    def clean(self, cluster: Cluster) -> None:
        cluster.unpublish("csi-0123")


class EphemeralEnd(Ephemeral):
    """NodeUnpublishVolume of an inline volume, which deletes it."""

    name = "ephemeral-unpublish"

    def prepare(self, cluster: Cluster) -> None:
        cluster.publish_ephemeral("csi-0123").write("data")

    def act(self, cluster: Cluster) -> Any:
        cluster.unpublish("csi-0123")

    def verify(self, cluster: Cluster, answer: Any) -> None:
        assert cluster.listed() == [], "the volume went with its pod"
        assert not cluster.pod("csi-0123").target.exists()
