"""Copies that outlive a call or a process, and copies of what is being written to."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_server import data, wait_for

from backends.nfs import copies, intents
from csi_core.errors import Busy, NotFound, TimedOut
from csi_core.model import (
    AccessMode,
    ContentSource,
    Created,
    Existing,
    PublishRequest,
    SizeRange,
    SourceKind,
    Volume,
    VolumeCapability,
    VolumeMode,
    VolumeSpec,
)
from csi_core.testing.contract import BackendCase

FILESYSTEM = VolumeMode.FILESYSTEM
RWX = VolumeCapability(FILESYSTEM, AccessMode.MULTI_NODE_MULTI_WRITER)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Copies wait for this event, and calls wait for a copy no longer than a moment."""
    go_on = threading.Event()
    real = copies.copy_tree

    def copy_tree(source, target, progress, **more):
        while not go_on.wait(0.01):
            progress(0)
        real(source, target, progress, **more)

    monkeypatch.setattr(copies, "copy_tree", copy_tree)
    return go_on


def impatient(case: BackendCase) -> None:
    plugin = case.backend._manager.get_plugin("tested")
    plugin._mode._opened.work._patience_s = 0.05


def test_a_long_copy_goes_on_and_its_retry_joins_it(case: BackendCase, slow: threading.Event) -> None:
    volume = case.create("data", FILESYSTEM)
    (data(case, volume.handle) / "file").write_text("content", encoding="ascii")
    impatient(case)
    source = ContentSource(SourceKind.VOLUME, volume.handle)
    for _ in range(2):
        with pytest.raises(TimedOut):
            case.create("clone", FILESYSTEM, source=source)
        with pytest.raises(TimedOut):
            case.snapshot("snap", volume)
        with pytest.raises(Busy):
            case.delete(volume)
    assert [found.handle for found in case.volumes()] == [volume.handle]
    slow.set()
    wait_for(lambda: len(case.volumes()) == 2 and len(case.snapshots()) == 1)
    clone = case.backend.create_volume(case.spec("clone", FILESYSTEM, SizeRange(volume.size_bytes), source))
    assert isinstance(clone, Existing)
    assert (data(case, clone.value.handle) / "file").read_text(encoding="ascii") == "content"
    case.delete(volume)


def test_a_name_that_is_being_copied_to_is_no_new_volumes(case: BackendCase, slow: threading.Event) -> None:
    volume = case.create("data", FILESYSTEM)
    impatient(case)
    with pytest.raises(TimedOut):
        case.create("clone", FILESYSTEM, source=ContentSource(SourceKind.VOLUME, volume.handle))
    with pytest.raises(Busy, match="clone"):
        case.create("clone", FILESYSTEM)
    slow.set()
    wait_for(lambda: len(case.volumes()) == 2)
    assert sorted(found.name for found in case.volumes()) == ["clone", "data"]


@dataclass
class Interrupted:
    """A clone of ten files, of which a process that has ended had copied some."""

    case: BackendCase
    volume: Volume
    spec: VolumeSpec
    new: Path

    def copied(self) -> dict[str, int]:
        """The files that are there, and their inodes."""
        return {path.name: path.stat().st_ino for path in self.new.glob("*/data/*")}

    def finished(self) -> dict[str, int]:
        """Repeat the call; the same of what it made."""
        outcome = self.case.backend.create_volume(self.spec)
        assert isinstance(outcome, Created)
        content = data(self.case, outcome.value.handle)
        assert {path.name: path.read_text(encoding="ascii") for path in content.iterdir()} == {
            path.name: path.read_text(encoding="ascii") for path in data(self.case, self.volume.handle).iterdir()
        }
        assert [path.name for path in content.parent.iterdir()].count("record.json") == len(
            list(content.parent.iterdir())
        ) - 1
        assert list(self.new.iterdir()) == []
        return {path.name: path.stat().st_ino for path in content.iterdir()}


@pytest.fixture
def interrupted(case: BackendCase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Interrupted:
    volume = case.create("data", FILESYSTEM)
    for number in range(10):
        (data(case, volume.handle) / f"file-{number}").write_text(f"content {number}", encoding="ascii")
    real, done = copies.copy_tree, list[int]()

    def halting(source, target, progress, **more):
        def after_a_file(done_bytes: int) -> None:
            done.append(done_bytes)
            while len(done) == 5:
                progress(0)
            progress(done_bytes)

        real(source, target, after_a_file, **more)

    with monkeypatch.context() as patched:
        patched.setattr(copies, "copy_tree", halting)
        impatient(case)
        source = ContentSource(SourceKind.VOLUME, volume.handle)
        spec = case.spec("clone", FILESYSTEM, SizeRange(volume.size_bytes), source)
        with pytest.raises(TimedOut):
            case.backend.create_volume(spec)
        wait_for(lambda: len(done) == 5)
        case.reopen()
    assert [found.handle for found in case.volumes()] == [volume.handle]
    return Interrupted(case, volume, spec, tmp_path / "root/new")


def test_a_copy_goes_on_where_an_earlier_process_was(interrupted: Interrupted) -> None:
    before = interrupted.copied()
    assert len(before) == 5
    after = interrupted.finished()
    whole = [name for name, inode in before.items() if after[name] == inode]
    assert len(whole) >= 4, "and the one in hand perhaps"
    assert len(after) == 10


def test_a_copy_of_before_a_reboot_is_made_anew(
    interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "boot").write_text("another", encoding="ascii")
    monkeypatch.setattr(intents, "_BOOT", tmp_path / "boot")
    interrupted.case.reopen()
    assert interrupted.copied() == {}
    assert len(interrupted.finished()) == 10


def test_a_copy_whose_source_was_written_to_between_two_processes_is_refused(interrupted: Interrupted) -> None:
    (data(interrupted.case, interrupted.volume.handle) / "file-0").write_text("later", encoding="ascii")
    with pytest.raises(Busy, match="written to while it was copied"):
        interrupted.case.backend.create_volume(interrupted.spec)
    assert interrupted.copied() == {}
    interrupted.finished()


def test_a_half_made_copy_that_nobody_wants_goes(interrupted: Interrupted) -> None:
    storage = interrupted.case.backend._manager.get_plugin("tested")._mode._opened
    storage._forget_half_made()
    assert storage.trash.emptied(10)
    assert interrupted.copied() == {}
    interrupted.finished()


def test_a_copy_of_what_is_being_written_is_refused(
    case: BackendCase, slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot is of one moment: where the filesystem cannot do that, a write meanwhile spoils it."""
    volume = case.create("data", FILESYSTEM)
    (data(case, volume.handle) / "file").touch()
    case.backend.publish_volume(PublishRequest(volume.handle, "node-a", RWX))
    slow.set()
    assert case.snapshot("quiet", volume).ready
    real = copies.copy_tree

    def written_meanwhile(source, target, progress, **more):
        real(source, target, progress, **more)
        (data(case, volume.handle) / "file").write_text("more", encoding="ascii")

    monkeypatch.setattr(copies, "copy_tree", written_meanwhile)
    with pytest.raises(Busy, match="consistency: file"):
        case.snapshot("loud", volume)
    assert len(case.snapshots()) == 1
    case.backend.unpublish_volume(volume.handle, "", case.secrets)


def test_a_copy_whose_turn_comes_after_the_deletion_finds_nothing(
    case: BackendCase, slow: threading.Event, tmp_path: Path
) -> None:
    """Two copies run at once and the third waits, so that nothing keeps its source from being deleted."""
    volumes = [case.create(name, FILESYSTEM) for name in ("one", "two", "three")]
    (data(case, volumes[2].handle) / "file").touch()
    impatient(case)
    for volume in volumes:
        with pytest.raises(TimedOut):
            case.snapshot(f"of {volume.name}", volume)
    case.delete(volumes[2])
    slow.set()
    wait_for(lambda: len(case.snapshots()) == 2)
    with pytest.raises(NotFound):
        case.snapshot("of three", volumes[2])
    assert len(case.snapshots()) == 2
    wait_for(lambda: not list((tmp_path / "root/new").iterdir()))
