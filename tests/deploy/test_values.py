"""Values: what is wrong is refused with a message that says where and what; and each one is documented."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import helm
import pytest
import yaml
from matrix import CASES, LOOP, SIM, Case

from csi_core.config_check import json_schema

pytestmark = pytest.mark.needs_go

GENERATE = helm.CHART.parent / "generate.py"

NFS = helm.CHART / "drivers/nfs-export.yaml"


def load(path: Path) -> ModuleType:
    """A program as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load(GENERATE)


def loop(**settings: Any) -> dict[str, Any]:
    return {"drivers": {"loop": settings}}


def sim(**settings: Any) -> dict[str, Any]:
    return {"drivers": {"sim": {"reach": "network", "config": SIM, **settings}}}


WRONG = {
    "a misspelled value": ({"kubletDir": "/x"}, "additional properties 'kubletDir' not allowed"),
    "a misspelled value of a driver": (loop(snapshot=True), "at '/drivers/loop': additional properties 'snapshot' not"),
    "a misspelled default": (
        {"defaults": {"hostNetwork": True}},
        "at '/defaults': additional properties 'hostNetwork'",
    ),
    "no reach": ({"drivers": {"x": {"config": SIM}}}, "at '/drivers/x': missing property 'reach'"),
    "an unknown reach": (loop(reach="local"), "at '/drivers/loop/reach': value must be one of 'node-local', 'network'"),
    "no config": ({"drivers": {"x": {"reach": "network"}}}, "at '/drivers/x': missing property 'config'"),
    "no driver name": (sim(config={"backends": {"sim": None}}), "at '/drivers/sim/config': missing property 'driver'"),
    "a misspelled key of the configuration": (
        loop(config={"server": {"worker": 4}}),
        "at '/drivers/loop/config/server': additional properties 'worker' not allowed",
    ),
    "a misspelled option of a backend": (
        loop(config={"backends": {"loop": {"options": {"pools": {"default": {"overcomit": 2}}}}}}),
        "additional properties 'overcomit' not allowed",
    ),
    "an option out of its range": (
        loop(config={"backends": {"loop": {"options": {"pools": {"default": {"overcommit": 0.5}}}}}}),
        "options/pools/default/overcommit': minimum: got 0.5, want 1",
    ),
    "an option of a backend under a name of its own": (
        loop(config={"backends": {"b": {"type": "loop", "options": {"pools": {}}}}}),
        "config/backends/b/options/pools': minProperties: got 0, want 1",
    ),
    "a misspelled limit": (
        loop(node={"resources": {"limits": {"memroy": "1Gi"}}}),
        "node/resources/limits': additional properties 'memroy' not",
    ),
    "misspelled limits": (
        {"sidecars": {"resizer": {"resources": {"limit": {}}}}},
        "at '/sidecars/resizer/resources': additional properties 'limit' not allowed",
    ),
    "a misspelled toleration": (
        loop(node={"tolerations": [{"key": "a", "efect": "NoSchedule"}]}),
        "node/tolerations/0': additional properties 'efect' not allowed",
    ),
    "a misspelled security context": (
        loop(node={"securityContext": {"privilged": True}}),
        "node/securityContext': additional properties 'privilged' not allowed",
    ),
    "a misspelled affinity": (
        loop(node={"affinity": {"nodeAfinity": {}}}),
        "node/affinity': additional properties 'nodeAfinity' not allowed",
    ),
    "a misspelled update strategy": (
        loop(node={"updateStrategy": {"rollingUpdate": {"maxUnavailble": 1}}}),
        "rollingUpdate': additional properties 'maxUnavailble' not allowed",
    ),
    "a misspelled variable": (
        loop(node={"env": [{"name": "A", "vale": "b"}]}),
        "node/env/0': additional properties 'vale' not allowed",
    ),
    "a number where text is meant": ({"image": {"tag": 1.0}}, "at '/image/tag': got number, want string"),
    "a half digest": ({"image": {"digest": "sha256:abc"}}, "at '/image/digest': 'sha256:abc' does not match pattern"),
    "an image without a tag": (
        {"sidecars": {"provisioner": {"image": "registry.k8s.io/sig-storage/csi-provisioner"}}},
        "at '/sidecars/provisioner/image'",
    ),
    "an argument that is none": ({"sidecars": {"attacher": {"args": ["v=5"]}}}, "at '/sidecars/attacher/args/0'"),
    "a duration without a unit": ({"sidecars": {"timeout": "60"}}, "at '/sidecars/timeout': '60' does not match"),
    "a relative directory": ({"kubeletDir": "kubelet"}, "at '/kubeletDir': 'kubelet' does not match pattern"),
    "a directory with a slash at the end": ({"kubeletDir": "/var/lib/kubelet/"}, "at '/kubeletDir'"),
    "a name too long for objects": (
        {"drivers": {"a-name-of-a-driver-too-long": {"reach": "network", "config": SIM}}},
        "'a-name-of-a-driver-too-long' does not match pattern",
    ),
    "a policy that is none": (loop(csiDriver={"fsGroupPolicy": "file"}), "'None', 'File', 'ReadWriteOnceWithFSType'"),
    "no lifecycle mode": (loop(csiDriver={"volumeLifecycleModes": []}), "volumeLifecycleModes': minItems: got 0"),
    "an unknown filesystem": (loop(defaultFsType="zfs"), "at '/drivers/loop/defaultFsType': value must be one of"),
    "two drivers of a pool at once": (
        loop(node={"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}),
        "at '/drivers/loop/node/updateStrategy/rollingUpdate/maxSurge': value must be one of 0, '0%'",
    ),
    "a probe that gives up before the sidecar": (
        loop(node={"livenessProbe": {"timeoutSeconds": 2}}),
        "timeoutSeconds': minimum: got 2, want 4",
    ),
    "the framework's own environment": (
        loop(node={"env": [{"name": "NODE_NAME", "value": "x"}]}),
        "at '/drivers/loop/node/env/0/name': 'not' failed",
    ),
    "a class with a number": (
        loop(storageClasses={"x": {"parameters": {"stripes": 2}}}),
        "at '/drivers/loop/storageClasses/x/parameters/stripes': got number, want string",
    ),
    "a class with a wrong policy": (
        loop(storageClasses={"x": {"reclaimPolicy": "Recycle"}}),
        "reclaimPolicy': value must be one of 'Delete', 'Retain'",
    ),
    "a class with a wrong name": (loop(storageClasses={"My_Class": {}}), "'My_Class' does not match pattern"),
    "attributes without any": (loop(volumeAttributesClasses={"x": {"parameters": {}}}), "minProperties: got 0, want 1"),
    # What templates/checks.yaml refuses.
    "the endpoint": (
        loop(config={"driver": {"endpoint": "unix:///run/x.sock"}}),
        "drivers.loop.config.driver.endpoint: the chart sets it",
    ),
    "metrics in the configuration": (
        loop(config={"metrics": {"listen": "0.0.0.0:1"}}),
        "drivers.loop.config.metrics: write drivers.loop.metrics instead",
    ),
    "a pool outside of the host's directories": (
        loop(config={"backends": {"loop": {"options": {"pools": {"default": {"path": "/mnt/nvme"}}}}}}),
        'pool "default" of backend loop is at /mnt/nvme, which is no directory of the host in the container; '
        "add {path: /mnt/nvme} to drivers.loop.node.hostPaths",
    ),
    "a segment outside of the host's directories": (
        loop(
            config={"backends": {"loop": {"options": {"pools": {"default": {"segments": [{"path": "/srv/extents"}]}}}}}}
        ),
        'a segment of pool "default" of backend loop is at /srv/extents, which is no directory of the host',
    ),
    "two drivers of one name": (
        {"drivers": {"other": {"reach": "network", "config": {**SIM, "driver": {"name": "loop.csi-core.dev"}}}}},
        'drivers.loop and drivers.other: both are CSI driver "loop.csi-core.dev"',
    ),
    "two drivers with one class": (
        sim(storageClasses={"csi-core-loop": {}}),
        "drivers.loop and drivers.sim: both have storageClasses.csi-core-loop",
    ),
    "one port for two things": (loop(node={"ports": {"health": 9808}}), "both are 9808"),
    "attaching what is on the node": (
        loop(csiDriver={"attachRequired": True}),
        "drivers.loop.csiDriver.attachRequired: volumes of a node-local driver are not attached",
    ),
    "metadata of node-local snapshots": (
        loop(snapshotMetadata={"enabled": True}),
        "drivers.loop.snapshotMetadata: a node-local driver has its snapshots on every node",
    ),
    "metadata without TLS": (
        sim(snapshotMetadata={"enabled": True}),
        "drivers.sim.snapshotMetadata: needs tlsSecret and caCert",
    ),
    "no driver": (loop(enabled=False), "no driver is enabled: add one of the values files"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_values_are_refused_with_the_place_and_the_reason(wrong: str) -> None:
    values, message = WRONG[wrong]
    with pytest.raises(helm.HelmError) as refused:
        helm.render(LOOP, values=values)
    assert message in str(refused.value)


def test_ports_that_meet_on_a_node_are_refused() -> None:
    metrics = {"node": {"hostNetwork": True}}
    with pytest.raises(helm.HelmError, match=r"drivers\.loop\.node\.ports\.\w+ and drivers\.nfs\.node\.ports\.\w+"):
        helm.render(LOOP, NFS, values=loop(**metrics))
    helm.render(LOOP, NFS)
    ports = {"ports": {"health": 9811, "metrics": 9810}}
    helm.render(LOOP, NFS, values=loop(node={"hostNetwork": True, **ports}))


def test_an_export_root_must_be_mounted() -> None:
    with pytest.raises(helm.HelmError, match=r"add \{path: /srv/csi-core\} to drivers\.nfs\.controller\.hostPaths"):
        helm.render(NFS, values={"drivers": {"nfs": {"controller": {"hostPaths": []}}}})


def test_a_release_name_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(helm.HelmError, match="choose a shorter name for the release"):
        helm.render(LOOP, release="r" * 46)
    longest = helm.render(LOOP, release="r" * 45)
    assert all(len(thing["metadata"]["name"]) <= 63 for thing in longest)


def test_nothing_is_installed_by_default() -> None:
    with pytest.raises(helm.HelmError, match="--values deploy/chart/drivers/loop.yaml"):
        helm.render()


def test_kubernetes_before_the_oldest_supported_is_refused() -> None:
    with pytest.raises(helm.HelmError, match="chart requires kubeVersion: >=1.34.0-0"):
        helm.render(LOOP, kubernetes="1.33.9")
    assert helm.render(LOOP, kubernetes="1.34.2-gke.100")


def leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all that can be set."""
    for key, value in values.items():
        yield from leaves(value, (*path, key)) if isinstance(value, dict) and value else [(*path, key)]


def test_every_value_has_a_doc_line() -> None:
    text = (helm.CHART / "values.yaml").read_text(encoding="utf-8")
    documented = generate.doc_lines(text)
    undocumented = [
        ".".join(path)
        for path in leaves(yaml.safe_load(text))
        if not any(path[:length] in documented for length in range(1, len(path) + 1))
    ]
    assert undocumented == []


def test_the_schema_describes_every_value_and_knows_no_other() -> None:
    schema = generate.values_schema()
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(schema["properties"]) == {*values, "global"}
    settings = schema["properties"]["defaults"]["properties"]
    assert set(settings) == set(values["defaults"])
    assert set(schema["properties"]["drivers"]["additionalProperties"]["properties"]) == {*settings, "reach", "config"}
    assert settings["csiDriver"]["properties"]["fsGroupPolicy"]["description"].startswith(
        "Whether kubelet sets ownership"
    )


def test_the_config_part_is_the_schema_of_csi_core() -> None:
    definitions = generate.values_schema()["$defs"]
    own = json_schema()
    parts = {name.removeprefix("config."): part for name, part in definitions.items() if name.startswith("config.")}
    assert json.loads(json.dumps(parts).replace("#/$defs/config.", "#/$defs/")) == own["$defs"]
    assert set(definitions["config"]["properties"]) == set(own["properties"])


def test_what_is_generated_is_up_to_date() -> None:
    checked = subprocess.run([sys.executable, GENERATE, "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_lint(case: Case) -> None:
    helm.lint(*case.files, values=case.values)
