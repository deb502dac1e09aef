from __future__ import annotations

import os
from pathlib import Path

import pytest

from csi_core.node.mountinfo import MountTable, canonical, escape, parse, unescape

TABLE = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
24 27 0:6 / /dev rw,relatime shared:2 - devtmpfs devtmpfs rw,size=12334460k
27 1 254:0 / / rw,relatime shared:1 master:3 propagate_from:4 - ext4 /dev/vda rw,discard
40 27 7:3 / /var/lib/a\040b/globalmount rw,noexec shared:9 - xfs /dev/loop3 rw,nouuid
41 27 7:3 / /pods/1/mount ro,noexec - xfs /dev/loop3 rw,nouuid
42 27 0:6 /loop4 /staging/device rw - devtmpfs devtmpfs rw
43 27 0:6 /loop4 /pods/2/dev rw - devtmpfs devtmpfs rw
44 27 0:6 /loop44 /pods/3/dev rw - devtmpfs devtmpfs rw
45 27 0:51 / /mnt/b rw - btrfs /dev/loop7 rw,subvol=/
46 27 7:3 / /pods/1/mount rw - xfs /dev/loop3 rw,nouuid
47 27 254:0 /srv/dir /pods/4/mount rw - ext4 /dev/vda rw
48 27 0:60 / /nfs rw - nfs4 server:/export/v\040w rw,vers=4.2
"""
TABLE += "49 27 7:33 / /odd\r\u2028path rw - ext4 /dev/loop33 rw\n"


@pytest.fixture
def table() -> MountTable:
    return MountTable(TABLE)


def test_a_line_with_every_optional_field() -> None:
    mount = parse(TABLE.splitlines()[2])
    assert (mount.id, mount.parent_id, mount.device, mount.root, mount.path) == (27, 1, "254:0", "/", Path("/"))
    assert (mount.fs_type, mount.source) == ("ext4", "/dev/vda")
    assert mount.super_options == {"rw", "discard"}
    assert not mount.read_only


def test_read_only_by_the_mount_or_by_its_filesystem() -> None:
    assert parse("1 2 7:3 / /a ro - xfs /dev/loop3 rw").read_only
    assert parse("1 2 7:3 / /a rw - xfs /dev/loop3 ro").read_only
    assert not parse("1 2 7:3 / /a rw,errors=remount-ro - ext4 /dev/loop3 rw").read_only


@pytest.mark.parametrize(
    "path", ["/plain", "/a b", "/tab\there", "/new\nline", "/back\\slash", "/\\040", "/#hash", "/ü"]
)
def test_paths_are_escaped_and_unescaped(path: str) -> None:
    assert unescape(escape(path)) == path
    assert not set(escape(path)) & set(" \t\n")


def test_the_top_of_a_stack(table: MountTable) -> None:
    assert [m.id for m in table.stack(Path("/pods/1/mount"))] == [41, 46]
    top = table.at(Path("/pods/1/mount"))
    assert top is not None
    assert top.id == 46
    assert table.at(Path("/pods/1")) is None
    assert table.at(Path("/var/lib/a b/globalmount")) is not None


def test_a_path_with_characters_that_split_lines(table: MountTable) -> None:
    assert table.at(Path("/odd\r\u2028path")) is not None


def test_all_that_shows_the_same(table: MountTable) -> None:
    assert [m.id for m in table.showing(("7:3", "/", ""))] == [40, 41, 46]
    assert [m.id for m in table.showing(("0:6", "/loop4", ""))] == [42, 43], "not /loop44"
    assert [m.id for m in table.of_node(Path("/dev/loop4"))] == [42, 43]


def test_a_directory_that_is_seen_at_two_paths_has_one_mount() -> None:
    table = MountTable(
        "30 1 254:0 / / rw - ext4 /dev/vda rw\n"
        "31 30 254:16 / /data rw shared:1 - ext4 /dev/vdb rw\n"
        "32 30 254:16 /kubelet /var/lib/kubelet rw shared:1 - ext4 /dev/vdb rw\n"
        "40 32 7:3 / /var/lib/kubelet/staging rw shared:2 - xfs /dev/loop3 rw\n"
        "41 31 7:3 / /data/kubelet/staging rw shared:2 - xfs /dev/loop3 rw\n"
        "42 32 7:3 / /var/lib/kubelet/pod rw shared:2 - xfs /dev/loop3 rw\n"
        "43 31 7:3 / /data/kubelet/pod rw shared:2 - xfs /dev/loop3 rw\n"
        "44 30 7:3 / /kubelet/staging rw shared:2 - xfs /dev/loop3 rw\n"
        "45 99 7:3 / /var/lib/kubelet/unseen rw shared:2 - xfs /dev/loop3 rw\n"
    )
    staged = table.at(Path("/var/lib/kubelet/staging"))
    assert staged is not None
    assert [m.id for m in table.elsewhere(staged)] == [42, 43, 44, 45], "44 is on a directory of another disk"


def test_a_directory_that_is_seen_at_two_paths_has_one_stack() -> None:
    table = MountTable(
        "31 1 254:16 / /data rw shared:1 - ext4 /dev/vdb rw\n"
        "32 1 254:16 /kubelet /kubelet rw shared:1 - ext4 /dev/vdb rw\n"
        "40 32 7:3 / /kubelet/staging rw shared:2 - xfs /dev/loop3 rw\n"
        "41 31 7:3 / /data/kubelet/staging rw shared:2 - xfs /dev/loop3 rw\n"
        "42 40 7:3 / /kubelet/staging rw shared:2 - xfs /dev/loop3 rw\n"
        "43 41 7:3 / /data/kubelet/staging rw shared:2 - xfs /dev/loop3 rw\n"
    )
    staged = table.at(Path("/kubelet/staging"))
    assert staged is not None
    assert table.elsewhere(staged) == ()


def test_two_volumes_of_one_export_are_two() -> None:
    """As two PersistentVolumes are, which two namespaces need for one export; binds share the group of their mount."""
    table = MountTable(
        "30 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n"
        "50 30 0:37 / /staging/1 rw shared:46 - nfs4 server:/data rw,vers=4.2\n"
        "51 30 0:37 / /pods/1 ro shared:46 - nfs4 server:/data rw,vers=4.2\n"
        "52 30 0:37 / /staging/2 rw master:3 shared:47 - nfs4 server:/data rw,vers=4.2\n"
        "53 30 0:37 / /pods/2 rw shared:47 - nfs4 server:/data rw,vers=4.2\n"
        "54 30 0:37 / /private rw - nfs4 server:/data rw,vers=4.2\n"
    )
    for staging_path, published in (("/staging/1", [51]), ("/staging/2", [53]), ("/private", [50, 51, 52, 53])):
        staged = table.at(Path(staging_path))
        assert staged is not None
        assert [m.id for m in table.elsewhere(staged)] == published


def test_what_a_mount_of_a_directory_would_show(table: MountTable) -> None:
    assert table.content_of(Path("/no/such/directory")) == ("254:0", "/no/such/directory", "")
    assert table.content_of(Path("/nfs/of/it")) == ("0:60", "/of/it", "server:/export/v w")
    assert table.content_of(Path("/pods/4/mount/of/it")) == ("254:0", "/srv/dir/of/it", "")
    assert table.content_of(Path("/pods/4/mount")) == ("254:0", "/srv/dir", "")


def test_shares_of_one_server_are_told_apart() -> None:
    table = MountTable(
        "50 30 0:37 / /staging/1 rw - nfs4 server:/data/1 rw,vers=4.2\n"
        "51 30 0:37 / /staging/2 rw - nfs4 server:/data/2 rw,vers=4.2\n"
        "52 30 0:37 / /pods/1 ro - nfs4 server:/data/1 rw,vers=4.2\n"
    )
    staged = table.at(Path("/staging/1"))
    assert staged is not None
    assert [m.id for m in table.showing(staged.content)] == [50, 52], "the device number is the server's"


def test_what_lies_on_a_share_is_known_without_touching_it() -> None:
    table = MountTable(
        "30 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "50 30 0:37 / /share rw - nfs4 server:/data rw\n"
        "51 50 7:1 / /share/images/1 rw - ext4 /dev/loop1 rw\n"
    )
    assert table.is_on_network(Path("/share/images"))
    assert not table.is_on_network(Path("/share/images/1/below"))
    assert not table.is_on_network(Path("/elsewhere"))


def test_a_share_by_its_remote(table: MountTable) -> None:
    assert [m.id for m in table.of_source("server:/export/v w")] == [48]


def test_a_device_by_its_number(table: MountTable, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"/dev/loop3": (7, 3), "/dev/loop7": (7, 7)}

    class Status:
        def __init__(self, number: int) -> None:
            self.st_rdev = number

    def stat(path: Path) -> Status:
        return Status(os.makedev(*numbers.get(str(path), (0, 0))))

    monkeypatch.setattr(Path, "stat", stat)
    assert [m.id for m in table.of_device(Path("/dev/loop3"))] == [40, 41, 46]
    assert [m.id for m in table.of_device(Path("/dev/loop7"))] == [45], "btrfs, by its source"


def test_filesystems_of_a_type(table: MountTable) -> None:
    assert [m.id for m in table.of_types(frozenset({"xfs", "btrfs"}))] == [45, 40, 41, 46]


def test_canonical_resolves_parents_only(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "last").symlink_to("/")
    assert canonical(tmp_path / "link" / "last") == tmp_path.resolve() / "real" / "last"
    assert canonical(tmp_path / "link" / "missing" / "x") == tmp_path.resolve() / "real" / "missing" / "x"


def test_the_real_table_can_be_read() -> None:
    table = MountTable.read()
    assert table.at(Path("/proc")) is not None
    assert len(table.all()) >= 2
