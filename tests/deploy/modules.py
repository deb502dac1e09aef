"""What Kubernetes projects publish, from their Go modules at pinned versions: schemas, CRDs, the sidecars' rights."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from pathlib import Path

__all__ = ["KUBERNETES", "OPERATOR", "SIDECARS", "SNAPSHOT_CLIENT", "directory"]

KUBERNETES = {
    minor: ("k8s.io/kubernetes", version)
    for minor, version in {"1.34": "v1.34.4", "1.35": "v1.35.4", "1.36": "v1.36.3", "1.37": "v1.37.2"}.items()
}
"""By minor version: all that the chart supports, up to the newest there is."""

SNAPSHOT_CLIENT = ("github.com/kubernetes-csi/external-snapshotter/client/v8", "v8.7.0")
OPERATOR = ("github.com/prometheus-operator/prometheus-operator", "v0.85.0")
SIDECARS = {
    "provisioner": ("github.com/kubernetes-csi/external-provisioner/v6", "v6.4.0"),
    "attacher": ("github.com/kubernetes-csi/external-attacher/v4", "v4.13.0"),
    "resizer": ("github.com/kubernetes-csi/external-resizer/v2", "v2.3.0"),
    "snapshotter": ("github.com/kubernetes-csi/external-snapshotter/v8", "v8.7.0"),
}
"""Those sidecars whose module is published, at the versions of the images in the chart's values."""

TIMEOUT_S = 300


@functools.cache
def directory(module: tuple[str, str]) -> Path:
    """Where Go's module cache has a module's files, fetched the first time."""
    path, version = module
    with tempfile.TemporaryDirectory() as elsewhere:  # outside of any module of ours
        fetched = subprocess.run(
            ["go", "mod", "download", "-json", f"{path}@{version}"],
            cwd=elsewhere,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    assert fetched.returncode == 0, f"go mod download {path}@{version}:\n{fetched.stdout}{fetched.stderr}"
    return Path(json.loads(fetched.stdout)["Dir"])
