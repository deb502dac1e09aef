"""A Kubernetes on this machine: the real control plane, nodes with kubelet, runtime and sidecars, and the chart."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import helm
import kubernetes_images as images
import kubernetes_programs as programs
import yaml
from kubernetes_config import write_configuration
from kubernetes_host import ADDRESS, Host, HostError, connect
from kubernetes_node import Node

__all__ = ["NODE", "SECOND", "Cluster", "running", "wait_for"]

NODE = "worker-1"
"""As deploy/examples call a node."""
SECOND = "worker-2"
LOOP_HOST = "drivers.loop.config.backends.loop.options.pools.default.allowLoopHost=true"
"""A second node's disk is a file of this machine."""
POLL_S = 0.25
START_TIMEOUT_S = 120.0
WAIT_TIMEOUT_S = 120.0
Object = dict[str, Any]
Answer = TypeVar("Answer")


def wait_for(what: str, ask: Callable[[], Answer], timeout_s: float = WAIT_TIMEOUT_S) -> Answer:
    """Ask until the answer is true; answers it.

    Args:
        what: is waited for, for the error.
        ask: an AssertionError or a failed command is a no, and its text is shown in the end.

    Raises:
        AssertionError: it did not become true.
    """
    ends_at, last = time.monotonic() + timeout_s, "false"
    while time.monotonic() < ends_at:
        try:
            if answer := ask():
                return answer
            last = repr(answer)
        except (AssertionError, HostError) as error:
            last = str(error)
        time.sleep(POLL_S)
    raise AssertionError(f"{what}: not after {timeout_s:.0f} s; the last answer was {last}")


@dataclass
class Cluster:
    """Nodes and a control plane, which is on the first of them; its state is in ``directory``, and survives a reboot.

    Attributes:
        nodes: by their names, those that are off included.
    """

    directory: Path
    nodes: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes[NODE] = Node(NODE, Host(self.directory, ADDRESS, self._environment()), self._kubeconfig, "10.88")

    @property
    def host(self) -> Host:
        """The machine of the control plane and the first node."""
        return self.nodes[NODE].host

    @property
    def _kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(programs.BIN), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        return {"KUBECONFIG": str(self._kubeconfig), "PATH": path}

    # -- the machines --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start control plane and first node, from nothing or from what an earlier start left on disk."""
        first = not self._kubeconfig.exists()
        self.host.start()
        if first:
            write_configuration(self.directory)
            (self.directory / "images").mkdir()
            images.write_archive(self.directory / "images")
            self.host.run("openssl", "genrsa", "-out", self.directory / "service-accounts.key", "2048")
        self._start_control_plane()
        self._start_node(self.nodes[NODE])

    def reboot(self) -> None:
        """Cut the power of the first node, and start again."""
        self.nodes[NODE].cut_power()
        self.start()

    def add_node(self, name: str) -> Node:
        """A second node, which is off; its directory is there, for a disk to be mounted in it."""
        directory = self.directory / name
        directory.mkdir()
        self.nodes[name] = Node(name, Host(directory, "10.96.1.1", self._environment()), self._kubeconfig, "10.89")
        return self.nodes[name]

    def start_node(self, name: str) -> None:
        """Switch the second node on, for the first time or again."""
        node = self.nodes[name]
        node.host.start()
        connect(self.host, self.nodes[NODE].pods, node.host, node.pods)
        self._start_node(node)

    def _start_node(self, node: Node) -> None:
        archive = self.directory / "images" / images.ARCHIVE
        node.start_programs(archive, lambda what, ask: wait_for(what, ask, START_TIMEOUT_S))
        wait_for(f"{node.name} is ready", lambda: self.condition("node", node.name, "Ready"), START_TIMEOUT_S)

    def kill(self) -> None:
        """Every process of every node ends."""
        for node in reversed(self.nodes.values()):
            node.cut_power()

    def loop_devices(self) -> list[str]:
        """Those of the driver's volumes."""
        return [device for node in self.nodes.values() for device in node.loop_devices()]

    def images(self) -> list[str]:
        """The driver's images in its pools."""
        return [image for node in self.nodes.values() for image in node.images()]

    def kill_kubelet(self) -> None:
        """Of the first node: kill -9; the pods go on."""
        self.nodes[NODE].kill_kubelet()

    def start_kubelet(self) -> None:
        """Start that of the first node again."""
        self.nodes[NODE].start_kubelet()

    def kill_container(self, namespace: str, pod: str, container: str) -> None:
        """kill -9 its first process; kubelet starts it again."""
        found = self.get("pod", pod, namespace)
        statuses = found["status"]["containerStatuses"]
        wanted = next(status["containerID"] for status in statuses if status["name"] == container)
        self.nodes[found["spec"]["nodeName"]].kill_container(wanted)

    def _start_control_plane(self) -> None:
        disk, spawn = self.directory, self.host.spawn
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        listen = (f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}")
        spawn("etcd", programs.BIN / "etcd", f"--data-dir={disk}/etcd", *listen, "--unsafe-no-fsync")
        key = f"{disk}/service-accounts.key"
        spawn(
            "kube-apiserver",
            programs.BIN / "kube-apiserver",
            f"--etcd-servers={client}",
            f"--cert-dir={disk}/pki",
            f"--advertise-address={ADDRESS}",
            "--secure-port=443",
            "--service-cluster-ip-range=10.96.0.0/24",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--token-auth-file={disk}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
        )
        wait_for("the API server is ready", lambda: self.kubectl("get", "--raw", "/readyz") == "ok", START_TIMEOUT_S)
        config = f"--kubeconfig={disk}/kubeconfig"
        spawn(
            "kube-controller-manager",
            programs.BIN / "kube-controller-manager",
            config,
            f"--service-account-private-key-file={key}",
            f"--root-ca-file={disk}/pki/apiserver.crt",
            "--use-service-account-credentials",
            "--leader-elect=false",
        )
        spawn("kube-scheduler", programs.BIN / "kube-scheduler", config, "--leader-elect=false")
        self.kubectl("apply", "--server-side", "-f", programs.CRDS)
        options = ("--enable-distributed-snapshotting", "--feature-gates=CSIVolumeGroupSnapshot=true")
        spawn("snapshot-controller", programs.BIN / "snapshot-controller", config, *options)

    # -- what is in it -------------------------------------------------------------------------------

    def install(self, driver: str, *arguments: str) -> None:
        """``helm upgrade --install`` of the chart with the values of one of its drivers."""
        values = ("--values", helm.CHART / "drivers" / f"{driver}.yaml", "--set", LOOP_HOST)
        names = ("--namespace", helm.NAMESPACE, "--create-namespace")
        self.host.run(helm.HELM, "upgrade", "--install", helm.RELEASE, helm.CHART, *names, *values, *arguments)

    def kubectl(self, *arguments: object, stdin: str = "") -> str:
        """What kubectl prints.

        Raises:
            HostError: it failed.
        """
        return self.host.run("kubectl", *arguments, stdin=stdin)

    def apply(self, objects: Sequence[Object], namespace: str) -> None:
        """``kubectl apply``."""
        text = yaml.safe_dump_all(objects)
        self.kubectl("apply", "--namespace", namespace, "-f", "-", stdin=text)

    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        """One object.

        Raises:
            HostError: there is none.
        """
        return json.loads(self.kubectl("get", kind, name, "--namespace", namespace, "-o", "json"))

    def all(self, kind: str, namespace: str = "") -> list[Object]:
        """The objects of a kind in a namespace, or else in all."""
        where = ("--namespace", namespace) if namespace else ("--all-namespaces",)
        return json.loads(self.kubectl("get", kind, *where, "-o", "json"))["items"]

    def condition(self, kind: str, name: str, wanted: str, namespace: str = "default") -> bool:
        """Whether a condition of an object is True."""
        conditions = self.get(kind, name, namespace)["status"].get("conditions", [])
        return any(found["type"] == wanted and found["status"] == "True" for found in conditions)

    def in_pod(self, namespace: str, pod: str, script: str) -> str:
        """What a shell script prints in a pod's container.

        Raises:
            HostError: it failed.
        """
        return self.kubectl("exec", "--namespace", namespace, pod, "--", "sh", "-c", script)


@contextmanager
def running(say: Callable[[str], None]) -> Iterator[Cluster]:
    """A cluster with nothing installed, which ends with the context; its logs are kept where a test failed."""
    programs.build(say)
    helm.build()
    # Short: sockets below it may have paths of 107 bytes. On a disk: overlayfs wants one.
    directory = Path(tempfile.mkdtemp(prefix="csi-core-k8s-", dir="/var/tmp"))
    cluster = Cluster(directory)
    try:
        say("starting Kubernetes")
        cluster.start()
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(directory)
