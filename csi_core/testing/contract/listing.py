"""Listing volumes and snapshots in pages."""

from __future__ import annotations

import pytest

from csi_core.errors import InvalidArgument
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.selection import Selection, needs

__all__ = ["ListingTests"]

_COUNT = 7


class ListingTests(Selection):
    """Pages (CSI "ListVolumes", "ListSnapshots")."""

    @pytest.mark.parametrize("limit", [1, 2, _COUNT - 1, _COUNT, _COUNT + 1])
    def test_every_page_size(self, case: BackendCase, limit: int) -> None:
        """Each volume once, in the same order whatever the size of a page, and after a restart."""
        volumes = [case.create(f"data-{number}", self.volume_modes[0]) for number in range(_COUNT)]
        everything = case.volumes()
        assert sorted(v.handle for v in everything) == sorted(v.handle for v in volumes)
        assert case.volumes(limit) == everything
        case.reopen()
        assert case.volumes(limit) == everything

    def test_cursor_outlives_its_entry(self, case: BackendCase) -> None:
        """While a listing is read, entries go: all that stay are listed, once."""
        for number in range(_COUNT):
            case.create(f"data-{number}", self.volume_modes[0])
        everything = case.volumes()
        first = case.backend.list_volumes("", 3)
        for volume in (*first.entries, everything[3]):
            case.delete(volume)
        rest = case.backend.list_volumes(first.next_cursor, 100)
        assert list(rest.entries) == everything[4:]
        assert rest.next_cursor == ""

    def test_cursor_outlives_a_restart(self, case: BackendCase) -> None:
        """A listing goes on where it was, in another process."""
        for number in range(_COUNT):
            case.create(f"data-{number}", self.volume_modes[0])
        everything = case.volumes()
        first = case.backend.list_volumes("", 3)
        case.reopen()
        rest = case.backend.list_volumes(first.next_cursor, 100)
        assert [*first.entries, *rest.entries] == everything

    def test_new_volumes_do_not_disturb(self, case: BackendCase) -> None:
        """While a listing is read, entries come: the old ones are all listed, once."""
        old = {case.create(f"old-{number}", self.volume_modes[0]).handle for number in range(_COUNT)}
        first = case.backend.list_volumes("", 3)
        for number in range(_COUNT):
            case.create(f"new-{number}", self.volume_modes[0])
        rest = case.backend.list_volumes(first.next_cursor, 100)
        listed = [volume.handle for volume in (*first.entries, *rest.entries)]
        assert len(listed) == len(set(listed))
        assert old <= set(listed)

    @pytest.mark.parametrize("cursor", ["no cursor of mine", "../../etc", "\0", "ä"])
    def test_foreign_cursor(self, case: BackendCase, cursor: str) -> None:
        """A cursor that this backend never gave is refused, not read as some place in the list."""
        case.create("data", self.volume_modes[0])
        with pytest.raises(InvalidArgument):
            case.backend.list_volumes(cursor, 10)

    @needs("list_snapshots")
    @pytest.mark.parametrize("limit", [1, 3, 100])
    def test_snapshots_of_one_and_of_all(self, case: BackendCase, limit: int) -> None:
        """All snapshots, or one volume's, in pages."""
        mode = self.volume_modes[0]
        volumes = [case.create(name, mode) for name in ("one", "two", "none")]
        of = {
            volume.handle: {case.snapshot(f"{volume.name}-{number}", volume).handle for number in range(count)}
            for volume, count in zip(volumes, (3, 2, 0), strict=True)
        }
        for _ in range(2):
            listed = case.snapshots(limit=limit)
            assert len(listed) == 5
            assert {snapshot.handle for snapshot in listed} == set().union(*of.values())
            for handle, snapshots in of.items():
                assert {snapshot.handle for snapshot in case.snapshots(handle, limit)} == snapshots
            assert case.snapshots("no-such-volume", limit) == []
            case.reopen()
        with pytest.raises(InvalidArgument):
            case.backend.list_snapshots("no cursor of mine", 10, "")
