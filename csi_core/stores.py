"""The open stores of one backend (pools, device classes, arrays): which of them a handle or a StorageClass means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, Protocol, TypeVar

from csi_core import handles
from csi_core.errors import FailedPrecondition, InvalidArgument, NotFound
from csi_core.handles import Kind
from csi_core.model import ContentSource, Page, Snapshot, SourceKind, Volume

__all__ = ["Store", "Stores"]

_KIND_NAMES: Final[dict[Kind, str]] = {"v": "volume", "s": "snapshot", "g": "group snapshot"}


class Store(Protocol):
    """What a store has, beside what only its backend knows."""

    @property
    def name(self) -> str:
        """Its key in the configuration, of the form :data:`csi_core.handles.STORE_NAME`."""
        ...

    def close(self) -> None:
        """Give up files and threads; it is not used afterwards."""
        ...


S = TypeVar("S", bound=Store)
T = TypeVar("T", Volume, Snapshot)


class Stores(Generic[S]):
    """Stores by name, each open from :meth:`add` to :meth:`close`.

    Args:
        noun: what a store is called in messages, such as "pool".
        parameter: the StorageClass parameter that names one.
        default: the store of a volume whose StorageClass names none.
    """

    def __init__(self, noun: str, parameter: str, default: str) -> None:
        self._noun = noun
        self._parameter = parameter
        self._default = default
        self._by_name: dict[str, S] = {}

    def __iter__(self) -> Iterator[S]:
        """The stores in the order of their names."""
        return iter(self._by_name.values())

    def add(self, store: S) -> None:
        """Take in a store that has just been opened."""
        self._by_name = dict(sorted({**self._by_name, store.name: store}.items()))

    def close(self) -> None:
        """Close all stores."""
        while self._by_name:
            self._by_name.popitem()[1].close()

    def chosen(self, name: str, source: ContentSource | None = None) -> S:
        """The store for a new volume: the named one, else the source's, else the default.

        Raises:
            InvalidArgument: no such store, or the source lies in another.
            NotFound: no such source.
        """
        home = self.present(source.handle, _kind(source))[0] if source else None
        if name and name not in self._by_name:
            names = ", ".join(self._by_name)
            raise InvalidArgument(
                f"parameter {self._parameter!r}: there is no {self._noun} {name!r}; there are {names}"
            )
        if home is not None and name and home.name != name:
            raise InvalidArgument(
                f"a copy stays in the {self._noun} of its source: set {self._parameter} to {home.name!r}, not {name!r}"
            )
        return self._by_name[name or self._default] if home is None else home

    def locate(self, handle: str, kind: Kind) -> tuple[S, str] | None:
        """Store and key that ``handle`` names, or None where it is malformed or its store is not configured."""
        found = handles.split(handle, kind)
        store = self._by_name.get(found[0]) if found else None
        return (store, found[1]) if found and store is not None else None

    def present(self, handle: str, kind: Kind) -> tuple[S, str]:
        """As :meth:`locate`, for calls that need the thing; whether the store has it is for them to see.

        Raises:
            NotFound: malformed, or in a store that is not configured.
        """
        located = self.locate(handle, kind)
        if located is None:
            raise NotFound(f"no {_KIND_NAMES[kind]} {handle}")
        return located

    def removable(self, handle: str, kind: Kind) -> tuple[S, str] | None:
        """As :meth:`locate`, for calls where "not there" means "done".

        Raises:
            FailedPrecondition: its store is not configured here; "done" would leak it.
        """
        found = handles.split(handle, kind)
        if found and found[0] not in self._by_name:
            raise FailedPrecondition(
                f"{_KIND_NAMES[kind]} {handle} is in {self._noun} {found[0]!r}, which is not configured here; "
                f"add the {self._noun}"
            )
        return self.locate(handle, kind)

    def together(self, members: Iterable[str], kind: Kind) -> tuple[S, list[str]]:
        """The one store that all ``members`` are in, and their keys.

        Raises:
            InvalidArgument: they are in several.
            NotFound: as for :meth:`present`.
        """
        located = [self.present(handle, kind) for handle in members]
        names = sorted({store.name for store, _ in located})
        if len(names) != 1:
            raise InvalidArgument(
                f"{_KIND_NAMES[kind]}s of one call must lie in one {self._noun}, and these are in {', '.join(names)}"
            )
        return located[0][0], [key for _, key in located]

    def page(self, cursor: str, limit: int, kind: Kind, entries: Callable[[S, str, int], Iterable[T]]) -> Page[T]:
        """One page of a listing over all stores, in the order of their names and of keys.

        Args:
            cursor: the handle of the last entry of the page before, or "".
            limit: the most entries.
            kind: what is listed.
            entries: answers what a store has after a key, in the order of keys, and no more than a number.

        Raises:
            InvalidArgument: the cursor is none of ours.
        """
        after = handles.split(cursor, kind) if cursor else ("", "")
        if after is None:
            raise InvalidArgument(f"{cursor!r} is not a cursor of a listing of {_KIND_NAMES[kind]}s")
        listed: list[T] = []
        for store in self:
            wanted = limit + 1 - len(listed)  # one more than fits says that there is another page
            if store.name >= after[0] and wanted > 0:
                listed += entries(store, after[1] if store.name == after[0] else "", wanted)
        if len(listed) <= limit:
            return Page(tuple(listed))
        return Page(tuple(listed[:limit]), listed[limit - 1].handle)


def _kind(source: ContentSource) -> Kind:
    return "s" if source.kind is SourceKind.SNAPSHOT else "v"
