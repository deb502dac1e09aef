"""The open device classes of one backend: which of them a handle, a name or a StorageClass means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from math import lcm
from typing import Final, TypeVar

import structlog

from backends.lvm import fronts, names, removal
from backends.lvm.deviceclass import DeviceClass
from backends.lvm.names import Kind
from backends.lvm.options import LvmOptions
from csi_core.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from csi_core.model import ContentSource, Page, Snapshot, SourceKind, Volume

__all__ = ["DeviceClasses"]

_log = structlog.get_logger(__name__)
_KIND_NAMES: Final[dict[Kind, str]] = {"v": "volume", "s": "snapshot", "g": "group snapshot", "t": "temporary snapshot"}
_EXTENT_BYTES: Final = 4 << 20
"""LVM's default, for a group that is not there yet."""

T = TypeVar("T", Volume, Snapshot)


class DeviceClasses:
    """All device classes of a backend, open from :meth:`open` to :meth:`close`."""

    def __init__(self, options: LvmOptions) -> None:
        self._options = options
        self._classes: dict[str, DeviceClass] = {}

    def __iter__(self) -> Iterator[DeviceClass]:
        """The classes by name."""
        return iter(self._classes.values())

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
            Unavailable: not one of them is there.
        """
        found: dict[str, DeviceClass] = {}
        missing: list[Unavailable] = []
        for name in sorted(self._options.classes):
            found[name] = DeviceClass(name, self._options.classes[name], self._options.device_filter)
            try:
                fronts.resume_all(found[name])
                found[name].activate_pools()
                removal.resume(found[name])
            except Unavailable as error:
                _log.warning("device class cannot be served yet", device_class=name, error=str(error))
                missing.append(error)
        if len(missing) == len(found):
            raise missing[0]
        self._classes = found

    def close(self) -> None:
        """Stop all long work."""
        while self._classes:
            self._classes.popitem()[1].close()

    def granularity_bytes(self) -> int:
        """What sizes are multiples of, in every class."""
        return lcm(*(_extent_bytes(cls) for cls in self))

    def chosen(self, name: str, source: ContentSource | None = None) -> DeviceClass:
        """The class for a new volume: the named one, else the source's, else the default.

        Raises:
            InvalidArgument: no such class, or the source lies in another.
            NotFound: no such source.
        """
        home = self._home(source) if source else None
        if name and name not in self._classes:
            raise InvalidArgument(
                f"parameter 'deviceClass': there is no class {name!r}; there are {', '.join(self._classes)}"
            )
        if home and name and home.name != name:
            raise InvalidArgument(f"a copy stays in the class of its source: set deviceClass to {home.name!r}")
        return home or self._classes[name or self._options.default]

    def locate(self, handle: str, kind: Kind) -> tuple[DeviceClass, str] | None:
        """Class and key that ``handle`` names, or None where it is malformed or its class is not configured."""
        found = names.split(handle, kind)
        cls = self._classes.get(found[0]) if found else None
        return (cls, found[1]) if found and cls else None

    def present(self, handle: str, kind: Kind) -> tuple[DeviceClass, str]:
        """As :meth:`locate`, for calls that need the thing; whether there is an LV is for them to see.

        Raises:
            NotFound: malformed, or of a class that is not configured.
        """
        located = self.locate(handle, kind)
        if located is None:
            raise NotFound(f"no {_KIND_NAMES[kind]} {handle}")
        return located

    def removable(self, handle: str, kind: Kind) -> tuple[DeviceClass, str] | None:
        """As :meth:`locate`, for calls where "not there" means "done".

        Raises:
            FailedPrecondition: its class is not configured here; "done" would leak it.
        """
        found = names.split(handle, kind)
        if found and found[0] not in self._classes:
            raise FailedPrecondition(
                f"{_KIND_NAMES[kind]} {handle} is of class {found[0]!r}, which is not configured here; add the class"
            )
        return self.locate(handle, kind)

    def page(
        self,
        cursor: str,
        limit: int,
        kind: Kind,
        entries: Callable[[DeviceClass, str], Iterable[T]],
    ) -> Page[T]:
        """One page of a listing over all classes, in the order of their names and of keys.

        Args:
            cursor: the handle of the last entry of the page before, or "".
            limit: the most entries.
            kind: what is listed.
            entries: answers what a class has after a key, in the order of keys.

        Raises:
            InvalidArgument: the cursor is none of ours.
        """
        after = names.split(cursor, kind) if cursor else ("", "")
        if after is None:
            raise InvalidArgument(f"{cursor!r} is not a cursor of a listing of {_KIND_NAMES[kind]}s")
        following = chain.from_iterable(
            entries(cls, after[1] if cls.name == after[0] else "") for cls in self if cls.name >= after[0]
        )
        listed = tuple(islice(following, limit + 1))
        if len(listed) <= limit:
            return Page(listed)
        return Page(listed[:limit], listed[limit - 1].handle)

    def _home(self, source: ContentSource) -> DeviceClass:
        return self.present(source.handle, "s" if source.kind is SourceKind.SNAPSHOT else "v")[0]


def _extent_bytes(cls: DeviceClass) -> int:
    try:
        return cls.reports.latest().extent_bytes
    except Unavailable:
        return _EXTENT_BYTES
