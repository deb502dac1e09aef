"""Files of exports, the running table, and what a start makes of both."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_server import FakeServer, LocalNfs, case_on, options

from backends.nfs.mutable import ExportMutable
from csi_core.errors import AlreadyExists, FailedPrecondition, NoSpace, NotFound
from csi_core.model import AccessMode, PublishRequest, VolumeCapability, VolumeMode
from csi_core.testing.contract import BackendCase

FILESYSTEM = VolumeMode.FILESYSTEM


def publish(case: BackendCase, handle: str, node_id: str, mode: AccessMode, *, read_only: bool = False) -> None:
    case.backend.publish_volume(PublishRequest(handle, node_id, VolumeCapability(FILESYSTEM, mode), read_only))


def modify(case: BackendCase, handle: str, **given: str) -> None:
    case.backend.modify_volume(handle, ExportMutable.model_validate(given), given)


def lines(tmp_path: Path) -> list[str]:
    return [file.read_text(encoding="ascii") for file in sorted((tmp_path / "exports.d").glob("*.exports"))]


def test_nobody_is_let_in_by_creating(case: BackendCase, server: FakeServer, tmp_path: Path) -> None:
    case.create("data", FILESYSTEM)
    assert server.calls == []
    assert lines(tmp_path) == []


def test_each_node_is_one_call_and_one_word_of_the_file(case: BackendCase, server: FakeServer, tmp_path: Path) -> None:
    volume, other = case.create("data", FILESYSTEM), case.create("other", FILESYSTEM)
    share = volume.context["share"]
    publish(case, other.handle, "node-a", AccessMode.SINGLE_NODE_WRITER)
    server.calls.clear()
    publish(case, volume.handle, "node-a", AccessMode.MULTI_NODE_MULTI_WRITER)
    publish(case, volume.handle, "node-b", AccessMode.MULTI_NODE_READER_ONLY)
    assert server.calls == [f"grant {share} 10.9.1.2", f"grant {share} 10.9.2.2"]
    assert server.table[share, "10.9.2.2"] is True
    assert server.table[share, "10.9.1.2"] is False
    line = next(line for line in lines(tmp_path) if line.startswith(share))
    assert " 10.9.1.2(rw," in line
    assert " 10.9.2.2(ro," in line
    assert line.count("fsid=") == 2
    assert len({option for option in line.replace(")", ",").split(",") if option.startswith("fsid=")}) == 1
    server.calls.clear()
    case.backend.unpublish_volume(volume.handle, "node-b", case.secrets)
    assert server.calls == [f"revoke {share} 10.9.2.2"]
    assert " 10.9.2.2(" not in next(line for line in lines(tmp_path) if line.startswith(share))


def test_modifying_exports_anew_and_takes_nothing_away(case: BackendCase, server: FakeServer, tmp_path: Path) -> None:
    volume, other = case.create("data", FILESYSTEM), case.create("other", FILESYSTEM)
    share = volume.context["share"]
    for handle in (volume.handle, other.handle):
        publish(case, handle, "node-a", AccessMode.MULTI_NODE_MULTI_WRITER)
    publish(case, volume.handle, "node-b", AccessMode.MULTI_NODE_READER_ONLY)
    server.calls.clear()
    modify(case, volume.handle, squash="all", writes="async")
    assert server.calls == [f"grant {share} 10.9.1.2", f"grant {share} 10.9.2.2"]
    assert server.options[share, "10.9.1.2"].startswith("rw,async,no_subtree_check,all_squash,")
    assert server.options[share, "10.9.2.2"].startswith("ro,async,no_subtree_check,all_squash,")
    assert ",no_root_squash," in server.options[other.context["share"], "10.9.1.2"]
    assert next(line for line in lines(tmp_path) if line.startswith(share)).count("rw,async,") == 1
    case.reopen()
    server.calls.clear()
    publish(case, volume.handle, "node-a", AccessMode.MULTI_NODE_MULTI_WRITER)
    assert server.calls == []
    assert dict(case.backend.get_volume(volume.handle).recorded_mutable) == {"squash": "all", "writes": "async"}


def test_what_was_changed_before_is_exported_so_later(case: BackendCase, server: FakeServer) -> None:
    volume = case.create("data", FILESYSTEM)
    modify(case, volume.handle, squash="root")
    assert server.calls == []
    publish(case, volume.handle, "node-a", AccessMode.SINGLE_NODE_WRITER)
    assert ",root_squash," in server.options[volume.context["share"], "10.9.1.2"]


def test_a_node_has_as_many_volumes_as_it_may(tmp_path: Path, server: FakeServer) -> None:
    given = {**options(tmp_path, size_enforcement="none"), "max_volumes_per_node": 2}
    (tmp_path / "root").mkdir()
    with BackendCase(lambda: LocalNfs(given, server)) as case:
        assert case.backend.description.max_volumes_per_node == 2
        handles = [case.create(f"data-{number}", FILESYSTEM).handle for number in range(3)]
        for handle in (*handles[:2], *handles[:2]):
            publish(case, handle, "node-a", AccessMode.SINGLE_NODE_WRITER)
        with pytest.raises(NoSpace, match="node-a has 2 volumes"):
            publish(case, handles[2], "node-a", AccessMode.SINGLE_NODE_WRITER)
        publish(case, handles[2], "node-b", AccessMode.SINGLE_NODE_WRITER)
        case.backend.unpublish_volume(handles[2], "node-b", case.secrets)
        case.backend.unpublish_volume(handles[0], "node-a", case.secrets)
        publish(case, handles[2], "node-a", AccessMode.SINGLE_NODE_WRITER)


def test_a_client_is_expired_with_its_last_volume_only(case: BackendCase, server: FakeServer) -> None:
    one, two = case.create("one", FILESYSTEM), case.create("two", FILESYSTEM)
    for volume in (one, two):
        publish(case, volume.handle, "node-a", AccessMode.SINGLE_NODE_WRITER)
    case.backend.unpublish_volume(one.handle, "node-a", case.secrets)
    assert server.expired == [set()]
    case.backend.unpublish_volume(two.handle, "node-a", case.secrets)
    assert server.expired == [set(), {"10.9.1.2"}]


def test_a_client_with_foreign_exports_is_never_expired(case: BackendCase, server: FakeServer) -> None:
    volume = case.create("data", FILESYSTEM)
    server.table["/home", "10.0.0.0/8"] = False
    publish(case, volume.handle, "node-a", AccessMode.SINGLE_NODE_WRITER)
    case.backend.unpublish_volume(volume.handle, "node-a", case.secrets)
    assert server.expired == []
    assert ("/home", "10.0.0.0/8") in server.table


@pytest.mark.parametrize(
    ("first", "second", "read_only", "allowed"),
    [
        (AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_WRITER, False, False),
        (AccessMode.SINGLE_NODE_WRITER, AccessMode.MULTI_NODE_MULTI_WRITER, False, False),
        (AccessMode.MULTI_NODE_MULTI_WRITER, AccessMode.SINGLE_NODE_READER_ONLY, False, False),
        (AccessMode.SINGLE_NODE_MULTI_WRITER, AccessMode.SINGLE_NODE_MULTI_WRITER, False, False),
        (AccessMode.MULTI_NODE_MULTI_WRITER, AccessMode.MULTI_NODE_MULTI_WRITER, False, True),
        (AccessMode.MULTI_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY, False, True),
        (AccessMode.MULTI_NODE_SINGLE_WRITER, AccessMode.MULTI_NODE_SINGLE_WRITER, False, False),
        (AccessMode.MULTI_NODE_SINGLE_WRITER, AccessMode.MULTI_NODE_SINGLE_WRITER, True, True),
    ],
)
def test_access_modes(
    case: BackendCase, server: FakeServer, first: AccessMode, second: AccessMode, read_only: bool, allowed: bool
) -> None:
    volume = case.create("data", FILESYSTEM)
    publish(case, volume.handle, "node-a", first)
    before = dict(server.table)
    if allowed:
        publish(case, volume.handle, "node-b", second, read_only=read_only)
    else:
        with pytest.raises(FailedPrecondition, match="node-a"):
            publish(case, volume.handle, "node-b", second, read_only=read_only)
        assert server.table == before


def test_other_arguments_are_refused(case: BackendCase) -> None:
    volume = case.create("data", FILESYSTEM)
    publish(case, volume.handle, "node-a", AccessMode.MULTI_NODE_MULTI_WRITER)
    for mode, read_only in ((AccessMode.MULTI_NODE_MULTI_WRITER, True), (AccessMode.SINGLE_NODE_WRITER, False)):
        with pytest.raises(AlreadyExists, match="node-a"):
            publish(case, volume.handle, "node-a", mode, read_only=read_only)


@pytest.mark.parametrize(
    ("node_id", "address"), [("192.0.2.7", "192.0.2.7"), ("fd00:0::7", "fd00::7"), ("::ffff:192.0.2.7", "192.0.2.7")]
)
def test_a_node_id_may_be_an_address(case: BackendCase, server: FakeServer, node_id: str, address: str) -> None:
    volume = case.create("data", FILESYSTEM)
    publish(case, volume.handle, node_id, AccessMode.SINGLE_NODE_WRITER)
    assert (volume.context["share"], address) in server.table


@pytest.mark.parametrize("node_id", ["", "node-z", "10.9.1.2)", "* (rw)", "10.0.0.0/8", "@all", "x" * 300, "\n", "ä"])
def test_what_is_no_node_gets_nothing(case: BackendCase, server: FakeServer, node_id: str) -> None:
    volume = case.create("data", FILESYSTEM)
    with pytest.raises(NotFound):
        publish(case, volume.handle, node_id, AccessMode.SINGLE_NODE_WRITER)
    assert server.table == {}


def test_a_start_makes_of_the_server_what_is_recorded(case: BackendCase, server: FakeServer, tmp_path: Path) -> None:
    volume, other = case.create("data", FILESYSTEM), case.create("other", FILESYSTEM)
    publish(case, volume.handle, "node-a", AccessMode.SINGLE_NODE_WRITER)
    before, table = lines(tmp_path), dict(server.table)
    directory = tmp_path / "exports.d"
    for file in directory.iterdir():
        file.unlink()
    foreign = directory / "csi-core.other.v-00000000000000000000.exports"
    foreign.write_text("/another 10.0.0.1(rw)\n", encoding="ascii")
    (directory / f"csi-core.tested.{other.handle}.exports").write_text("x", encoding="ascii")
    server.table = {("/home", "*"): False, (other.context["share"], "10.9.9.9"): False}
    server.refreshed = 0
    case.reopen()
    assert server.refreshed == 1, "the process before may have been killed between table and kernel"
    assert server.table == {**table, ("/home", "*"): False}
    assert sorted(lines(tmp_path)) == sorted([*before, "/another 10.0.0.1(rw)\n"])


def test_options_that_changed_are_exported_anew(tmp_path: Path, server: FakeServer) -> None:
    with case_on(tmp_path, server, size_enforcement="none") as case:
        volume = case.create("data", FILESYSTEM)
        publish(case, volume.handle, "node-a", AccessMode.SINGLE_NODE_WRITER)
    with case_on(tmp_path, server, size_enforcement="none", squash="root", subtree_check=True, sec="krb5p:krb5i"):
        options = server.options[volume.context["share"], "10.9.1.2"]
        assert {"root_squash", "subtree_check", "sec=krb5p:krb5i"} <= set(options.split(","))
        assert "root_squash" in lines(tmp_path)[0]


def test_an_export_of_all_volumes_at_once_ends_with_a_start(
    case: BackendCase, server: FakeServer, tmp_path: Path
) -> None:
    """Somebody has exported the directory that they are in: no record says so."""
    case.create("data", FILESYSTEM)
    server.table[str(tmp_path / "root/volumes"), "10.9.9.9"] = False
    assert [finding.repairable for finding in case.backend.diagnose()] == [True]
    case.reopen()
    assert server.table == {}


def test_a_node_that_has_another_address_by_now_is_let_in_from_there(tmp_path: Path, server: FakeServer) -> None:
    """The CO repeats its call; until it unpublishes the node, what that holds from the old address stays."""
    mode, given = AccessMode.SINGLE_NODE_WRITER, {"size_enforcement": "none"}
    with case_on(tmp_path, server, **given) as case:
        volume = case.create("data", FILESYSTEM)
        publish(case, volume.handle, "node-a", mode)
    share = volume.context["share"]
    moved = options(tmp_path, **given, node_addresses={"node-a": "10.9.1.9"}) | {"max_volumes_per_node": 1}
    with BackendCase(lambda: LocalNfs(moved, server)) as case:
        for _ in range(2):
            publish(case, volume.handle, "node-a", mode)
            assert server.table == {(share, "10.9.1.2"): False, (share, "10.9.1.9"): False}
        case.backend.unpublish_volume(volume.handle, "node-a", case.secrets)
        assert server.table == {}
        case.delete(volume)
