"""A driver installed by the chart on one node: its pods run, kubelet knows it, and its sidecars are played."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm
from image import Image
from kubelet import Kubelet
from machine import Machine
from pods import Pod, object_of, pod_of, prepared
from registration import Registrar, register
from sidecars import Connection, Sidecars

__all__ = ["Driver", "installed"]

Object = Mapping[str, Any]


@dataclass
class Driver:
    """What a release with one driver looks like from the cluster.

    Attributes:
        objects: all that the chart rendered.
        node: the pod of the DaemonSet.
        controller: the pod with the controller's sidecars; the same one for node-local drivers.
        name, node_id, topology: as kubelet learned them at registration.
    """

    objects: Sequence[Object]
    machine: Machine
    node: Pod
    controller: Pod
    name: str
    node_id: str
    topology: Mapping[str, str]
    kubelet: Kubelet
    sidecars: Sidecars

    @property
    def csi_driver(self) -> Object:
        """The CSIDriver object."""
        return object_of(self.objects, "CSIDriver")

    def of_kind(self, kind: str) -> list[Object]:
        """All rendered objects of a kind."""
        return [o for o in self.objects if o["kind"] == kind]


@contextmanager
def installed(
    values: Path, machine: Machine, image: Image, kubelet_directory: str = "/var/lib/kubelet", **overrides: Any
) -> Iterator[Driver]:
    """Install the chart with a driver's values file, and register the driver with kubelet.

    Args:
        values: one of the chart's drivers/*.yaml.
        machine: the node.
        image: of the driver.
        kubelet_directory: where the node's kubelet keeps its files; the chart must be told, with kubeletDir.
        overrides: further values.
    """
    objects = helm.render(values, values=overrides)
    prepared(machine, kubelet_directory)
    with ExitStack() as stack:
        node = stack.enter_context(pod_of(objects, "DaemonSet", machine, image))
        controller = node
        if "csi-provisioner" not in node.containers:
            controller = stack.enter_context(pod_of(objects, "Deployment", machine, image))
        arguments = node.arguments("node-driver-registrar")
        registrar = Registrar(
            node.path("node-driver-registrar", arguments["csi-address"]),
            node.path("node-driver-registrar", "/registration"),
            arguments["kubelet-registration-path"],
        )
        appeared = stack.enter_context(registrar.serving())
        watched = machine.host_path(f"{kubelet_directory}/plugins_registry")
        assert appeared.parent == watched, "kubelet looks nowhere else"
        name, node_id, topology, socket = register(appeared, machine.host_path)
        kubelet = Kubelet(machine, Connection(socket), object_of(objects, "CSIDriver"), kubelet_directory)
        asked = {name: controller.arguments(name) for name in controller.containers}
        endpoints = {
            controller.path(container, given["csi-address"])
            for container, given in asked.items()
            if "csi-address" in given
        }
        (endpoint,) = endpoints
        sidecars = Sidecars(Connection(endpoint), asked, topology)
        yield Driver(objects, machine, node, controller, name, node_id, topology, kubelet, sidecars)
