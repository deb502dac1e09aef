"""The books: what is promised, what is left, and what is given back."""

from __future__ import annotations

import pytest

from csi_core.errors import NoSpace
from csi_core.model import CapacityQuery, SizeRange
from csi_core.parameters import parse_parameters
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.selection import Selection, needs

__all__ = ["CapacityTests"]

_PARTS = 4
_NOISE = 64
"""Other users of the same disk, and what the storage needs for itself: one part in so many is not looked at."""


class CapacityTests(Selection):
    """Room (CSI "GetCapacity"). The tests take large parts of it: let the parameters say thin where that is served."""

    def available_bytes(self, case: BackendCase) -> int:
        """What is left for volumes with the tests' parameters."""
        model = case.backend.description.parameters
        query = CapacityQuery(
            parse_parameters(model, case.parameters, "parameter"), (case.capability(self.volume_modes[0]),)
        )
        answer = case.backend.get_capacity(query)
        assert answer.available_bytes >= 0
        return answer.available_bytes

    def part(self, case: BackendCase) -> int:
        """A quarter of what is left, as a size the backend makes."""
        return case.whole(self.available_bytes(case) // _PARTS)

    @needs("get_capacity")
    def test_create_takes_and_delete_gives_back(self, case: BackendCase) -> None:
        """A volume is charged once, however often it is asked for, and given back once."""
        mode, before = self.volume_modes[0], self.available_bytes(case)
        size_bytes = self.part(case)
        volume = case.create("data", mode, size_bytes)
        after = self.available_bytes(case)
        assert after <= before - size_bytes // 2
        case.create("data", mode, size_bytes)
        case.reopen()
        assert abs(self.available_bytes(case) - after) <= before // _NOISE
        case.delete(volume)
        case.delete(volume)
        assert abs(self.available_bytes(case) - before) <= before // _NOISE
        case.reopen()
        assert abs(self.available_bytes(case) - before) <= before // _NOISE

    @needs("get_capacity")
    def test_full_is_no_space(self, case: BackendCase) -> None:
        """The volume too many is refused, leaves nothing behind, and fits once another is deleted."""
        mode, size_bytes = self.volume_modes[0], self.part(case)
        volumes = []
        with pytest.raises(NoSpace):
            for number in range(2 * _PARTS):
                volumes.append(case.create(f"data-{number}", mode, size_bytes))
        assert len(volumes) >= _PARTS - 1
        assert len(case.volumes()) == len(volumes)
        left = self.available_bytes(case)
        case.delete(volumes[0])
        assert self.available_bytes(case) > left
        case.create("last", mode, size_bytes)

    @needs("get_capacity", "expand_volume")
    def test_expansion_takes_the_difference(self, case: BackendCase) -> None:
        """Growing twice by the same amount is charged once, and deleting gives all of it back."""
        mode, before = self.volume_modes[0], self.available_bytes(case)
        volume, size_bytes = case.create("data", mode), self.part(case)
        for _ in range(2):
            case.backend.expand_volume(volume.handle, SizeRange(size_bytes))
        after = self.available_bytes(case)
        assert before - size_bytes - before // _NOISE <= after <= before - size_bytes // 2
        case.delete(volume)
        assert abs(self.available_bytes(case) - before) <= before // _NOISE

    @needs("get_capacity")
    def test_refused_creates_cost_nothing(self, case: BackendCase) -> None:
        """A reservation that came to nothing is given back."""
        before = self.available_bytes(case)
        for number in range(3):
            with pytest.raises(NoSpace):
                case.create(f"data-{number}", self.volume_modes[0], case.whole(2 * before + case.size_bytes))
        assert abs(self.available_bytes(case) - before) <= before // _NOISE
