"""What a person reads when a claim asks for what cannot be, where docs/install.md sends them looking."""

from __future__ import annotations

from typing import Any

from kubernetes_cluster import Cluster
from kubernetes_state import applied, example, wait_for_warning

NO_ROOM = "did not have enough free storage"


def late() -> tuple[dict[str, Any], dict[str, Any]]:
    """A claim that waits for its pod, and the pod."""
    claim, pod = example("wait-for-first-consumer")
    return claim, pod


def test_a_parameter_that_nobody_knows(cluster: Cluster) -> None:
    storage_class, *_ = example("reclaim-delete")
    storage_class["metadata"]["name"] = "misspelt"
    storage_class["parameters"] = {"provisionning": "thick"}
    claim, pod = late()
    claim["spec"]["storageClassName"] = "misspelt"
    with applied(cluster, claim, pod, storage_class):
        said = wait_for_warning(cluster, "PersistentVolumeClaim", "late", "InvalidArgument")
    assert "provisionning" in said
    assert "provisioning" in said.replace("provisionning", "")  # what was meant


def test_an_access_mode_that_the_backend_has_not(cluster: Cluster) -> None:
    claim, pod = late()
    claim["spec"]["accessModes"] = ["ReadWriteMany"]
    with applied(cluster, claim, pod):
        said = wait_for_warning(cluster, "PersistentVolumeClaim", "late", "InvalidArgument")
        assert "MULTI_NODE_MULTI_WRITER" in said


def test_more_than_there_is(cluster: Cluster) -> None:
    claim, pod = late()
    claim["spec"]["resources"]["requests"]["storage"] = "100Ti"
    with applied(cluster, claim, pod):
        wait_for_warning(cluster, "Pod", "late", NO_ROOM)
