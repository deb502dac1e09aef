"""What is at the paths that a call names: other volumes, somebody's files, links, mounts on top, processes."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest

from csi_core.errors import AlreadyExists, Busy, FailedPrecondition
from csi_core.model import AccessMode, VolumeCapability
from csi_core.node.mountinfo import MountTable
from csi_core.node.requests import StageRequest

from .capabilities import block, filesystem
from .conftest import Node

pytestmark = pytest.mark.needs_root

ONCE = AccessMode.SINGLE_NODE_SINGLE_WRITER


def test_another_volume_at_the_same_target(node: Node) -> None:
    node.images.make("w")
    node.stage(filesystem())
    node.stage(filesystem(), "w")
    node.publish(filesystem())
    with pytest.raises(AlreadyExists, match="not of this volume"):
        node.publish(filesystem(), handle="w")
    node.unpublish()
    node.unstage()
    node.unstage("w")


def test_another_volume_at_the_same_staging_path(node: Node) -> None:
    node.images.make("w")
    node.stage(filesystem())
    request_path = node.staging("v")
    with pytest.raises(AlreadyExists, match="not of this volume"):
        node.volumes.stage(node.backend, StageRequest("w", request_path, filesystem()))
    assert node.images.device("w") is None, "what was attached for the refused call is let go"


def test_unstage_is_refused_while_published(node: Node) -> None:
    node.stage(filesystem())
    target = node.publish(filesystem())
    with pytest.raises(FailedPrecondition, match=str(target)):
        node.unstage()
    (target / "file").write_text("still there")


def test_unpublish_says_who_holds_it(node: Node) -> None:
    node.stage(filesystem())
    target = node.publish(filesystem())
    with (target / "open").open("w"), pytest.raises(FailedPrecondition, match=f"process {os.getpid()}"):
        node.unpublish()
    node.unpublish()


def test_what_is_looked_at_for_a_moment_is_waited_for(node: Node) -> None:
    node.stage(filesystem())
    looking = (node.publish(filesystem()) / "file").open("w")
    threading.Timer(0.3, looking.close).start()
    node.unpublish()
    assert looking.closed


def test_stacked_mounts_are_all_taken_away(node: Node) -> None:
    node.stage(filesystem())
    target = node.publish(filesystem())
    subprocess.run(["mount", "--bind", str(node.staging()), str(target)], check=True)
    node.unpublish()
    assert not target.exists()


def test_targets_that_are_not_ours(node: Node) -> None:
    node.stage(filesystem())
    target = node.target()
    target.mkdir(parents=True)
    (target / "precious").write_text("x")
    with pytest.raises(FailedPrecondition, match="not empty"):
        node.publish(filesystem())
    with pytest.raises(FailedPrecondition):
        node.unpublish()
    assert (target / "precious").exists()

    link = node.target("link")
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    with pytest.raises(FailedPrecondition, match="symbolic link"):
        node.publish(filesystem(), "link")
    with pytest.raises(FailedPrecondition, match="symbolic link"):
        node.unpublish("link")
    assert (target / "precious").exists()

    file = node.target("file")
    file.parent.mkdir(parents=True)
    file.write_text("content")
    with pytest.raises(FailedPrecondition, match="file with content"):
        node.publish(filesystem(), "file")
    with pytest.raises(FailedPrecondition, match="file with content"):
        node.unpublish("file")


def test_paths_through_a_link_and_with_blanks(node: Node) -> None:
    real = node.directory / "real dir\twith\\odd\nname"
    real.mkdir()
    link = node.directory / "link"
    link.symlink_to(real)
    node.directory = link  # as a kubelet directory that was moved to another disk
    node.stage(filesystem())
    for _ in range(2):
        target = node.publish(filesystem())
    (target / "file").write_text("x")
    assert (real / "targets" / "pod" / "mount" / "file").exists()
    node.unpublish()
    node.unstage()
    node.directory = real.parent
    assert not MountTable.read().of_types(frozenset({"ext4"})) or all(
        not m.path.is_relative_to(real) for m in MountTable.read().all()
    )


@pytest.mark.parametrize("capability", [filesystem(access_mode=ONCE), block(ONCE)], ids=["filesystem", "block"])
def test_a_kubelet_directory_that_is_seen_at_two_paths(
    node: Node, capability: VolumeCapability, request: pytest.FixtureRequest
) -> None:
    """Bound from a data disk, say: where mounts are shared, the kernel then lists each one below it twice."""
    disk, kubelet = node.directory / "disk", node.directory / "kubelet"
    for command in (
        ["mkdir", disk, kubelet],
        ["mount", "-t", "tmpfs", "none", disk],
        ["mount", "--make-shared", disk],
        ["mkdir", disk / "kubelet"],
        ["mount", "--bind", disk / "kubelet", kubelet],
    ):
        subprocess.run(command, check=True)
    here = Node(kubelet, node.images, node.backend)
    request.addfinalizer(lambda: subprocess.run(["umount", "-R", kubelet, disk], check=False))
    for _ in range(2):
        here.stage(capability)
    staged_path = here.staging() / "device" if capability == block(ONCE) else here.staging()
    table = MountTable.read()
    staged = table.at(staged_path)
    assert staged is not None
    assert len(table.showing(staged.content)) == 2
    for _ in range(2):
        here.publish(capability)
    with pytest.raises(FailedPrecondition, match="allows one path only"):
        here.publish(capability, "second")
    with pytest.raises(FailedPrecondition, match="still published"):
        here.unstage()
    here.unpublish()
    here.unstage()
    assert node.images.device("v") is None


def test_an_empty_missing_or_wrong_staging_path(node: Node) -> None:
    node.staging().rmdir()
    with pytest.raises(FailedPrecondition, match="must be a directory"):
        node.volumes.stage(node.backend, StageRequest("v", node.directory / "staging" / "v", filesystem()))
    assert node.images.device("v") is None


def test_a_call_for_a_path_that_is_busy_is_told_so(node: Node) -> None:
    node.stage(filesystem())
    inside, leave = threading.Event(), threading.Event()
    publish = node.volumes._mounts.bind

    def slow(*arguments: object) -> None:
        inside.set()
        leave.wait(10)
        publish(*arguments)  # type: ignore[arg-type]

    node.volumes._mounts.bind = slow  # type: ignore[method-assign]
    first = threading.Thread(target=node.publish, args=(filesystem(),))
    first.start()
    inside.wait(10)
    try:
        with pytest.raises(Busy, match="path"):
            node.publish(filesystem())
    finally:
        leave.set()
        first.join()
