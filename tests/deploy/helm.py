"""The chart as Helm renders it."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["CHART", "NAMESPACE", "RELEASE", "HelmError", "build", "drivers", "is_built", "lint", "render"]

CHECKOUT = Path(__file__).parents[2]
HELM = CHECKOUT / ".ci/helm"
CHART = CHECKOUT / "deploy/chart"
RELEASE = "csi-core"
NAMESPACE = "csi-core"
KUBERNETES = "1.37.0"
# The first call may have to build Helm.
TIMEOUT_S = 600

Object = dict[str, Any]


class HelmError(Exception):
    """Helm refused; the text is what it told the user."""


def is_built() -> bool:
    """Whether :func:`build` has nothing to do."""
    return any((CHECKOUT / ".tools").glob("helm-*/helm"))


def build() -> None:
    """Have .ci/helm build it."""
    subprocess.run([HELM, "version"], capture_output=True, check=True, timeout=TIMEOUT_S)


def drivers() -> list[Path]:
    """The values files of the drivers that come with the chart."""
    return sorted((CHART / "drivers").glob("*.yaml"))


def render(
    *files: Path, values: Mapping[str, Any] | None = None, kubernetes: str = KUBERNETES, release: str = RELEASE
) -> list[Object]:
    """Every object that ``helm install`` with these values would make, in its order.

    Args:
        files: values files, the last one wins.
        values: further values, over all files.
        kubernetes: version of the cluster.
        release: its name.

    Raises:
        HelmError: the values are refused.
    """
    arguments = ("template", release, CHART, "--namespace", NAMESPACE)
    text = _helm(arguments, files, yaml.safe_dump(dict(values or {})), kubernetes)
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def lint(*files: Path, values: Mapping[str, Any] | None = None) -> None:
    """``helm lint --strict``.

    Raises:
        HelmError: it found something.
    """
    _helm(("lint", "--strict", CHART), files, yaml.safe_dump(dict(values or {})), KUBERNETES)


@functools.cache
def _helm(arguments: tuple[object, ...], files: tuple[Path, ...], values: str, kubernetes: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as override:
        override.write(values)
        override.flush()
        chosen = [part for file in (*files, override.name) for part in ("--values", str(file))]
        finished = subprocess.run(
            [HELM, *map(str, arguments), "--kube-version", kubernetes, *chosen],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    if finished.returncode:
        raise HelmError(f"{finished.stdout}\n{finished.stderr}".strip())
    return finished.stdout
