"""CreateVolume, NodeExpandVolume and DeleteVolume, killed."""

from __future__ import annotations

from typing import Any, ClassVar

from driver import MIB, Cluster
from scenario import GROWN_BYTES, Scenario, WithPod

from csi_core.testing.harness import from_snapshot, from_volume


class CreateThin(Scenario):
    """CreateVolume, sparse image."""

    name = "create-thin"
    parameters: ClassVar[dict[str, str]] = {"provisioning": "thin"}

    def act(self, cluster: Cluster) -> Any:
        return cluster.create("claim", **self.parameters)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        self.volume_id = answer.volume_id
        assert cluster.listed() == [answer.volume_id], "exactly one volume of that name"
        assert cluster.create("claim", **self.parameters).volume_id == answer.volume_id
        pod = cluster.run_pod(answer.volume_id)
        pod.write("data")
        pod.verify()

    def clean(self, cluster: Cluster) -> None:
        cluster.stop_pod(self.volume_id)
        cluster.delete(self.volume_id)


class CreateThick(CreateThin):
    """CreateVolume, preallocated image."""

    name = "create-thick"
    parameters: ClassVar[dict[str, str]] = {"provisioning": "thick"}


class CreateFromSnapshot(Scenario):
    """CreateVolume restored from a snapshot, larger than it."""

    name = "create-from-snapshot"
    parameters: ClassVar[dict[str, str]] = {}

    def prepare(self, cluster: Cluster) -> None:
        self.origin = cluster.create("origin").volume_id
        pod = cluster.run_pod(self.origin)
        pod.write("kept")
        self.snapshot = cluster.snapshot("snap", self.origin).snapshot_id
        self.expected = dict(pod.checksums)
        pod.write("kept")

    def act(self, cluster: Cluster) -> Any:
        return cluster.create("copy", source=from_snapshot(self.snapshot), size_bytes=GROWN_BYTES, **self.parameters)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        self.copy = answer.volume_id
        assert answer.HasField("content_source")
        assert len(cluster.listed()) == 3, "origin, snapshot and one copy"
        cluster.run_pod(self.copy).verify(self.expected)
        cluster.pod(self.origin).verify()

    def clean(self, cluster: Cluster) -> None:
        cluster.stop_pod(self.copy)
        cluster.stop_pod(self.origin)
        cluster.delete(self.origin)
        cluster.delete(self.copy)
        cluster.delete_snapshot(self.snapshot)


class CreateThickFromSnapshot(CreateFromSnapshot):
    """The same into a thick volume, which must own its blocks."""

    name = "create-thick-from-snapshot"
    parameters: ClassVar[dict[str, str]] = {"provisioning": "thick"}


class CreateFromVolume(Scenario):
    """CreateVolume cloned from a volume that a pod is using."""

    name = "create-from-volume"

    def prepare(self, cluster: Cluster) -> None:
        self.origin = cluster.create("origin").volume_id
        cluster.run_pod(self.origin).write("kept")

    def act(self, cluster: Cluster) -> Any:
        return cluster.create("copy", source=from_volume(self.origin))

    def verify(self, cluster: Cluster, answer: Any) -> None:
        self.copy = answer.volume_id
        assert len(cluster.listed()) == 2, "origin and one copy"
        cluster.run_pod(self.copy).verify(cluster.pod(self.origin).checksums)
        cluster.pod(self.origin).write("more")

    def clean(self, cluster: Cluster) -> None:
        for volume_id in (self.copy, self.origin):
            cluster.stop_pod(volume_id)
            cluster.delete(volume_id)


class DeleteUnused(Scenario):
    """DeleteVolume of a thin volume that no pod has used: there is no image yet."""

    name = "delete-unused"

    def prepare(self, cluster: Cluster) -> None:
        self.volume_id = cluster.create("claim").volume_id

    def act(self, cluster: Cluster) -> Any:
        cluster.delete(self.volume_id)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        assert cluster.listed() == []

    def clean(self, cluster: Cluster) -> None:
        """Nothing is left to clean."""


class Expand(WithPod):
    """NodeExpandVolume online."""

    name = "expand"

    def prepare(self, cluster: Cluster) -> None:
        super().prepare(cluster)
        self.pod(cluster).fill(24 * MIB)

    def act(self, cluster: Cluster) -> Any:
        return cluster.expand(self.volume_id, GROWN_BYTES)

    def survives(self, cluster: Cluster) -> None:
        self.pod(cluster).verify()
        self.pod(cluster).write("while-dead")

    def verify(self, cluster: Cluster, answer: Any) -> None:
        assert answer == GROWN_BYTES
        pod = self.pod(cluster)
        pod.verify()
        pod.write("after", size_bytes=48 * MIB)  # more than was free before
        pod.verify()


class ExpandThick(Expand):
    """The same with a preallocated image."""

    name = "expand-thick"
    parameters: ClassVar[dict[str, str]] = {"provisioning": "thick"}
