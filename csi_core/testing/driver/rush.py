"""Many calls at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import grpc

from csi_core.testing.contract.selection import Selection
from csi_core.testing.driver.case import Code, DriverCase

__all__ = ["RushTests"]

T = TypeVar("T")
_RETRIES = 200


def at_once(count: int, call: Callable[[int], T]) -> list[T]:
    """``count`` calls, from as many threads."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def persistently(call: Callable[[], T]) -> T:
    """Repeat a call while it is answered ABORTED, as the sidecars do; anything else is raised."""
    for _ in range(_RETRIES):
        try:
            return call()
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            if error.code() is not Code.ABORTED:
                raise
    raise AssertionError(f"ABORTED {_RETRIES} times: somebody holds a lock and never gives it back")


class RushTests(Selection):
    """What the provisioner and several kubelets do at the same time."""

    def test_create_many(self, driver: DriverCase) -> None:
        """A hundred volumes at once; all are made, no call is refused."""
        volumes = at_once(100, lambda number: driver.create(f"data-{number}", self.volume_modes[0]).volume_id)
        assert len(set(volumes)) == 100
        assert set(driver.volume_ids()) == set(volumes)
        at_once(100, lambda number: driver.delete(volumes[number]))
        assert driver.volume_ids() == []

    def test_one_name(self, driver: DriverCase) -> None:
        """The same name fifty times at once: one volume, and every answer is it or ABORTED."""

        def create(_: int) -> str:
            try:
                return driver.create("data", self.volume_modes[0]).volume_id
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                assert error.code() is Code.ABORTED, error.details()
                return ""

        answers = set(at_once(50, create)) - {""}
        assert len(answers) == 1
        assert driver.volume_ids() == list(answers)

    def test_create_and_delete_race(self, driver: DriverCase) -> None:
        """Creates and deletes of a few names from all sides; in the end everything is what the last call said."""

        def live(number: int) -> None:
            name = f"data-{number % 4}"
            volume_id = persistently(lambda: driver.create(name, self.volume_modes[0])).volume_id
            persistently(lambda: driver.delete(volume_id))

        at_once(40, live)
        assert driver.volume_ids() == []
        for number in range(4):
            driver.create(f"data-{number}", self.volume_modes[0])
        assert len(driver.volume_ids()) == 4
