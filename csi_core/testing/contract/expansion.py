"""Growing volumes."""

from __future__ import annotations

import pytest

from csi_core.errors import NoSpace, NotFound, OutOfRange
from csi_core.model import SizeRange, VolumeMode
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.content import DeviceContent
from csi_core.testing.contract.selection import Selection, needs

__all__ = ["ExpansionTests"]


class ExpansionTests(Selection):
    """Expansion (CSI "ControllerExpandVolume")."""

    @needs("expand_volume")
    def test_grow(self, case: BackendCase, mode: VolumeMode) -> None:
        """The volume has the new size, repeatedly and after a restart, and its data."""
        volume, wanted = case.create("data", mode), 2 * case.size_bytes
        before = case.write(volume, mode, "before")
        for _ in range(2):
            assert case.backend.expand_volume(volume.handle, SizeRange(wanted)) == wanted
            found = case.backend.get_volume(volume.handle)
            assert found is not None
            assert found.size_bytes == wanted
            case.reopen()
        assert case.checksum(volume, mode, case.size_bytes) == before
        with case.attached(volume, mode) as content:
            if isinstance(content, DeviceContent):
                assert content.size_bytes == wanted
                assert content.empty(case.size_bytes), "the part that was added holds somebody's data"

    @needs("expand_volume")
    def test_grow_attached(self, case: BackendCase, mode: VolumeMode) -> None:
        """An attached device grows too, at the latest when it is attached again."""
        volume, wanted = case.create("data", mode), 2 * case.size_bytes
        with case.attached(volume, mode) as content:
            content.write("before")
            before = content.checksum()
            if not case.backend.description.online_expansion:
                return
            assert case.backend.expand_volume(volume.handle, SizeRange(wanted)) == wanted
            assert content.checksum(case.size_bytes) == before
            if isinstance(content, DeviceContent):
                assert content.size_bytes == wanted
                content.write("after")

    @needs("expand_volume")
    def test_never_shrinks(self, case: BackendCase, mode: VolumeMode) -> None:
        """At or above the wanted size already: the present size, nothing changed."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "data")
        for wanted in (0, 1, case.size_bytes // 2, case.size_bytes):
            assert case.backend.expand_volume(volume.handle, SizeRange(wanted)) == case.size_bytes
        assert case.checksum(volume, mode) == before

    @needs("expand_volume")
    def test_odd_size_and_limit(self, case: BackendCase, mode: VolumeMode) -> None:
        """Rounded up, and within the limit where that is possible."""
        volume = case.create("data", mode)
        size_bytes = case.backend.expand_volume(volume.handle, SizeRange(case.size_bytes + 1))
        assert size_bytes > case.size_bytes
        assert size_bytes == case.whole(size_bytes)
        exact = SizeRange(3 * case.size_bytes, 3 * case.size_bytes)
        assert case.backend.expand_volume(volume.handle, exact) == 3 * case.size_bytes
        if case.backend.description.size_granularity_bytes > 1:
            between = SizeRange(3 * case.size_bytes + 1, 3 * case.size_bytes + 1)
            with pytest.raises(OutOfRange):
                case.backend.expand_volume(volume.handle, between)

    @needs("expand_volume")
    def test_no_room(self, case: BackendCase, mode: VolumeMode) -> None:
        """Refused with nothing changed, also after a restart."""
        volume = case.create("data", mode)
        with pytest.raises((NoSpace, OutOfRange)):
            case.backend.expand_volume(volume.handle, SizeRange(case.whole(1 << 61)))
        assert case.backend.get_volume(volume.handle) == volume
        case.reopen()
        assert case.backend.get_volume(volume.handle) == volume
        assert case.backend.expand_volume(volume.handle, SizeRange(2 * case.size_bytes)) == 2 * case.size_bytes

    @needs("expand_volume")
    def test_expand_unknown(self, case: BackendCase) -> None:
        """There is nothing to grow."""
        with pytest.raises(NotFound):
            case.backend.expand_volume("no-such-handle", SizeRange(case.size_bytes))
