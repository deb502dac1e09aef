"""The allow-lists for mount and mkfs options."""

from __future__ import annotations

import pytest

from csi_core.errors import InvalidArgument
from csi_core.node.mkfs_options import FILESYSTEMS, mkfs_command, mkfs_options
from csi_core.node.mount_options import DIRECTORY, MountOptions, contradiction, mount_options
from csi_core.node.mountinfo import parse

DANGEROUS = [
    "dev",
    "suid",
    "exec",
    "bind",
    "rbind",
    "move",
    "remount",
    "loop",
    "offset=4096",
    "subvol=x",
    "subvolid=5",
    "device=/dev/sda",
    "logdev=/dev/sda",
    "rtdev=/dev/sda",
    "journal_dev=1",
    "journal_path=/dev/sda",
    "errors=panic",
    "nobarrier",
    "barrier=0",
    "norecovery",
    "noload",
    "data=ordered=x",
    "user_id=0",
    "uid=0",
    "context=x",
    "x-systemd.automount",
    "_netdev",
    "commit",
    "commit=-1",
    "commit=1x",
    "allocsize=1q",
    "private",
    "shared",
    "ro=1",
    "NOATIME",
    "resuid=1",
    "sb=1",
]


@pytest.mark.parametrize("fs_type", [*FILESYSTEMS, DIRECTORY])
@pytest.mark.parametrize("option", DANGEROUS)
def test_what_could_do_harm_is_refused_by_name(fs_type: str, option: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        mount_options(fs_type, ("noatime", option))
    assert f"mount option '{option.partition('=')[0]}" in str(refused.value)
    allowed = str(refused.value).partition("allowed: ")[2].split(", ")
    assert {"noatime", "ro"} <= set(allowed)
    assert len(set(allowed)) == len(allowed), "each once"


def test_a_refusal_shows_no_value_that_may_be_a_password() -> None:
    with pytest.raises(InvalidArgument, match=r"'password=\*\*\*' is not allowed") as refused:
        mount_options("ext4", ("noatime,password=hunter2",))
    assert "hunter2" not in str(refused.value)
    with pytest.raises(InvalidArgument, match="'commit=soon' is not allowed"):
        mount_options("ext4", ("commit=soon",))


def test_options_are_told_apart() -> None:
    assert mount_options("ext4", ("noatime,commit=30", " nodev ", "rw", "")) == MountOptions(
        ("noatime", "nodev"), ("commit=30",), read_only=False
    )
    assert mount_options("ext4", ("ro",)).read_only
    assert mount_options("ext4", (), read_only=True).read_only
    assert mount_options("ext4", ("rw",), read_only=True).read_only, "an access mode is stronger than a flag"


def test_no_option_is_set_by_default_but_what_copies_need() -> None:
    assert mount_options("ext4", ()) == MountOptions()
    assert mount_options("btrfs", ()) == MountOptions()
    assert mount_options("xfs", ()).filesystem == ("nouuid",)
    assert mount_options("xfs", ("nouuid",)).filesystem == ("nouuid",)


@pytest.mark.parametrize(
    ("line", "fs_type", "flags", "differs"),
    [
        ("1 2 7:3 / /a rw,relatime - ext4 d rw", "ext4", (), ""),
        ("1 2 7:3 / /a rw,relatime - ext4 d rw,commit=30", "ext4", ("commit=30",), ""),
        ("1 2 7:3 / /a rw,relatime - ext4 d rw,commit=30", "ext4", (), "commit"),
        ("1 2 7:3 / /a rw,relatime - ext4 d rw", "ext4", ("commit=30",), "commit"),
        ("1 2 7:3 / /a rw,relatime - ext4 d rw,stripe=16", "ext4", (), ""),
        ("1 2 7:3 / /a rw,relatime - ext4 d rw,stripe=16", "ext4", ("stripe=32",), "stripe"),
        ("1 2 7:3 / /a rw,noatime - ext4 d rw", "ext4", ("noatime",), ""),
        ("1 2 7:3 / /a rw,noatime - ext4 d rw", "ext4", (), "noatime"),
        ("1 2 7:3 / /a rw - ext4 d rw", "ext4", ("strictatime",), ""),
        ("1 2 7:3 / /a rw,relatime - ext4 d rw", "ext4", ("noexec",), "noexec"),
        ("1 2 7:3 / /a ro,relatime - ext4 d rw", "ext4", (), "read-only"),
        ("1 2 7:3 / /a rw,relatime - ext4 d ro", "ext4", ("ro",), ""),
        ("1 2 7:3 / /a rw,relatime - xfs d rw,nouuid,logbufs=8,logbsize=32k,inode64", "xfs", (), ""),
        ("1 2 7:3 / /a rw,relatime - xfs d rw,nouuid,allocsize=1024k", "xfs", ("allocsize=1m",), ""),
        ("1 2 7:3 / /a rw,relatime - xfs d rw,nouuid,logbufs=8", "xfs", ("logbufs=4",), "logbufs"),
        ("1 2 7:3 / /a rw,relatime - btrfs d rw,ssd,compress=zstd:3", "btrfs", ("compress=zstd",), ""),
        ("1 2 7:3 / /a rw,relatime - btrfs d rw,ssd,compress=zstd:3", "btrfs", ("compress=zstd:5",), "compress"),
        ("1 2 7:3 / /a rw,relatime - ext4 d rw", "ext4", ("discard",), ""),
    ],
)
def test_what_is_mounted_against_what_is_asked_for(
    line: str, fs_type: str, flags: tuple[str, ...], differs: str
) -> None:
    said = contradiction(parse(line), mount_options(fs_type, flags))
    assert (differs in said) if differs else said == ""


@pytest.mark.parametrize(
    ("fs_type", "given", "words"),
    [
        ("ext4", ("-i 8192 -m 1",), ("-i", "8192", "-m", "1")),
        ("ext4", ("-i8192", "-O", "^has_journal,inline_data"), ("-i", "8192", "-O", "^has_journal,inline_data")),
        ("ext4", ("-E stride=16,stripe_width=64",), ("-E", "stride=16,stripe_width=64")),
        (
            "xfs",
            ("-b size=4096", "-d", "su=64k,sw=4", "-m reflink=1"),
            ("-b", "size=4096", "-d", "su=64k,sw=4", "-m", "reflink=1"),
        ),
        (
            "btrfs",
            ("--csum=xxhash", "--csum sha256", "-m single"),
            ("--csum", "xxhash", "--csum", "sha256", "-m", "single"),
        ),
        ("ext4", (), ()),
    ],
)
def test_mkfs_options_that_are_allowed(fs_type: str, given: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert mkfs_options(fs_type, given) == words


@pytest.mark.parametrize(
    ("fs_type", "given"),
    [
        ("ext4", "-L x"),
        ("ext4", "-U random"),
        ("ext4", "-d /etc"),
        ("ext4", "-J device=/dev/sda"),
        ("ext4", "-E offset=1"),
        ("ext4", "-E root_owner=0:0"),
        ("ext4", "-E"),
        ("ext4", "-m"),
        ("ext4", "-O quota,^nosuch"),
        ("ext4", "/dev/sda"),
        ("ext4", "-i 8192 100M"),
        ("ext4", "-i ;reboot"),
        ("xfs", "-d file,name=/x"),
        ("xfs", "-d size=1g"),
        ("xfs", "-l logdev=/dev/sda"),
        ("xfs", "-p /proto"),
        ("xfs", "-c options=/x"),
        ("btrfs", "-r /etc"),
        ("btrfs", "--rootdir=/etc"),
        ("btrfs", "-d raid1"),
        ("btrfs", "-L x"),
    ],
)
def test_mkfs_options_that_are_not(fs_type: str, given: str) -> None:
    with pytest.raises(InvalidArgument, match=f"not allowed for {fs_type}; allowed: "):
        mkfs_options(fs_type, given.split())


def test_the_defaults_give_way_and_extended_options_are_joined() -> None:
    argv = mkfs_command("ext4", "/dev/x", mkfs_options("ext4", ("-m 5 -E stride=16",)), keep_allocated=True, label="l")
    assert argv[argv.index("-E") + 1] == "nodiscard,lazy_itable_init=0,lazy_journal_init=0,stride=16"
    assert argv.count("-E") == 1
    assert argv.index("5") > argv.index("0"), "the last -m counts"
    assert argv[-1] == "/dev/x"


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
@pytest.mark.parametrize("keep_allocated", [True, False])
def test_nothing_is_ever_discarded_by_mkfs(fs_type: str, keep_allocated: bool) -> None:
    argv = " ".join(mkfs_command(fs_type, "/dev/x", (), keep_allocated, "l"))
    assert ("nodiscard" in argv) if fs_type == "ext4" else (" -K " in argv)
