"""What a root is refused for, what another host or a later start finds in it, and what is left alone there."""

from __future__ import annotations

import errno
import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from fake_server import FakeServer, LocalNfs, case_on, data, options, wait_for

from backends.nfs.records import Record, read_record, write_record
from backends.nfs.trees import opened_directory
from csi_core.errors import ConfigError, StorageFailure, Unavailable
from csi_core.model import AccessMode, PublishRequest, VolumeCapability, VolumeMode
from csi_core.testing.contract import BackendCase, KitHost

FILESYSTEM = VolumeMode.FILESYSTEM
RWX = VolumeCapability(FILESYSTEM, AccessMode.MULTI_NODE_MULTI_WRITER)


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


def test_what_cannot_be_made_durable_is_not_there(case: BackendCase, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stood at its place already; the CO asks again, and a start finds one volume of that name."""
    storage = case.backend._manager.get_plugin("tested")._mode._opened

    def failing(directory: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(storage.sizing, "sync", failing)
        with pytest.raises(StorageFailure, match="Input/output error"):
            case.create("data", FILESYSTEM)
    assert storage.ledger.snapshot().reserved_bytes == 0
    volume = case.create("data", FILESYSTEM)
    case.reopen()
    assert [found.handle for found in case.volumes()] == [volume.handle]


def test_a_record_that_does_not_fit_on_the_disk_replaces_none(tmp_path: Path) -> None:
    """A full disk takes a part of what is written, and says so by the number of bytes only."""
    key, soft_and_hard = "v-" + "0" * 20, resource.getrlimit(resource.RLIMIT_FSIZE)
    record = Record(key, "data", 0, 0, 0, 0)
    with opened_directory(str(tmp_path)) as directory:
        write_record(directory, record)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, soft_and_hard[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                write_record(directory, replace(record, recorded={"long": "x" * 8192}))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, soft_and_hard)
        assert read_record(directory, key) == record
