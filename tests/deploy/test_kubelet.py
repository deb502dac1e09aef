"""Every example is applied: its claims are made, staged and published through the driver as the chart starts it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import helm
import pytest
import yaml
from cluster import Cluster
from examples import EXAMPLES, Example
from export_server import local_server
from image import Image
from installed import Driver, installed
from machine import machine
from pods import NODE_ADDRESS, object_of

from csi_core._proto import csi_pb2 as pb

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_tool("mmdebstrap"), pytest.mark.needs_go]

GIB = 1 << 30
POOL = "/var/lib/csi-core/pool"
WITHOUT_UDEV = "activation { udev_sync=0 udev_rules=0 } devices { obtain_device_list_from_udev=0 }"
PREREQUISITE = re.compile(r"Apply (\S+)\.yaml first")


@pytest.fixture(scope="module")
def loop(image: Image) -> Iterator[Driver]:
    with machine() as host, installed(values_of("loop"), host, image) as driver:
        yield driver


def values_of(driver: str) -> Path:
    """The chart's values for a driver."""
    return helm.CHART / "drivers" / f"{driver}.yaml"


def command(*argv: str | Path) -> None:
    """What an administrator does on the node beforehand."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv[0]}: {done.stderr}"


def example(name: str) -> Example:
    (found,) = (e for e in EXAMPLES if e.name == name)
    return found


@contextmanager
def applied(driver: Driver, name: str) -> Iterator[Cluster]:
    """An example, after those that it says are to be applied first, on an otherwise empty cluster; nothing is left."""
    chosen = example(name)
    first = PREREQUISITE.findall("\n".join(chosen.expectation))
    stories = [*(example(f"{chosen.path.parent.name}/{story}").objects for story in first), chosen.objects]
    with running(driver, *stories) as cluster:
        assert cluster.volumes or cluster.pods
        yield cluster


@contextmanager
def running(driver: Driver, *stories: Sequence[Mapping[str, Any]]) -> Iterator[Cluster]:
    """A cluster to which these objects are applied, in turn."""
    cluster = Cluster(driver)
    try:
        for objects in stories:
            cluster.apply(objects)
        yield cluster
    except BaseException:
        # So that one example that does not work is one test that fails.
        with suppress(Exception):
            cluster.delete_everything()
        raise
    cluster.delete_everything()
    assert is_empty(driver)


def is_empty(driver: Driver) -> bool:
    """Whether the storage holds nothing any more."""
    controller = driver.sidecars.driver.controller
    volumes = controller.ListVolumes(pb.ListVolumesRequest(), timeout=10).entries
    snapshots = controller.ListSnapshots(pb.ListSnapshotsRequest(), timeout=10).entries
    return not volumes and not snapshots


def stories(driver: str, *but: str) -> list[str]:
    return [e.name for e in EXAMPLES if e.path.parent.name == driver and e.path.stem not in but]


@pytest.mark.parametrize("name", stories("loop", "static-pv", "expansion"))
def test_an_example_works_and_leaves_nothing(loop: Driver, name: str) -> None:
    with applied(loop, name):
        pass


def use_by_hand(driver: Driver, name: str) -> None:
    """Make the volume with the command that the example says, and put its id where the example says."""
    story = example(name)
    command = re.search(r"csi-core volumes create [^;]+", "\n".join(story.expectation))
    assert command
    made = driver.node.started["csi-core"].run(*command[0].split())
    objects = story.objects
    (csi,) = (o["spec"]["csi"] for o in objects if o["kind"] == "PersistentVolume")
    handle = re.search(re.sub("v-.*", r"v-\\w+", csi["volumeHandle"]), made)
    assert handle, f"the example's id {csi['volumeHandle']} is not of the form that the command printed: {made}"
    csi["volumeHandle"] = handle[0]
    with running(driver, objects) as cluster:
        assert cluster.volumes["kept"].handle == handle[0]


def test_a_volume_made_by_hand_is_used_by_a_persistent_volume_with_its_id(loop: Driver) -> None:
    use_by_hand(loop, "loop/static-pv")


def test_the_second_pod_of_a_read_write_once_pod_claim_stays_out(loop: Driver) -> None:
    with applied(loop, "loop/read-write-once-pod") as cluster:
        assert cluster.pending == ["second"]
        # The scheduler keeps it away; should it be bypassed, the driver refuses.
        with pytest.raises(grpc.RpcError) as refused:
            loop.kubelet.mount(cluster.volumes["sole"])
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_raw_device_has_the_size_of_its_claim(loop: Driver) -> None:
    with applied(loop, "loop/raw-block") as cluster:
        (used,) = cluster.pods["raw"].values()
        assert used.size_bytes() == GIB


def test_copies_are_as_large_as_their_claims(loop: Driver) -> None:
    for name, pod in (("loop/clone", "copy"), ("loop/snapshot-restore", "restored")):
        with applied(loop, name) as cluster:
            (used,) = cluster.pods[pod].values()
            assert used.size_bytes() > 1.8 * GIB, "its filesystem has the size of its source's"


def test_classes_may_name_the_topology_key_that_the_driver_reports(loop: Driver) -> None:
    classes = [o for o in example("loop/allowed-topologies").objects if o["kind"] == "StorageClass"]
    terms = [e for c in classes for term in c["allowedTopologies"] for e in term["matchLabelExpressions"]]
    assert {term["key"] for term in terms} == set(loop.topology)
    (volume,) = (o for o in example("loop/static-pv").objects if o["kind"] == "PersistentVolume")
    (affinity,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert {e["key"] for e in affinity["matchExpressions"]} == set(loop.topology)


def grow(driver: Driver, name: str) -> None:
    """Apply the example of expansion, and give its claim the size that its second line says."""
    assert '"storage":"2Gi"' in example(name).expectation[1]
    with applied(driver, name) as cluster:
        (used,) = cluster.pods["grows"].values()
        before = used.size_bytes()
        if driver.sidecars.expand(used.volume, 2 * GIB):
            driver.kubelet.expand(used, 2 * GIB)
        assert used.size_bytes() > before + 0.9 * GIB
        assert driver.kubelet.usage_bytes(used) == used.size_bytes()
        assert used.read() == cluster.contents["grows"]


@pytest.mark.needs_kernel("ext4-growth")
def test_a_volume_grows_while_a_pod_uses_it(image: Image, scratch_disks: tuple[Path, ...]) -> None:
    pool = {"path": POOL, "allowLoopHost": True}  # on a machine whose own kernel will do, the disk is a loop device
    options = {"backends": {"loop": {"options": {"pools": {"default": pool}}}}}
    with machine() as host:
        disk = host.host_path(POOL)
        disk.mkdir(parents=True)
        command("mkfs.xfs", "-q", "-f", "-K", scratch_disks[0])
        command("mount", scratch_disks[0], disk)
        with installed(values_of("loop"), host, image, drivers={"loop": {"config": options}}) as driver:
            grow(driver, "loop/expansion")


# -- lvm: where the kernel has device-mapper -------------------------------------------------------


@pytest.fixture(scope="module")
def lvm(image: Image, scratch_disks: tuple[Path, ...]) -> Iterator[Driver]:
    objects = helm.render(values_of("lvm"))
    config = yaml.safe_load(object_of(objects, "ConfigMap")["data"]["config.yaml"])
    group = config["backends"]["lvm"]["options"]["classes"]["default"]["volumeGroup"]
    command("vgcreate", "--yes", "--config", WITHOUT_UDEV, group, scratch_disks[1])
    try:
        with machine() as host, installed(values_of("lvm"), host, image) as driver:
            yield driver
    finally:
        command("vgremove", "--yes", "--force", "--config", WITHOUT_UDEV, group)
        command("wipefs", "--all", scratch_disks[1])


@pytest.mark.needs_kernel("device-mapper")
@pytest.mark.parametrize("name", stories("lvm", "static-pv", "expansion"))
def test_an_example_of_lvm_works_and_leaves_nothing(lvm: Driver, name: str) -> None:
    with applied(lvm, name):
        pass


@pytest.mark.needs_kernel("device-mapper")
def test_a_logical_volume_made_by_hand_is_used_by_a_persistent_volume_with_its_id(lvm: Driver) -> None:
    use_by_hand(lvm, "lvm/static-pv")


@pytest.mark.needs_kernel("device-mapper")
def test_a_logical_volume_grows_while_a_pod_uses_it(lvm: Driver) -> None:
    grow(lvm, "lvm/expansion")


# -- nfs: where the kernel serves and mounts it ----------------------------------------------------


@pytest.fixture(scope="module")
def nfs(image: Image, scratch_disks: tuple[Path, ...]) -> Iterator[Driver]:
    """The NFS server is this machine, and so is the one node."""
    with local_server({"xfs": scratch_disks[2]}) as exported:
        root = str(exported["xfs"])
        written = ("/etc/exports.d", "/var/lib/nfs")
        options = {"server": NODE_ADDRESS, "export": {"root": root}}
        values = {
            "config": {"backends": {"nfs": {"options": options}}},
            "controller": {"hostPaths": [{"path": path} for path in (root, *written)]},
        }
        with (
            machine(root, *written) as host,
            installed(values_of("nfs-export"), host, image, drivers={"nfs": values}) as driver,
        ):
            yield driver


@pytest.mark.needs_kernel("nfs")
@pytest.mark.parametrize("name", stories("nfs", "static-pv", "expansion"))
def test_an_example_of_nfs_works_and_leaves_nothing(nfs: Driver, name: str) -> None:
    with applied(nfs, name):
        pass


@pytest.mark.needs_kernel("nfs")
def test_an_export_grows_while_a_pod_uses_it(nfs: Driver) -> None:
    grow(nfs, "nfs/expansion")


# -- sim: what no other backend has ----------------------------------------------------------------


def test_the_properties_of_a_volume_change_with_its_attributes_class(image: Image) -> None:
    with (
        machine() as host,
        installed(values_of("sim"), host, image) as sim,
        applied(sim, "sim/volume-attributes-class") as cluster,
    ):
        other = cluster.objects["VolumeAttributesClass", "csi-core-sim-fast"]
        sim.sidecars.modify(cluster.volumes["tuned"], other["parameters"])
        with pytest.raises(grpc.RpcError) as refused:
            sim.sidecars.modify(cluster.volumes["tuned"], {"colour": "red"})
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, "the claim is not marked Infeasible"
