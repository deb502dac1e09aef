"""The open pools of one backend."""

from __future__ import annotations

from backends.loop.options import LoopOptions
from backends.loop.pool import Pool
from csi_core.errors import ConfigError
from csi_core.hookspecs import Host
from csi_core.stores import Stores

__all__ = ["Pools"]


class Pools(Stores[Pool]):
    """All pools of a backend, open from :meth:`open` to :meth:`close`."""

    def __init__(self, options: LoopOptions) -> None:
        super().__init__("pool", "pool", options.default)
        self._options = options

    def open(self, host: Host) -> None:
        """Open all pools, or none.

        Raises:
            ConfigError, DataLoss: as for a :class:`Pool`.
        """
        self._refuse_shared_filesystem()
        try:
            for name in sorted(self._options.pools):
                self.add(Pool(name, self._options.pools[name], host))
        except BaseException:
            self.close()
            raise

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
