"""What an administrator and a StorageClass can set: pydantic models, the only place where keys are declared."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, field_validator, model_validator

from backends.nfs.share_options import ShareOptions
from csi_core.parameters import Parameters, SizeBytes

__all__ = ["ExportOptions", "NfsOptions", "NfsParameters", "NfsSnapshotParameters", "server_name"]

_ROOT: Final = re.compile(r"/[A-Za-z0-9._/-]+")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PERMISSIONS: Final = re.compile(r"0?[0-7]{3}")


def server_name(text: str) -> str:
    """A host name or address as mount.nfs takes it before the colon; IPv6 in brackets.

    Raises:
        ValueError: it is neither.
    """
    try:
        address = ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        if not _HOST_NAME.fullmatch(text):
            raise ValueError(f"{text!r} is neither a host name nor an address") from None
        return text
    return f"[{address}]" if address.version == 6 else str(address)


class ExportOptions(Parameters):
    """Mode ``export``: this controller manages the exports of the NFS server that it runs on."""

    root: Path = Field(
        description="Directory of the volumes, on a filesystem of their own. It must exist: a missing mount is never "
        "made up for."
    )
    require_mount: bool = Field(
        default=False,
        description="Wait until a filesystem is mounted there: an empty mount point looks like a new root.",
    )
    exports_directory: Path = Field(
        default=Path("/etc/exports.d"), description="Where exportfs(8) looks for further exports; one file a volume."
    )
    size_enforcement: Literal["quota", "none"] = Field(
        default="quota",
        description="quota: sizes are enforced by the filesystem, and a root without quotas is refused. none: they are "
        "promises only.",
    )
    squash: Literal["none", "root", "all"] = Field(
        default="none",
        description="Which users of a pod become nobody. none is what pods that start as root and chown need; ext4 "
        "lets root exceed its quota, so it asks for root or all.",
    )
    sec: str = Field(
        default="sys",
        pattern=r"^(sys|krb5|krb5i|krb5p)(:(sys|krb5|krb5i|krb5p))*$",
        description="Security flavours of the exports, as exports(5) has them.",
    )
    subtree_check: bool = Field(
        default=False,
        description="Have the server check that each file lies in the volume. Holds off nodes that forge file handles; "
        "renaming an open file into another directory then breaks it.",
    )
    node_addresses: dict[str, str | tuple[str, ...]] = Field(
        default_factory=dict,
        description="Address or addresses by node id. Other node ids must be addresses, or names that resolve.",
    )
    resolve_nodes: bool = Field(default=True, description="Ask the resolver for node ids that are no address.")
    capacity: SizeBytes = Field(
        default=0, description="Bytes that may be promised; the filesystem's size unless given."
    )
    overcommit: float = Field(default=1.0, ge=1.0, le=1000.0, description="Promised bytes per real byte.")
    warn_at: float = Field(default=0.85, gt=0, le=1, description="Used share of the filesystem that degrades health.")
    stop_at: float = Field(default=0.95, gt=0, le=1, description="Used share of the filesystem that stops admission.")
    first_project_id: int = Field(
        default=1_000_000,
        ge=1,
        le=(1 << 32) - (1 << 24),
        description="Project ids from here on are this backend's, on XFS and ext4.",
    )

    @field_validator("root", "exports_directory")
    @classmethod
    def _plain_path(cls, path: Path) -> Path:
        if not _ROOT.fullmatch(str(path)) or ".." in path.parts:
            raise ValueError("must be an absolute path of letters, digits and . _ - /, since it stands in exports(5)")
        return path

    @field_validator("node_addresses")
    @classmethod
    def _addresses(cls, by_node: dict[str, str | tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {
            node: tuple(str(ip_address(a)) for a in ((given,) if isinstance(given, str) else given))
            for node, given in by_node.items()
        }

    @model_validator(mode="after")
    def _watermarks_ordered(self) -> ExportOptions:
        if self.warn_at > self.stop_at:
            raise ValueError("warnAt must not be above stopAt")
        return self


class NfsOptions(Parameters):
    """The ``options`` of an nfs backend in the configuration file."""

    mode: Literal["export", "share"] = Field(
        default="export", description="export: an export of its own for each volume. share: a directory of one share."
    )
    role: Literal["all", "controller", "node"] = Field(
        default="all",
        description="What this process is there for. A node only mounts: it needs neither root nor server at hand.",
    )
    server: str = Field(default="", description="Name or address that nodes mount from.")
    mount_options: tuple[str, ...] = Field(
        default=("nfsvers=4.2", "hard"), description="NFS mount options of every volume; a StorageClass may add more."
    )
    max_volumes_per_node: int = Field(
        default=0,
        ge=0,
        description="Volumes that one node may have at a time; 0: no limit. Nodes tell the scheduler, the controller "
        "refuses more: say it to both.",
    )
    export: ExportOptions | None = Field(default=None, description="Of mode export; left out on nodes.")
    share: ShareOptions | None = Field(default=None, description="Of mode share; left out on nodes.")

    @field_validator("server")
    @classmethod
    def _server(cls, server: str) -> str:
        return server and server_name(server)

    @model_validator(mode="after")
    def _complete(self) -> NfsOptions:
        if self.role != "node":
            if getattr(self, self.mode) is None:
                raise ValueError(f"mode {self.mode} needs a section {self.mode} with a root")
            if not self.server:
                raise ValueError(f"mode {self.mode} needs server, the address that nodes mount from")
        return self


class NfsParameters(Parameters):
    """StorageClass parameters of mode ``export``."""

    mount_permissions: str = Field(
        default="0777", description="Permissions of the volume's directory when it is made, octal."
    )

    consistency: Literal["volume", "file"] = Field(
        default="volume",
        description="Of a clone of a volume that is being written to: volume fails until it is quiet long enough, file "
        "copies each file at a moment of its own. btrfs needs neither.",
    )

    @field_validator("mount_permissions")
    @classmethod
    def _octal(cls, text: str) -> str:
        if not _PERMISSIONS.fullmatch(text):
            raise ValueError('write octal permissions, like "0770"')
        return text


class NfsSnapshotParameters(Parameters):
    """VolumeSnapshotClass parameters of mode ``export``."""

    consistency: Literal["volume", "file"] = Field(
        default="volume",
        description="Of a snapshot of a volume that is being written to: volume fails until it is quiet long enough, "
        "file copies each file at a moment of its own. btrfs needs neither.",
    )
