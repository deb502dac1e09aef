"""The node calls as the core sees them: validated by the server, free of protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from csi_core.model import VolumeCapability
from csi_core.parameters import Parameters

__all__ = ["NodePublishRequest", "StageRequest", "VolumeUsage"]


@dataclass(frozen=True, slots=True)
class StageRequest:
    """Make a volume ready on this node (CSI ``NodeStageVolumeRequest``).

    Attributes:
        handle: the backend's name for the volume.
        staging_path: an absolute path; the CO creates the directory.
        capability: how the volume is to be used.
        context: the volume context given at creation.
        publish_context: what ``publish_volume`` answered; empty without ControllerPublish.
        secrets: the backend's secrets model.
    """

    handle: str
    staging_path: Path
    capability: VolumeCapability
    context: Mapping[str, str] = field(default_factory=dict)
    publish_context: Mapping[str, str] = field(default_factory=dict)
    secrets: Parameters = field(default_factory=Parameters)


@dataclass(frozen=True, slots=True)
class NodePublishRequest:
    """Hand a staged volume to one workload (CSI ``NodePublishVolumeRequest``).

    Attributes:
        handle: the backend's name for the volume.
        staging_path: where it was staged; None for ephemeral volumes, which are never staged.
        target_path: an absolute path; the driver creates it: a directory, or a file for raw block.
        capability: how the volume is to be used.
        read_only: the workload may not write. Access modes without writers mean the same.
        context, publish_context, secrets: as in :class:`StageRequest`.
    """

    handle: str
    staging_path: Path | None
    target_path: Path
    capability: VolumeCapability
    read_only: bool = False
    context: Mapping[str, str] = field(default_factory=dict)
    publish_context: Mapping[str, str] = field(default_factory=dict)
    secrets: Parameters = field(default_factory=Parameters)

    @property
    def effective_read_only(self) -> bool:
        """Whether this workload must not be able to write."""
        return self.read_only or self.capability.access_mode.read_only


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    """One line of CSI ``NodeGetVolumeStats``: bytes, or inodes. ``used`` is None where it is not known (raw block)."""

    unit: Literal["bytes", "inodes"]
    total: int
    used: int | None = None
    available: int | None = None
