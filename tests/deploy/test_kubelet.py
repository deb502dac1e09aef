"""Every example is applied: its claims are made, staged and published through the driver as the chart starts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import helm
import pytest
import yaml
from fits import misfits
from image import Image
from installed import Driver, installed
from machine import machine
from pods import NODE_NAME, object_of
from restarts import published, run_through_ten_restarts
from stories import GIB, applied, command, grow, stories, use_by_hand, values_of

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_tool("mmdebstrap"), pytest.mark.needs_go]

POOL = "/var/lib/csi-core/pool"
WITHOUT_UDEV = "activation { udev_sync=0 udev_rules=0 } devices { obtain_device_list_from_udev=0 }"


@pytest.fixture(scope="module")
def loop(image: Image) -> Iterator[Driver]:
    with machine() as host, installed(values_of("loop"), host, image) as driver:
        yield driver


@pytest.mark.parametrize("name", stories("loop", "static-pv", "expansion"))
def test_an_example_works_and_leaves_nothing(loop: Driver, name: str) -> None:
    with applied(loop, name):
        pass


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
def test_the_driver_of_lvm_fits_its_object_its_sidecars_and_the_examples(lvm: Driver) -> None:
    assert misfits(lvm) == []
    assert lvm.node_id == NODE_NAME
    assert set(lvm.topology.values()) == {NODE_NAME}


@pytest.mark.needs_kernel("device-mapper")
def test_a_logical_volume_grows_while_a_pod_uses_it(lvm: Driver) -> None:
    grow(lvm, "lvm/expansion")


@pytest.mark.needs_kernel("device-mapper")
def test_writers_to_logical_volumes_run_through_ten_restarts_without_an_error(lvm: Driver) -> None:
    run_through_ten_restarts(lvm, [published(lvm, mode) for mode in ("Filesystem", "Block")])


# -- sim: what no other backend has ----------------------------------------------------------------


def test_the_properties_of_a_volume_change_with_its_attributes_class(image: Image) -> None:
    # Kept on the node, where controller and node plugin both find it when they start.
    kept = {"hostPaths": [{"path": "/srv/sim", "type": "DirectoryOrCreate"}]}
    config = {"backends": {"sim": {"options": {"directory": "/srv/sim"}}}}
    values = {"sim": {"config": config, "controller": kept, "node": kept}}
    with (
        machine() as host,
        installed(values_of("sim"), host, image, drivers=values) as sim,
        applied(sim, "sim/volume-attributes-class") as cluster,
    ):
        volume, other = cluster.volumes["tuned"], cluster.objects["VolumeAttributesClass", "csi-core-sim-fast"]
        sim.sidecars.modify(volume, other["parameters"])
        with pytest.raises(grpc.RpcError) as refused:
            sim.sidecars.modify(volume, {"colour": "red"})
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, "the claim is not marked Infeasible"
        assert misfits(sim) == []
        node = sim.node.started["csi-core"]
        node.stop()
        node.start()
        node.wait_for_answer(sim.node.path("csi-core", "/csi/csi.sock"))
        sim.sidecars.attach(volume, sim.node_id)
        used = sim.kubelet.mount(volume)
        # A simulated mount is a link, which leads somewhere in the driver's container only.
        assert used.path.is_symlink()
        sim.kubelet.unmount(used)
        assert not used.path.is_symlink()
