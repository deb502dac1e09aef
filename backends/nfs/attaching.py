"""What a node mounts: from the volume's context alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from backends.nfs.mode import SERVER, SHARE
from backends.nfs.options import server_name
from csi_core.errors import InvalidArgument
from csi_core.model import AttachRequest, ShareSource

__all__ = ["share_source"]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def share_source(request: AttachRequest, mount_options: tuple[str, ...]) -> ShareSource:
    """The share that the context names.

    Args:
        request: its ``context`` has ``server`` and ``share``.
        mount_options: those of every volume, from the configuration.

    Raises:
        InvalidArgument: the context names no share.
    """
    server, share = _named(request.handle, request.context, SERVER), _named(request.handle, request.context, SHARE)
    try:
        server = server_name(server)
    except ValueError as error:
        raise InvalidArgument(f"volume {request.handle}: volumeAttributes.{SERVER}: {error}") from None
    if not share.startswith("/") or ".." in share.split("/") or _CONTROL.search(share):
        raise InvalidArgument(
            f"volume {request.handle}: volumeAttributes.{SHARE} {share!r} is no absolute path without `..`"
        )
    return ShareSource("nfs", f"{server}:{share}", mount_options)


def _named(handle: str, context: Mapping[str, str], key: str) -> str:
    if key not in context:
        raise InvalidArgument(f"volume {handle}: its PersistentVolume needs volumeAttributes.{key}")
    return context[key]
