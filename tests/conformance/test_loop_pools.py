"""Two loop pools in one backend, and what there is in them and among the loop devices when a life has ended.

The parts of the kit that the simulator cannot show to go red are shown here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from backends.loop import volumes
from backends.loop.plugin import LoopBackend
from csi_core.hookspecs import hookimpl
from csi_core.model import Created, Existing, VolumeMode
from csi_core.run import run
from csi_core.testing.contract import BackendCase
from csi_core.testing.contract.clones import CloneTests
from csi_core.testing.contract.leaks import LeakTests
from csi_core.testing.contract.pools import PoolTests
from csi_core.testing.devices import xfs_filesystem

pytestmark = pytest.mark.needs_root

NAMES = ("here", "there")


@contextmanager
def two_pools(plugin: type[LoopBackend]) -> Iterator[BackendCase]:
    """A backend with the pools here and there."""
    with xfs_filesystem(3 << 30) as host:
        pools = {name: {"path": str(host / name), "allowLoopHost": True, "capacity": 1 << 30} for name in NAMES}
        for name in NAMES:
            (host / name).mkdir()

        def inventory() -> list[str]:
            argv = ["losetup", "--noheadings", "--list", "--output", "BACK-FILE"]
            files = run(argv, timeout_s=60.0, mutates=False).stdout.split()
            attached = [f"a device over {file}" for file in files if file.startswith(f"{host}/")]
            return [*attached, *map(str, host.rglob("*"))]

        with BackendCase(
            lambda: plugin({"pools": pools, "defaultPool": "here"}),
            parameters={"pool": "here"},
            elsewhere={"pool": "there"},
            inventory=inventory,
        ) as case:
            yield case


class TestLoopPools(PoolTests, LeakTests):
    """Only the parts of the kit that need two pools, or look at the storage itself."""

    plugin = LoopBackend

    @pytest.fixture
    def case(self) -> Iterator[BackendCase]:
        with two_pools(self.plugin) as case:
            yield case


class OneRoom(LoopBackend):
    @hookimpl
    def get_capacity(self, query):
        return super().get_capacity(replace(query, parameters=query.parameters.model_copy(update={"pool": "here"})))


class AlwaysHere(LoopBackend):
    @hookimpl
    def create_volume(self, spec):
        return super().create_volume(replace(spec, parameters=spec.parameters.model_copy(update={"pool": "here"})))


class NamesOfEachPool(LoopBackend):
    @hookimpl
    def create_volume(self, spec):
        pool = self._pools.chosen(spec.parameters.pool)
        found = volumes.taken(pool, spec.name)
        return Existing(found) if found else Created(volumes.create(pool, spec, spec.parameters))


class ForgetsTheFormatOfCopies(LoopBackend):
    @hookimpl
    def attach_volume(self, request):
        source = super().attach_volume(request)
        return replace(source, formatted="") if source.copied else source


def test_copies_that_could_be_formatted() -> None:
    with two_pools(ForgetsTheFormatOfCopies) as case, pytest.raises(AssertionError):
        CloneTests().test_clone_is_formatted_as_its_source(case, VolumeMode.FILESYSTEM)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (OneRoom, TestLoopPools.test_each_pool_has_its_own_room),
        (AlwaysHere, TestLoopPools.test_each_pool_has_its_own_room),
        (NamesOfEachPool, TestLoopPools.test_a_name_is_one_volume_in_all_pools),
    ],
)
def test_pools_that_are_mixed_up(broken, test) -> None:
    with two_pools(broken) as case, pytest.raises(AssertionError):
        test(TestLoopPools(), case)
