"""Never over data, and never left unusable: mkfs cut off at any point, markers, and what else a device may hold."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csi_core.errors import Busy, DataLoss, FailedPrecondition, InvalidArgument
from csi_core.node import filesystems, growth, kernel, staging
from csi_core.node.filesystems import UNFINISHED, _run_alone
from csi_core.node.mkfs_options import mkfs_command
from csi_core.node.mountinfo import MountTable
from csi_core.run import Completed, run

from .capabilities import FILESYSTEMS, filesystem
from .conftest import SIZE_BYTES, TIMEOUT_S, Node, losetup

pytestmark = pytest.mark.needs_root

DOS_TABLE = r"\0\0\2\0\203\0\3\0\0\10\0\0\0\20\0\0" + r"\0" * 48 + r"\125\252"
"""One partition, and the mark at the end."""
PROMISE, PROMISE_AT = "Promise Technology, Inc.", SIZE_BYTES - 3087 * 512
"""Nothing else that blkid knows lies so far from both ends."""

CHECKS = {
    "ext4": ["e2fsck", "-f", "-n"],
    "xfs": ["xfs_repair", "-n"],
    "btrfs": ["btrfs", "check", "--readonly"],
}


def command(*argv: str) -> str:
    return run(argv, timeout_s=TIMEOUT_S, mutates=True).stdout


def attach(node: Node, handle: str = "v") -> Path:
    return Path(losetup("--find", "--show", "--sector-size", "4096", str(node.images.image(handle))))


def usable_and_sound(node: Node, fs_type: str) -> None:
    target = node.publish(filesystem(fs_type))
    (target / "file").write_bytes(b"content" * 10_000)
    node.unpublish()
    node.unstage()
    device = attach(node)
    command(*CHECKS[fs_type], str(device))
    losetup("--detach", str(device))


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
@pytest.mark.parametrize("before", FILESYSTEMS)
def test_an_mkfs_that_was_killed_anywhere_is_made_up_for(node: Node, fs_type: str, before: str) -> None:
    """Kills mkfs at points spread over its run, as the type of the last attempt, and stages as another type."""
    chance = random.Random(1)
    for _ in range(4):
        node.images.make("v")
        node.images.formatted.clear()
        device = attach(node)
        argv = mkfs_command(before, str(device), (), False, UNFINISHED)
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0) as mkfs:
            time.sleep(chance.uniform(0.0005, 0.02))
            mkfs.kill()
        node.stage(filesystem(fs_type))
        usable_and_sound(node, fs_type)
        node.images.image("v").unlink()


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
def test_a_complete_but_unfinished_filesystem_is_made_again(node: Node, fs_type: str) -> None:
    """The power failed after mkfs: all of it may be there, or all but what the disk had not written yet."""
    device = attach(node)
    command(*mkfs_command(fs_type, str(device), (), False, UNFINISHED))
    with device.open("r+b") as raw:  # lost writes, everywhere but in the superblocks
        raw.seek(2 << 20)
        raw.write(b"\xff" * (24 << 20))
    node.stage(filesystem(fs_type))
    usable_and_sound(node, fs_type)


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
def test_an_mkfs_that_outlived_its_driver_is_not_run_into(node: Node, fs_type: str) -> None:
    device = attach(node)
    gate = node.directory / "gate"
    os.mkfifo(gate)
    driver = os.fork()
    if driver == 0:  # a driver that is killed while its mkfs waits for the disk
        _run_alone(["sh", "-c", f"read go < {gate}; exec mkfs.{fs_type} -q -L {UNFINISHED} {device}"], device)
        os._exit(0)
    mkfs = only_child(driver, "sh")
    os.kill(driver, signal.SIGKILL)
    os.waitpid(driver, 0)
    with pytest.raises(Busy, match="still being formatted"):
        node.stage(filesystem(fs_type))
    assert node.images.formatted == {}
    assert node.images.device("v") == device, "Busy is not final: what is attached stays"
    gate.write_text("go\n")
    wait_for(lambda: state(mkfs) in ("", "Z"))
    node.stage(filesystem(fs_type))
    usable_and_sound(node, fs_type)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def only_child(parent: int, name: str) -> int:
    def children() -> list[int]:
        pids = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
        return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == name]

    wait_for(lambda: bool(children()))
    return children()[0]


def wait_for(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.005)


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
def test_what_an_administrator_brought_is_kept_and_marked(node: Node, fs_type: str) -> None:
    device = attach(node)
    command(f"mkfs.{fs_type}", "-q", "-L", "mine", str(device))
    place = node.directory / "place"
    place.mkdir()
    command("mount", str(device), str(place))
    (place / "file").write_text("precious")
    command("umount", str(place))
    staging = node.stage(filesystem(fs_type))
    assert (staging / "file").read_text() == "precious"
    assert node.images.formatted == {"v": fs_type}
    assert "mine" in command("blkid", "-p", str(device))


@pytest.mark.parametrize(
    ("argv", "holds"),
    [
        (["mkfs.xfs", "-q"], "xfs"),
        (["mkfs.btrfs", "-q"], "btrfs"),
        (["mkfs.ext2", "-q"], "ext2"),
        (["mkswap"], "swap"),
        (["sh", "-c", f'printf "{DOS_TABLE}" | dd of="$0" bs=1 seek=446 conv=notrunc status=none'], "partition table"),
        (["sh", "-c", 'printf "LUKS\\272\\276\\0\\1" | dd of="$0" conv=notrunc status=none'], "LUKS"),
        (["sh", "-c", f'printf "{PROMISE}" | dd of="$0" bs=1 seek={PROMISE_AT} conv=notrunc status=none'], "promise"),
    ],
)
def test_anything_else_is_never_formatted_over(node: Node, argv: list[str], holds: str) -> None:
    device = attach(node)
    command(*argv, str(device))
    os.sync()
    before = node.images.image("v").read_bytes()
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match=holds):
            node.stage(filesystem("ext4"))
    assert node.images.image("v").read_bytes() == before
    assert node.images.device("v") is None


@pytest.mark.parametrize("blkid", ["this one", "2.41"])
def test_two_signatures_are_not_formatted_over(node: Node, blkid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def finds_nothing(argv: list[str], **how: Any) -> Completed:
        return Completed("", "", 2, 0.0) if argv[0] == "blkid" else run(argv, **how)

    if blkid == "2.41":
        monkeypatch.setattr(filesystems, "run", finds_nothing)
    device = attach(node)
    command("mkfs.ext4", "-q", str(device))
    with device.open("r+b") as raw:
        raw.write(b"XFSB\0\0\x10\0")
    command("mkfs.btrfs", "-q", "-f", str(device))
    with device.open("r+b") as raw:
        raw.seek(1024 + 56)
        raw.write(b"\x53\xef")
    before = node.images.image("v").read_bytes()
    with pytest.raises(FailedPrecondition, match="signatures of"):
        node.stage(filesystem("ext4"))
    assert node.images.image("v").read_bytes() == before


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
def test_once_marked_never_again(node: Node, fs_type: str) -> None:
    node.stage(filesystem(fs_type))
    node.unstage()
    node.images.make("v")  # the storage lost it
    with pytest.raises(DataLoss, match="no filesystem at all"):
        node.stage(filesystem(fs_type))
    assert not any(node.images.image("v").read_bytes())
    device = attach(node)
    command(*mkfs_command("ext4" if fs_type != "ext4" else "xfs", str(device), (), False, "other"))
    with pytest.raises(DataLoss, match="recorded to hold"):
        node.stage(filesystem(fs_type))


def test_marked_wins_over_the_unfinished_label(node: Node) -> None:
    """The label came off in memory only when the power failed, and the marker was written."""
    staging = node.stage(filesystem())
    (staging / "file").write_text("kept")
    node.unstage()
    device = attach(node)
    command("tune2fs", "-L", UNFINISHED, str(device))
    assert (node.stage(filesystem()) / "file").read_text() == "kept"


def test_another_type_than_the_one_that_is_there(node: Node) -> None:
    node.stage(filesystem("ext4"))
    node.unstage()
    with pytest.raises(FailedPrecondition, match="holds ext4"):
        node.stage(filesystem("xfs"))


@pytest.mark.parametrize(
    ("fs_type", "options", "shown"),
    [
        ("ext4", ("-i", "65536", "-m", "1", "-E", "stride=16"), r"Inode count: +5\d\d\d\n"),
        ("ext4", ("-b 4096", "-I512"), "Inode size:[ \t]+512"),
        ("ext4", ("-O", "^metadata_csum"), "Block size:"),
    ],
)
def test_mkfs_options_reach_mkfs(node: Node, fs_type: str, options: tuple[str, ...], shown: str) -> None:
    node.images.mkfs_options = options
    node.stage(filesystem(fs_type))
    report = command("dumpe2fs", "-h", str(node.images.device("v")))
    assert re.search(shown, report)
    assert ("metadata_csum" in report) == ("^metadata_csum" not in options)


@pytest.mark.parametrize(
    "options", [("-L", "name"), ("-U", "random"), ("-n",), ("/dev/sda",), ("-E", "offset=4096"), ("-d", "/etc")]
)
def test_other_mkfs_options_are_refused(node: Node, options: tuple[str, ...]) -> None:
    node.images.mkfs_options = options
    with pytest.raises(InvalidArgument, match="allowed: "):
        node.stage(filesystem())
    assert node.images.image("v").stat().st_blocks == 0


def test_a_device_too_small_for_xfs(node: Node) -> None:
    node.images.make("v", 64 << 20)
    with pytest.raises(FailedPrecondition, match="300 MiB"):
        node.stage(filesystem("xfs"))
    assert node.images.device("v") is None


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
def test_preallocated_space_stays_allocated(node: Node, fs_type: str) -> None:
    node.images.keep_allocated = True
    image = node.images.image("v")
    with image.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, image.stat().st_size)
    allocated = image.stat().st_blocks
    node.stage(filesystem(fs_type))
    node.unstage()
    assert image.stat().st_blocks >= allocated


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
def test_a_copy_beside_its_source_with_a_dirty_journal_and_more_room(node: Node, fs_type: str) -> None:
    """A clone: same UUID, taken while the source was in use, twice as large."""
    node.stage(filesystem(fs_type))
    target = node.publish(filesystem(fs_type))
    (target / "file").write_text("from the source")
    os.sync()
    (target / "later").write_text("x")
    with node.volumes.frozen((node.images.device("v"),), 10.0):  # type: ignore[arg-type]
        command("cp", "--sparse=always", str(node.images.image("v")), str(node.images.image("copy")))
    wanted = 2 * node.images.image("v").stat().st_size
    os.truncate(node.images.image("copy"), wanted)
    node.images.formatted["copy"] = fs_type
    staging = node.stage(filesystem(fs_type), "copy")
    assert (staging / "file").read_text() == "from the source"
    status = os.statvfs(staging)
    assert status.f_blocks * status.f_frsize > wanted * 0.8, "a larger copy has a grown filesystem"
    (staging / "file").write_text("changed")
    assert (target / "file").read_text() == "from the source"
    node.unstage("copy")


def test_a_crash_image_has_its_journal_replayed(node: Node) -> None:
    for fs_type in FILESYSTEMS:
        node.images.make("v")
        node.images.formatted.clear()
        staging = node.stage(filesystem(fs_type))
        with (staging / "file").open("w") as file:
            file.write("synced")
            file.flush()
            os.fsync(file.fileno())
        command("cp", "--sparse=always", str(node.images.image("v")), str(node.images.image("crashed")))
        node.images.formatted["crashed"] = fs_type
        staging = node.stage(filesystem(fs_type), "crashed")
        assert (staging / "file").read_text() == "synced"
        node.unstage("crashed")
        node.unstage()


POINTS = ("after_attach", "before_mkfs", "after_mkfs", "after_label", "after_mark", "after_mount")


@pytest.mark.parametrize("fs_type", FILESYSTEMS)
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("power_cut", [False, True])
def test_a_stage_that_was_killed_at_any_point_is_repeated(
    node: Node, fs_type: str, point: str, power_cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = os.fork()
    if driver == 0:
        for module in (filesystems, kernel, staging):
            monkeypatch.setattr(module, "fault", lambda name: name == f"node.stage.{point}" and os.kill(os.getpid(), 9))
        node.stage(filesystem(fs_type))
        os._exit(0)
    _, status = os.waitpid(driver, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, "the point was not reached"
    mounted = MountTable.read().at(node.staging()) is not None
    assert mounted == (point == "after_mount"), "nothing is seen before it is complete"
    if point in ("after_mark", "after_mount"):
        node.images.formatted["v"] = fs_type  # the mark was made in the process that is gone
    if power_cut:
        node.reboot()
    node.stage(filesystem(fs_type))
    assert node.images.formatted == {"v": fs_type}
    usable_and_sound(node, fs_type)


def test_an_unmounted_growth_that_was_killed_anywhere_loses_nothing(node: Node) -> None:
    """Where the driver lacks CAP_SYS_RESOURCE, ext4 grows unmounted, which no journal protects."""
    chance = random.Random(2)
    for delay_s in [chance.uniform(0.0005, 0.03) for _ in range(8)]:
        node.images.make("v", 64 << 20)
        node.images.formatted.clear()
        (node.stage(filesystem()) / "file").write_bytes(b"content" * 100_000)
        node.unstage()
        os.truncate(node.images.image("v"), 2 << 30)
        device = attach(node)
        with subprocess.Popen(
            ["resize2fs", "-f", str(device)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as grower:
            time.sleep(delay_s)
            grower.kill()
        try:
            growth.grow_unmounted_ext4(device)
        except FailedPrecondition as error:  # seldom: the resize inode is half written
            assert f"e2fsck -f -y {device}" in str(error)
            run(["e2fsck", "-f", "-y", str(device)], timeout_s=TIMEOUT_S, mutates=True, ok_codes=frozenset({0, 1}))
        staging = node.stage(filesystem())
        assert (staging / "file").read_bytes() == b"content" * 100_000
        assert os.statvfs(staging).f_blocks * os.statvfs(staging).f_frsize > 1800 << 20
        usable_and_sound(node, "ext4")
