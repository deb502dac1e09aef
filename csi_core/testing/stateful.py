"""Random sequences of hook calls, compared with a model that is a dictionary.

::

    class MyMachine(BackendMachine):
        plugin = MyBackend

        def open_case(self, directory):
            return BackendCase(lambda: MyBackend({"directory": str(directory)}))


    TestMyMachine = MyMachine.TestCase
    TestMyMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)

Rules for what the backend does not implement or declare are not taken. What Hypothesis finds it makes small.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from csi_core.contract import HOOKS
from csi_core.errors import FailedPrecondition, NoSpace
from csi_core.hookspecs import PROJECT
from csi_core.model import CapacityQuery, Created, Existing, Reach, SizeRange, SourceKind, Volume, VolumeMode
from csi_core.parameters import parse_parameters
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.content import Content, DeviceContent, content_of

__all__ = ["BackendMachine"]

_NAMES = ("a", "A", "ä", "..", "with space", "b" * 128)
_SNAPSHOT_NAMES = ("s", "S", "a", "snap")
_UNITS = 3

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class _ExpectedVolume:
    volume: Volume
    checksum: str
    attached: bool = False


@dataclass
class _ExpectedSnapshot:
    handle: str
    volume_handle: str
    size_bytes: int
    checksum: str


@dataclass
class _Expected:
    volumes: dict[str, _ExpectedVolume] = field(default_factory=dict)
    snapshots: dict[str, _ExpectedSnapshot] = field(default_factory=dict)


def _implements(hook: str) -> Callable[[F], F]:
    """A rule for backends with this hook only."""
    return precondition(lambda machine: hook in machine.hooks)


class BackendMachine(RuleBasedStateMachine):
    """One backend beside its model. Names are few, so that they come again.

    Attributes:
        plugin: the plugin's class.
        mode: the volume mode of all volumes.
        sources: as ``describe`` declares them.
    """

    plugin: ClassVar[type[object]]
    mode: ClassVar[VolumeMode] = VolumeMode.FILESYSTEM
    sources: ClassVar[tuple[SourceKind, ...]] = (SourceKind.SNAPSHOT, SourceKind.VOLUME)

    names = st.sampled_from(_NAMES)
    snapshot_names = st.sampled_from(_SNAPSHOT_NAMES)
    units = st.integers(1, _UNITS)

    def __init__(self) -> None:
        super().__init__()
        self.hooks = {hook for hook in HOOKS if hasattr(getattr(self.plugin, hook, None), f"{PROJECT}_impl")}
        self.expected = _Expected()
        self.seeds = 0
        self._stack = ExitStack()

    def open_case(self, directory: Path) -> BackendCase:
        """A backend on empty storage in ``directory``, which is removed afterwards."""
        raise NotImplementedError

    @initialize()
    def start(self) -> None:
        """Empty storage."""
        directory = Path(tempfile.mkdtemp(prefix="csi-core-machine-"))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        self.case = self._stack.enter_context(self.open_case(directory))
        self.empty = self.empty_checksum()
        self.capacity_bytes = self.available_bytes()

    def teardown(self) -> None:
        """Take everything down: also what a failed example left."""
        self._stack.close()

    # -- what the model cannot know -------------------------------------------------------------------

    def empty_checksum(self) -> dict[int, str]:
        """The checksum of an empty volume of each number of units."""
        found = {}
        for units in range(1, 2 * _UNITS + 1):
            volume = self.case.create("empty", self.mode, units * self.case.size_bytes)
            found[units] = self.case.checksum(volume, self.mode)
            self.case.delete(volume)
        return found

    def available_bytes(self) -> int:
        """Room for the tests' class, 0 where the backend does not tell."""
        if "get_capacity" not in self.hooks:
            return 0
        parameters = parse_parameters(self.case.backend.description.parameters, self.case.parameters, "parameter")
        query = CapacityQuery(parameters, (self.case.capability(self.mode),))
        return self.case.backend.get_capacity(query).available_bytes

    def checksum(self, name: str, size_bytes: int | None = None) -> str:
        """Of a volume's present content (or the start of a device), read without changing what is attached."""
        held = self.expected.volumes[name]
        source = self.case.backend.attach_volume(self.case.attach_request(held.volume, self.mode))
        with content_of(source) as content:
            found = content.checksum(size_bytes)
            if isinstance(content, DeviceContent):
                assert content.size_bytes == held.volume.size_bytes
        if not held.attached:
            self.case.backend.detach_volume(held.volume.handle)
        return found

    # -- rules ----------------------------------------------------------------------------------------

    @rule(name=names, units=units)
    def create(self, name: str, units: int) -> None:
        """A new volume, or the one of this name whatever is wished for."""
        spec = self.case.spec(name, self.mode, SizeRange(units * self.case.size_bytes))
        outcome = self.case.backend.create_volume(spec)
        if name in self.expected.volumes:
            assert outcome == Existing(self.expected.volumes[name].volume)
            return
        assert isinstance(outcome, Created)
        volume = outcome.value
        assert (volume.name, volume.size_bytes) == (name, units * self.case.size_bytes)
        self.expected.volumes[name] = _ExpectedVolume(volume, self.empty[units])

    @rule(name=names)
    def create_too_large(self, name: str) -> None:
        """Refused, with nothing changed; the invariants look."""
        if name not in self.expected.volumes and self.capacity_bytes:
            size = SizeRange(self.case.whole(2 * self.capacity_bytes))
            try:
                self.case.backend.create_volume(self.case.spec(name, self.mode, size))
            except NoSpace:
                return
            raise AssertionError("a volume of twice the capacity was created")

    @rule(name=names)
    def delete(self, name: str) -> None:
        """Gone, unless it is in use on this node."""
        held = self.expected.volumes.get(name)
        if held is None:
            self.case.backend.delete_volume("no-such-handle", self.case.secrets)
            return
        if held.attached:
            if self.case.backend.description.reach is Reach.NODE_LOCAL:
                try:
                    self.case.delete(held.volume)
                except FailedPrecondition:
                    return
                raise AssertionError("a volume in use was deleted")
            return
        try:
            self.case.delete(held.volume)
        except FailedPrecondition:
            kept = [s for s in self.expected.snapshots.values() if s.volume_handle == held.volume.handle]
            assert kept, "a volume that nothing depends on cannot be deleted"
            return
        self.case.delete(held.volume)
        del self.expected.volumes[name]

    @rule(name=names)
    def attach(self, name: str) -> None:
        """Usable here; once or again."""
        if held := self.expected.volumes.get(name):
            self.case.backend.attach_volume(self.case.attach_request(held.volume, self.mode))
            held.attached = True

    @rule(name=names)
    def detach(self, name: str) -> None:
        """No longer in use here; once or again."""
        if held := self.expected.volumes.get(name):
            self.case.backend.detach_volume(held.volume.handle)
            held.attached = False

    @rule(name=names)
    def write(self, name: str) -> None:
        """New content."""
        held = self.expected.volumes.get(name)
        if held is None:
            return
        self.seeds += 1
        source = self.case.backend.attach_volume(self.case.attach_request(held.volume, self.mode))
        with content_of(source) as content:
            held.checksum = self.written(content)
        if not held.attached:
            self.case.backend.detach_volume(held.volume.handle)

    def written(self, content: Content) -> str:
        """Write something that was never written before; answer the checksum."""
        content.write(f"seed-{self.seeds}")
        return content.checksum()

    @rule(name=names)
    def read(self, name: str) -> None:
        """What was written last."""
        if held := self.expected.volumes.get(name):
            assert self.checksum(name) == held.checksum

    @_implements("expand_volume")
    @rule(name=names, units=units)
    def expand(self, name: str, units: int) -> None:
        """Larger, never smaller; the content stays."""
        held = self.expected.volumes.get(name)
        if held is None:
            return
        wanted = units * self.case.size_bytes
        expected = max(wanted, held.volume.size_bytes)
        before = held.volume.size_bytes
        for _ in range(2):
            assert self.case.backend.expand_volume(held.volume.handle, SizeRange(wanted)) == expected
        held.volume = replace(held.volume, size_bytes=expected)
        assert self.checksum(name, before) == held.checksum
        held.checksum = self.checksum(name)

    @_implements("create_snapshot")
    @rule(name=names, snapshot_name=snapshot_names)
    def snapshot(self, name: str, snapshot_name: str) -> None:
        """A new snapshot, or the one of this name whatever it is of."""
        held = self.expected.volumes.get(name)
        if held is None:
            return
        outcome = self.case.backend.create_snapshot(self.case.snapshot_spec(snapshot_name, held.volume))
        if known := self.expected.snapshots.get(snapshot_name):
            assert isinstance(outcome, Existing)
            assert outcome.value.handle == known.handle
            return
        assert isinstance(outcome, Created)
        self.expected.snapshots[snapshot_name] = _ExpectedSnapshot(
            outcome.value.handle, held.volume.handle, held.volume.size_bytes, held.checksum
        )

    @_implements("create_snapshot")
    @rule(snapshot_name=snapshot_names)
    def delete_snapshot(self, snapshot_name: str) -> None:
        """Gone; once or again."""
        if known := self.expected.snapshots.pop(snapshot_name, None):
            for _ in range(2):
                self.case.backend.delete_snapshot(known.handle, self.case.secrets)

    @precondition(lambda machine: SourceKind.SNAPSHOT in machine.sources)
    @rule(name=names, snapshot_name=snapshot_names)
    def restore(self, name: str, snapshot_name: str) -> None:
        """What was there at the moment of the snapshot."""
        known = self.expected.snapshots.get(snapshot_name)
        if known is None or name in self.expected.volumes:
            return
        snapshot = self.case.backend.get_snapshot(known.handle)
        assert snapshot is not None
        volume = self.case.restore(name, self.mode, snapshot)
        assert volume.size_bytes == known.size_bytes
        self.expected.volumes[name] = _ExpectedVolume(volume, known.checksum)

    @precondition(lambda machine: SourceKind.VOLUME in machine.sources)
    @rule(name=names, source=names)
    def clone(self, name: str, source: str) -> None:
        """What is there now."""
        held = self.expected.volumes.get(source)
        if held is None or name in self.expected.volumes:
            return
        volume = self.case.clone(name, self.mode, held.volume)
        self.expected.volumes[name] = _ExpectedVolume(volume, held.checksum)

    @rule()
    def reopen(self) -> None:
        """The backend's process ends and another begins."""
        self.case.reopen()

    # -- what holds after every rule ------------------------------------------------------------------

    @invariant()
    def listing_is_right(self) -> None:
        """Every volume and snapshot is listed, and nothing else."""
        listed = {volume.handle: volume for volume in self.case.volumes(2)}
        assert listed == {held.volume.handle: held.volume for held in self.expected.volumes.values()}
        if "list_snapshots" in self.hooks:
            snapshots = {snapshot.handle for snapshot in self.case.snapshots(limit=2)}
            assert snapshots == {known.handle for known in self.expected.snapshots.values()}

    @invariant()
    def books_are_right(self) -> None:
        """Empty storage has all of its room again; one with volumes has no more than that."""
        if "get_capacity" not in self.hooks:
            return
        available, slack = self.available_bytes(), self.capacity_bytes // 64
        assert available <= self.capacity_bytes + slack
        if not self.expected.volumes and not self.expected.snapshots:
            assert available >= self.capacity_bytes - slack

    @invariant()
    def nothing_is_found(self) -> None:
        """A life in order leaves nothing to repair."""
        if "diagnose" in self.hooks:
            assert list(self.case.backend.diagnose()) == []
