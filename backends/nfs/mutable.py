"""What a VolumeAttributesClass can change of a volume in use; a StorageClass may give the first values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from csi_core.parameters import Parameters, keys

__all__ = ["ExportMutable", "ShareMutable", "in_force"]


class ExportMutable(Parameters):
    """VolumeAttributesClass parameters of mode ``export``: how the volume is exported."""

    squash: Literal["none", "root", "all"] | None = Field(
        default=None,
        description="Which users of a pod become nobody; export.squash unless given. On ext4 none is refused.",
    )
    writes: Literal["sync", "async"] | None = Field(
        default=None,
        description="sync (the default): what a pod has fsynced is on the server's disk. async: it may still be in the "
        "server's memory, and is lost when that host crashes, without an error; for scratch data.",
    )


class ShareMutable(Parameters):
    """VolumeAttributesClass parameters of mode ``share``."""

    on_delete: Literal["delete", "retain", "archive"] | None = Field(
        default=None, description="What becomes of the directory when the volume is deleted, whatever its class said."
    )


def in_force(recorded_mutable: Mapping[str, str]) -> ExportMutable:
    """The values that a record of mode ``export`` holds, as far as this version knows their keys."""
    known = keys(ExportMutable)
    return ExportMutable.model_validate({key: value for key, value in recorded_mutable.items() if key in known})
