"""Every argument that the chart gives a sidecar is one that its pinned version knows; others would end it."""

from __future__ import annotations

import re
from pathlib import Path

import helm
import modules
import pytest
import yaml
from matrix import CASES, Case

pytestmark = pytest.mark.needs_go

SIDECARS = {f"csi-{name}": module for name, module in modules.SIDECARS.items()}
COMMON = "github.com/kubernetes-csi/csi-lib-utils"
DEFINED = re.compile(r'\bflags?\.\w+\((?:&[\w.]+, *)?"([a-z-]+)"')

UNPUBLISHED = {
    # commit c5794c45f34c, cmd/csi-node-driver-registrar/main.go
    "node-driver-registrar": (
        "v2.17.0",
        {"connection-timeout", "csi-address", "enable-pprof", "health-port", "http-endpoint"}
        | {"kubelet-registration-path", "mode", "plugin-registration-path", "timeout", "v", "version"},
    ),
    # commit d2d15a5e8217, cmd/livenessprobe/main.go
    "liveness-probe": (
        "v2.19.0",
        {"csi-address", "health-port", "http-endpoint", "metrics-address", "metrics-path", "probe-timeout", "v"},
    ),
    # commit a472d987d1f1, pkg/sidecar/sidecar.go
    "csi-snapshot-metadata": (
        "v1.1.0",
        {"audience", "csi-address", "disable-metrics", "http-endpoint", "kube-api-burst", "kube-api-qps", "kubeconfig"}
        | {"max-streaming-duration-min", "metrics-path", "port", "timeout", "tls-cert", "tls-key", "v", "version"},
    ),
}
"""Whose modules cannot be fetched: every flag in the source of these tags, and of klog's the one that is used, v."""

IMAGES = {
    "node-driver-registrar": "registrar",
    "liveness-probe": "livenessProbe",
    "csi-snapshot-metadata": "snapshotMetadata",
}


def defined_in(directory: Path) -> set[str]:
    sources = (path for path in directory.rglob("*.go") if not path.name.endswith("_test.go"))
    return {name for path in sources for name in DEFINED.findall(path.read_text(encoding="utf-8"))}


def known(container: str) -> set[str]:
    """The flags of a sidecar."""
    if container in UNPUBLISHED:
        return UNPUBLISHED[container][1]
    module = modules.directory(SIDECARS[container])
    required = re.search(rf"{COMMON} (v\S+)", (module / "go.mod").read_text(encoding="utf-8"))
    assert required
    common = modules.directory((COMMON, required[1])) / "standardflags"
    # klog's own; the other flags are the module's and those of all sidecars.
    return {"v"} | defined_in(module / "cmd" / container) | defined_in(common)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_arguments_are_flags_of_the_pinned_version(case: Case) -> None:
    for thing in case.render():
        if thing["kind"] not in ("DaemonSet", "Deployment"):
            continue
        for container in thing["spec"]["template"]["spec"]["containers"]:
            flags = {argument.removeprefix("--").split("=", 1)[0] for argument in container.get("args", ())}
            if flags:
                assert sorted(flags - known(container["name"])) == [], container["name"]


@pytest.mark.parametrize("container", SIDECARS)
def test_the_sources_have_flags(container: str) -> None:
    assert {"csi-address", "leader-election", "timeout"} <= known(container)
    assert "no-such-flag" not in known(container)


@pytest.mark.parametrize("container", UNPUBLISHED)
def test_the_lists_are_of_the_pinned_version(container: str) -> None:
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text(encoding="utf-8"))
    assert values["sidecars"][IMAGES[container]]["image"].endswith(f":{UNPUBLISHED[container][0]}")
