"""The options of mode ``share``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field, field_validator

from csi_core.parameters import Parameters, SizeBytes

__all__ = ["ShareOptions"]

_FORBIDDEN: Final = frozenset({"..", "."})


class ShareOptions(Parameters):
    """Mode ``share``: each volume is a directory of a share that some server has."""

    path: str = Field(description="Path of the share on the server, as nodes mount it.")
    root: Path = Field(
        description="Where the share is mounted for this controller: an nfs volume of its pod, or a directory of the "
        "server itself."
    )
    require_mount: bool = Field(
        default=True,
        description="Wait until something is mounted there: on an empty mount point volumes would be made that no node "
        "ever finds.",
    )
    capacity: SizeBytes = Field(
        default=0, description="Bytes that may be promised; the size of the share's filesystem unless given."
    )
    overcommit: float = Field(
        default=1000.0,
        ge=1.0,
        le=1000.0,
        description="Promised bytes per real byte. Sizes are not enforced in this mode, so claims are hardly bounded "
        "unless this is set.",
    )
    warn_at: float = Field(default=0.85, gt=0, le=1, description="Used part of the filesystem that degrades health.")
    stop_at: float = Field(default=0.95, gt=0, le=1, description="Used part of the filesystem that stops admission.")
    check_nodes: bool = Field(
        default=False,
        description="Refuse to publish to a node that is neither an address, nor in nodeAddresses, nor known to the "
        "resolver. Who may mount is the server's affair either way.",
    )
    node_addresses: dict[str, str | tuple[str, ...]] = Field(
        default_factory=dict, description="Address or addresses by node id, for checkNodes."
    )
    resolve_nodes: bool = Field(default=True, description="Ask the resolver for other node ids, for checkNodes.")

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not path.startswith("/") or not path.isprintable() or _FORBIDDEN & set(path.split("/")):
            raise ValueError("must be an absolute path without . and ..")
        return path.rstrip("/") or "/"

    @field_validator("root")
    @classmethod
    def _absolute_root(cls, root: Path) -> Path:
        if not root.is_absolute() or _FORBIDDEN & set(root.parts):
            raise ValueError("must be an absolute path without . and ..")
        return root
