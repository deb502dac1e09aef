"""The container image, built in chroots from deploy/Dockerfile: once, and again only when what goes into it changed."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import guest_features

__all__ = ["BUILT", "CHECKOUT", "Image", "build", "build_rootfs"]

CHECKOUT = Path(__file__).parents[2]
BUILT = CHECKOUT / "build" / "image"
BUILD_TIMEOUT_S = 900


@dataclass(frozen=True)
class Image:
    """A root filesystem and the configuration that goes with it, as a container runtime sees them."""

    rootfs: Path
    env: Mapping[str, str]
    entrypoint: Sequence[str]
    cmd: Sequence[str]
    labels: Mapping[str, str]


def build_rootfs(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Execute the steps of the Dockerfile."""
    return subprocess.run(
        [sys.executable, CHECKOUT / "deploy" / "rootfs", output, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_TIMEOUT_S,
    )


def build() -> Image:
    """The image of this checkout."""
    # In a guest there is no network: there it is what the host has built before it booted the guest.
    if not guest_features.in_guest():
        BUILT.mkdir(parents=True, exist_ok=True)
        with (BUILT.parent / "image.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            built = build_rootfs(BUILT)
        assert built.returncode == 0, f"the image was not built:\n{built.stdout}\n{built.stderr}"
    config = json.loads((BUILT / "config.json").read_text(encoding="utf-8"))
    return Image(BUILT / "rootfs", config["Env"], config["Entrypoint"], config["Cmd"], config["Labels"])
