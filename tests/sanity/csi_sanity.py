"""csi-sanity, the Kubernetes project's tests for CSI drivers: built once, run against a socket, its report read."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

VERSION = "v5.6.0"
MODULE = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
TOOLS = Path(__file__).parents[2] / ".tools"
LEFT_OUT = "left out by the settings"
BUILD_TIMEOUT_S = 600
RUN_TIMEOUT_S = 600

PROGRAM = TOOLS / f"csi-sanity-{VERSION}" / "csi-sanity"


def is_built() -> bool:
    """Whether :func:`build` has nothing to do."""
    return PROGRAM.exists()


def build() -> Path:
    """The program, from the checkout's .tools or built into it."""
    if not is_built():
        install = subprocess.run(
            ["go", "install", f"{MODULE}@{VERSION}"],
            env=os.environ | {"GOBIN": str(PROGRAM.parent)},
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_TIMEOUT_S,
        )
        assert install.returncode == 0, f"go install {MODULE}@{VERSION}:\n{install.stderr}"
    return PROGRAM


@dataclass(frozen=True)
class Settings:
    """What csi-sanity is told about a driver; sizes in bytes, the mappings become YAML files.

    ``left_out`` are the ends of the names of tests that are not to be run.
    """

    access_type: str
    size_bytes: int
    expand_to_bytes: int
    parameters: Mapping[str, str] = field(default_factory=dict)
    mutable_parameters: Mapping[str, str] = field(default_factory=dict)
    snapshot_parameters: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    attach_limit: bool = False
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """How many tests passed, what failed and why, and for which reasons how many were skipped."""

    passed: int
    failed: Mapping[str, str]
    skipped: Mapping[str, int]

    def __str__(self) -> str:
        return f"{self.passed} passed, {len(self.failed)} failed, {sum(self.skipped.values())} skipped"


CALLS_WITH_SECRETS = (
    "CreateVolume",
    "DeleteVolume",
    "ControllerPublishVolume",
    "ControllerUnpublishVolume",
    "ControllerValidateVolumeCapabilities",
    "NodeStageVolume",
    "NodePublishVolume",
    "CreateSnapshot",
    "DeleteSnapshot",
    "ControllerExpandVolume",
    "ControllerModifyVolume",
    "ListSnapshots",
    "GetSnapshot",
)


def run(endpoint: str, settings: Settings, directory: Path) -> Result:
    """Run every test against the driver that listens on ``endpoint`` (``unix:///...``).

    ``directory`` takes the report, and what the suite mounts.
    """
    report = directory / "report.json"
    files: dict[str, Mapping[str, object]] = {
        "testvolumeparameters": settings.parameters,
        "testvolumemutableparameters": settings.mutable_parameters,
        "testsnapshotparameters": settings.snapshot_parameters,
        "secrets": {f"{call}Secret": dict(settings.secrets) for call in CALLS_WITH_SECRETS} if settings.secrets else {},
    }
    options = []
    for name, content in files.items():
        if content:
            path = directory / f"{name}.yaml"
            path.write_text(yaml.safe_dump(dict(content)), encoding="utf-8")
            options.append(f"--csi.{name}={path}")
    options += [f"--ginkgo.skip={re.escape(name)}$" for name in settings.left_out]
    if settings.attach_limit:
        options.append("--csi.testnodevolumeattachlimit")
    finished = subprocess.run(
        [
            build(),
            f"--csi.endpoint={endpoint}",
            # The suite makes and removes these two; they must not be there beforehand.
            f"--csi.mountdir={directory / 'mount'}",
            f"--csi.stagingdir={directory / 'staging'}",
            f"--csi.testvolumeaccesstype={settings.access_type}",
            f"--csi.testvolumesize={settings.size_bytes}",
            f"--csi.testvolumeexpandsize={settings.expand_to_bytes}",
            f"--ginkgo.json-report={report}",
            "--ginkgo.no-color",
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_S,
    )
    assert report.exists(), f"csi-sanity wrote no report:\n{finished.stdout}\n{finished.stderr}"
    return read(report)


def read(report: Path) -> Result:
    """The counts of a ginkgo report, without the tests that the suite's authors have switched off ("pending")."""
    (suite,) = json.loads(report.read_text(encoding="utf-8"))
    passed, failed, skipped = 0, {}, Counter[str]()
    for spec in suite["SpecReports"]:
        message = spec.get("Failure", {}).get("Message", "")
        if spec["State"] == "passed":
            passed += spec["LeafNodeType"] == "It"
        elif spec["State"] == "skipped":
            skipped[message or LEFT_OUT] += 1
        elif spec["State"] != "pending":
            failed[" ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]])] = message
    return Result(passed, failed, dict(skipped))
