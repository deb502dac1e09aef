"""Every object that the chart makes, and every example, is one that Kubernetes' API servers accept."""

from __future__ import annotations

import copy

import helm
import modules
import pytest
from examples import EXAMPLES, Example
from kubernetes_schemas import Schemas
from matrix import CASES, Case

pytestmark = pytest.mark.needs_go


@pytest.fixture(scope="module", params=modules.KUBERNETES)
def schemas(request: pytest.FixtureRequest) -> Schemas:
    return Schemas(request.param)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rendered_objects(schemas: Schemas, case: Case) -> None:
    rendered = case.render(f"{schemas.minor}.0")
    assert rendered
    assert [problem for thing in rendered for problem in schemas.problems(thing)] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples(schemas: Schemas, example: Example) -> None:
    assert [problem for thing in example.objects for problem in schemas.problems(thing)] == []


def test_what_is_wrong_is_seen(schemas: Schemas) -> None:
    (daemon_set,) = (thing for thing in helm.render(helm.drivers()[0]) if thing["kind"] == "DaemonSet")
    assert schemas.problems(daemon_set) == []
    container = daemon_set["spec"]["template"]["spec"]["containers"][0]
    container["imagePullPolicie"] = "Always"
    container["env"][0]["name"] = 3
    del daemon_set["spec"]["selector"]
    assert len(schemas.problems(daemon_set)) == 3
    assert "'imagePullPolicie' was unexpected" in " ".join(schemas.problems(daemon_set))


def test_custom_objects_are_held_against_their_definitions(schemas: Schemas) -> None:
    everything = next(case for case in CASES if case.name == "all-on")
    custom = {
        thing["kind"]: thing for thing in everything.render() if thing["apiVersion"].split("/")[0] not in OWN_GROUPS
    }
    assert set(custom) == {
        "PodMonitor",
        "SnapshotMetadataService",
        "VolumeGroupSnapshotClass",
        "VolumeSnapshotClass",
    }
    for thing in custom.values():
        wrong = copy.deepcopy(thing) | {"deletionPolicie": "Delete"}
        assert "'deletionPolicie' was unexpected" in " ".join(schemas.problems(wrong)), thing["kind"]


OWN_GROUPS = {"v1", "apps", "rbac.authorization.k8s.io", "storage.k8s.io"}


def test_an_unknown_version_of_an_api_is_refused(schemas: Schemas) -> None:
    old = {"apiVersion": "storage.k8s.io/v1beta1", "kind": "CSIDriver", "metadata": {"name": "x"}}
    assert schemas.problems(old) == [f"Kubernetes {schemas.minor} has no CSIDriver in storage.k8s.io/v1beta1"]
