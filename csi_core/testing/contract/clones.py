"""Volumes made from volumes."""

from __future__ import annotations

import pytest

from csi_core.errors import NotFound
from csi_core.model import BlockSource, ContentSource, SourceKind, VolumeMode
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.selection import Selection, needs

__all__ = ["CloneTests"]


class CloneTests(Selection):
    """Clones (CSI "CreateVolume" with a volume as its source)."""

    @needs(source=SourceKind.VOLUME)
    def test_clone(self, case: BackendCase, mode: VolumeMode) -> None:
        """A clone has its source's data and names it; both go their own way from then on."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "before")
        clone = case.clone("clone", mode, volume)
        assert clone.source == ContentSource(SourceKind.VOLUME, volume.handle)
        assert case.clone("clone", mode, volume) == clone
        assert case.checksum(clone, mode) == before
        changed = case.write(clone, mode, "clone")
        assert case.checksum(volume, mode) == before
        after = case.write(volume, mode, "after")
        case.reopen()
        assert case.backend.get_volume(clone.handle) == clone
        assert case.checksum(clone, mode) == changed
        assert case.checksum(volume, mode) == after

    @needs(source=SourceKind.VOLUME)
    def test_clone_while_attached(self, case: BackendCase, mode: VolumeMode) -> None:
        """What a pod had synced when the clone was made is in it."""
        volume = case.create("data", mode)
        with case.attached(volume, mode) as content:
            content.write("before")
            before = content.checksum()
            clone = case.clone("clone", mode, volume)
            content.write("after")
        assert case.checksum(clone, mode) == before

    @needs(source=SourceKind.VOLUME)
    def test_clone_larger(self, case: BackendCase, mode: VolumeMode) -> None:
        """A clone may be larger than its source."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "data")
        clone = case.clone("clone", mode, volume, 2 * case.size_bytes)
        assert clone.size_bytes == 2 * case.size_bytes
        assert case.checksum(clone, mode, case.size_bytes) == before

    @needs(source=SourceKind.VOLUME)
    def test_clone_outlives_its_source(self, case: BackendCase, mode: VolumeMode) -> None:
        """Deleting the source changes nothing in the clone, also after a restart and for a clone of the clone."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "data")
        clone = case.clone("clone", mode, volume)
        second = case.clone("second", mode, clone)
        case.delete(volume)
        case.reopen()
        assert case.checksum(clone, mode) == before
        case.delete(clone)
        assert case.checksum(second, mode) == before

    @needs("mark_formatted", source=SourceKind.VOLUME)
    def test_clone_is_formatted_as_its_source(self, case: BackendCase, mode: VolumeMode) -> None:
        """The record that there is a filesystem is copied with it, and that its UUID is another's is said."""
        if not case.backend.description.filesystems:
            return
        volume = case.create("data", mode)
        case.write(volume, mode, "data")
        case.backend.mark_formatted(volume.handle, "ext4")
        for _ in range(2):
            clone = case.clone("clone", mode, volume)
            with case.attached(clone, mode):
                source = case.backend.attach_volume(case.attach_request(clone, mode))
                assert not isinstance(source, BlockSource) or (source.formatted, source.copied) == ("ext4", True)
            case.reopen()

    @needs(source=SourceKind.VOLUME)
    def test_clone_of_nothing(self, case: BackendCase, mode: VolumeMode) -> None:
        """The source must be there at the moment of creation; nothing is left of what was refused."""
        volume = case.create("data", mode)
        case.delete(volume)
        for handle in (volume.handle, "no-such-handle", "../../etc"):
            with pytest.raises(NotFound):
                case.create("clone", mode, source=ContentSource(SourceKind.VOLUME, handle))
        assert case.volumes() == []
