"""The open pools of one backend: which of them a handle, a name or a StorageClass means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from backends.loop import handles
from backends.loop.handles import Kind
from backends.loop.options import LoopOptions
from backends.loop.pool import Pool
from csi_core.errors import ConfigError, FailedPrecondition, InvalidArgument, NotFound
from csi_core.hookspecs import Host
from csi_core.model import ContentSource, Page, SourceKind

__all__ = ["Pools"]

T = TypeVar("T")
_KIND_NAMES: Final[dict[Kind, str]] = {"v": "volume", "s": "snapshot", "g": "group snapshot"}


class Pools:
    """All pools of a backend, open from :meth:`open` to :meth:`close`."""

    def __init__(self, options: LoopOptions) -> None:
        self._options = options
        self._pools: dict[str, Pool] = {}

    def __iter__(self) -> Iterator[Pool]:
        """The pools by name."""
        return iter(self._pools.values())

    def open(self, host: Host) -> None:
        """Open all pools, or none.

        Raises:
            ConfigError, DataLoss: as for a :class:`Pool`.
        """
        self._refuse_shared_filesystem()
        try:
            for name in sorted(self._options.pools):
                self._pools[name] = Pool(name, self._options.pools[name], host)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all pools."""
        while self._pools:
            self._pools.popitem()[1].close()

    def chosen(self, name: str, source: ContentSource | None = None) -> Pool:
        """The pool for a new volume: the named one, else the source's, else the default.

        Raises:
            InvalidArgument: no such pool, or the source lies in another.
            NotFound: no such source.
        """
        home = self._home(source) if source else None
        if name and name not in self._pools:
            raise InvalidArgument(f"parameter 'pool': there is no pool {name!r}; there are {', '.join(self._pools)}")
        if home and name and home.name != name:
            raise InvalidArgument(f"a copy stays in the pool of its source: set pool to {home.name!r}, not {name!r}")
        return home or self._pools[name or self._options.default]

    def locate(self, handle: str, kind: Kind) -> tuple[Pool, str] | None:
        """Pool and key that ``handle`` names, or None where it is malformed or its pool is not configured."""
        found = handles.split(handle, kind)
        pool = self._pools.get(found[0]) if found else None
        return (pool, found[1]) if found and pool else None

    def present(self, handle: str, kind: Kind) -> tuple[Pool, str]:
        """As :meth:`locate`, for calls that need the thing; whether there is a record is for them to see.

        Raises:
            NotFound: malformed, or in a pool that is not configured.
        """
        located = self.locate(handle, kind)
        if located is None:
            raise NotFound(f"no {_KIND_NAMES[kind]} {handle}")
        return located

    def removable(self, handle: str, kind: Kind) -> tuple[Pool, str] | None:
        """As :meth:`locate`, for calls where "not there" means "done".

        Raises:
            FailedPrecondition: its pool is not configured here; "done" would leak it.
        """
        found = handles.split(handle, kind)
        if found and found[0] not in self._pools:
            raise FailedPrecondition(
                f"{_KIND_NAMES[kind]} {handle} is in pool {found[0]!r}, which is not configured here; add the pool"
            )
        return self.locate(handle, kind)

    def page(
        self,
        cursor: str,
        limit: int,
        kind: Kind,
        entries: Callable[[Pool, str, int], list[T]],
        handle: Callable[[T], str],
    ) -> Page[T]:
        """One page of a listing over all pools, in the order of pool names and keys.

        Args:
            cursor: the handle of the last entry of the page before, or "".
            limit: the most entries.
            kind: what is listed.
            entries: answers at most N entries of a pool after a key.
            handle: the handle of an entry.

        Raises:
            InvalidArgument: the cursor is none of ours.
        """
        after_pool, after_key = "", ""
        if cursor:
            found = handles.split(cursor, kind)
            if not found:
                raise InvalidArgument(f"{cursor!r} is not a cursor of a listing of {_KIND_NAMES[kind]}s")
            after_pool, after_key = found
        listed: list[T] = []
        for pool in self:
            if pool.name >= after_pool and len(listed) <= limit:
                after = after_key if pool.name == after_pool else ""
                listed += entries(pool, after, limit + 1 - len(listed))
        if len(listed) <= limit:
            return Page(tuple(listed))
        return Page(tuple(listed[:limit]), handle(listed[limit - 1]))

    def _home(self, source: ContentSource) -> Pool:
        return self.present(source.handle, "s" if source.kind is SourceKind.SNAPSHOT else "v")[0]

    def _refuse_shared_filesystem(self) -> None:
        """Two pools that both count a filesystem as their own would promise its space twice."""
        owners: dict[int, str] = {}
        for name, pool in self._options.pools.items():
            if not pool.path.is_dir():
                raise ConfigError(f"pools.{name}.path {pool.path} is no directory; make it or mount it beforehand")
            device = pool.path.stat().st_dev
            other = owners.setdefault(device, name)
            if other != name and not (pool.capacity and self._options.pools[other].capacity):
                raise ConfigError(
                    f"pools {other!r} and {name!r} are on one filesystem; set capacity for both, so that its space is "
                    "not promised twice"
                )
