"""The kit itself: it goes red for backends that break the contract, and leaves out what a backend does not serve."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backends.sim.plugin import SimBackend
from csi_core.errors import CallError
from csi_core.hookspecs import hookimpl
from csi_core.model import (
    AccessMode,
    AttachRequest,
    Created,
    Existing,
    Page,
    SizeRange,
    SnapshotSpec,
    SourceKind,
    VolumeCapability,
    VolumeMode,
)
from csi_core.parameters import Parameters
from csi_core.testing.contract import BackendCase, BackendContract, leaks
from csi_core.testing.contract.selection import needs
from csi_core.testing.fault_points import fault_points


class Kit(BackendContract):
    plugin = SimBackend


class IgnoresCase(SimBackend):
    @hookimpl
    def create_volume(self, spec):
        return super().create_volume(replace(spec, name=spec.name.lower()))


class ForgetsTheName(SimBackend):
    made = 0

    @hookimpl
    def create_volume(self, spec):
        self.made += 1
        return super().create_volume(replace(spec, name=f"{spec.name}-{self.made}"))


class AlwaysCreated(SimBackend):
    @hookimpl
    def create_volume(self, spec):
        return Created(super().create_volume(spec).value)


class ForgetsParameters(SimBackend):
    @hookimpl
    def create_volume(self, spec):
        return super().create_volume(replace(spec, recorded={}))


class KeepsAfterDelete(SimBackend):
    @hookimpl
    def delete_volume(self, handle, secrets):
        pass


class FailsSecondDelete(SimBackend):
    @hookimpl
    def delete_volume(self, handle, secrets):
        self.storage.volume(handle)
        super().delete_volume(handle, secrets)


class DeletesInUse(SimBackend):
    @hookimpl
    def delete_volume(self, handle, secrets):
        self.detach_volume(handle)
        self.unpublish_volume(handle, "", secrets)
        super().delete_volume(handle, secrets)


class ListsByOffset(SimBackend):
    @hookimpl
    def list_volumes(self, cursor, limit):
        volumes = super().list_volumes("", 10_000).entries
        start = int(cursor or 0)
        more = start + limit < len(volumes)
        return Page(volumes[start : start + limit], str(start + limit) if more else "")


class LosesAttachment(SimBackend):
    @hookimpl
    def attach_volume(self, request):
        source = super().attach_volume(request)
        return replace(source, path=source.path / "..") if hasattr(source, "path") else source


class RestoresNothing(SimBackend):
    @hookimpl
    def create_volume(self, spec):
        outcome = super().create_volume(replace(spec, source=None))
        return type(outcome)(replace(outcome.value, source=spec.source))


class SnapshotsGoWithTheVolume(SimBackend):
    @hookimpl
    def delete_volume(self, handle, secrets):
        for record in self.storage.records.all_snapshots():
            if record.snapshot.volume_handle == handle:
                self.delete_snapshot(record.snapshot.handle, secrets)
        super().delete_volume(handle, secrets)


class ShrinksOnRequest(SimBackend):
    @hookimpl
    def expand_volume(self, handle, size):
        super().expand_volume(handle, size)
        return size.required_bytes


class LeavesPartOfAGroup(SimBackend):
    @hookimpl
    def create_group_snapshot(self, spec):
        for handle in spec.volume_handles:
            self.create_snapshot(SnapshotSpec(f"part-{handle}", handle, spec.parameters, secrets=spec.secrets))
        return super().create_group_snapshot(spec)


class NamesNoChange(SimBackend):
    @hookimpl
    def changed_blocks(self, base_handle, target_handle, start_offset_bytes):
        return replace(super().changed_blocks(base_handle, target_handle, start_offset_bytes), ranges=iter(()))


class PublishesAnywhere(SimBackend):
    @hookimpl
    def publish_volume(self, request):
        self.storage.nodes.add(request.node_id)
        return super().publish_volume(request)


class LeavesAFile(SimBackend):
    @hookimpl
    def delete_volume(self, handle, secrets):
        super().delete_volume(handle, secrets)
        (Path(self._options.directory) / f"{handle}.trash").touch()


class SnapshotsGrow(SimBackend):
    @hookimpl
    def get_snapshot(self, handle):
        snapshot = super().get_snapshot(handle)
        volume = snapshot and self.get_volume(snapshot.volume_handle)
        return replace(snapshot, size_bytes=volume.size_bytes) if volume else snapshot


class ForgetsSnapshotParameters(SimBackend):
    @hookimpl
    def create_snapshot(self, spec):
        return super().create_snapshot(replace(spec, recorded={}))


class GrowsPastTheLimit(SimBackend):
    @hookimpl
    def expand_volume(self, handle, size):
        return super().expand_volume(handle, SizeRange(size.required_bytes))


class GrowsIntoOldData(SimBackend):
    @hookimpl
    def expand_volume(self, handle, size):
        before = self.get_volume(handle).size_bytes
        grown = super().expand_volume(handle, size)
        source = self.attach_volume(AttachRequest(handle, VolumeCapability(RAW, AccessMode.SINGLE_NODE_WRITER)))
        if grown > before:
            with source.device.open("r+b") as device:
                device.seek(before)
                device.write(b"somebody's data")
        return grown


class DetachesAll(SimBackend):
    @hookimpl
    def detach_volume(self, handle):
        for volume in super().list_volumes("", 100).entries:
            super().detach_volume(volume.handle)
            self.unpublish_volume(volume.handle, "", Parameters())


class TrimsNames(SimBackend):
    @hookimpl
    def create_volume(self, spec):
        return super().create_volume(replace(spec, name=spec.name.strip()))


class RemembersTheDeleted(SimBackend):
    @hookimpl
    def create_volume(self, spec):
        first = self.__dict__.setdefault("first", {}).setdefault(spec.name, spec.recorded)
        return super().create_volume(replace(spec, recorded=first))


FIRST, RAW = VolumeMode.FILESYSTEM, VolumeMode.BLOCK
BROKEN: list[tuple[type[SimBackend], Callable[[BackendCase], None]]] = [
    (IgnoresCase, Kit().test_every_name),
    (ForgetsTheName, lambda case: Kit().test_create_again(case, FIRST)),
    (AlwaysCreated, lambda case: Kit().test_create_again(case, FIRST)),
    (ForgetsParameters, Kit().test_what_is_recorded_comes_back),
    (KeepsAfterDelete, lambda case: Kit().test_delete(case, FIRST)),
    (KeepsAfterDelete, lambda case: Kit().test_name_is_free_again(case, RAW)),
    (FailsSecondDelete, lambda case: Kit().test_delete(case, FIRST)),
    (DeletesInUse, lambda case: Kit().test_in_use_is_not_deleted(case, FIRST)),
    (ListsByOffset, Kit().test_cursor_outlives_its_entry),
    (ListsByOffset, lambda case: Kit().test_foreign_cursor(case, "no cursor of mine")),
    (LosesAttachment, lambda case: Kit().test_volumes_are_apart(case, FIRST)),
    (RestoresNothing, lambda case: Kit().test_restore(case, RAW)),
    (RestoresNothing, lambda case: Kit().test_clone(case, FIRST)),
    (SnapshotsGoWithTheVolume, lambda case: Kit().test_source_deleted_first(case, RAW)),
    (ShrinksOnRequest, lambda case: Kit().test_never_shrinks(case, FIRST)),
    (LeavesPartOfAGroup, Kit().test_all_or_none),
    (NamesNoChange, Kit().test_changed),
    (LeavesAFile, lambda case: Kit().test_a_life_leaves_nothing(case, FIRST)),
    (SnapshotsGrow, lambda case: Kit().test_snapshot_keeps_its_size(case, RAW)),
    (ForgetsSnapshotParameters, Kit().test_what_is_recorded_of_a_snapshot),
    (GrowsPastTheLimit, lambda case: Kit().test_odd_size_and_limit(case, FIRST)),
    (GrowsIntoOldData, lambda case: Kit().test_grow(case, RAW)),
    (DetachesAll, lambda case: Kit().test_restart_while_several_are_attached(case, FIRST)),
    (TrimsNames, Kit().test_every_name),
    (RemembersTheDeleted, lambda case: Kit().test_name_is_free_again(case, FIRST)),
    (PublishesAnywhere, lambda case: Kit().test_unknown_node_or_volume(case, FIRST)),
]


@pytest.mark.parametrize(("broken", "test"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_broken_backends_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: type[SimBackend], test: Callable[[BackendCase], None]
) -> None:
    """The test passes on the simulator and fails on a simulator with one mistake in it."""
    monkeypatch.setattr(leaks, "_SETTLE_S", 0.1)  # the simulator does nothing in the background
    for plugin in (SimBackend, broken):
        options = {"directory": str(tmp_path / plugin.__name__), "reach": "node-local", "nodes": ["node-b"]}
        inventory = (tmp_path / plugin.__name__).rglob
        with BackendCase(
            lambda plugin=plugin, options=options: plugin(options),
            inventory=lambda inventory=inventory: map(str, inventory("*")),
        ) as case:
            if plugin is SimBackend:
                test(case)
            else:
                with pytest.raises((AssertionError, ValueError, CallError, pytest.fail.Exception)):
                    test(case)


def test_what_is_not_served_is_not_collected() -> None:
    class Small:
        @hookimpl
        def create_volume(self, spec):
            return Existing(spec)

    class SmallKit(BackendContract):
        plugin = Small
        volume_modes = (VolumeMode.FILESYSTEM,)
        sources = ()

    assert SmallKit.test_create
    for name in ("test_restore", "test_clone", "test_group", "test_grow", "test_changed", "test_publish_again"):
        assert getattr(SmallKit, name) is None
        assert getattr(Kit, name) is not None


def test_sources_choose() -> None:
    class SnapshotsOnly(BackendContract):
        plugin = SimBackend
        sources = (SourceKind.SNAPSHOT,)

    assert SnapshotsOnly.test_restore is not None
    assert SnapshotsOnly.test_clone is None


def test_need_of_a_hook_that_is_none() -> None:
    with pytest.raises(ValueError, match="create_snapshots"):
        needs("create_snapshots")


def test_one_name_twice_is_refused() -> None:
    from csi_core.testing.contract.attach import AttachTests
    from csi_core.testing.contract.selection import Selection

    class Other(Selection):
        def test_detach(self) -> None: ...

    with pytest.raises(TypeError, match="test_detach"):
        type("Both", (AttachTests, Other), {})


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> str:
    name = f"faulty_{tmp_path.name}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(f"def never():\n    {source}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_fault_points_of_the_sources() -> None:
    points = fault_points()
    assert "sim.records.before_rename" in points
    assert "node.stage.after_mkfs" in points
    assert list(points) == sorted(set(points))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("fault(name)", "one literal string"),
        ("fault(f'a.{b}')", "one literal string"),
        ("faults.fault('a' + 'b')", "one literal string"),
        ("fault('a.b'); fault('a.b')", "at two places"),
    ],
)
def test_fault_points_that_cannot_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fault_points([package(tmp_path, monkeypatch, source)])
