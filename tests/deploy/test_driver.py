"""The driver as the chart starts it, from the places of kubelet and of the sidecars beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import helm
import pytest
from fits import misfits
from image import Image
from installed import Driver, installed
from machine import machine
from pods import NODE_NAME
from registration import Registrar, RegistrationError, register

from csi_core._proto import csi_pb2 as pb

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_tool("mmdebstrap"), pytest.mark.needs_go]

MIB = 1 << 20
LOOP = helm.CHART / "drivers" / "loop.yaml"


@pytest.fixture(scope="module")
def loop(image: Image) -> Iterator[Driver]:
    with machine() as host, installed(LOOP, host, image) as driver:
        yield driver


def test_kubelet_registers_a_driver_that_fits_its_object_its_sidecars_and_the_examples(loop: Driver) -> None:
    assert misfits(loop) == []
    assert loop.node_id == NODE_NAME


def test_kubelet_refuses_a_driver_whose_socket_is_not_where_the_registrar_says(loop: Driver) -> None:
    """The registration path is the node's, not the container's: the mistake that this whole test is for."""
    registration = loop.node.path("node-driver-registrar", "/registration")
    registrar = Registrar(loop.node.path("csi-core", "/csi/csi.sock"), registration, "/csi/csi.sock")
    with registrar.serving() as socket, pytest.raises(RegistrationError, match="no socket /csi/csi.sock on the node"):
        register(socket, loop.machine.host_path)
    assert registrar.statuses[0][0] is False


def test_the_topology_key_is_the_one_that_classes_are_restricted_by(loop: Driver) -> None:
    assert loop.topology == {f"topology.{loop.name}/node": NODE_NAME}


def test_the_liveness_probe_is_answered_within_its_time(loop: Driver) -> None:
    probe = loop.node.arguments("liveness-probe")
    assert probe["http-endpoint"].endswith(str(_port(loop, "healthz")))
    within_s = float(probe["probe-timeout"].removesuffix("s"))
    assert loop.kubelet.driver.identity.Probe(pb.ProbeRequest(), timeout=within_s).ready.value


def _port(driver: Driver, name: str) -> int:
    ports = {port["name"]: port["containerPort"] for port in driver.node.containers["csi-core"]["ports"]}
    return int(ports[name])


def claim(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}, **spec},
    }


@pytest.mark.parametrize("volume_mode", ["Filesystem", "Block"])
def test_every_class_of_the_chart_makes_volumes_that_a_pod_can_use(loop: Driver, volume_mode: str) -> None:
    classes = loop.of_kind("StorageClass")
    assert classes
    for storage_class in classes:
        assert storage_class["provisioner"] == loop.name
        volume = loop.sidecars.provision(claim("data", volumeMode=volume_mode), storage_class)
        assert volume.topology == [loop.topology]
        used = loop.kubelet.mount(volume)
        written = used.write()
        assert used.read() == written
        loop.kubelet.unmount(used)
        loop.kubelet.unstage(volume)
        loop.sidecars.delete(volume)


def test_capacity_is_answered_for_every_class_and_this_segment(loop: Driver) -> None:
    for storage_class in loop.of_kind("StorageClass"):
        request = pb.GetCapacityRequest(
            parameters=storage_class.get("parameters") or {},
            accessible_topology=pb.Topology(segments=loop.topology),
        )
        assert loop.kubelet.driver.controller.GetCapacity(request, timeout=10).available_capacity > 0


def test_what_the_driver_mounts_in_its_container_is_seen_by_pods_that_start_later(loop: Driver) -> None:
    """Bidirectional propagation: without it the pod would write into an empty directory of the node's root disk."""
    volume = loop.sidecars.provision(claim("seen"), loop.of_kind("StorageClass")[0])
    used = loop.kubelet.mount(volume)
    try:
        assert used.path.is_mount()
        assert used.path.stat().st_dev != loop.machine.root.stat().st_dev
    finally:
        loop.kubelet.unmount(used)
        loop.kubelet.unstage(volume)
        loop.sidecars.delete(volume)


def test_another_kubelet_directory_is_used_throughout(image: Image) -> None:
    with machine() as host:
        directory = "/data/kubelet"
        with installed(LOOP, host, image, kubelet_directory=directory, kubeletDir=directory) as driver:
            volume = driver.sidecars.provision(claim("data"), driver.of_kind("StorageClass")[0])
            used = driver.kubelet.mount(volume)
            assert used.write() == used.read()
            assert not host.host_path("/var/lib/kubelet").exists()
            driver.kubelet.unmount(used)
            driver.kubelet.unstage(volume)
            driver.sidecars.delete(volume)
