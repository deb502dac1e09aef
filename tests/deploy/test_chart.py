"""What the schemas of Kubernetes do not say about the objects of a release: that they fit each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import helm
import pytest
import yaml
from matrix import CASES, LOOP, Case

pytestmark = pytest.mark.needs_go

Object = dict[str, Any]

CLUSTER_WIDE = {
    *("ClusterRole", "ClusterRoleBinding", "CSIDriver", "SnapshotMetadataService", "StorageClass"),
    *("VolumeAttributesClass", "VolumeGroupSnapshotClass", "VolumeSnapshotClass"),
}
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def workloads(rendered: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Each DaemonSet and Deployment with its pods' specification."""
    for thing in rendered:
        if thing["kind"] in ("DaemonSet", "Deployment"):
            yield thing, thing["spec"]["template"]["spec"]


@every_case
def test_names_are_names_and_nothing_is_there_twice(case: Case) -> None:
    rendered = case.render()
    seen = Counter((thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"]) for thing in rendered)
    assert [key for key, count in seen.items() if count > 1] == []
    for thing in rendered:
        metadata = thing["metadata"]
        assert NAME.fullmatch(metadata["name"])
        assert len(metadata["name"]) <= 63
        assert ("namespace" in metadata) == (thing["kind"] not in CLUSTER_WIDE), thing["kind"]
        assert all(LABEL_VALUE.fullmatch(value) for value in metadata["labels"].values())


@every_case
def test_selectors_choose_the_pods_of_their_workload_only(case: Case) -> None:
    rendered = list(workloads(case.render()))
    for thing, _ in rendered:
        selector = thing["spec"]["selector"]["matchLabels"].items()
        chosen = [w["metadata"]["name"] for w, _ in rendered if selector <= pod_labels(w).items()]
        assert chosen == [thing["metadata"]["name"]]
        assert "helm.sh/chart" not in pod_labels(thing), "a new chart alone would restart the driver"


def pod_labels(workload: Object) -> Object:
    return workload["spec"]["template"]["metadata"]["labels"]


@every_case
def test_what_pods_refer_to_is_there(case: Case) -> None:
    rendered = case.render()
    names = {(thing["kind"], thing["metadata"]["name"]) for thing in rendered}
    for _, pod in workloads(rendered):
        assert ("ServiceAccount", pod["serviceAccountName"]) in names
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert len(volumes) == len(pod["volumes"])
        used = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert used == set(volumes)
        for volume in volumes.values():
            if config := volume.get("configMap"):
                assert ("ConfigMap", config["name"]) in names
        for container in pod["containers"]:
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(paths) == len(set(paths)), container["name"]
            ports = {port["name"] for port in container.get("ports", ())}
            probe = container.get("livenessProbe", {}).get("httpGet", {})
            assert probe.get("port", "healthz") in {*ports, "healthz"}


@every_case
def test_everybody_meets_at_the_socket(case: Case) -> None:
    """The driver listens where its neighbours look, and where kubelet is told to look on the host."""
    rendered = case.render()
    configs = {thing["metadata"]["name"]: thing for thing in rendered if thing["kind"] == "ConfigMap"}
    for workload, pod in workloads(rendered):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert mounts["/csi"] == "socket"
            if container["name"] != "csi-core":
                assert "--csi-address=/csi/csi.sock" in container["args"]
                continue
            config = yaml.safe_load(
                configs[volumes[mounts["/etc/csi-core"]]["configMap"]["name"]]["data"]["config.yaml"]
            )
            assert config["driver"]["endpoint"] == "unix:///csi/csi.sock"
            assert container["command"] == ["csi-core", "serve", "--config", "/etc/csi-core/config.yaml"]
        if workload["kind"] == "DaemonSet":
            on_host = volumes["socket"]["hostPath"]["path"]
            (registrar,) = (c for c in pod["containers"] if c["name"] == "node-driver-registrar")
            assert f"--kubelet-registration-path={on_host}/csi.sock" in registrar["args"]


@every_case
def test_a_sidecar_answers_the_liveness_probe_of_the_driver(case: Case) -> None:
    for _, pod in workloads(case.render()):
        by_name = {container["name"]: container for container in pod["containers"]}
        if "csi-core" not in by_name:
            continue
        ports = {port["name"]: port["containerPort"] for port in by_name["csi-core"]["ports"]}
        assert f"--http-endpoint=:{ports['healthz']}" in by_name["liveness-probe"]["args"]
        assert by_name["csi-core"]["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "healthz"}


@every_case
def test_nodes_see_the_drivers_mounts(case: Case) -> None:
    for workload, pod in workloads(case.render()):
        if workload["kind"] != "DaemonSet":
            continue
        (driver,) = (container for container in pod["containers"] if container["name"] == "csi-core")
        (kubelet,) = (volume["hostPath"] for volume in pod["volumes"] if volume["name"] == "kubelet")
        (mount,) = (mount for mount in driver["volumeMounts"] if mount["name"] == "kubelet")
        assert mount["mountPath"] == kubelet["path"], "kubelet names its own paths"
        assert mount["mountPropagation"] == "Bidirectional"
        assert driver["securityContext"]["privileged"] is True


@every_case
def test_kubernetes_takes_each_security_context(case: Case) -> None:
    """Its validation refuses, beyond the schema, what is privileged and may not escalate."""
    for _, pod in workloads(case.render()):
        for container in pod["containers"]:
            context = container["securityContext"]
            assert not context.get("privileged") or context.get("allowPrivilegeEscalation", True), container["name"]


def test_a_network_mount_outlives_the_pod_that_made_it() -> None:
    """A mount of NFS belongs to the network namespace that it was made in."""
    for path in helm.drivers():
        if not path.stem.startswith("nfs"):
            continue
        for workload, pod in workloads(helm.render(path)):
            if workload["kind"] == "DaemonSet":
                assert pod["hostNetwork"] is True


def test_another_configuration_restarts_the_driver_and_nothing_else_does() -> None:
    def pods(values: Object) -> dict[str, Object]:
        rendered = workloads(helm.render(LOOP, values=values))
        return {thing["metadata"]["name"]: thing["spec"]["template"] for thing, _ in rendered}

    before = pods({})
    log = pods({"drivers": {"loop": {"config": {"log": {"level": "debug"}}}}})
    assert {name for name in before if before[name] != log[name]} == {"csi-core-loop-node"}
    classes = pods({"drivers": {"loop": {"storageClasses": {"more": {"parameters": {"provisioning": "thick"}}}}}})
    assert classes == before


def test_kubelets_directory_is_the_same_everywhere() -> None:
    rendered = helm.render(*helm.drivers(), values={"kubeletDir": "/data/kubelet"})
    assert "/var/lib/kubelet" not in yaml.safe_dump_all(rendered)
    plain = yaml.safe_dump_all(helm.render(*helm.drivers()))
    assert yaml.safe_dump_all(rendered) == plain.replace("/var/lib/kubelet", "/data/kubelet")


EVERYTHING = next(case for case in CASES if case.name == "all-on")


@pytest.mark.parametrize("workload", ["all-node", "all-controller", "loop-node", "loop-resizer"])
def test_what_is_said_of_a_pod_is_in_it(workload: str) -> None:
    key, _, part = workload.partition("-")
    given = EVERYTHING.values["drivers"][key][part]
    (thing,) = (t for t, _ in workloads(EVERYTHING.render()) if t["metadata"]["name"] == f"csi-core-{workload}")
    template, pod = thing["spec"]["template"], thing["spec"]["template"]["spec"]
    for name in {"priorityClassName", "tolerations", "affinity"} & set(given):
        assert pod[name] == given[name], name
    # Keys are added to those of the defaults.
    assert given.get("nodeSelector", {}).items() <= pod["nodeSelector"].items()
    assert pod.get("hostNetwork", False) == given.get("hostNetwork", False)
    assert pod["imagePullSecrets"] == [{"name": name} for name in EVERYTHING.values["imagePullSecrets"]]
    assert given["podAnnotations"].items() <= template["metadata"]["annotations"].items()
    assert given["podLabels"].items() <= template["metadata"]["labels"].items()
    assert EVERYTHING.values["labels"].items() <= thing["metadata"]["labels"].items()
    for container in (c for c in pod["containers"] if c["name"] == "csi-core"):
        assert given["env"][0] in container["env"]
        for kind, amounts in given["resources"].items():
            assert amounts.items() <= container["resources"][kind].items()
        assert given["livenessProbe"].items() <= container["livenessProbe"].items()
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for path in given["hostPaths"]:
            mount = mounts[path["path"]]
            assert volumes[mount["name"]]["hostPath"]["path"] == path["path"]
            assert mount["mountPropagation"] == path.get("mountPropagation", "HostToContainer")
            assert mount["readOnly"] == path.get("readOnly", False)
        for further in given["volumes"]:
            assert further["volume"].items() <= volumes[mounts[further["path"]]["name"]].items()
    strategy = thing["spec"].get("updateStrategy") or thing["spec"].get("strategy")
    assert strategy == given.get("updateStrategy", strategy)


def test_pods_are_scraped_where_that_is_asked_for() -> None:
    monitors = {thing["metadata"]["name"]: thing for thing in EVERYTHING.render() if thing["kind"] == "PodMonitor"}
    assert set(monitors) == {"csi-core-all", "csi-core-loop"}
    assert monitors["csi-core-all"]["metadata"]["labels"]["release"] == "prometheus"
    for monitor in monitors.values():
        selector = monitor["spec"]["selector"]["matchLabels"].items()
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        chosen = [(w, pod) for w, pod in workloads(EVERYTHING.render()) if selector <= pod_labels(w).items()]
        with_driver = [pod for w, pod in chosen if not w["metadata"]["name"].endswith("-resizer")]
        assert with_driver
        for pod in with_driver:
            (driver,) = (container for container in pod["containers"] if container["name"] == "csi-core")
            assert endpoint["port"] in {port["name"] for port in driver["ports"]}
