"""What each sidecar needs of the API server, at the version that the chart's values pin, and why.

Written from the rbac.yaml that each project publishes with that version, and from its calls in that version's source
where that file asks for more, or less, than the sidecar uses with the flags that the chart gives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["NEEDED", "NOT_USED", "UNPUBLISHED", "Right", "granted", "rights"]

CORE = ""
STORAGE = "storage.k8s.io"
SNAPSHOT = "snapshot.storage.k8s.io"
GROUP_SNAPSHOT = "groupsnapshot.storage.k8s.io"
LEASE = "coordination.k8s.io"


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource, in the whole cluster or only in the driver's own namespace."""

    group: str
    resource: str
    verb: str
    own_namespace: bool = False

    def __str__(self) -> str:
        """As kubectl auth can-i takes it."""
        where = "in its own namespace" if self.own_namespace else "everywhere"
        return f"{self.verb} {self.resource}{self.group and '.' + self.group} {where}"


def rights(group: str, resource: str, verbs: str, *, own_namespace: bool = False) -> frozenset[Right]:
    """Several verbs on one resource."""
    return frozenset(Right(group, resource, verb, own_namespace) for verb in verbs.split())


def granted(role: dict[str, Any]) -> Iterator[Right]:
    """What a Role or ClusterRole grants."""
    for rule in role["rules"]:
        assert set(rule) <= {"apiGroups", "resources", "verbs"}, rule
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield Right(group, resource, verb, role["kind"] == "Role")


LEADER = rights(LEASE, "leases", "get create update", own_namespace=True)
EVENTS = rights(CORE, "events", "create patch")

NEEDED: dict[tuple[str, str], frozenset[Right]] = {
    ("provisioner", "always"): rights(CORE, "persistentvolumes", "get list watch create patch delete")
    | rights(CORE, "persistentvolumeclaims", "get list watch update")  # its finalizer on the source of a clone
    | rights(STORAGE, "storageclasses", "get list watch")
    | rights(STORAGE, "volumeattributesclasses", "get")  # that of the claim
    | rights(CORE, "nodes", "get")  # the one that the scheduler chose, in node mode too
    | EVENTS,
    # The snapshot that a claim is made from: found, kept by a finalizer meanwhile, its handle read.
    ("provisioner", "snapshots"): rights(SNAPSHOT, "volumesnapshots", "get list watch update")
    | rights(SNAPSHOT, "volumesnapshotcontents", "get"),
    # One CSIStorageCapacity a class and node, owned by the pod.
    ("provisioner", "node-local"): rights(
        STORAGE, "csistoragecapacities", "get list watch create update patch delete", own_namespace=True
    )
    | rights(CORE, "pods", "get", own_namespace=True),
    ("provisioner", "network"): LEADER,
    # With PUBLISH_UNPUBLISH_VOLUME: no volume is deleted that is attached somewhere.
    ("provisioner", "attachRequired"): rights(STORAGE, "volumeattachments", "get list watch"),
    ("attacher", "always"): LEADER
    | rights(CORE, "persistentvolumes", "get list watch patch")
    | rights(STORAGE, "csinodes", "get list watch")  # node ids
    | rights(STORAGE, "volumeattachments", "get list watch patch")
    | rights(STORAGE, "volumeattachments/status", "patch"),
    ("resizer", "always"): LEADER
    | rights(CORE, "persistentvolumes", "get list watch patch")
    | rights(CORE, "persistentvolumeclaims", "get list watch")
    | rights(CORE, "persistentvolumeclaims/status", "patch")
    | rights(STORAGE, "volumeattributesclasses", "get list watch")
    | EVENTS,
    ("snapshotter", "always"): EVENTS
    | rights(SNAPSHOT, "volumesnapshotclasses", "get list watch")
    | rights(SNAPSHOT, "volumesnapshotcontents", "get list watch patch")
    | rights(SNAPSHOT, "volumesnapshotcontents/status", "update patch")
    | rights(GROUP_SNAPSHOT, "volumegroupsnapshotclasses", "get list watch")
    | rights(GROUP_SNAPSHOT, "volumegroupsnapshotcontents", "get list watch patch")
    | rights(GROUP_SNAPSHOT, "volumegroupsnapshotcontents/status", "update patch"),
    ("snapshotter", "network"): LEADER,
    # Its module is not published: the calls in the source of v1.1.0 (commit a472d987d1f1), fewer than the rights in its
    # deploy/snapshot-metadata-cluster-role.yaml but for the classes, which that file leaves out.
    ("snapshotMetadata", "always"): rights("cbt.storage.k8s.io", "snapshotmetadataservices", "get")  # its audience
    | rights("authentication.k8s.io", "tokenreviews", "create")  # who a client is
    | rights("authorization.k8s.io", "subjectaccessreviews", "create")  # whether it may read the snapshot
    | rights(SNAPSHOT, "volumesnapshots", "get")
    | rights(SNAPSHOT, "volumesnapshotcontents", "get")
    | rights(SNAPSHOT, "volumesnapshotclasses", "get list"),  # which secret the driver wants
}
"""By sidecar and by what makes it need them."""

LEADER_ONLY_READS = rights(LEASE, "leases", "list watch delete", own_namespace=True)
RECORDER = rights(CORE, "events", "list watch update")

NOT_USED: dict[str, tuple[tuple[frozenset[Right], str], ...]] = {
    "provisioner": (
        (RECORDER, "the recorder creates events and patches their count"),
        (LEADER_ONLY_READS, "leader election gets, creates and updates its one lease"),
        (
            rights(CORE, "nodes", "list watch") | rights(STORAGE, "csinodes", "get list watch"),
            "in node mode it knows its node's topology from the driver; network volumes have none",
        ),
        (rights(SNAPSHOT, "volumesnapshotcontents", "list"), "only ever gets one"),
        (rights("apps", "replicasets", "get", own_namespace=True), "capacity is owned by the pod"),
    ),
    "attacher": ((LEADER_ONLY_READS, "leader election gets, creates and updates its one lease"),),
    "resizer": (
        (RECORDER, "the recorder creates events and patches their count"),
        (LEADER_ONLY_READS, "leader election gets, creates and updates its one lease"),
        (rights(CORE, "pods", "get list watch"), "--handle-volume-inuse-error=false"),
    ),
    "snapshotter": (
        (RECORDER, "the recorder creates events and patches their count"),
        (LEADER_ONLY_READS, "leader election gets, creates and updates its one lease"),
        (
            rights(SNAPSHOT, "volumesnapshotcontents", "update")
            | rights(GROUP_SNAPSHOT, "volumegroupsnapshotcontents", "update"),
            "it patches, and updates only the status",
        ),
    ),
}
"""What the published files grant and the chart does not, and why it is not needed."""

UNPUBLISHED: dict[str, tuple[tuple[frozenset[Right], str], ...]] = {
    "provisioner": (
        (rights(STORAGE, "volumeattributesclasses", "get"), "read when a claim that names one is provisioned"),
    ),
}
"""What the chart grants and the published files do not, and what it is for."""
