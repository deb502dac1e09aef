"""Each sidecar may do what it needs, and nothing more; the driver itself may do nothing."""

from __future__ import annotations

from typing import Any

import helm
import modules
import pytest
import yaml
from matrix import CASES, Case
from rights import NEEDED, NOT_USED, UNPUBLISHED, Right, granted

pytestmark = pytest.mark.needs_go

CONTAINERS = {
    "csi-provisioner": "provisioner",
    "csi-attacher": "attacher",
    "csi-resizer": "resizer",
    "csi-snapshotter": "snapshotter",
    "csi-snapshot-metadata": "snapshotMetadata",
}
WITHOUT_API = {"csi-core", "node-driver-registrar", "liveness-probe"}
PUBLISHED = {
    "provisioner": "deploy/kubernetes/rbac.yaml",
    "attacher": "deploy/kubernetes/rbac.yaml",
    "resizer": "deploy/kubernetes/rbac.yaml",
    "snapshotter": "deploy/kubernetes/csi-snapshotter/rbac-csi-snapshotter.yaml",
}


def pods(rendered: list[helm.Object]) -> list[helm.Object]:
    return [thing for thing in rendered if thing["kind"] in ("DaemonSet", "Deployment")]


def containers(workload: helm.Object) -> dict[str, Any]:
    return {container["name"]: container for container in workload["spec"]["template"]["spec"]["containers"]}


def account_rights(rendered: list[helm.Object], account: str) -> set[Right]:
    """All that a service account may do, by way of the bindings."""
    roles = {(thing["kind"], thing["metadata"]["name"]): thing for thing in rendered if "Role" in thing["kind"]}
    found: set[Right] = set()
    for binding in (thing for thing in rendered if thing["kind"].endswith("Binding")):
        subjects = [{"kind": "ServiceAccount", "name": account, "namespace": helm.NAMESPACE}]
        if binding["subjects"] != subjects or "-secret-" in binding["metadata"]["name"]:
            continue
        found |= set(granted(roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]))
    return found


def conditions(rendered: list[helm.Object], workload: helm.Object) -> set[str]:
    """What of ``NEEDED`` holds for a pod's driver."""
    driver = workload["metadata"]["labels"]["csi-core.dev/driver"]
    mine = [thing for thing in rendered if thing["metadata"].get("labels", {}).get("csi-core.dev/driver") == driver]
    (csi_driver,) = (thing for thing in mine if thing["kind"] == "CSIDriver")
    names = {name for pod in pods(mine) for name in containers(pod)}
    return {
        "always",
        "node-local" if csi_driver["spec"]["storageCapacity"] else "network",
        *(["attachRequired"] if csi_driver["spec"]["attachRequired"] else []),
        *(["snapshots"] if "csi-snapshotter" in names else []),
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pod_may_do_what_its_sidecars_need_and_nothing_else(case: Case) -> None:
    rendered = case.render()
    for workload in pods(rendered):
        holds = conditions(rendered, workload)
        sidecars = {CONTAINERS[name] for name in set(containers(workload)) - WITHOUT_API}
        needed = {
            right
            for (sidecar, condition), table in NEEDED.items()
            if sidecar in sidecars and condition in holds
            for right in table
        }
        account = workload["spec"]["template"]["spec"]["serviceAccountName"]
        may = account_rights(rendered, account)
        assert sorted(map(str, may - needed)) == [], f"{account} may too much"
        assert sorted(map(str, needed - may)) == [], f"{account} may too little"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_only_sidecars_that_talk_to_the_api_server_have_its_token(case: Case) -> None:
    rendered = case.render()
    accounts = {thing["metadata"]["name"]: thing for thing in rendered if thing["kind"] == "ServiceAccount"}
    for workload in pods(rendered):
        pod = workload["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert accounts[pod["serviceAccountName"]]["automountServiceAccountToken"] is False
        for name, container in containers(workload).items():
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            has_token = "/var/run/secrets/kubernetes.io/serviceaccount" in mounts
            assert has_token == (name in CONTAINERS), name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sidecars_have_no_capabilities(case: Case) -> None:
    for workload in pods(case.render()):
        for name, container in containers(workload).items():
            context = container["securityContext"]
            if name != "csi-core":
                assert context["capabilities"] == {"drop": ["ALL"]}
                assert context["allowPrivilegeEscalation"] is False
                assert context["readOnlyRootFilesystem"] is True


def test_secrets_only_by_name() -> None:
    rendered = next(case for case in CASES if case.name == "all-on").render()
    over_secrets = [
        (role["metadata"].get("namespace"), rule)
        for role in rendered
        if "rules" in role
        for rule in role["rules"]
        if "secrets" in rule["resources"]
    ]
    assert over_secrets == [
        (namespace, {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": ["get"]})
        for namespace, name in (("team-a", "storage"), ("team-b", "storage"), ("team-a", "pools"))
    ]
    bound = [thing["metadata"]["namespace"] for thing in rendered if "secret" in thing["metadata"]["name"]]
    assert bound == ["team-a", "team-b", "team-a"] * 2


def published(sidecar: str) -> set[Right]:
    """What the project's own file grants."""
    path = modules.directory(modules.SIDECARS[sidecar]) / PUBLISHED[sidecar]
    return {
        right
        for thing in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if thing and thing["kind"] in ("Role", "ClusterRole")
        for right in granted(thing)
    }


@pytest.mark.parametrize("sidecar", PUBLISHED)
def test_the_table_accounts_for_every_right_that_the_project_publishes(sidecar: str) -> None:
    needed = {right for (name, _), table in NEEDED.items() if name == sidecar for right in table}
    not_used = {right for table, _ in NOT_USED[sidecar] for right in table}
    more = {right for table, _ in UNPUBLISHED.get(sidecar, ()) for right in table}
    assert published(sidecar) == (needed - more) | not_used
    assert not needed & not_used


@pytest.mark.parametrize("sidecar", modules.SIDECARS)
def test_the_table_is_about_the_pinned_version(sidecar: str) -> None:
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text(encoding="utf-8"))
    _, version = modules.SIDECARS[sidecar]
    assert values["sidecars"][sidecar]["image"].endswith(f":{version}")
