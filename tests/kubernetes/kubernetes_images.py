"""Container images without a container engine or a registry: archives that a runtime imports."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import image as driver_image
import kubernetes_programs as programs

__all__ = ["ARCHIVE", "BUSYBOX", "DRIVER", "PAUSE", "write_archive"]

DRIVER = "ghcr.io/csi-core/csi-core:0.1.0"
BUSYBOX = "docker.io/library/busybox:1.37"
PAUSE = "registry.k8s.io/pause:3.10"
STAND_INS = {"csi-node-driver-registrar": "registrar.py", "livenessprobe": "liveness.py"}
ARCHIVE = "images.tar"
HERE = Path(__file__).parent
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Layer:
    """A tar file of a layer, and its digest."""

    path: Path
    digest: str


@dataclass(frozen=True)
class Image:
    """An image: its name, its layers from the lowest on, and its configuration as OCI has it."""

    name: str
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]


def write_archive(scratch: Path) -> None:
    """Every image that the cluster needs, in one archive in which each layer is once.

    Args:
        scratch: an empty directory, which then has :data:`ARCHIVE`.
    """
    images = list(_images(scratch))
    archive = scratch / ARCHIVE
    layers = {layer.digest: layer for image in images for layer in image.layers}
    with tarfile.open(archive, "w") as tar:
        for layer in layers.values():
            tar.add(layer.path, arcname=f"{layer.digest}.tar")
        manifest = []
        for image in images:
            config = _config(image)
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add_bytes(tar, name, config)
            files = [f"{layer.digest}.tar" for layer in image.layers]
            manifest.append({"Config": name, "RepoTags": [image.name], "Layers": files})
        _add_bytes(tar, "manifest.json", json.dumps(manifest).encode())
    for layer in layers.values():
        layer.path.unlink()


def _images(scratch: Path) -> Iterator[Image]:
    busybox = _busybox_layer(scratch)
    yield Image(BUSYBOX, (busybox,), {"Cmd": ["sh"], "Env": ["PATH=/bin"]})
    yield Image(PAUSE, (busybox,), {"Entrypoint": ["/bin/sleep", "2147483647"]})
    driver, driver_layer = driver_image.build(), scratch / "driver.tar"
    subprocess.run(["tar", "-C", driver.rootfs, "--exclude=./dev/*", "-cf", driver_layer, "."], check=True)
    base = Layer(driver_layer, _digest(driver_layer))
    environment = [f"{name}={value}" for name, value in driver.env.items()]
    yield Image(DRIVER, (base,), {"Entrypoint": driver.entrypoint, "Cmd": driver.cmd, "Env": environment})
    scripts = _layer(scratch / "stand-ins.tar", {path: f"stand-ins/{path.name}" for path in _stand_in_files()})
    for name, image in programs.sidecar_images().items():
        if name in STAND_INS:
            entry = ["python3", "-u", f"/stand-ins/{STAND_INS[name]}"]
            yield Image(image, (base, scripts), {"Entrypoint": entry, "Env": environment})
        elif name in programs.SIDECARS:
            layer = _layer(scratch / f"{name}.tar", {(programs.BIN / name).resolve(): name})
            yield Image(image, (layer,), {"Entrypoint": [f"/{name}"]})


def _stand_in_files() -> list[Path]:
    # What the quicker tier's stand-in for kubelet talks to is what tells the real one.
    return [*sorted((HERE / "stand_ins").glob("*.py")), HERE.parent / "deploy/registration.py"]


def _busybox_layer(scratch: Path) -> Layer:
    listed = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    path = scratch / "busybox.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(subprocess.check_output(["which", "busybox"], text=True).strip(), arcname="bin/busybox")
        for name in set(listed) - {"busybox"}:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name in ("tmp", "data", "etc"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(directory)
    return Layer(path, _digest(path))


def _layer(path: Path, files: Mapping[Path, str]) -> Layer:
    with tarfile.open(path, "w") as tar:
        for source, name in files.items():
            tar.add(source, arcname=name)
    return Layer(path, _digest(path))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _config(image: Image) -> bytes:
    described = {
        "architecture": ARCHITECTURES[os.uname().machine],
        "os": "linux",
        "config": image.config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in image.layers]},
    }
    return json.dumps(described).encode()


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
