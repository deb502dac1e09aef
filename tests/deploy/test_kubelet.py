"""Every example is applied: its claims are made, staged and published through the driver as the chart starts it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import grpc
import helm
import pytest
from cluster import Cluster
from examples import EXAMPLES, Example
from image import Image
from installed import Driver, installed
from machine import machine

from csi_core._proto import csi_pb2 as pb

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_tool("mmdebstrap"), pytest.mark.needs_go]

GIB = 1 << 30
PREREQUISITE = re.compile(r"Apply (\S+)\.yaml first")


@pytest.fixture(scope="module")
def loop(image: Image) -> Iterator[Driver]:
    with machine() as host, installed(helm.CHART / "drivers" / "loop.yaml", host, image) as driver:
        yield driver


def example(name: str) -> Example:
    (found,) = (e for e in EXAMPLES if e.name == name)
    return found


def applied(driver: Driver, name: str) -> Cluster:
    """An example, after those that it says are to be applied first, on an otherwise empty cluster."""
    cluster = Cluster(driver)
    chosen = example(name)
    for first in PREREQUISITE.findall("\n".join(chosen.expectation)):
        cluster.apply(example(f"{chosen.path.parent.name}/{first}").objects)
    cluster.apply(chosen.objects)
    return cluster


def is_empty(driver: Driver) -> bool:
    """Whether the storage holds nothing any more."""
    controller = driver.kubelet.driver.controller
    volumes = controller.ListVolumes(pb.ListVolumesRequest(), timeout=10).entries
    snapshots = controller.ListSnapshots(pb.ListSnapshotsRequest(), timeout=10).entries
    return not volumes and not snapshots


def stories(driver: str, *but: str) -> list[str]:
    return [e.name for e in EXAMPLES if e.path.parent.name == driver and e.path.stem not in but]


@pytest.mark.parametrize("name", stories("loop", "static-pv", "expansion"))
def test_an_example_works_and_leaves_nothing(loop: Driver, name: str) -> None:
    cluster = applied(loop, name)
    assert cluster.pods
    cluster.delete_everything()
    assert is_empty(loop)


def test_a_volume_made_by_hand_is_used_by_a_persistent_volume_with_its_id(loop: Driver) -> None:
    story = example("loop/static-pv")
    command = re.search(r"csi-core volumes create [^;]+", "\n".join(story.expectation))
    assert command
    made = loop.node.started["csi-core"].run(*command[0].split())
    objects = story.objects
    (csi,) = (o["spec"]["csi"] for o in objects if o["kind"] == "PersistentVolume")
    handle = re.search(re.sub("v-.*", r"v-\\w+", csi["volumeHandle"]), made)
    assert handle, f"the example's id {csi['volumeHandle']} is not of the form that the command printed: {made}"
    csi["volumeHandle"] = handle[0]
    cluster = Cluster(loop)
    cluster.apply(objects)
    cluster.delete_everything()
    assert is_empty(loop)


def test_the_second_pod_of_a_read_write_once_pod_claim_stays_out(loop: Driver) -> None:
    cluster = applied(loop, "loop/read-write-once-pod")
    assert cluster.pending == ["second"]
    # The scheduler keeps it away; should it be bypassed, the driver refuses.
    with pytest.raises(grpc.RpcError) as refused:
        loop.kubelet.mount(cluster.volumes["sole"])
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    cluster.delete_everything()


def test_a_raw_device_has_the_size_of_its_claim(loop: Driver) -> None:
    cluster = applied(loop, "loop/raw-block")
    (used,) = cluster.pods["raw"].values()
    assert used.size_bytes() == GIB
    cluster.delete_everything()


def test_copies_are_as_large_as_their_claims(loop: Driver) -> None:
    for name, pod in (("loop/clone", "copy"), ("loop/snapshot-restore", "restored")):
        cluster = applied(loop, name)
        (used,) = cluster.pods[pod].values()
        assert used.size_bytes() > 1.8 * GIB, "its filesystem has the size of its source's"
        cluster.delete_everything()


def test_classes_may_name_the_topology_key_that_the_driver_reports(loop: Driver) -> None:
    classes = [o for o in example("loop/allowed-topologies").objects if o["kind"] == "StorageClass"]
    terms = [e for c in classes for term in c["allowedTopologies"] for e in term["matchLabelExpressions"]]
    assert {term["key"] for term in terms} == set(loop.topology)
    (volume,) = (o for o in example("loop/static-pv").objects if o["kind"] == "PersistentVolume")
    (affinity,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert {e["key"] for e in affinity["matchExpressions"]} == set(loop.topology)


@pytest.mark.needs_kernel("ext4-growth")
def test_a_volume_grows_while_a_pod_uses_it(loop: Driver) -> None:
    cluster = applied(loop, "loop/expansion")
    (used,) = cluster.pods["grows"].values()
    before = used.size_bytes()
    assert loop.sidecars.expand(used.volume, 2 * GIB), "the resizer is told that there is nothing for the node to do"
    loop.kubelet.expand(used, 2 * GIB)
    assert used.size_bytes() > before + 0.9 * GIB
    assert loop.kubelet.usage_bytes(used) == used.size_bytes()
    assert used.read() == cluster.contents["grows"]
    cluster.delete_everything()
    assert is_empty(loop)
