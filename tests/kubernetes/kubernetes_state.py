"""What a test asks of a cluster: which pods run, what a log says, whether anything is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import helm
from examples import DIRECTORY, Example
from kubernetes_cluster import NODE, Cluster, wait_for

__all__ = [
    "DRIVER_CONTAINER",
    "applied",
    "driver_pod",
    "example",
    "in_driver",
    "is_clean",
    "log_of",
    "wait_for_log",
    "wait_for_warning",
    "warnings_about",
]

DRIVER_CONTAINER = "csi-core"
CLUSTER_WIDE = {"StorageClass", "VolumeSnapshotClass", "VolumeGroupSnapshotClass"}


def example(name: str) -> list[dict[str, Any]]:
    """The objects of deploy/examples/loop/NAME.yaml."""
    return Example(DIRECTORY / "loop" / f"{name}.yaml").objects


@contextmanager
def applied(cluster: Cluster, *objects: dict[str, Any]) -> Iterator[None]:
    """``kubectl apply`` of them, and ``kubectl delete`` at the end, pods first, as people do."""
    try:
        cluster.apply(objects, "default")
        yield
    finally:
        for made in sorted(objects, key=lambda made: (made["kind"] in CLUSTER_WIDE, made["kind"] != "Pod")):
            # A claim and its volume wait for each other.
            wait = "--wait=false" if made["kind"].startswith("PersistentVolume") else "--wait=true"
            cluster.kubectl("delete", made["kind"], made["metadata"]["name"], "--ignore-not-found", wait)


def driver_pod(cluster: Cluster, node: str = NODE) -> str:
    """The name of the driver's pod on a node; it may not run yet."""
    pods = wait_for("the driver has a pod", lambda: _driver_pods(cluster, node))
    return str(pods[0]["metadata"]["name"])


def _driver_pods(cluster: Cluster, node: str) -> list[dict[str, Any]]:
    pods = [pod for pod in cluster.all("pod", helm.NAMESPACE) if pod["spec"].get("nodeName") == node]
    live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return [pod for pod in live if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "node"]


def in_driver(cluster: Cluster, node: str, *command: str) -> str:
    """``kubectl exec`` in the driver's container on a node, as docs/operations.md has it."""
    pod = ("--namespace", helm.NAMESPACE, driver_pod(cluster, node), "--container", DRIVER_CONTAINER)
    return cluster.kubectl("exec", *pod, "--", *command)


def log_of(cluster: Cluster, pod: str) -> str:
    """What a pod's only container has printed."""
    return cluster.kubectl("logs", pod)


def wait_for_log(cluster: Cluster, pod: str, text: str) -> str:
    """The pod's log, once it has ``text``."""
    return wait_for(f"{pod} says {text!r}", lambda: _with(log_of(cluster, pod), text))


def _with(log: str, text: str) -> str:
    assert text in log, log
    return log


def warnings_about(cluster: Cluster, kind: str, name: str) -> str:
    """The texts of an object's warning events; of this very object, and not of a former one of its name."""
    uid = cluster.get(kind, name)["metadata"]["uid"]
    events = [event for event in cluster.all("event", "default") if event["type"] == "Warning"]
    return "\n".join(event["message"] for event in events if event["involvedObject"].get("uid") == uid)


def wait_for_warning(cluster: Cluster, kind: str, name: str, text: str) -> str:
    """The object's warnings, once one of them has that text."""

    def ask() -> str:
        said = warnings_about(cluster, kind, name)
        assert text in said, said
        return said

    return wait_for(f"{kind} {name} is told {text!r}", ask)


def is_clean(cluster: Cluster) -> bool:
    """Whether nothing of any volume is left; an AssertionError says what is."""
    for kind in ("pv", "pvc", "volumesnapshotcontents", "volumegroupsnapshotcontents", "volumeattachments"):
        left = [found["metadata"]["name"] for found in cluster.all(kind)]
        assert not left, f"{kind}: {left}"
    assert not cluster.images(), cluster.images()
    assert not cluster.loop_devices(), cluster.loop_devices()
    mounted = [path for node in cluster.nodes.values() for path in node.mounts()]
    assert not mounted, mounted
    attached = cluster.get("csinode", NODE)["spec"]["drivers"]
    assert [driver["name"] for driver in attached] == ["loop.csi-core.dev"]
    return True
