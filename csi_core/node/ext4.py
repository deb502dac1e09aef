"""How large an ext4 is, and how large it can become, from its superblock: mounted or not, without a child process."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

__all__ = ["Superblock"]

_OFFSET: Final = 1024
_BYTES: Final = 1024
_SPARSE_SUPER: Final = 0x1
_64BIT: Final = 0x80
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_LEAST_FREE_BLOCKS: Final = 50
"""What mkfs and resize2fs want to be left in the last block group beside its own tables, or they leave it out."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """What an ext4 says of its layout."""

    block_bytes: int
    blocks: int
    first_block: int
    blocks_per_group: int
    inode_table_blocks: int
    descriptors_per_block: int
    reserved_descriptor_blocks: int
    every_group_has_copy: bool

    @classmethod
    def read(cls, device: Path) -> Self:
        """That of the filesystem on a device or in a file."""
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            raw = os.pread(descriptor, _BYTES, _OFFSET)
        finally:
            os.close(descriptor)
        (low, first_block, log_block_bytes) = struct.unpack_from("<I12xII", raw, 0x4)
        (blocks_per_group, inodes_per_group) = struct.unpack_from("<I4xI", raw, 0x20)
        (incompatible, ro_compatible) = struct.unpack_from("<II", raw, 0x60)
        (inode_bytes,) = struct.unpack_from("<H", raw, 0x58)
        (reserved,) = struct.unpack_from("<H", raw, 0xCE)
        (descriptor_bytes,) = struct.unpack_from("<H", raw, 0xFE) if incompatible & _64BIT else (32,)
        (high,) = struct.unpack_from("<I", raw, 0x150) if incompatible & _64BIT else (0,)
        block_bytes = 1024 << log_block_bytes
        return cls(
            block_bytes=block_bytes,
            blocks=low | high << 32,
            first_block=first_block,
            blocks_per_group=blocks_per_group,
            inode_table_blocks=-(-inodes_per_group * inode_bytes // block_bytes),
            descriptors_per_block=block_bytes // descriptor_bytes,
            reserved_descriptor_blocks=reserved,
            every_group_has_copy=not ro_compatible & _SPARSE_SUPER,
        )

    def fills(self, device_bytes: int) -> bool:
        """Whether it has all of a device that mkfs and resize2fs give it.

        They leave out a last block group without room for files, and what is no whole page.
        """
        blocks = device_bytes // _PAGE_BYTES * _PAGE_BYTES // self.block_bytes
        groups, rest = divmod(blocks - self.first_block, self.blocks_per_group)
        if groups and rest < self._group_overhead_blocks(groups) + _LEAST_FREE_BLOCKS:
            blocks -= rest
        return self.blocks >= blocks

    def _group_overhead_blocks(self, group: int) -> int:
        """What the last group, of this number, has of bitmaps and tables, and of copies of the filesystem's own."""
        overhead = 2 + self.inode_table_blocks
        if self.every_group_has_copy or _is_power_of_3_5_or_7(group):
            overhead += 1 + -(-(group + 1) // self.descriptors_per_block) + self.reserved_descriptor_blocks
        return overhead


def _is_power_of_3_5_or_7(group: int) -> bool:
    for prime in (3, 5, 7):
        power = 1
        while power < group:
            power *= prime
        if power == group:
            return True
    return False
