"""One run of csi-sanity against a driver, with what it must pass.

The numbers are pinned: a test that is no longer run is as much of a loss as one that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import csi_sanity
import guest_features
from csi_sanity import Settings

from csi_core.testing.harness import ServerProcess

TESTS = 102
"""How many tests csi_sanity.VERSION has."""

NOT_ON_ONE_NODE = {
    "ControllerExpandVolume not supported": 3,
    "ControllerPublishVolume not supported": 7,
    "Controller Publish, UnpublishVolume not supported": 2,
    "ControllerUnpublishVolume not supported": 1,
    "ControllerModifyVolume not supported": 6,
    "Modify volume not supported": 1,
    "Modify Volume not supported": 1,
}
"""Tests, by the reason the suite gives, of what a node-local backend without mutable parameters does not serve."""

TOPOLOGY = "should succeed when creating a snapshot with accessibility requirements"
"""Compares protobuf messages with their private size caches, and so fails every driver that answers with a topology.
What it means to test is tested in test_sanity.py."""

GROWTH = "should work if node-expand is called after node-publish"
"""Growing ext4 while it is mounted takes CAP_SYS_RESOURCE, which some containers keep from their root."""


@dataclass(frozen=True)
class Case:
    """One run of the suite: what is configured, what the suite is told, and the tests it must leave out."""

    name: str
    settings: Settings
    not_served: Mapping[str, int] = field(default_factory=dict)
    default_filesystem: str = ""


Record = Callable[[str, object], None]


def check(
    case: Case,
    config: Mapping[str, object],
    directory: Path,
    record_property: Record,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run the suite against a server with this configuration; it runs and passes what ``case`` says."""
    settings = case.settings
    if case.default_filesystem == "ext4" and not guest_features.has("ext4-growth"):
        settings = replace(settings, left_out=(*settings.left_out, GROWTH))
    with ServerProcess(config, directory / "server", env=environment) as server:
        result = csi_sanity.run(server.endpoint, settings, directory)
        log = server.log_text()
    record_property("detail", f"{case.name} {result}")
    assert not result.failed, (
        "\n\n".join(f"{name}\n{message}" for name, message in result.failed.items()) + f"\n\n{log}"
    )
    left_out = {csi_sanity.LEFT_OUT: len(settings.left_out)} if settings.left_out else {}
    assert result.skipped == {**case.not_served, **left_out}
    assert result.passed == TESTS - sum(result.skipped.values())
