"""The driver is killed at every fault point of the NFS backend and of share mounts, restarted, and the call repeated.

A point that several operations reach is killed at in the first of them: a restart takes seconds in a guest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from driver import Cluster
from export_server import Disks, local_server
from killing import killed_at_every_step
from nfs_world import MODES, NfsCluster, NfsWorld, options_of
from scenario import GROWN_BYTES, Scenario, WithPod
from snapshot_scenarios import Delete, DeleteGroup, DeleteSnapshot, GroupSnapshot, Snapshot
from volume_scenarios import CreateFromSnapshot, CreateThin

from csi_core.testing.fault_points import fault_points

pytestmark = pytest.mark.needs_kernel("nfs")

NOBODY = 65534


class Create(CreateThin):
    """CreateVolume."""

    name = "create"
    parameters = {}  # noqa: RUF012


class LetIn(Scenario):
    """ControllerPublishVolume."""

    name = "controller-publish"

    def prepare(self, cluster: Cluster) -> None:
        self.volume_id = cluster.create("claim").volume_id

    def act(self, cluster: Cluster) -> Any:
        assert isinstance(cluster, NfsCluster)
        cluster.let_in(self.volume_id)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        cluster.run_pod(self.volume_id).write("data")
        cluster.pod(self.volume_id).verify()

    def clean(self, cluster: Cluster) -> None:
        cluster.stop_pod(self.volume_id)
        cluster.delete(self.volume_id)


class LetInWithoutExportfs(LetIn):
    """ControllerPublishVolume by a driver that has seen how exportfs writes an entry, to a node that was denied."""

    name = "controller-publish-again"

    def prepare(self, cluster: Cluster) -> None:
        assert isinstance(cluster, NfsCluster)
        self.first_id = cluster.create("first").volume_id
        cluster.let_in(self.first_id)
        super().prepare(cluster)
        assert not cluster.mountable(self.volume_id)

    def clean(self, cluster: Cluster) -> None:
        assert isinstance(cluster, NfsCluster)
        super().clean(cluster)
        cluster.keep_out(self.first_id)
        cluster.delete(self.first_id)


class Stage(LetIn):
    """NodeStageVolume and NodePublishVolume."""

    name = "stage"

    def act(self, cluster: Cluster) -> Any:
        cluster.run_pod(self.volume_id)


class KeepOut(WithPod):
    """ControllerUnpublishVolume, after the node's two."""

    name = "controller-unpublish"

    def act(self, cluster: Cluster) -> Any:
        cluster.unpublish(self.volume_id)
        cluster.unstage(self.volume_id)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        expected = self.pod(cluster).checksums
        cluster.run_pod(self.volume_id).verify(expected)


class Expand(WithPod):
    """ControllerExpandVolume of a volume in use."""

    name = "expand"

    def act(self, cluster: Cluster) -> Any:
        assert isinstance(cluster, NfsCluster)
        return cluster.grow(self.volume_id, GROWN_BYTES)

    def survives(self, cluster: Cluster) -> None:
        self.pod(cluster).write("while-dead")

    def verify(self, cluster: Cluster, answer: Any) -> None:
        assert answer == GROWN_BYTES
        self.pod(cluster).verify()


class Modify(WithPod):
    """ControllerModifyVolume of a volume in use: how it is exported."""

    name = "modify"

    def act(self, cluster: Cluster) -> Any:
        assert isinstance(cluster, NfsCluster)
        cluster.modify(self.volume_id, squash="all", writes="async")

    def survives(self, cluster: Cluster) -> None:
        self.pod(cluster).verify()

    def verify(self, cluster: Cluster, answer: Any) -> None:
        pod = self.pod(cluster)
        pod.verify()
        pod.write("of-nobody")
        assert (pod.target / "of-nobody").stat().st_uid == NOBODY


class Archive(WithPod):
    """DeleteVolume of a volume whose directory is to be kept under another name."""

    name = "archive"
    parameters = {"onDelete": "archive"}  # noqa: RUF012

    def prepare(self, cluster: Cluster) -> None:
        super().prepare(cluster)
        cluster.stop_pod(self.volume_id)

    def act(self, cluster: Cluster) -> Any:
        cluster.delete(self.volume_id)

    def verify(self, cluster: Cluster, answer: Any) -> None:
        assert cluster.listed() == []

    def clean(self, cluster: Cluster) -> None:
        """What is archived stays; the world does not look for it."""


SCENARIOS = (
    Create,
    LetIn,
    LetInWithoutExportfs,
    Stage,
    KeepOut,
    Expand,
    Modify,
    Snapshot,
    GroupSnapshot,
    CreateFromSnapshot,
    DeleteSnapshot,
    DeleteGroup,
    Delete,
)
OF_A_SHARE = (Create, CreateFromSnapshot, Delete, Archive)
"""What mode share does in another way; all else is the code of mode export."""

CASES = [*(("export", kind) for kind in SCENARIOS), *(("share", kind) for kind in OF_A_SHARE)]
REACHED: set[str] = set()
KILLED_ELSEWHERE = ("nfs.export.after_expire",)
"""In tests/unit/nfs: a host that others export to as well, as here, is never expired as a client."""


@pytest.fixture(scope="module")
def disks(scratch_disks: tuple[Path, ...]) -> Iterator[Disks]:
    with local_server({"xfs": scratch_disks[5]}) as disks:
        yield disks


@pytest.fixture(scope="module")
def worlds(disks: Disks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, NfsWorld]]:
    """A root and a share; every operation must leave them as they were."""
    directory = tmp_path_factory.mktemp("worlds")
    with ExitStack() as stack:
        made = {mode: stack.enter_context(options_of(mode, disks, directory)) for mode in MODES}
        yield {mode: NfsWorld(directory / mode, *found) for mode, found in made.items()}


@pytest.mark.parametrize(("mode", "kind"), CASES, ids=[f"{mode}-{kind.name}" for mode, kind in CASES])
def test_killed_at_every_step(
    mode: str, kind: type[Scenario], worlds: dict[str, NfsWorld], tmp_path: Path, record_property: Any
) -> None:
    killed = killed_at_every_step(worlds[mode], kind, tmp_path, known=frozenset(REACHED))
    REACHED.update(killed)
    record_property("detail", f"{mode} {kind.name}: killed at {len(killed)} points")


def test_no_fault_point_was_forgotten() -> None:
    points = {point for point in fault_points() if point.startswith(("nfs.", "node.share."))}
    points -= {point for point in points if point.startswith(KILLED_ELSEWHERE)}
    assert points <= REACHED, f"no operation reaches {', '.join(sorted(points - REACHED))}"
