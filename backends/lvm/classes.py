"""The open device classes of one backend."""

from __future__ import annotations

from collections.abc import Iterator
from math import lcm
from typing import Final

import structlog

from backends.lvm import fronts, removal
from backends.lvm.deviceclass import DeviceClass
from backends.lvm.options import LvmOptions
from csi_core.errors import Unavailable
from csi_core.stores import Stores

__all__ = ["DeviceClasses"]

_log = structlog.get_logger(__name__)
_EXTENT_BYTES: Final = 4 << 20
"""LVM's default, for a group that is not there yet."""


class DeviceClasses(Stores[DeviceClass]):
    """All device classes of a backend, open from :meth:`open` to :meth:`close`."""

    def __init__(self, options: LvmOptions) -> None:
        super().__init__("device class", "deviceClass", options.default)
        self._options = options

    def reachable(self, but: DeviceClass | None = None) -> Iterator[DeviceClass]:
        """The classes whose group is there: a missing disk keeps nobody from using the others."""
        for cls in self:
            if cls is but:
                continue
            try:
                cls.reports.current()
            except Unavailable:
                continue
            yield cls

    def open(self) -> None:
        """Look at every group, and go on with what was half done in it. One that is missing keeps no other waiting.

        Raises:
            Unavailable: not one of them is there, or another process serves one.
        """
        missing: list[Unavailable] = []
        try:
            for name in sorted(self._options.classes):
                cls = DeviceClass(name, self._options.classes[name], self._options.device_filter)
                self.add(cls)
                cls.lock()
                try:
                    fronts.resume_all(cls)
                    cls.activate_pools()
                    removal.resume(cls)
                except Unavailable as error:
                    _log.warning("device class cannot be served yet", device_class=name, error=str(error))
                    missing.append(error)
            if len(missing) == len(self._options.classes):
                raise missing[0]
        except BaseException:
            self.close()
            raise

    def granularity_bytes(self) -> int:
        """What sizes are multiples of, in every class."""
        return lcm(*(_extent_bytes(cls) for cls in self))


def _extent_bytes(cls: DeviceClass) -> int:
    try:
        return cls.reports.latest().extent_bytes
    except Unavailable:
        return _EXTENT_BYTES
