"""Controllers whose pod is not privileged work without: with the capabilities that a container has by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm
import pytest
import yaml

from csi_core._proto import csi_pb2 as pb
from csi_core.testing.harness import ServerProcess, create_request

pytestmark = [pytest.mark.needs_go, pytest.mark.needs_root, pytest.mark.needs_tool("setpriv")]

GIB = 1 << 30
USUAL = "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod setfcap"
"""What container runtimes leave to root."""


def controller(values: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The driver's container in a Deployment, and its configuration; None where nodes do all the work."""
    rendered = helm.render(values)
    for config in rendered:
        if config["kind"] == "ConfigMap" and config["metadata"]["name"].endswith("-controller"):
            (deployment,) = (thing for thing in rendered if thing["kind"] == "Deployment")
            containers = deployment["spec"]["template"]["spec"]["containers"]
            (driver,) = (container for container in containers if container["name"] == "csi-core")
            return driver, yaml.safe_load(config["data"]["config.yaml"])
    return None


@pytest.mark.parametrize("name", ["nfs-share", "sim"])
def test_a_volume_is_made_and_deleted(name: str, tmp_path: Path) -> None:
    found = controller(helm.CHART / f"drivers/{name}.yaml")
    assert found
    driver, config = found
    context = driver["securityContext"]
    assert context["privileged"] is False
    assert context["allowPrivilegeEscalation"] is False
    # The harness and this machine have their own.
    del config["driver"]["endpoint"], config["metrics"]
    if name == "nfs-share":
        (tmp_path / "share").mkdir()
        config["backends"]["nfs"]["options"]["share"] |= {"root": str(tmp_path / "share"), "requireMount": False}
    kept = [] if context.get("capabilities") == {"drop": ["ALL"]} else USUAL.split()
    bounded = ",".join(["-all", *(f"+{capability}" for capability in kept)])
    without_rights = ("setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={bounded}")
    with ServerProcess(config, tmp_path / "server", run_on=without_rights) as server:
        volume = server.controller.CreateVolume(create_request("made", GIB)).volume
        assert volume.capacity_bytes == GIB
        server.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume.volume_id))
        assert not server.controller.ListVolumes(pb.ListVolumesRequest()).entries


def test_the_others_are_privileged_for_a_reason() -> None:
    controllers = {values.stem: controller(values) for values in helm.drivers()}
    privileged = {name for name, found in controllers.items() if found and found[0]["securityContext"]["privileged"]}
    # It changes the exports and quotas of its host.
    assert privileged == {"nfs-export"}
