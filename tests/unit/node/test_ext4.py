"""How large an ext4 becomes on a device, as resize2fs and mkfs have it: their rule is found out here, not repeated."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from csi_core.node.ext4 import Superblock

pytestmark = [pytest.mark.needs_tool("mkfs.ext4"), pytest.mark.needs_tool("resize2fs")]

LAYOUTS = {
    "as mkfs has it": (4096, 32768, ("-b", "4096")),
    "small blocks": (1024, 8192, ("-b", "1024")),
    "few inodes": (4096, 32768, ("-b", "4096", "-i", "1048576")),
    "no room reserved to grow": (1024, 8192, ("-b", "1024", "-O", "^resize_inode")),
    "a copy in each group": (1024, 8192, ("-b", "1024", "-O", "^sparse_super,^resize_inode,^64bit,^flex_bg")),
}


def tool(*argv: object) -> None:
    subprocess.run([str(argument) for argument in argv], check=True, capture_output=True)


def made(image: Path, layout: str, groups: int, rest_blocks: int) -> int:
    """Make one on so many groups and the rest; answer the size of the image in bytes."""
    block_bytes, blocks_per_group, options = LAYOUTS[layout]
    boot_blocks = 4 if block_bytes == 1024 else 0  # one, which is in no group, and what makes a page of it
    size_bytes = (boot_blocks + groups * blocks_per_group + rest_blocks) * block_bytes
    image.unlink(missing_ok=True)
    image.touch()
    os.truncate(image, size_bytes)
    tool("mkfs.ext4", "-q", "-F", *options, image)
    return size_bytes


def grows(image: Path, layout: str, groups: int, rest_blocks: int) -> bool:
    """Whether resize2fs adds a last group of so many blocks; its answer is compared with ours."""
    block_bytes = LAYOUTS[layout][0]
    size_bytes = made(image, layout, groups, 0) + rest_blocks * block_bytes
    os.truncate(image, size_bytes)
    before = Superblock.read(image)
    tool("resize2fs", "-f", image)
    grown = Superblock.read(image).blocks > before.blocks
    assert before.fills(size_bytes) is not grown, f"{rest_blocks} blocks after {groups} groups"
    assert Superblock.read(image).fills(size_bytes), "there is no more to grow"
    return grown


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("groups", [1, 2, 3, 8, 9, 10])
def test_a_last_group_too_small_to_be_used(tmp_path: Path, layout: str, groups: int) -> None:
    image = tmp_path / "image"
    left_out, added = 0, LAYOUTS[layout][1] - 1
    assert grows(image, layout, groups, added)
    assert not grows(image, layout, groups, 1)
    while added - left_out > 1:
        middle = (left_out + added) // 2
        if grows(image, layout, groups, middle):
            added = middle
        else:
            left_out = middle
    assert added > 50


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rest_blocks", [0, 1, 60, 300, 562, 600, 1200, 3000])
def test_a_new_one_fills_its_device(tmp_path: Path, layout: str, rest_blocks: int) -> None:
    for groups in (1, 2, 3):
        size_bytes = made(tmp_path / "image", layout, groups, rest_blocks)
        assert Superblock.read(tmp_path / "image").fills(size_bytes), f"{rest_blocks} blocks after {groups} groups"
        longer = size_bytes + LAYOUTS[layout][0] * LAYOUTS[layout][1]
        assert not Superblock.read(tmp_path / "image").fills(longer)
