"""Raw block volumes: a device node bound to a file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from csi_core.errors import AlreadyExists, FailedPrecondition, NotFound
from csi_core.model import AccessMode, SizeRange
from csi_core.run import run
from csi_core.testing.devices import unmount_below

from .capabilities import block, filesystem
from .conftest import SIZE_BYTES, TIMEOUT_S, Node, losetup

pytestmark = pytest.mark.needs_root

BLOCK = b"\x5a" * 4096


def write(path: os.PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.pwrite(descriptor, BLOCK, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refused(path: os.PathLike[str]) -> bool:
    try:
        write(path)
    except OSError as error:
        assert error.errno in (errno.EPERM, errno.EACCES, errno.EROFS)
        return True
    return False


def test_the_whole_life_with_every_call_repeated(node: Node) -> None:
    for _ in range(2):
        node.stage(block())
    for _ in range(2):
        target = node.publish(block())
    assert stat.S_ISBLK(target.stat().st_mode)
    write(target)
    assert node.images.image("v").read_bytes()[:4096] == BLOCK
    (usage,) = node.volumes.stats(node.backend, "v", target)
    assert (usage.unit, usage.total, usage.used) == ("bytes", SIZE_BYTES, None)
    assert node.volumes.stats(node.backend, "v", node.staging())[0].total == SIZE_BYTES
    for _ in range(2):
        node.unpublish()
    assert not target.exists()
    for _ in range(2):
        node.unstage()
    assert list(node.staging().iterdir()) == []
    assert node.images.device("v") is None
    assert node.images.formatted == {}, "nobody formats a raw block volume"


def test_after_a_reboot(node: Node) -> None:
    node.stage(block())
    node.publish(block())
    node.reboot()
    with pytest.raises(FailedPrecondition, match="not staged"):
        node.publish(block())
    node.stage(block())
    write(node.publish(block()))
    node.reboot()
    node.unpublish()
    node.unstage()
    assert list(node.staging().iterdir()) == []


def test_growth(node: Node) -> None:
    node.stage(block())
    target = node.publish(block())
    wanted = SIZE_BYTES + (16 << 20)
    assert node.volumes.expand(node.backend, "v", target, SizeRange(wanted), block()) == wanted
    assert node.volumes.stats(node.backend, "v", target)[0].total == wanted


def test_read_only_holds_for_descriptors_opened_before(node: Node) -> None:
    node.stage(block())
    early = os.open(node.images.device("v"), os.O_RDWR)  # type: ignore[arg-type]
    try:
        target = node.publish(block(), read_only=True)
        assert refused(target)
        with pytest.raises(OSError, match="not permitted"):
            os.pwrite(early, BLOCK, 0)
    finally:
        os.close(early)
    assert not any(node.images.image("v").read_bytes()[:4096])


def test_read_only_and_writable_exclude_each_other_on_a_node(node: Node) -> None:
    node.stage(block())
    node.publish(block(), "reader", read_only=True)
    node.publish(block(), "reader", read_only=True)
    node.publish(block(), "reader-2", read_only=True)
    with pytest.raises(FailedPrecondition, match="read-only at"):
        node.publish(block(), "writer")
    with pytest.raises(AlreadyExists):
        node.publish(block(), "reader")
    node.unpublish("reader")
    node.unpublish("reader-2")
    writer = node.publish(block(), "writer")
    write(writer)
    with pytest.raises(FailedPrecondition, match="writable at"):
        node.publish(block(), "reader", read_only=True)
    write(writer)


def test_read_only_does_not_stay_with_the_device(node: Node) -> None:
    node.stage(block())
    device = node.images.device("v")
    assert device is not None
    node.publish(block(), read_only=True)
    node.unpublish()
    node.unstage()
    assert (Path("/sys/block") / device.name / "ro").read_text() == "0\n", "the next volume on it would be read-only"


def test_a_device_left_read_only_is_written_to_again(node: Node) -> None:
    node.stage(block())
    node.publish(block(), read_only=True)
    node.unpublish()
    unmount_below(node.staging())  # by hand, and without an unstage
    (node.staging() / "device").unlink()
    node.stage(filesystem())
    (node.publish(filesystem()) / "file").touch()


def test_reader_only_mode_attaches_read_only(node: Node) -> None:
    reader = block(AccessMode.MULTI_NODE_READER_ONLY)
    node.stage(reader)
    assert refused(node.publish(reader))


def test_once_only(node: Node) -> None:
    once = block(AccessMode.SINGLE_NODE_SINGLE_WRITER)
    node.stage(once)
    node.publish(once)
    node.publish(once)
    with pytest.raises(FailedPrecondition, match="one path only"):
        node.publish(once, "second")


def test_unstage_is_refused_while_published(node: Node) -> None:
    node.stage(block())
    node.publish(block())
    with pytest.raises(FailedPrecondition, match="still published"):
        node.unstage()
    assert node.images.device("v") is not None, "the device node in the pod must not become another volume's"


@pytest.mark.parametrize(("first", "second"), [(block(), filesystem()), (filesystem(), block())])
def test_one_mode_at_a_time(node: Node, first, second) -> None:  # type: ignore[no-untyped-def]
    node.stage(first)
    with pytest.raises(AlreadyExists, match="unstage it first"):
        node.stage(second)
    with pytest.raises(FailedPrecondition, match="not staged as"):
        node.publish(second)
    assert node.images.device("v") is not None
    node.publish(first)


def test_a_directory_at_the_target(node: Node) -> None:
    node.stage(block())
    node.target().mkdir(parents=True)
    with pytest.raises(FailedPrecondition, match="is directory"):
        node.publish(block())


def test_a_staged_device_that_became_another_volumes_is_not_handed_out(node: Node) -> None:
    node.images.make("other")
    node.stage(block())
    device = node.images.device("v")
    assert device is not None
    losetup("--detach", str(device))  # by hand: a bound node does not keep the device attached
    losetup("--sector-size", "4096", str(device), str(node.images.image("other")))
    node.stage(block(), "other")
    node.publish(block(), "others-pod", handle="other")
    others = node.target("others-pod")
    run(["blockdev", "--setro", str(others)], timeout_s=TIMEOUT_S, mutates=True)
    with pytest.raises(FailedPrecondition, match="is not volume v"):
        node.publish(block())
    with pytest.raises(NotFound):
        node.volumes.stats(node.backend, "v", node.staging())
    with pytest.raises(NotFound):
        node.volumes.expand(node.backend, "v", node.staging(), SizeRange(2 * SIZE_BYTES), block())
    with pytest.raises(AlreadyExists, match="not of this volume"):
        node.stage(block())
    node.unstage()
    assert refused(others), "the read-only mark is the other volume's"
    node.stage(block())
    write(node.publish(block()))
    assert node.images.image("v").read_bytes()[:4096] == BLOCK
    assert not any(node.images.image("other").read_bytes()[:4096])


def test_unstaging_another_path_does_not_detach(node: Node) -> None:
    node.stage(block())
    with pytest.raises(FailedPrecondition, match="still mounted at another path"):
        node.volumes.unstage(node.backend, "v", node.staging("elsewhere"))
    assert node.images.device("v") is not None
    write(node.publish(block()))
