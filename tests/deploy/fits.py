"""Whether a running driver is what the objects around it say: its CSIDriver, its sidecars, the examples' topology."""

from __future__ import annotations

from collections.abc import Iterator

from examples import EXAMPLES
from installed import Driver

__all__ = ["misfits"]

# What a sidecar cannot do without: of each set it needs one, by the sidecars' own checks at start.
NEEDS = {
    "csi-provisioner": [{"plugin CONTROLLER_SERVICE"}, {"controller CREATE_DELETE_VOLUME"}],
    "csi-snapshotter": [{"controller CREATE_DELETE_SNAPSHOT"}],
    "csi-attacher": [{"controller PUBLISH_UNPUBLISH_VOLUME"}],
    "csi-resizer": [{"controller EXPAND_VOLUME", "controller MODIFY_VOLUME", "node EXPAND_VOLUME"}],
    "csi-snapshot-metadata": [{"plugin SNAPSHOT_METADATA_SERVICE"}],
}
NEEDS_WITH_ARGUMENT = {
    "enable-capacity": "controller GET_CAPACITY",
    "strict-topology": "plugin VOLUME_ACCESSIBILITY_CONSTRAINTS",
}
# There where the driver can do the one thing that they are for.
PURPOSE = {name: NEEDS[name][-1] for name in ("csi-provisioner", "csi-snapshotter", "csi-attacher", "csi-resizer")}


def misfits(driver: Driver) -> list[str]:
    """What of it does not fit, one line each."""
    return [*_of_the_object(driver), *_of_sidecars(driver), *_of_examples(driver)]


def _of_the_object(driver: Driver) -> Iterator[str]:
    spec, can = driver.csi_driver["spec"], driver.sidecars.can
    if driver.name != driver.csi_driver["metadata"]["name"]:
        yield f"kubelet registers {driver.name}, and the CSIDriver object is {driver.csi_driver['metadata']['name']}"
    if spec["attachRequired"] != ("PUBLISH_UNPUBLISH_VOLUME" in can["controller"]):
        yield f"attachRequired is {spec['attachRequired']}"
    if spec["storageCapacity"] != ("enable-capacity" in driver.controller.arguments("csi-provisioner")):
        yield f"storageCapacity is {spec['storageCapacity']}"
    # The name of a node-local volume's pod is only sent, and inline volumes are only told from others, on request.
    if "Ephemeral" in spec["volumeLifecycleModes"] and not spec["podInfoOnMount"]:
        yield "inline volumes need podInfoOnMount"


def _of_sidecars(driver: Driver) -> Iterator[str]:
    can = {f"{service} {name}" for service, names in driver.sidecars.can.items() for name in names}
    workloads = [o for o in driver.objects if o["kind"] in ("DaemonSet", "Deployment")]
    running = {c["name"] for o in workloads for c in o["spec"]["template"]["spec"]["containers"]}
    for container, needs in NEEDS.items():
        for names in needs if container in running else ():
            if not names & can:
                yield f"{container} gives up: it needs one of {names}"
    for argument, name in NEEDS_WITH_ARGUMENT.items():
        if argument in driver.controller.arguments("csi-provisioner") and name not in can:
            yield f"csi-provisioner --{argument} needs {name}"
    for container, names in PURPOSE.items():
        if names & can and container not in running:
            yield f"nobody uses {names & can}: there is no {container}"


def _of_examples(driver: Driver) -> Iterator[str]:
    """The keys that classes and volumes of this driver are restricted by are those that its nodes have."""
    for example in EXAMPLES:
        for thing in example.objects:
            keys = set[str]()
            if thing["kind"] == "StorageClass" and thing["provisioner"] == driver.name:
                terms = thing.get("allowedTopologies", ())
                keys = {e["key"] for term in terms for e in term["matchLabelExpressions"]}
            if thing["kind"] == "PersistentVolume" and thing["spec"]["csi"]["driver"] == driver.name:
                terms = thing["spec"].get("nodeAffinity", {}).get("required", {}).get("nodeSelectorTerms", ())
                keys = {e["key"] for term in terms for e in term["matchExpressions"]}
            if keys and keys != set(driver.topology):
                yield f"{example.name} names {keys}, the nodes have {set(driver.topology)}"
