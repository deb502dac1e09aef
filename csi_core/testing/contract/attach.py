"""Volumes on this node."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from csi_core.errors import FailedPrecondition, NotFound
from csi_core.model import AttachRequest, BlockSource, DirectorySource, Reach, VolumeMode
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.content import DeviceContent, content_of
from csi_core.testing.contract.selection import Selection, needs

__all__ = ["AttachTests"]


class AttachTests(Selection):
    """Attaching and detaching (CSI "NodeStageVolume", "NodeUnstageVolume")."""

    def test_new_volume_is_empty(self, case: BackendCase, mode: VolumeMode) -> None:
        """Nobody's old data; a device has exactly the size of the volume."""
        volume = case.create("data", mode)
        with case.attached(volume, mode) as content:
            assert content.empty()
            if isinstance(content, DeviceContent):
                assert content.size_bytes == volume.size_bytes

    def test_raw_block_needs_a_device(self, case: BackendCase) -> None:
        """The source of a raw block volume is a device; filesystems are declared where other volumes have one."""
        for mode in self.volume_modes:
            volume = case.create(mode.value, mode)
            source = case.backend.attach_volume(case.attach_request(volume, mode))
            if mode is VolumeMode.BLOCK:
                assert isinstance(source, BlockSource)
            elif isinstance(source, BlockSource):
                assert case.backend.description.filesystems
            if isinstance(source, BlockSource):
                assert source.size_bytes == volume.size_bytes
                assert source.formatted == ""

    def test_attach_again(self, case: BackendCase, mode: VolumeMode) -> None:
        """The same source, however often and after a restart."""
        volume = case.create("data", mode)
        request = case.attach_request(volume, mode)
        source = case.backend.attach_volume(request)
        assert case.backend.attach_volume(request) == source
        case.reopen()
        assert case.backend.attach_volume(request) == source
        case.backend.detach_volume(volume.handle)

    def test_data_stays(self, case: BackendCase, mode: VolumeMode) -> None:
        """What was written is there after detaching, and after a restart."""
        volume = case.create("data", mode)
        before = case.write(volume, mode, "data")
        assert case.checksum(volume, mode) == before
        case.reopen()
        assert case.checksum(volume, mode) == before

    def test_restart_while_attached(self, case: BackendCase, mode: VolumeMode) -> None:
        """A driver that is updated takes no volume away from its pods."""
        volume = case.create("data", mode)
        with case.attached(volume, mode) as content:
            content.write("before")
            case.reopen()
            content.write("after")
            after = content.checksum()
        assert case.checksum(volume, mode) == after

    def test_restart_while_several_are_attached(self, case: BackendCase, mode: VolumeMode) -> None:
        """Each is still its own volume, still in use, and still there when another is detached."""
        volumes = [case.create(name, mode) for name in ("one", "two", "three")]
        requests = [case.attach_request(volume, mode) for volume in volumes]
        with ExitStack() as stack:
            contents = [stack.enter_context(case.attached(volume, mode)) for volume in volumes]
            for volume, content in zip(volumes, contents, strict=True):
                content.write(volume.name)
            checksums = [content.checksum() for content in contents]
            case.reopen()
            case.backend.detach_volume(volumes[1].handle)
            for number in (2, 0):  # not in the order in which they were attached
                assert contents[number].checksum() == checksums[number], "the source of before leads there no longer"
                if case.backend.description.reach is Reach.NODE_LOCAL:
                    with pytest.raises(FailedPrecondition):
                        case.delete(volumes[number])
                with content_of(case.backend.attach_volume(requests[number])) as content:
                    assert content.checksum() == checksums[number]
        for volume, checksum in zip(volumes, checksums, strict=True):
            assert case.checksum(volume, mode) == checksum

    def test_volumes_are_apart(self, case: BackendCase, mode: VolumeMode) -> None:
        """Writing one changes no other."""
        one, two = case.create("one", mode), case.create("two", mode)
        before = case.write(two, mode, "two")
        with case.attached(one, mode) as first, case.attached(two, mode) as second:
            first.write("one")
            assert second.checksum() == before
        assert case.checksum(two, mode) == before

    def test_detach(self, case: BackendCase, mode: VolumeMode) -> None:
        """Repeated, before any attaching, and for what is not there: nothing to do."""
        volume = case.create("data", mode)
        case.backend.detach_volume(volume.handle)
        case.backend.attach_volume(case.attach_request(volume, mode))
        case.backend.detach_volume(volume.handle)
        case.backend.detach_volume(volume.handle)
        case.delete(volume)
        case.backend.detach_volume(volume.handle)

    def test_attach_unknown(self, case: BackendCase, mode: VolumeMode) -> None:
        """There is nothing to attach, and what was deleted is not there either."""
        volume = case.create("data", mode)
        case.delete(volume)
        for handle in (volume.handle, "no-such-handle", "../../etc"):
            with pytest.raises(NotFound):
                case.backend.attach_volume(AttachRequest(handle, case.capability(mode), secrets=case.secrets))

    def test_in_use_is_not_deleted(self, case: BackendCase, mode: VolumeMode) -> None:
        """Node-local storage knows what is attached here and refuses; network storage may know (CSI "DeleteVolume")."""
        volume = case.create("data", mode)
        if case.backend.description.reach is not Reach.NODE_LOCAL:
            return
        with case.attached(volume, mode) as content:
            content.write("data")
            before, recorded = content.checksum(), case.backend.get_volume(volume.handle)
            with pytest.raises(FailedPrecondition):
                case.delete(volume)
            assert content.checksum() == before
            assert case.backend.get_volume(volume.handle) == recorded
        case.delete(volume)
        assert case.backend.get_volume(volume.handle) is None

    @needs("mark_formatted")
    def test_formatted_is_remembered(self, case: BackendCase) -> None:
        """Once made, a filesystem is never made again: the mark is there after detaching and after a restart."""
        mode = VolumeMode.BLOCK if VolumeMode.BLOCK in self.volume_modes else VolumeMode.FILESYSTEM
        volume = case.create("data", mode)
        source = case.backend.attach_volume(case.attach_request(volume, mode))
        if isinstance(source, DirectorySource):
            return
        for _ in range(2):
            case.backend.mark_formatted(volume.handle, "ext4")
            source = case.backend.attach_volume(case.attach_request(volume, mode))
            assert isinstance(source, BlockSource)
            assert source.formatted == "ext4"
            case.backend.detach_volume(volume.handle)
            case.reopen()
