"""One node of a cluster: a machine with kubelet, a runtime and a pool, whose disk is a directory."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import kubernetes_programs as programs
from kubernetes_config import SOCKET, write_node_configuration
from kubernetes_host import Host
from machine import loop_devices_over

__all__ = ["CSI_CORE", "Node"]

CSI_CORE = "var/lib/csi-core"
"""Where a node has the driver's pool, relative to its directory."""
IMPORT_TIMEOUT_S = 300.0
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


@dataclass
class Node:
    """A node; what is on its disk is there again after :meth:`cut_power`.

    Attributes:
        host: the machine; its directory is the node's disk.
        kubeconfig: how kubelet finds the API server.
        pods: the first two numbers of its pods' addresses.
    """

    name: str
    host: Host
    kubeconfig: Path
    pods: str

    def start_programs(self, archive: Path, wait_for: Callable[[str, Callable[[], str]], str]) -> None:
        """Start runtime and kubelet on the machine, which runs; the first time with what they are told, and images.

        Args:
            archive: has the images.
            wait_for: asks until an answer is true.
        """
        disk = self.host.directory
        first = not (disk / "kubelet.yaml").exists()
        if first:
            write_node_configuration(disk, self.pods)
        self.host.spawn("containerd", programs.BIN / "containerd", "--config", disk / "containerd.toml")
        wait_for(f"containerd of {self.name} answers", lambda: self.host.run(*self._ctr(), "version"))
        if first:
            self.host.run(*self._ctr(), "images", "import", archive, timeout_s=IMPORT_TIMEOUT_S)
        self.start_kubelet()

    def start_kubelet(self) -> None:
        """Start kubelet, for the first time or again."""
        arguments = (f"--config={self.host.directory}/kubelet.yaml", f"--kubeconfig={self.kubeconfig}")
        names = (f"--hostname-override={self.name}", f"--node-ip={self.host.address}")
        self.host.spawn("kubelet", programs.BIN / "kubelet", *arguments, *names, "--v=2")

    def kill_kubelet(self) -> None:
        """kill -9; the pods go on."""
        self.host.run("pkill", "-KILL", "-x", "kubelet")

    def kill_container(self, container_id: str) -> None:
        """kill -9 its first process; kubelet starts it again."""
        tasks = self.host.run(*self._ctr(), "tasks", "ls").splitlines()
        pid = next(line.split()[1] for line in tasks if line.split()[0] == container_id.removeprefix("containerd://"))
        self.host.run("kill", "-KILL", pid)

    def cut_power(self) -> None:
        """Everything on it ends where it is; the page cache is this machine's, and survives."""
        self.host.kill()
        # What a reboot does to the kernel's own tables, which outlive the machine's processes here.
        for device in self.loop_devices():
            subprocess.run(["losetup", "--detach", device], check=True)
        for group in [*_CONTROL_GROUPS.glob("*/k8s.io/*"), *_CONTROL_GROUPS.glob("k8s.io/*")]:
            with suppress(OSError):  # those of a node that runs
                group.rmdir()

    def loop_devices(self) -> list[str]:
        """Those of the driver's volumes."""
        return loop_devices_over(self.host.directory / CSI_CORE)

    def images(self) -> list[str]:
        """The driver's images in its pool."""
        return [path.name for path in (self.host.directory / CSI_CORE).rglob("*.img")]

    def mounts(self) -> list[str]:
        """Where volumes are mounted; nowhere on a node that is off."""
        if not self.host.runs:
            return []
        mounted = self.host.run("findmnt", "--noheadings", "--raw", "--output", "TARGET").splitlines()
        return [path for path in mounted if "kubernetes.io~csi" in path or "kubernetes.io/csi" in path]

    def _ctr(self) -> tuple[object, ...]:
        return ("ctr", "--address", self.host.directory / SOCKET, "--namespace", "k8s.io")
