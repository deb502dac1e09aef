"""StorageClass parameters of mode ``share``, by the names that csi-driver-nfs and nfs-subdir have for them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from backends.nfs.options import NfsParameters
from backends.nfs.share_paths import check_template

__all__ = ["OnDelete", "ShareParameters"]

OnDelete = Literal["delete", "retain", "archive"]


class ShareParameters(NfsParameters):
    """StorageClass parameters of mode ``share``."""

    sub_dir: str = Field(
        default="",
        description="The volume's directory below the share, such as `${pvc.metadata.namespace}/${pvc.metadata.name}`; "
        "`${pv.metadata.name}` unless given.",
    )
    on_delete: Literal["", "delete", "retain", "archive"] = Field(
        default="",
        description="What becomes of the directory: delete (the default); retain, and a later volume of the same "
        "directory finds it as it was; archive renames it to archived-NAME.",
    )
    path_pattern: str = Field(default="", description="nfs-subdir's name for subDir, with `${.PVC.name}` and the like.")
    archive_on_delete: Literal["", "true", "false"] = Field(
        default="", description="nfs-subdir's: true is onDelete archive, false is delete; onDelete overrides it."
    )
    server: str = Field(default="", description="csi-driver-nfs's; must be the backend's server.")
    share: str = Field(default="", description="csi-driver-nfs's; must be the backend's share.")

    @field_validator("mount_permissions", mode="before")
    @classmethod
    def _none(cls, text: str) -> str:
        """csi-driver-nfs writes 0 for "leave it alone"; a new directory has to have some."""
        return "0777" if text == "0" else text

    @field_validator("sub_dir", "path_pattern")
    @classmethod
    def _template(cls, text: str) -> str:
        return check_template(text)

    @property
    def template(self) -> str:
        """Where the volume's directory is to be."""
        return self.sub_dir or self.path_pattern or "${pv.metadata.name}"

    @property
    def fate(self) -> OnDelete:
        """What becomes of the directory when the volume is deleted."""
        return self.on_delete or ("archive" if self.archive_on_delete == "true" else "delete")
