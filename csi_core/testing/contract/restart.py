"""A restart between any two calls of a volume's life."""

from __future__ import annotations

from collections.abc import Callable

from csi_core.model import SizeRange, SourceKind, VolumeMode
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.selection import Selection

__all__ = ["RestartTests"]


class RestartTests(Selection):
    """One long life, with everything that the backend serves, once through and once with restarts."""

    def test_restart_between_any_two_calls(self, case: BackendCase, mode: VolumeMode) -> None:
        """The driver is updated at the worst moments."""
        self.live(case, mode, case.reopen)

    def test_every_call_twice(self, case: BackendCase, mode: VolumeMode) -> None:
        """Every answer is lost once."""
        self.live(case, mode, lambda: None)

    def live(self, case: BackendCase, mode: VolumeMode, interrupt: Callable[[], None]) -> None:
        """A volume's life, with every call made again after an interruption."""

        def twice(call: Callable[[], object]) -> object:
            first = call()
            interrupt()
            second = call()
            assert first == second
            interrupt()
            return second

        volume = case.create("data", mode)
        twice(lambda: case.create("data", mode))
        request = case.attach_request(volume, mode)
        twice(lambda: case.backend.attach_volume(request))
        with case.attached(volume, mode) as content:
            content.write("one")
            checksum = content.checksum()
        if "expand_volume" in case.backend.hooks and case.backend.description.online_expansion:
            twice(lambda: case.backend.expand_volume(volume.handle, SizeRange(2 * case.size_bytes)))
        twice(lambda: case.backend.detach_volume(volume.handle))
        assert case.checksum(volume, mode, case.size_bytes) == checksum
        checksum = case.checksum(volume, mode)
        copies = []
        if SourceKind.SNAPSHOT in self.sources:
            twice(lambda: case.snapshot("snap", volume))
            snapshot = case.snapshot("snap", volume)
            twice(lambda: case.restore("restored", mode, snapshot))
            copies.append(case.restore("restored", mode, snapshot))
            twice(lambda: case.backend.delete_snapshot(snapshot.handle, case.secrets))
        if SourceKind.VOLUME in self.sources:
            source = case.backend.get_volume(volume.handle)
            assert source is not None
            twice(lambda: case.clone("clone", mode, source))
            copies.append(case.clone("clone", mode, source))
        twice(lambda: case.delete(volume))
        for copy in copies:
            assert case.checksum(copy, mode) == checksum
            case.delete(copy)
        interrupt()
        assert case.volumes() == []
