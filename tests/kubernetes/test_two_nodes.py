"""What a node-local driver promises about several nodes: where volumes are, who may use them, what a lost node has."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import helm
import pytest
from kubernetes_cluster import NODE, SECOND, Cluster, wait_for
from kubernetes_node import CSI_CORE
from kubernetes_state import applied, example, in_driver, log_of, wait_for_log, wait_for_warning

CLASS = "csi-core-loop"
TOPOLOGY = "topology.loop.csi-core.dev/node"
POOL_BYTES = 3 << 30
"""Of the second node: room for a claim of the examples, and for none of TOO_LARGE."""
TOO_LARGE = "5Gi"
NODE_LOST_TIMEOUT_S = 300.0
Object = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def second_node(cluster: Cluster) -> Iterator[None]:
    """A second node with a pool on a small disk of its own, which serves; afterwards it has left the cluster."""
    node = cluster.add_node(SECOND)
    disk, pool = node.host.directory / "disk", node.host.directory / CSI_CORE
    pool.mkdir(parents=True)
    disk.touch()
    with disk.open("r+b") as file:
        file.truncate(POOL_BYTES)
    subprocess.run(["mkfs.xfs", "-q", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, pool], check=True)
    try:
        cluster.start_node(SECOND)
        wait_for("both nodes have room", lambda: set(room(cluster)) == {NODE, SECOND})
        yield
        cluster.kubectl("delete", "node", SECOND)
    finally:
        node.cut_power()
        subprocess.run(["umount", pool], check=True)


def room(cluster: Cluster) -> dict[str, str]:
    """Node by node what the scheduler is told that there is for the default class."""
    found = [it for it in cluster.all("csistoragecapacities", helm.NAMESPACE) if it["storageClassName"] == CLASS]
    return {it["nodeTopology"]["matchLabels"][TOPOLOGY]: it["capacity"] for it in found}


def only(node: str) -> Object:
    """Of a pod's specification: there or nowhere."""
    return {"nodeSelector": {"kubernetes.io/hostname": node}}


def rather(node: str) -> Object:
    """Of a pod's specification: there if possible."""
    chosen = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    preferred = {"weight": 100, "preference": {"matchExpressions": [chosen]}}
    return {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}}


def pod(name: str, where: Mapping[str, Any], claim: str = "", command: str = "cat /data/file") -> Object:
    """A pod that does that with a claim, of its own name unless another is given, and stays."""
    _, made = example("wait-for-first-consumer")
    made["metadata"]["name"] = name
    made["spec"] |= where
    made["spec"]["containers"][0]["command"] = ["sh", "-c", f"{command} && sleep 3600"]
    made["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = claim or name
    return made


def claim(name: str, **spec: object) -> Object:
    """A claim that waits for its pod, and is small, or what else is said."""
    made, _ = example("wait-for-first-consumer")
    made["metadata"]["name"] = name
    made["spec"] |= {"resources": size("256Mi")} | spec
    return made


def size(text: str) -> Object:
    return {"requests": {"storage": text}}


def writer(name: str, where: Mapping[str, Any]) -> Object:
    return pod(name, where, command=f"echo {name} > /data/file && sync && cat /data/file")


def node_of(cluster: Cluster, name: str) -> str:
    return str(cluster.get("pod", name)["spec"].get("nodeName", ""))


def wait_until_refused(cluster: Cluster, name: str, text: str) -> None:
    """Until the pod's events say so, and it is on no node."""
    wait_for_warning(cluster, "Pod", name, text)
    assert not node_of(cluster, name)


def test_a_claim_goes_where_there_is_room(cluster: Cluster) -> None:
    rooms = room(cluster)
    assert rooms[NODE] != rooms[SECOND]
    large = claim("large", resources=size(TOO_LARGE))
    with applied(cluster, writer("large", rather(SECOND)), large):
        wait_for_log(cluster, "large", "large")
        assert node_of(cluster, "large") == NODE
        assert len(cluster.nodes[NODE].images()) == 1
    wait_for("it is gone", lambda: not cluster.all("pvc"))
    with applied(cluster, writer("large", only(SECOND)), large):
        wait_until_refused(cluster, "large", "did not have enough free storage")


def test_what_was_written_stays_on_its_node_and_pods_follow(cluster: Cluster) -> None:
    with applied(cluster, claim("stays")):
        with applied(cluster, writer("stays", only(SECOND))):
            wait_for_log(cluster, "stays", "stays")
            assert not cluster.nodes[NODE].images()
        with applied(cluster, pod("follower", rather(NODE), "stays")):
            wait_for_log(cluster, "follower", "stays")
            assert node_of(cluster, "follower") == SECOND
            with applied(cluster, pod("elsewhere", only(NODE), "stays")):
                wait_until_refused(cluster, "elsewhere", "didn't match PersistentVolume's node affinity")


def test_read_write_once_pod_on_two_nodes(cluster: Cluster) -> None:
    sole = claim("sole", accessModes=["ReadWriteOncePod"])
    with applied(cluster, writer("sole", only(SECOND)), sole):
        wait_for_log(cluster, "sole", "sole")
        with applied(cluster, pod("other", only(NODE), "sole")):
            wait_until_refused(cluster, "other", "0/2 nodes are available")


def test_immediate_volumes_are_somewhere_and_their_pods_too(cluster: Cluster) -> None:
    early = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "early"}}
    early |= {"provisioner": "loop.csi-core.dev", "volumeBindingMode": "Immediate"}
    names = [f"early-{number}" for number in range(4)]
    claims = [claim(name, storageClassName="early") for name in names]
    with applied(cluster, *claims, early):
        for name in names:
            wait_for("it is bound", lambda name=name: cluster.get("pvc", name)["status"]["phase"] == "Bound")
        with applied(cluster, *(writer(name, {}) for name in names)):
            for name in names:
                wait_for_log(cluster, name, name)


def test_a_stateful_set_over_both(cluster: Cluster) -> None:
    service, database = example("stateful-set")
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": database["spec"]["selector"]}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    database["spec"]["template"]["spec"] |= {"affinity": apart, "terminationGracePeriodSeconds": 1}
    database["spec"]["replicas"] = 2
    with applied(cluster, service, database):
        wait_for("both run", lambda: cluster.get("statefulset", "database")["status"].get("readyReplicas") == 2)
        before = {name: node_of(cluster, name) for name in ("database-0", "database-1")}
        assert set(before.values()) == {NODE, SECOND}
        cluster.kubectl("delete", "pod", *before)
        for name, node in before.items():
            wait_for(f"{name} starts again", lambda name=name: len(log_of(cluster, name).splitlines()) == 2)
            assert node_of(cluster, name) == node
        cluster.kubectl("scale", "statefulset", "database", "--replicas=3")
        wait_for("a third is there", lambda: cluster.get("pod", "database-2"))
        wait_until_refused(cluster, "database-2", "didn't match pod anti-affinity rules")
    cluster.kubectl("delete", "pvc", "--selector", "app=database")
    wait_for("they are gone", lambda: not cluster.all("pvc"))


def test_copies_are_made_where_their_source_is(cluster: Cluster) -> None:
    snapshot = example("snapshot-restore")[0]
    snapshot["spec"]["source"]["persistentVolumeClaimName"] = "source"
    copied = {"kind": "PersistentVolumeClaim", "name": "source"}
    restored = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "once"}
    with applied(cluster, writer("source", only(SECOND)), claim("source")):
        wait_for_log(cluster, "source", "source")
        with applied(cluster, pod("copy", only(NODE)), claim("copy", dataSource=copied)):
            wait_for_warning(cluster, "PersistentVolumeClaim", "copy", "there is no volume")
        wait_for("it is gone", lambda: len(cluster.all("pvc")) == 1)
        with applied(cluster, snapshot, pod("copy", only(SECOND)), claim("copy", dataSource=copied)):
            wait_for_log(cluster, "copy", "source")
            wait_for("it is ready", lambda: cluster.get("volumesnapshot", "once").get("status", {}).get("readyToUse"))
            with applied(cluster, pod("restored", only(SECOND)), claim("restored", dataSource=restored)):
                wait_for_log(cluster, "restored", "source")
                assert not cluster.nodes[NODE].images()


def test_a_node_is_lost_and_comes_back(cluster: Cluster) -> None:
    names = ("lost-0", "lost-1", "given-up")
    with applied(cluster, *(claim(name) for name in names)):
        with applied(cluster, *(writer(name, only(SECOND)) for name in names)):
            for name in names:
                wait_for_log(cluster, name, name)
            cluster.nodes[SECOND].cut_power()
            wait_for("it is missed", lambda: not cluster.condition("node", SECOND, "Ready"), NODE_LOST_TIMEOUT_S)
            cluster.kubectl("delete", "pod", *names, "--force", "--grace-period=0")
        cluster.kubectl("delete", "node", SECOND)
        wait_for("its capacity goes", lambda: set(room(cluster)) == {NODE}, NODE_LOST_TIMEOUT_S)
        handle = give_up(cluster, "given-up")
        with applied(cluster, pod("lost-0", {})):
            wait_until_refused(cluster, "lost-0", "didn't match PersistentVolume's node affinity")
            cluster.start_node(SECOND)
            assert wait_for_log(cluster, "lost-0", "lost-0") == "lost-0\n"
        wait_for("it has room again", lambda: set(room(cluster)) == {NODE, SECOND})
        with applied(cluster, pod("lost-1", {})):
            assert wait_for_log(cluster, "lost-1", "lost-1") == "lost-1\n"
        in_driver(cluster, SECOND, "csi-core", "volumes", "delete", handle)


def give_up(cluster: Cluster, name: str) -> str:
    """Have a claim and its volume forgotten whose node is lost, as docs/operations.md has it; answers its handle."""
    volume = cluster.get("pvc", name)["spec"]["volumeName"]
    cluster.kubectl("delete", "pvc", name)
    found = wait_for("it is released", lambda: released(cluster, volume))
    cluster.kubectl("delete", "pv", volume, "--wait=false")
    cluster.kubectl("patch", "pv", volume, "--type=merge", "--patch", '{"metadata": {"finalizers": null}}')
    wait_for("it is forgotten", lambda: volume not in {pv["metadata"]["name"] for pv in cluster.all("pv")})
    return str(found["spec"]["csi"]["volumeHandle"])


def released(cluster: Cluster, volume: str) -> Object:
    found = cluster.get("pv", volume)
    return found if found["status"]["phase"] == "Released" else {}


def test_a_node_restarts_under_its_pods(cluster: Cluster) -> None:
    with applied(cluster, writer("beaten", only(SECOND) | {"restartPolicy": "Always"}), claim("beaten")):
        wait_for_log(cluster, "beaten", "beaten")
        cluster.nodes[SECOND].cut_power()
        cluster.start_node(SECOND)
        wait_for("it runs again", lambda: runs_again(cluster, "beaten"))
        assert cluster.in_pod("default", "beaten", "cat /data/file") == "beaten\n"


def runs_again(cluster: Cluster, name: str) -> bool:
    (status,) = cluster.get("pod", name)["status"]["containerStatuses"]
    return bool(status["restartCount"] and "running" in status["state"])
