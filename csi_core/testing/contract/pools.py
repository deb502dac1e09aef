"""Several pools in one backend, between which a parameter of the StorageClass chooses."""

from __future__ import annotations

from csi_core.model import CapacityQuery, Existing, VolumeMode
from csi_core.parameters import parse_parameters
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.selection import Selection, needs

__all__ = ["PoolTests"]


class PoolTests(Selection):
    """Two pools: that of the case's ``parameters``, and the one ``elsewhere``; without it there is nothing to see."""

    def test_pools_are_apart(self, case: BackendCase, mode: VolumeMode) -> None:
        """Each volume lies in its own pool and is found, listed, kept and deleted there, also after a restart."""
        if case.elsewhere is None:
            return
        here = case.create("here", mode)
        with case.choosing(case.elsewhere):
            there = case.create("there", mode)
        written = {volume.handle: case.write(volume, mode, volume.name) for volume in (here, there)}
        for limit in (1, 2, 3):
            listed = case.volumes(limit)
            assert sorted(volume.name for volume in listed) == ["here", "there"]
            case.reopen()
        for volume in (here, there):
            assert case.backend.get_volume(volume.handle) == volume
            assert case.checksum(volume, mode) == written[volume.handle]
        case.delete(there)
        assert case.volumes() == [here]
        assert case.checksum(here, mode) == written[here.handle]

    def test_a_name_is_one_volume_in_all_pools(self, case: BackendCase) -> None:
        """A name that comes again with another pool answers what is there: the core tells the CO that it differs."""
        if case.elsewhere is None:
            return
        volume = case.create("data", self.volume_modes[0])
        with case.choosing(case.elsewhere):
            assert case.backend.create_volume(case.spec("data", self.volume_modes[0])) == Existing(volume)
        assert case.volumes() == [volume]

    @needs("get_capacity")
    def test_each_pool_has_its_own_room(self, case: BackendCase) -> None:
        """A volume takes room where it lies, and nowhere else."""
        if case.elsewhere is None:
            return
        here, there = self.rooms_bytes(case)
        with case.choosing(case.elsewhere):
            case.create("there", self.volume_modes[0], case.whole(there // 2))
        left_here, left_there = self.rooms_bytes(case)
        assert left_there <= there * 3 // 4
        assert abs(left_here - here) <= here // 8

    def rooms_bytes(self, case: BackendCase) -> tuple[int, int]:
        """Room here and elsewhere."""
        model, capability = case.backend.description.parameters, case.capability(self.volume_modes[0])
        queries = [
            CapacityQuery(parse_parameters(model, given, "parameter"), (capability,))
            for given in (case.parameters, case.elsewhere or {})
        ]
        here, there = (case.backend.get_capacity(query).available_bytes for query in queries)
        return here, there
