"""The programs of a Kubernetes cluster, built from their Go modules into .tools; and the CRDs of snapshots.

As a program it builds them, and says what takes so long.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["BIN", "CHECKOUT", "CRDS", "KUBERNETES", "build", "sidecar_images"]

KUBERNETES = "v1.37.2"
ETCD = "v3.6.16"
CONTAINERD = "v2.4.2"
CNI_PLUGINS = "v1.9.1"

CHECKOUT = Path(__file__).parents[2]
TOOLS = CHECKOUT / ".tools" / f"kubernetes-{KUBERNETES}"
BIN = TOOLS / "bin"
CRDS = TOOLS / "crds"
BUILD_TIMEOUT_S = 3600
SIDECARS = {
    "csi-provisioner": "external-provisioner",
    "csi-attacher": "external-attacher",
    "csi-resizer": "external-resizer",
    "csi-snapshotter": "external-snapshotter",
}
"""Those whose modules can be had, and the repository of each."""


@dataclass(frozen=True)
class Source:
    """A Go module and the programs in it that are wanted.

    Attributes:
        packages: from the program's name to its package, relative to the module.
        replaced: modules that its own go.mod takes from its repository, and their versions.
    """

    module: str
    version: str
    packages: Mapping[str, str]
    replaced: Mapping[str, str] = field(default_factory=dict)


def sidecar_images() -> dict[str, str]:
    """The chart's images of sidecars, by the image's name: ``csi-provisioner`` and so on."""
    values = yaml.safe_load((CHECKOUT / "deploy/chart/values.yaml").read_text(encoding="utf-8"))
    images = [given["image"] for given in values["sidecars"].values() if isinstance(given, dict)]
    return {image.rpartition("/")[2].partition(":")[0]: image for image in images}


def build(say: Callable[[str], None]) -> None:
    """Build what is missing: some twenty minutes on two CPUs the first time, nothing after that.

    Args:
        say: told of each step, so that a person knows what takes so long.

    Raises:
        RuntimeError: Go refused; its own words.
    """
    for source in _sources():
        missing = {name: package for name, package in source.packages.items() if not _built(source, name).exists()}
        if missing:
            say(f"building {', '.join(missing)} of {source.module} {source.version}")
            _build(source, missing)
        for name in source.packages:
            link = BIN / name
            if not link.exists() or link.resolve() != _built(source, name):
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(_built(source, name))


def _sources() -> Iterator[Source]:
    programs = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
    yield Source("k8s.io/kubernetes", KUBERNETES, {name: f"cmd/{name}" for name in programs}, _staging())
    yield Source("go.etcd.io/etcd/server/v3", ETCD, {"etcd": ""})
    runtime = ("containerd", "ctr", "containerd-shim-runc-v2")
    yield Source("github.com/containerd/containerd/v2", CONTAINERD, {name: f"cmd/{name}" for name in runtime})
    network = {"ptp": "plugins/main/ptp", "loopback": "plugins/main/loopback", "host-local": "plugins/ipam/host-local"}
    yield Source("github.com/containernetworking/plugins", CNI_PLUGINS, network)
    for name, image in sidecar_images().items():
        if name in SIDECARS:
            version = image.rpartition(":")[2]
            programs = (name, "snapshot-controller") if name == "csi-snapshotter" else (name,)
            module = f"github.com/kubernetes-csi/{SIDECARS[name]}/{version.partition('.')[0]}"
            yield Source(module, version, {program: f"cmd/{program}" for program in programs})


def _staging() -> dict[str, str]:
    """The modules that live in Kubernetes' own repository: published on their own as v0 of the same release."""
    described = json.loads(_go("mod", "download", "-json", f"k8s.io/kubernetes@{KUBERNETES}", cwd=CHECKOUT))
    replaced = json.loads(_go("mod", "edit", "-json", described["GoMod"], cwd=CHECKOUT))["Replace"]
    published = re.sub(r"^v1\.", "v0.", KUBERNETES)
    return {entry["Old"]["Path"]: published for entry in replaced}


def _built(source: Source, program: str) -> Path:
    return TOOLS / "built" / f"{program}-{source.version}"


def _build(source: Source, packages: Mapping[str, str]) -> None:
    """A module of our own that requires theirs: ``go install`` refuses modules with replacements."""
    paths = {name: f"{source.module}/{package}".rstrip("/") for name, package in packages.items()}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        replaced = "".join(f"replace {module} => {module} {at}\n" for module, at in source.replaced.items())
        module = f"module programs\ngo 1.26.0\nrequire {source.module} {source.version}\n{replaced}"
        (directory / "go.mod").write_text(module, encoding="utf-8")
        imports = "".join(f'import _ "{path}"\n' for path in paths.values())
        (directory / "programs.go").write_text(f"//go:build tools\npackage programs\n{imports}", encoding="utf-8")
        _go("mod", "tidy", cwd=directory)
        for name, path in paths.items():
            version = f"-X k8s.io/component-base/version.gitVersion={source.version}"
            made = directory / name
            _go("build", "-trimpath", "-ldflags", f"-s -w {version}", "-o", str(made), path, cwd=directory)
            _built(source, name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(made, _built(source, name))
        if "csi-snapshotter" in packages:
            _copy_crds(json.loads(_go("list", "-m", "-json", f"{_client_of(source)}", cwd=directory)))


def _client_of(snapshotter: Source) -> str:
    repository, _, major = snapshotter.module.rpartition("/")
    return f"{repository}/client/{major}"


def _copy_crds(client: Mapping[str, Any]) -> None:
    shutil.rmtree(CRDS, ignore_errors=True)
    CRDS.mkdir(parents=True)
    for path in sorted((Path(client["Dir"]) / "config/crd").glob("*.yaml")):
        if path.name != "kustomization.yaml":
            shutil.copyfile(path, CRDS / path.name)


def _go(*arguments: str, cwd: Path) -> str:
    finished = subprocess.run(
        ["go", *arguments],
        cwd=cwd,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"},
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_TIMEOUT_S,
    )
    if finished.returncode:
        raise RuntimeError(f"go {' '.join(arguments)}:\n{finished.stderr[-4000:]}")
    return finished.stdout


def _say(text: str) -> None:
    sys.stdout.write(f"==> {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    build(_say)
