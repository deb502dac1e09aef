"""A wrapper that puts one filesystem first: csi-sanity never says which it wants."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace

from csi_core.hookspecs import hookimpl
from csi_core.model import Description


class DefaultFilesystem:
    """Volumes whose request names no filesystem get ``options["fsType"]``."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self._fs_type = str(options["fsType"])

    @hookimpl(wrapper=True)
    def describe(self) -> Generator[None, Description, Description]:
        description = yield
        others = (fs_type for fs_type in description.filesystems if fs_type != self._fs_type)
        return replace(description, filesystems=(self._fs_type, *others))
