"""Examples: each says in three lines what to expect, fits the driver it is for, and every kind of claim has one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import helm
import pytest
import yaml
from examples import EXAMPLES, Example

from backends.nfs.mutable import ShareMutable
from backends.nfs.share_parameters import ShareParameters
from csi_core import registry
from csi_core.contract import declared_hooks
from csi_core.model import AccessMode, Description, Reach, VolumeMode
from csi_core.parameters import Parameters

Object = dict[str, Any]

CSI_MODES = {
    "ReadWriteOnce": AccessMode.SINGLE_NODE_MULTI_WRITER,
    "ReadWriteOncePod": AccessMode.SINGLE_NODE_SINGLE_WRITER,
    "ReadOnlyMany": AccessMode.MULTI_NODE_READER_ONLY,
    "ReadWriteMany": AccessMode.MULTI_NODE_MULTI_WRITER,
}
BACKENDS = {"loop": "loop", "lvm": "lvm", "nfs": "nfs-export", "nfs-share": "nfs-share", "sim": "sim"}
"""Values file of the driver that a directory of examples is for."""

EVERYWHERE = {
    *("read-write-once", "read-write-once-pod", "read-only-many", "stateful-set", "generic-ephemeral", "static-pv"),
    *("snapshot-restore", "clone", "expansion", "reclaim-retain", "reclaim-delete"),
}
BLOCK = {"raw-block"}
NODE_LOCAL = {"immediate", "wait-for-first-consumer", "allowed-topologies"}


def driver_of(directory: str) -> Object:
    """What the values file of a directory's driver installs."""
    path = helm.CHART / "drivers" / f"{BACKENDS[directory]}.yaml"
    (driver,) = yaml.safe_load(path.read_text(encoding="utf-8"))["drivers"].values()
    return driver


def declaration_of(directory: str) -> tuple[Description, frozenset[str]]:
    factory = registry.load_factory(directory.removesuffix("-share"))
    description = factory.declaration
    if directory == "nfs-share":  # what is declared before there is a configuration is that of the other mode
        description = replace(description, parameters=ShareParameters, mutable=ShareMutable)
    return description, declared_hooks(factory)


def directory_of(example: Example) -> str:
    return example.path.parent.name


def of_kind(example: Example, kind: str) -> list[Object]:
    return [thing for thing in example.objects if thing["kind"] == kind]


def claim_specs(example: Example) -> list[Object]:
    """Of the claims and of everything that makes claims."""
    pods = [thing["spec"] for thing in of_kind(example, "Pod")]
    templates = [t for thing in of_kind(example, "StatefulSet") for t in thing["spec"]["volumeClaimTemplates"]]
    ephemeral = [
        volume["ephemeral"]["volumeClaimTemplate"]
        for pod in pods
        for volume in pod.get("volumes", ())
        if "ephemeral" in volume
    ]
    return [thing["spec"] for thing in [*of_kind(example, "PersistentVolumeClaim"), *templates, *ephemeral]]


def named(example: Example) -> pytest.param:
    return pytest.param(example, id=example.name)


every_example = pytest.mark.parametrize("example", list(map(named, EXAMPLES)))


@every_example
def test_three_lines_say_what_to_do_and_to_expect(example: Example) -> None:
    what, how, expect = example.expectation
    assert what.endswith(".")
    assert "kubectl" in how
    assert expect.startswith("Expect: ")


@every_example
def test_names_lead_somewhere(example: Example) -> None:
    driver = driver_of(directory_of(example))
    own = {(thing["kind"], thing["metadata"]["name"]) for thing in example.objects}
    neighbour = example.path.parent / "read-write-once.yaml"
    if "read-write-once.yaml" in " ".join(example.expectation):
        own |= {(thing["kind"], thing["metadata"]["name"]) for thing in Example(neighbour).objects}
    classes = {"", *driver["storageClasses"], *(name for kind, name in own if kind == "StorageClass")}
    for spec in claim_specs(example):
        assert spec["storageClassName"] in classes
        if source := spec.get("dataSource"):
            assert (source["kind"], source["name"]) in own
            assert ("apiGroup" in source) == (source["kind"] == "VolumeSnapshot")
    for pod in of_kind(example, "Pod"):
        for volume in pod["spec"]["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in own
    for snapshot in of_kind(example, "VolumeSnapshot"):
        assert snapshot["spec"]["volumeSnapshotClassName"] in driver["volumeSnapshotClasses"]
        assert ("PersistentVolumeClaim", snapshot["spec"]["source"]["persistentVolumeClaimName"]) in own


@every_example
def test_the_driver_serves_what_is_asked(example: Example) -> None:
    description, _ = declaration_of(directory_of(example))
    for spec in claim_specs(example):
        mode = VolumeMode(spec.get("volumeMode", "Filesystem").lower())
        for access in spec["accessModes"]:
            assert CSI_MODES[access] in description.access[mode]


@every_example
def test_classes_are_of_this_driver_and_have_its_parameters(example: Example) -> None:
    name = driver_of(directory_of(example))["config"]["driver"]["name"]
    description, _ = declaration_of(directory_of(example))
    for thing in example.objects:
        if thing["kind"] == "StorageClass":
            assert thing["provisioner"] == name
            check(description.parameters, thing.get("parameters", {}))
            keys = [e["key"] for t in thing.get("allowedTopologies", ()) for e in t["matchLabelExpressions"]]
            assert keys in ([], [f"topology.{name}/node"])
        if thing["kind"] == "VolumeAttributesClass":
            assert thing["driverName"] == name
            check(description.mutable, thing["parameters"])
        if thing["kind"] in ("VolumeSnapshotClass", "VolumeGroupSnapshotClass"):
            assert thing["driver"] == name
            check(description.snapshot_parameters, thing.get("parameters", {}))
        if thing["kind"] == "PersistentVolume":
            assert thing["spec"]["csi"]["driver"] == name
            assert thing["spec"]["csi"]["volumeHandle"].startswith(f"{directory_of(example)}/")


def check(model: type[Parameters], given: dict[str, str]) -> None:
    """The keys that are not Kubernetes' own."""
    model.model_validate({key: value for key, value in given.items() if not key.startswith("csi.storage.k8s.io/")})


@pytest.mark.parametrize("values", helm.drivers(), ids=lambda path: path.stem)
def test_classes_of_the_chart_have_parameters_of_their_backend(values: Any) -> None:
    for driver in yaml.safe_load(values.read_text(encoding="utf-8"))["drivers"].values():
        (backend,) = driver["config"]["backends"]
        description, _ = declaration_of(backend)
        for storage_class in driver["storageClasses"].values():
            check(description.parameters, storage_class.get("parameters", {}))
        for snapshot_class in driver["volumeSnapshotClasses"].values():
            check(description.snapshot_parameters, snapshot_class.get("parameters", {}))


@pytest.mark.parametrize("directory", sorted(set(BACKENDS) - {"nfs-share", "sim"}))
def test_there_is_one_for_everything_that_the_backend_can_do(directory: str) -> None:
    description, hooks = declaration_of(directory)
    expected = set(EVERYWHERE)
    if VolumeMode.BLOCK in description.access:
        expected |= BLOCK
    if description.reach is Reach.NODE_LOCAL:
        expected |= NODE_LOCAL
    if description.ephemeral:
        expected.add("inline-ephemeral")
    if AccessMode.MULTI_NODE_MULTI_WRITER in description.access[VolumeMode.FILESYSTEM]:
        expected.add("read-write-many")
    if "create_group_snapshot" in hooks:
        expected.add("group-snapshot")
    if description.mutable.model_fields:
        expected.add("volume-attributes-class")
    assert {example.path.stem for example in EXAMPLES if directory_of(example) == directory} == expected


@pytest.mark.parametrize("directory", ["nfs-share", "sim"])
def test_attributes_have_one_of_their_own(directory: str) -> None:
    """All other examples are those of another driver, with names changed, or the same as everywhere."""
    assert [example.path.stem for example in EXAMPLES if directory_of(example) == directory] == [
        "volume-attributes-class"
    ]
