"""deploy/examples/loop on a real Kubernetes: each does what its third line says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import helm
import pytest
from kubernetes_cluster import NODE, Cluster, wait_for
from kubernetes_host import HostError
from kubernetes_state import applied, example, in_driver, log_of, wait_for_log, warnings_about

CAP_SYS_RESOURCE = 1 << 24
MANAGED_BY = "snapshot.storage.kubernetes.io/managed-by"


def grows_ext4_online() -> bool:
    """Whether root may here what the kernel asks of who grows a mounted ext4."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) & CAP_SYS_RESOURCE)


def phase(cluster: Cluster, kind: str, name: str) -> str:
    return str(cluster.get(kind, name)["status"].get("phase"))


def test_read_write_once(cluster: Cluster) -> None:
    with applied(cluster, *example("read-write-once")):
        wait_for_log(cluster, "once", "written")
        assert phase(cluster, "pvc", "once") == "Bound"
        (volume,) = cluster.all("pv")
        (term,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
        assert {(e["key"], *e["values"]) for e in term["matchExpressions"]} == {
            ("topology.loop.csi-core.dev/node", NODE)
        }


def test_wait_for_first_consumer(cluster: Cluster) -> None:
    claim, pod = example("wait-for-first-consumer")
    with applied(cluster, pod, claim):
        wait_for_log(cluster, "late", "written")
        capacities = cluster.all("csistoragecapacities", helm.NAMESPACE)
        assert {found["storageClassName"] for found in capacities} == {"csi-core-loop", "csi-core-loop-thick"}
    with applied(cluster, claim):
        uid = cluster.get("pvc", "late")["metadata"]["uid"]

        def waits() -> bool:
            about = [event for event in cluster.all("event") if event["involvedObject"].get("uid") == uid]
            return "WaitForFirstConsumer" in {event["reason"] for event in about}

        wait_for("the claim waits for its pod", waits)
        assert phase(cluster, "pvc", "late") == "Pending"


def test_immediate(cluster: Cluster) -> None:
    with applied(cluster, *example("immediate")):
        wait_for("the claim is bound", lambda: phase(cluster, "pvc", "early") == "Bound")


def test_allowed_topologies(cluster: Cluster) -> None:
    storage_class, *rest = example("allowed-topologies")
    with applied(cluster, storage_class, *rest):
        wait_for_log(cluster, "chosen", "written")
        assert cluster.get("pod", "chosen")["spec"]["nodeName"] == NODE
    storage_class["allowedTopologies"][0]["matchLabelExpressions"][0]["values"] = ["worker-2"]
    with applied(cluster, storage_class, *rest):
        said = wait_for("the scheduler says why", lambda: warnings_about(cluster, "Pod", "chosen"))
        assert "0/1 nodes are available" in said
        assert phase(cluster, "pod", "chosen") == "Pending"


def test_snapshot_restore(cluster: Cluster) -> None:
    source, (snapshot, *restored) = example("read-write-once"), example("snapshot-restore")
    with applied(cluster, *restored):
        with applied(cluster, *source):
            wait_for_log(cluster, "once", "written")
            with applied(cluster, snapshot):
                wait_for(
                    "it is ready", lambda: cluster.get("volumesnapshot", "once").get("status", {}).get("readyToUse")
                )
                wait_for_log(cluster, "restored", "written")
        assert cluster.in_pod("default", "restored", "cat /data/file") == "written\n"
        assert int(cluster.in_pod("default", "restored", "df -k /data | tail -1 | awk '{print $2}'")) > 1.8 * 2**20


def test_clone(cluster: Cluster) -> None:
    with applied(cluster, *example("read-write-once")):
        wait_for_log(cluster, "once", "written")
        with applied(cluster, *example("clone")):
            assert re.search(r"written\n.* (1\.9|2\.0)G ", wait_for_log(cluster, "copy", "/data"), re.DOTALL)
            cluster.in_pod("default", "copy", "echo mine > /data/file; sync")
            assert cluster.in_pod("default", "once", "cat /data/file") == "written\n"


def test_expansion(cluster: Cluster) -> None:
    claim, pod = example("expansion")
    xfs: dict[str, Any] = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "xfs"}}
    xfs |= {"provisioner": "loop.csi-core.dev", "volumeBindingMode": "WaitForFirstConsumer"}
    xfs |= {"allowVolumeExpansion": True, "parameters": {"csi.storage.k8s.io/fstype": "xfs"}}
    if not grows_ext4_online():
        claim["spec"]["storageClassName"] = "xfs"
    resize = '{{"spec":{{"resources":{{"requests":{{"storage":"{}"}}}}}}}}'
    with applied(cluster, claim, pod, xfs):
        wait_for_log(cluster, "grows", "/data")
        assert not re.search(r" (1\.9|2\.0)G ", log_of(cluster, "grows"))
        cluster.kubectl("patch", "pvc", "grows", "-p", resize.format("2Gi"))
        wait_for("the log says so", lambda: re.search(r" (1\.9|2\.0)G ", log_of(cluster, "grows")), 60)
        with pytest.raises(HostError, match="can not be less than status.capacity|less than"):
            cluster.kubectl("patch", "pvc", "grows", "-p", resize.format("1Gi"))


def test_raw_block(cluster: Cluster) -> None:
    with applied(cluster, *example("raw-block")):
        assert "1073741824\nzeros" in wait_for_log(cluster, "raw", "zeros")
        cluster.in_pod(
            "default", "raw", "tr '\\0' x < /dev/zero | dd of=/dev/data bs=1M count=8 conv=fsync 2>/dev/null"
        )
    with applied(cluster, *example("raw-block")):
        wait_for_log(cluster, "raw", "zeros")


def test_read_only_many(cluster: Cluster) -> None:
    with applied(cluster, *example("read-write-once")):
        wait_for_log(cluster, "once", "written")
        with applied(cluster, *example("read-only-many")):
            for reader in ("reader-a", "reader-b"):
                wait_for_log(cluster, reader, "written")
                with pytest.raises(HostError, match="Read-only file system"):
                    cluster.in_pod("default", reader, "touch /data/x")


def test_read_write_once_pod(cluster: Cluster) -> None:
    with applied(cluster, *example("read-write-once-pod")):
        wait_for_log(cluster, "sole", "written")
        refused = "ReadWriteOncePod access mode already in-use by another pod"
        wait_for("the second is told", lambda: refused in warnings_about(cluster, "Pod", "second"))
        assert phase(cluster, "pod", "second") == "Pending"


def test_generic_ephemeral(cluster: Cluster) -> None:
    with applied(cluster, *example("generic-ephemeral")):
        wait_for_log(cluster, "scratch", "written")
        assert phase(cluster, "pvc", "scratch-data") == "Bound"


def test_inline_ephemeral(cluster: Cluster) -> None:
    with applied(cluster, *example("inline-ephemeral")):
        wait_for_log(cluster, "inline", "written")
        kib = int(cluster.in_pod("default", "inline", "df -k /data | tail -1 | awk '{print $2}'"))
        assert 0.9 * 2**20 < kib < 2**20
        assert cluster.all("pvc") == cluster.all("pv") == []


def test_reclaim_delete(cluster: Cluster) -> None:
    with applied(cluster, *example("reclaim-delete")):
        wait_for_log(cluster, "passing", "written")
        assert len(cluster.images()) == 1


def test_reclaim_retain(cluster: Cluster) -> None:
    with applied(cluster, *example("reclaim-retain")):
        wait_for_log(cluster, "keeper", "written")
    (kept,) = cluster.all("pv")
    wait_for("it is released", lambda: phase(cluster, "pv", kept["metadata"]["name"]) == "Released")
    assert len(cluster.images()) == 1
    cluster.kubectl("delete", "pv", kept["metadata"]["name"])
    in_driver(cluster, NODE, "csi-core", "volumes", "delete", kept["spec"]["csi"]["volumeHandle"])


def test_static_pv(cluster: Cluster) -> None:
    made = in_driver(cluster, NODE, "csi-core", "volumes", "create", "kept", "--size", "1Gi")
    handle = re.search(r"loop/default:\S+", made)
    assert handle, made
    volume, *rest = example("static-pv")
    volume["spec"]["csi"]["volumeHandle"] = handle[0]
    with applied(cluster, volume, *rest):
        wait_for_log(cluster, "kept", "written")
        assert cluster.get("pvc", "kept")["spec"]["volumeName"] == "kept"
    assert len(cluster.images()) == 1
    in_driver(cluster, NODE, "csi-core", "volumes", "delete", handle[0])


def test_stateful_set(cluster: Cluster) -> None:
    def running(count: int) -> bool:
        return bool(cluster.get("statefulset", "database")["status"].get("readyReplicas", 0) == count)

    service, database = example("stateful-set")
    with applied(cluster, service, database):
        wait_for("three run", lambda: running(3))
        cluster.kubectl("scale", "statefulset", "database", "--replicas=1")
        wait_for("one runs", lambda: len(cluster.all("pod", "default")) == 1)
        assert len(cluster.all("pvc")) == 3
        cluster.kubectl("scale", "statefulset", "database", "--replicas=3")
        wait_for("three run again", lambda: running(3))
        assert len(log_of(cluster, "database-2").splitlines()) == 2
    cluster.kubectl("delete", "pvc", "--selector", "app=database")


def test_group_snapshot(cluster: Cluster) -> None:
    def label() -> bool:
        kinds = "volumegroupsnapshotcontents,volumesnapshotcontents"
        cluster.kubectl("label", kinds, "--selector", f"!{MANAGED_BY}", f"{MANAGED_BY}={NODE}")
        return True

    def members() -> list[dict[str, Any]]:
        return [found for found in cluster.all("volumesnapshot") if found.get("status", {}).get("readyToUse")]

    made = example("group-snapshot")
    group_class, *claims_and_pod, snapshot = made
    with applied(cluster, group_class, *claims_and_pod):
        wait_for("the pod runs", lambda: phase(cluster, "pod", "pair") == "Running")
        with applied(cluster, snapshot):
            wait_for("a snapshot of each is ready", lambda: label() and len(members()) == 2)
            label()
        wait_for("they are deleted", lambda: label() and not cluster.all("volumesnapshotcontents"))
