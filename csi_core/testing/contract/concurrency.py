"""Many calls at once. The core holds a lock for each volume and name; everything else the backend must bear."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from csi_core.model import SourceKind, Volume, VolumeMode
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.selection import Selection, needs

__all__ = ["ConcurrencyTests"]

_THREADS = 16
_COUNT = 100

T = TypeVar("T")


def at_once(call: Callable[[int], T], numbers: Iterable[int] = range(_COUNT)) -> list[T]:
    """Make the calls from several threads; the first error is raised."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(call, numbers))


class ConcurrencyTests(Selection):
    """Calls on different volumes from several threads."""

    def test_create_many(self, case: BackendCase) -> None:
        """A hundred names, a hundred volumes, all of them there after a restart."""
        mode = self.volume_modes[0]
        volumes = at_once(lambda number: case.create(f"data-{number}", mode))
        assert len({volume.handle for volume in volumes}) == _COUNT
        expected = sorted(volumes, key=lambda volume: volume.handle)
        for _ in range(2):
            assert sorted(case.volumes(7), key=lambda volume: volume.handle) == expected
            case.reopen()

    def test_list_while_others_come_and_go(self, case: BackendCase) -> None:
        """A listing beside other calls holds every volume that was there all the time."""
        mode = self.volume_modes[0]
        stay = {case.create(f"stay-{number}", mode).handle for number in range(10)}

        def live(number: int) -> list[Volume]:
            if number % 4 == 0:
                return case.volumes(3)
            case.delete(case.create(f"go-{number}", mode))
            return []

        for listed in at_once(live):
            assert not listed or stay <= {volume.handle for volume in listed}
        assert {volume.handle for volume in case.volumes()} == stay

    def test_whole_lives(self, case: BackendCase, mode: VolumeMode) -> None:
        """Volumes created, attached, written, read and deleted beside each other keep their own data."""

        def live(number: int) -> None:
            volume = case.create(f"data-{number}", mode)
            written = case.write(volume, mode, f"seed-{number}")
            assert case.checksum(volume, mode) == written
            case.delete(volume)

        at_once(live, range(_THREADS))
        assert case.volumes() == []

    @needs("create_snapshot", source=SourceKind.SNAPSHOT)
    def test_many_snapshots_and_restores(self, case: BackendCase, mode: VolumeMode) -> None:
        """One source for many: all have its data."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "data")

        def restored(number: int) -> str:
            snapshot = case.snapshot(f"snap-{number}", volume)
            return case.checksum(case.restore(f"restored-{number}", mode, snapshot), mode)

        assert set(at_once(restored, range(8))) == {before}
