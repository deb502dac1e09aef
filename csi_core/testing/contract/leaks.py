"""What is left behind: of calls that were refused, and of a life that has ended."""

from __future__ import annotations

import time

import pytest

from csi_core.errors import CallError, NoSpace, OutOfRange
from csi_core.model import ContentSource, SizeRange, SourceKind, VolumeMode
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.selection import Selection

__all__ = ["LeakTests"]

_SETTLE_S = 60.0
"""What was deleted may be freed in the background; this is for a busy machine, and is waited for only by a leak."""
_POLL_S = 0.02


class LeakTests(Selection):
    """Storage that nobody knows of is lost. The case's ``inventory`` tells; without it there is nothing to see."""

    def test_a_life_leaves_nothing(self, case: BackendCase, mode: VolumeMode) -> None:
        """What was made is gone in the end, from the storage and the node, and not only from the list."""
        if case.inventory is None:
            return
        self.live_and_leave(case, mode, "first")  # what a backend makes once, it may keep
        before = self.there(case)
        self.live_and_leave(case, mode, "second")
        self.refuse(case, mode)
        self.settle(case, before)
        case.reopen()
        self.settle(case, before)

    def live_and_leave(self, case: BackendCase, mode: VolumeMode, name: str) -> None:
        """With everything that the backend serves."""
        volume = case.create(name, mode)
        case.write(volume, mode, name)
        copies = []
        if "expand_volume" in case.backend.hooks:
            case.backend.expand_volume(volume.handle, SizeRange(2 * case.size_bytes))
            grown = case.backend.get_volume(volume.handle)
            assert grown is not None
            volume = grown
        if "create_snapshot" in case.backend.hooks:
            snapshot = case.snapshot(name, volume)
            if SourceKind.SNAPSHOT in self.sources:
                copies.append(case.restore(f"{name}-restored", mode, snapshot))
        if SourceKind.VOLUME in self.sources:
            copies.append(case.clone(f"{name}-cloned", mode, volume))
        for copy in copies:
            case.checksum(copy, mode)
            case.delete(copy)
        if "create_snapshot" in case.backend.hooks:
            case.backend.delete_snapshot(snapshot.handle, case.secrets)
        case.delete(volume)

    def refuse(self, case: BackendCase, mode: VolumeMode) -> None:
        """What cannot be made costs nothing."""
        with pytest.raises((NoSpace, OutOfRange)):
            case.create("too large", mode, case.whole(1 << 61))
        for kind in self.sources:
            with pytest.raises(CallError):
                case.create("orphan", mode, source=ContentSource(kind, "no-such-handle"))

    def there(self, case: BackendCase) -> set[str]:
        """The names of what there is."""
        return set(case.inventory()) if case.inventory else set()

    def settle(self, case: BackendCase, before: set[str]) -> None:
        """Nothing more than before, as soon as what runs in the background is done."""
        ends_at = time.monotonic() + _SETTLE_S
        while (left := self.there(case) - before) and time.monotonic() < ends_at:
            time.sleep(_POLL_S)
        assert not left, f"left behind: {', '.join(sorted(left))}"
