"""What can be set: for the backend, for a class of volumes, for a volume in use, and the secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from csi_core import errors
from csi_core.hookspecs import BackendSpec
from csi_core.model import Reach
from csi_core.parameters import Parameters, SizeBytes

__all__ = ["FailureOption", "SimMutable", "SimOptions", "SimParameters", "SimSecrets", "SimSnapshotParameters"]

HOOKS = frozenset(name for name in vars(BackendSpec) if not name.startswith("_"))


class FailureOption(Parameters):
    """Calls of one hook that fail."""

    error: str = Field(default="Unavailable", description="A class of csi_core.errors that a hook may raise.")
    times: int = Field(default=1, ge=1, description="How many calls fail, counted from the start.")

    @field_validator("error")
    @classmethod
    def _raised_by_hooks(cls, name: str) -> str:
        kind = getattr(errors, name, None)
        if not (isinstance(kind, type) and issubclass(kind, errors.CallError)) or kind is errors.CommandFailed:
            raise ValueError(f"{name!r} is not an error that a hook raises, such as NoSpace or Unavailable")
        return name


class SimOptions(Parameters):
    """The ``options`` of a sim backend in the configuration file."""

    directory: Path | None = Field(
        default=None, description="Where records and data are kept. Without it they end with the process."
    )
    reach: Reach = Field(default=Reach.NETWORK, description="network, or node-local for volumes bound to this node.")
    nodes: tuple[str, ...] = Field(default=(), description="Nodes that volumes can be published to, beside this one.")
    max_volumes_per_node: int = Field(default=0, ge=0, description="Volumes on one node at most; 0: no limit.")
    capacity: SizeBytes = Field(default=100 << 40, description="Bytes that may be promised.")
    overcommit: float = Field(default=1.0, ge=1.0, description="Promised bytes of thin volumes per byte of capacity.")
    secret_key: SecretStr = Field(
        default=SecretStr(""), description="Where set, calls that carry secrets must carry this secretKey."
    )
    latency_seconds: dict[str, float] = Field(default_factory=dict, description="Seconds a hook takes, by its name.")
    failures: dict[str, FailureOption] = Field(default_factory=dict, description="Calls that fail, by the hook's name.")

    @field_validator("latency_seconds", "failures")
    @classmethod
    def _hooks(cls, by_hook: dict[str, object]) -> dict[str, object]:
        if unknown := sorted(by_hook.keys() - HOOKS):
            raise ValueError(f"there is no hook {unknown[0]!r}")
        return by_hook


class SimParameters(Parameters):
    """StorageClass parameters."""

    provisioning: Literal["thin", "thick"] = Field(default="thin", description="thin: may be over-committed.")


class SimMutable(Parameters):
    """VolumeAttributesClass parameters."""

    iops: int | None = Field(default=None, ge=100, le=1_000_000, description="Operations a second the volume may do.")
    tier: Literal["standard", "fast"] | None = Field(default=None, description="Medium that the volume lies on.")


class SimSnapshotParameters(Parameters):
    """VolumeSnapshotClass parameters."""

    label: str = Field(default="", max_length=63, description="Recorded with the snapshot.")


class SimSecrets(Parameters):
    """Secrets that the CO hands over with its calls."""

    secret_key: SecretStr = Field(default=SecretStr(""), description="Compared with the backend's option secretKey.")
