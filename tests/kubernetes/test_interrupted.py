"""What is killed on a real Kubernetes, and what pods and claims see of it: nothing that lasts, and nothing is left."""

from __future__ import annotations

import time
from typing import Any

import helm
from kubernetes_cluster import Cluster, wait_for
from kubernetes_state import DRIVER_CONTAINER, applied, driver_pod, example, log_of, wait_for_log

CLAIMS = 12
WRITES_S = 3.0


def numbered(number: int) -> list[dict[str, Any]]:
    """A claim and a pod that writes its own name and then goes on writing; the pod is started again when it ends."""
    claim, pod = example("read-write-once")
    claim["metadata"]["name"] = pod["metadata"]["name"] = name = f"many-{number}"
    pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = name
    pod["spec"]["restartPolicy"] = "Always"
    write = f"[ -e /data/name ] || echo {name} > /data/name; sync; cat /data/name"
    beat = "while echo beat >> /data/beats && sync; do sleep 0.2; done; echo failed"
    pod["spec"]["containers"][0]["command"] = ["sh", "-c", f"{write}; {beat}"]
    return [pod, claim]


def beats(cluster: Cluster, pod: str) -> int:
    return len(cluster.in_pod("default", pod, "cat /data/beats").splitlines())


def assert_still_writing(cluster: Cluster, pod: str) -> None:
    before = beats(cluster, pod)
    time.sleep(WRITES_S)
    assert beats(cluster, pod) > before
    assert "failed" not in log_of(cluster, pod)


def driver_is_ready(cluster: Cluster) -> bool:
    return cluster.condition("pod", driver_pod(cluster), "Ready", helm.NAMESPACE)


def test_the_driver_is_killed_under_a_rush(cluster: Cluster) -> None:
    rush = [made for number in range(CLAIMS) for made in numbered(number)]
    with applied(cluster, *rush):
        wait_for("some volumes are made", cluster.images)
        cluster.kill_container(helm.NAMESPACE, driver_pod(cluster), DRIVER_CONTAINER)
        for number in range(CLAIMS):
            assert wait_for_log(cluster, f"many-{number}", f"many-{number}") == f"many-{number}\n"
        cluster.kill_container(helm.NAMESPACE, driver_pod(cluster), DRIVER_CONTAINER)
        assert_still_writing(cluster, "many-0")
        wait_for("the driver is back", lambda: driver_is_ready(cluster))
        cluster.kubectl("delete", "pod", *(f"many-{number}" for number in range(CLAIMS)), "--wait=false")
        cluster.kubectl("delete", "pvc", *(f"many-{number}" for number in range(CLAIMS)), "--wait=false")
        time.sleep(1.0)
        cluster.kill_container(helm.NAMESPACE, driver_pod(cluster), DRIVER_CONTAINER)


def test_kubelet_is_killed(cluster: Cluster) -> None:
    with applied(cluster, *numbered(0)):
        wait_for_log(cluster, "many-0", "many-0")
        cluster.kill_kubelet()
        cluster.start_kubelet()
        wait_for("kubelet answers", lambda: beats(cluster, "many-0"))
        assert_still_writing(cluster, "many-0")
        assert cluster.get("pod", "many-0")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_the_driver_is_upgraded(cluster: Cluster) -> None:
    with applied(cluster, *numbered(0)):
        wait_for_log(cluster, "many-0", "many-0")
        before = driver_pod(cluster)
        cluster.install("loop", "--set", "drivers.loop.node.podAnnotations.upgraded=yes")
        wait_for("the driver is another pod", lambda: driver_pod(cluster) != before)
        wait_for("the driver is back", lambda: driver_is_ready(cluster))
        assert_still_writing(cluster, "many-0")
        assert cluster.get("pod", "many-0")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_the_node_loses_power(cluster: Cluster) -> None:
    with applied(cluster, *numbered(0), *numbered(1)):
        for name in ("many-0", "many-1"):
            wait_for_log(cluster, name, name)
        before = beats(cluster, "many-0")
        cluster.reboot()
        wait_for("the driver is back", lambda: driver_is_ready(cluster))
        for name in ("many-0", "many-1"):
            restarts = wait_for(f"{name} runs again", lambda name=name: restart_count(cluster, name))
            assert restarts == 1
            assert cluster.in_pod("default", name, "cat /data/name") == f"{name}\n"
        wait_for("it writes", lambda: beats(cluster, "many-0") > before)


def restart_count(cluster: Cluster, pod: str) -> int:
    """Of a pod that runs; 0 of one that does not."""
    (status,) = cluster.get("pod", pod)["status"]["containerStatuses"]
    return int(status["restartCount"]) if "running" in status["state"] else 0
