"""What the chart tells Kubernetes about a driver is what its backend declares; the configuration is one it takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import helm
import pytest
import yaml
from matrix import CASES, Case

from csi_core import registry
from csi_core.capabilities import Capabilities, derive
from csi_core.config import Config
from csi_core.config_check import load_checked_config
from csi_core.contract import check_backend
from csi_core.errors import InvalidArgument
from csi_core.model import Description, Reach
from csi_core.node.mount_options import mount_options

pytestmark = pytest.mark.needs_go

SOCKET = "unix:///csi/csi.sock"


@dataclass(frozen=True)
class Declared:
    """A configured backend that was not started."""

    name: str
    hooks: frozenset[str]
    description: Description


@dataclass(frozen=True)
class Release:
    """One driver of a release: its objects, and what its configuration makes of it."""

    driver: str
    objects: list[helm.Object]
    configs: dict[str, Config]

    @property
    def backends(self) -> list[Declared]:
        """Of the controller's configuration where there is one, else of the nodes'."""
        config = self.configs.get("controller") or self.configs["node"]
        return [declared(name, section.type, section.options) for name, section in config.backends.items()]

    @property
    def capabilities(self) -> Capabilities:
        """As the driver would advertise them."""
        return derive(self.backends, alpha=False)

    @property
    def csi_driver(self) -> helm.Object:
        """The CSIDriver object's spec."""
        (found,) = (thing for thing in self.objects if thing["kind"] == "CSIDriver")
        return found["spec"]

    def containers(self, *kinds: str) -> set[str]:
        """Names of the containers in workloads of these kinds."""
        pods = [thing["spec"]["template"]["spec"] for thing in self.objects if thing["kind"] in kinds]
        return {container["name"] for pod in pods for container in pod["containers"]}


def declared(name: str, type_name: str, options: dict[str, object]) -> Declared:
    plugin = registry.load_plugin(type_name, options)
    description = type(plugin).declaration
    # The simulator is what its options say; the others' reach is their nature.
    reach = Reach(options.get("reach", description.reach.value))
    return Declared(name, check_backend(name, plugin), replace(description, reach=reach))


def releases(case: Case, directory: Path) -> Iterable[Release]:
    rendered = [thing for thing in case.render() if "csi-core.dev/driver" in thing["metadata"].get("labels", {})]
    by_driver = {thing["metadata"]["labels"]["csi-core.dev/driver"]: None for thing in rendered}
    for driver in by_driver:
        mine = [thing for thing in rendered if thing["metadata"]["labels"]["csi-core.dev/driver"] == driver]
        configs = {}
        for thing in mine:
            if thing["kind"] == "ConfigMap":
                path = directory / f"{thing['metadata']['name']}.yaml"
                path.write_text(thing["data"]["config.yaml"], encoding="utf-8")
                configs[thing["metadata"]["name"].rpartition("-")[2]] = load_checked_config(path)
        yield Release(driver, mine, configs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_driver_takes_its_configuration(case: Case, tmp_path: Path) -> None:
    for release in releases(case, tmp_path):
        (name,) = (thing["metadata"]["name"] for thing in release.objects if thing["kind"] == "CSIDriver")
        for part, config in release.configs.items():
            assert (config.driver.name, config.driver.endpoint) == (name, SOCKET), part


DRIVERS = [case for case in CASES if case.files and not case.values and len(case.files) == 1]


@pytest.fixture(params=DRIVERS, ids=lambda case: case.name)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Release:
    """Each driver that comes with the chart."""
    (only,) = releases(request.param, tmp_path)
    return only


def test_the_csi_driver_object_says_what_the_backend_declares(release: Release) -> None:
    has = release.capabilities
    ephemeral = any(backend.description.ephemeral for backend in release.backends)
    local = has.reach is Reach.NODE_LOCAL
    assert release.csi_driver == {
        "attachRequired": "PUBLISH_UNPUBLISH_VOLUME" in has.controller,
        "storageCapacity": local and "GET_CAPACITY" in has.controller,
        # Kubelet says that a volume is inline only where it says which pod it is.
        "podInfoOnMount": ephemeral,
        "volumeLifecycleModes": ["Persistent", "Ephemeral"] if ephemeral else ["Persistent"],
        # Both as kubelet sets it and as VOLUME_MOUNT_GROUP delegates it.
        "fsGroupPolicy": "File",
        "requiresRepublish": False,
        "seLinuxMount": False,
    }


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs", "directory"])
def test_why_selinux_contexts_are_not_mounted(fs_type: str) -> None:
    """With seLinuxMount kubelet would send such an option, and the driver refuses it."""
    with pytest.raises(InvalidArgument):
        mount_options(fs_type, ["context=system_u:object_r:container_file_t:s0:c1,c2"])


def test_each_sidecar_is_there_for_a_capability_of_the_driver(release: Release) -> None:
    has = release.capabilities
    everywhere = release.containers("DaemonSet", "Deployment")
    expected = {
        "csi-provisioner": "CREATE_DELETE_VOLUME" in has.controller,
        "csi-attacher": "PUBLISH_UNPUBLISH_VOLUME" in has.controller,
        "csi-resizer": bool({"EXPAND_VOLUME", "MODIFY_VOLUME"} & (has.controller | has.node)),
        "csi-snapshotter": "CREATE_DELETE_SNAPSHOT" in has.controller,
    }
    assert {name: name in everywhere for name in expected} == expected


def test_node_local_sidecars_run_on_every_node_and_the_others_once(release: Release) -> None:
    local = release.capabilities.reach is Reach.NODE_LOCAL
    assert release.containers("DaemonSet") - {"csi-core", "node-driver-registrar", "liveness-probe"} == (
        {"csi-provisioner", "csi-snapshotter"} if local else set()
    )
    # The driver itself is no part of the one resizer of a node-local driver: it would want the pools a second time.
    assert ("csi-core" in release.containers("Deployment")) is not local


def test_every_backend_of_the_wheel_has_a_driver_in_the_chart() -> None:
    types = {
        section.get("type", name) if section else name
        for path in helm.drivers()
        for values in yaml.safe_load(path.read_text(encoding="utf-8"))["drivers"].values()
        for name, section in values["config"]["backends"].items()
    }
    assert types == {backend.name for backend in registry.installed()}
