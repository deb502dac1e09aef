"""What a root is refused for, what health and diagnosis say, what another host finds, and what a crash leaves."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_server import FakeServer, LocalNfs, case_on, options

from backends.nfs import copies, intents
from backends.nfs.plugin import NfsBackend
from backends.nfs.quota import ProjectUsage
from backends.nfs.sizing import Unsized
from csi_core.errors import (
    Busy,
    ConfigError,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    TimedOut,
    Unavailable,
)
from csi_core.facade import Backend
from csi_core.health import HealthKind
from csi_core.model import (
    AccessMode,
    AttachRequest,
    ContentSource,
    Created,
    Existing,
    PublishRequest,
    ShareSource,
    SizeRange,
    SourceKind,
    Volume,
    VolumeCapability,
    VolumeMode,
    VolumeSpec,
)
from csi_core.testing.contract import BackendCase, KitHost

FILESYSTEM = VolumeMode.FILESYSTEM
RWX = VolumeCapability(FILESYSTEM, AccessMode.MULTI_NODE_MULTI_WRITER)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def case(tmp_path: Path, server: FakeServer):
    with case_on(tmp_path, server, size_enforcement="none", capacity="8Gi") as case:
        yield case


def data(case: BackendCase, handle: str) -> Path:
    volume = case.backend.get_volume(handle)
    assert volume is not None
    return Path(volume.context["share"])


# -- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "root"),
        ({"export": {"root": "relative"}, "server": "s"}, "absolute path"),
        ({"export": {"root": "/srv/../etc"}, "server": "s"}, "absolute path"),
        ({"export": {"root": "/srv/with space"}, "server": "s"}, "letters, digits"),
        ({"export": {"root": "/srv/x(rw)"}, "server": "s"}, "letters, digits"),
        ({"export": {"root": "/srv/x"}}, "server"),
        ({"export": {"root": "/srv/x"}, "server": "host:/path"}, "neither a host name nor an address"),
        ({"export": {"root": "/srv/x", "sec": "sys,rw"}, "server": "s"}, "sec"),
        ({"export": {"root": "/srv/x", "nodeAddresses": {"a": "10.0.0.0/8"}}, "server": "s"}, "nodeAddresses"),
        ({"export": {"root": "/srv/x", "warnAt": 0.99, "stopAt": 0.5}, "server": "s"}, "warnAt"),
        ({"export": {"root": "/srv/x", "sqash": "root"}, "server": "s"}, "sqash"),
    ],
)
def test_wrong_options_are_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        NfsBackend(given)


def test_a_root_without_quotas_is_refused(tmp_path: Path, server: FakeServer) -> None:
    with pytest.raises(ConfigError, match="sizeEnforcement: none"):
        case_on(tmp_path, server)


def test_a_missing_root_is_not_made_up_for(tmp_path: Path, server: FakeServer) -> None:
    plugin = LocalNfs(options(tmp_path, size_enforcement="none"), server)
    with pytest.raises(ConfigError, match="mount its disk"):
        plugin.start(KitHost("node-a", "tested"))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_mount_point_is_waited_for(tmp_path: Path, server: FakeServer) -> None:
    with pytest.raises(Unavailable, match="nothing is mounted"):
        case_on(tmp_path, server, size_enforcement="none", require_mount=True)


def test_two_processes_never_share_a_root(case: BackendCase, tmp_path: Path, server: FakeServer) -> None:
    with pytest.raises(Unavailable, match="another process"):
        case_on(tmp_path, server, size_enforcement="none")


# -- nodes, static volumes --------------------------------------------------------------------------


def test_a_node_needs_nothing_but_the_context() -> None:
    backend = Backend.load("nfs", NfsBackend({"role": "node"}))
    backend.start(KitHost("node-a", "nfs"))
    assert backend.get_volume("v-" + "0" * 20) is not None
    assert backend.get_volume("../etc") is None
    request = AttachRequest("v-" + "0" * 20, RWX, context={"server": "fd00::1", "share": "/srv/x"})
    source = backend.attach_volume(request)
    assert source == ShareSource("nfs", "[fd00::1]:/srv/x", ("nfsvers=4.2", "hard"))
    with pytest.raises(FailedPrecondition, match="controller"):
        backend.list_volumes("", 10)


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"server": "s"},
        {"server": "s", "share": "relative"},
        {"server": "s", "share": "/x/../../etc"},
        {"server": "s", "share": "/x\ny"},
        {"server": "-o", "share": "/x"},
        {"server": "s,sec=none", "share": "/x"},
        {"server": "s:/etc", "share": "/x"},
    ],
)
def test_a_context_that_names_no_share_is_refused(context: dict[str, str]) -> None:
    backend = NfsBackend({"role": "node"})
    with pytest.raises(InvalidArgument, match="volumeAttributes"):
        backend.attach_volume(AttachRequest("static.home", RWX, context=context))


def test_a_static_volume_is_never_touched(case: BackendCase, server: FakeServer) -> None:
    handle = "static.home"
    volume = case.backend.get_volume(handle)
    assert volume is not None
    assert case.backend.publish_volume(PublishRequest(handle, "node-a", RWX)) == {}
    case.backend.unpublish_volume(handle, "node-a", case.secrets)
    for act in (
        lambda: case.backend.delete_volume(handle, case.secrets),
        lambda: case.backend.expand_volume(handle, SizeRange(1 << 30)),
        lambda: case.snapshot("snap", volume),
    ):
        with pytest.raises(FailedPrecondition, match="did not make"):
            act()
    assert server.calls == []
    assert case.volumes() == []


# -- health -----------------------------------------------------------------------------------------


def test_health_and_repair_of_exports(case: BackendCase, server: FakeServer) -> None:
    volume = case.create("data", FILESYSTEM)
    case.backend.publish_volume(PublishRequest(volume.handle, "node-a", RWX))
    server.table.clear()
    server.table[volume.context["share"], "10.9.9.9"] = False
    (problem,) = case.backend.volume_health(volume.handle)
    assert (problem.kind, problem.reason) == (HealthKind.INACCESSIBLE, "ExportMissing")
    found = list(case.backend.diagnose())
    assert [finding.repairable for finding in found] == [True, True]
    assert server.table.keys() == {(volume.context["share"], "10.9.9.9")}
    assert all(case.backend.repair(finding) for finding in found)
    assert server.table.keys() == {(volume.context["share"], "10.9.1.2")}
    assert list(case.backend.diagnose()) == []
    assert not any(case.backend.repair(finding) for finding in found)


def test_a_server_that_stopped_is_said(case: BackendCase, server: FakeServer) -> None:
    server.up = False
    assert [problem.reason for problem in case.backend.storage_health()] == ["ServerStopped"]


def test_content_that_is_gone_is_data_loss(case: BackendCase) -> None:
    volume = case.create("data", FILESYSTEM)
    shutil.rmtree(data(case, volume.handle))
    assert [problem.kind for problem in case.backend.volume_health(volume.handle)] == [HealthKind.DATA_LOSS]
    with pytest.raises(DataLoss):
        case.backend.publish_volume(PublishRequest(volume.handle, "node-a", RWX))


def test_a_broken_record_loses_nothing(case: BackendCase, tmp_path: Path) -> None:
    volume, other = case.create("data", FILESYSTEM), case.create("other", FILESYSTEM)
    (data(case, volume.handle) / "file").touch()
    record = tmp_path / "root/volumes" / volume.handle / "record.json"
    before = record.read_text(encoding="ascii")
    for broken in ("", "{", json.dumps({**json.loads(before), "key": other.handle})):
        record.write_text(broken, encoding="ascii")
        case.reopen()
        assert [found.handle for found in case.volumes()] == [other.handle]
        assert [(f.subject, f.repairable) for f in case.backend.diagnose()] == [(volume.handle, False)]
    record.write_text(before, encoding="ascii")
    case.reopen()
    assert case.backend.get_volume(volume.handle) == volume
    assert (data(case, volume.handle) / "file").exists()


def test_strangers_are_told_of_and_left(case: BackendCase, tmp_path: Path) -> None:
    stranger = tmp_path / "root/volumes/lost+found"
    stranger.mkdir()
    assert [finding.subject for finding in case.backend.diagnose()] == [str(stranger)]
    case.reopen()
    assert stranger.exists()


# -- another host, a crash --------------------------------------------------------------------------


def test_another_host_finds_everything(tmp_path: Path, server: FakeServer) -> None:
    with case_on(tmp_path, server, size_enforcement="none") as case:
        volume = case.create("data", FILESYSTEM)
        case.backend.publish_volume(PublishRequest(volume.handle, "node-a", RWX))
        snapshot = case.snapshot("snap", volume)
        before = case.volumes()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "root").rename(moved / "root")
    new_server = FakeServer()
    with case_on(moved, new_server, size_enforcement="none") as case:
        assert [v.handle for v in case.volumes()] == [v.handle for v in before]
        assert case.backend.get_snapshot(snapshot.handle) == snapshot
        assert new_server.table == {(str(data(case, volume.handle)), "10.9.1.2"): False}
        case.backend.unpublish_volume(volume.handle, "", case.secrets)


def test_what_was_being_made_is_thrown_away(case: BackendCase, tmp_path: Path) -> None:
    key = "v-" + "0" * 20
    (tmp_path / "root/new" / key / "data/sub").mkdir(parents=True)
    (tmp_path / "root/new" / key / "data/sub/file").touch()
    case.reopen()
    assert case.volumes() == []
    wait_for(lambda: not list((tmp_path / "root/trash").iterdir()))
    assert not list((tmp_path / "root/new").iterdir())


def wait_for(condition, timeout_s: float = 5.0) -> None:
    waited = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return
        waited.wait(0.02)
    raise AssertionError("not in time")


# -- copies -----------------------------------------------------------------------------------------


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


# -- quotas that are not as recorded ----------------------------------------------------------------


class CountingSizing(Unsized):
    """Limits that are only noted down."""

    counts = True

    def __init__(self) -> None:
        self.limits: dict[int, int] = {}
        self.on = True

    def enforced(self) -> bool:
        return self.on

    def make(self, parent: int) -> int:
        super().make(parent)
        return len(self.limits) + 1

    def limit(self, tree_id: int, limit_bytes: int) -> None:
        self.limits[tree_id] = limit_bytes

    def usage(self, tree_id: int) -> ProjectUsage:
        return ProjectUsage(0, self.limits.get(tree_id, 0), 0)


def test_limits_are_put_right(case: BackendCase) -> None:
    sizing = CountingSizing()
    case.backend._manager.get_plugin("tested")._mode._opened.sizing = sizing
    volume = case.create("data", FILESYSTEM)
    assert case.backend.expand_volume(volume.handle, SizeRange(2 * volume.size_bytes)) == 2 * volume.size_bytes
    assert sizing.limits == {1: 2 * volume.size_bytes}
    assert case.backend.volume_health(volume.handle) == ()
    sizing.limits[1] = 0
    assert [problem.reason for problem in case.backend.volume_health(volume.handle)] == ["QuotaDiffers"]
    (finding,) = case.backend.diagnose()
    assert case.backend.repair(finding)
    assert sizing.limits == {1: 2 * volume.size_bytes}
    sizing.on = False
    assert [problem.reason for problem in case.backend.storage_health()] == ["QuotaOff"]
