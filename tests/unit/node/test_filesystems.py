"""The order of steps around mkfs, which no test on a device that keeps its power can see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from csi_core.model import BlockSource
from csi_core.node import filesystems
from csi_core.node.filesystems import UNFINISHED, Signature

HEAD_BYTES = 4 << 20


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "device"
    path.write_bytes(b"\xff" * (2 * HEAD_BYTES))
    return path


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, device: Path) -> list[str]:
    """What was done to the device; mkfs finds its head blank, or not."""
    done: list[str] = []

    def run(argv: list[str], *, mutates: bool, **_: Any) -> None:
        head = "blank" if not any(device.read_bytes()[:HEAD_BYTES]) else "old"
        done.append(f"{'mkfs' if mutates and 'mkfs.ext4' in argv else argv} on {head} head")

    monkeypatch.setattr(filesystems, "run", run)
    monkeypatch.setattr(filesystems, "sync", lambda path: done.append(f"sync {path.name}"))
    monkeypatch.setattr(filesystems, "fault", lambda point: done.append(point.rpartition(".")[2]))
    return done


def test_a_filesystem_is_on_the_disk_before_it_counts_as_made(device: Path, steps: list[str]) -> None:
    """The marker says "never again": written before the filesystem is durable, it would lock out an empty device."""
    filesystems.make(BlockSource(device, 1 << 30), "ext4", None)
    assert steps == ["before_mkfs", "mkfs on old head", "sync device", "after_mkfs"]


def test_no_superblock_of_an_unfinished_filesystem_is_left_for_another_type(device: Path, steps: list[str]) -> None:
    """mkfs overwrites most of them; btrfs's, 64 KiB from the start, it may leave, and two are none to blkid."""
    filesystems.make(BlockSource(device, 1 << 30), "ext4", Signature("btrfs", UNFINISHED, "btrfs (filesystem)"))
    assert steps == ["before_mkfs", "mkfs on blank head", "sync device", "after_mkfs"]
    assert device.read_bytes()[HEAD_BYTES:] == b"\xff" * HEAD_BYTES
