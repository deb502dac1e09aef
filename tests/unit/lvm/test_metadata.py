"""Reading a volume group's sequence number from its disks."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from backends.lvm import metadata

UUID = "ssTjNq-o3RH-80a4-MSZ4-yeAY-58tX-w6J3iy"
AREA_BYTES, AREA_SIZE = 4096, 1 << 20
MAGIC = b"\x20LVM2\x20x[5A%r0N*>"


def text(number: int, uuid: str = UUID) -> bytes:
    return f'vg-0 {{\nid = "{uuid}"\nseqno = {number}\nformat = "lvm2"\n}}\n'.encode().ljust(700, b"#")


def disk(path: Path, number: int, *, at: int = 512, uuid: str = UUID, sector: int = 1, areas: int = 1) -> str:
    """A disk as LVM lays it out, with its text at ``at`` within the metadata area."""
    image = bytearray(2 << 20)
    label = b"LABELONE" + struct.pack("<QII", sector, 0, 32) + b"LVM2 001"
    header = b"u" * 32 + struct.pack("<Q", 2 << 20)
    header += struct.pack("<QQQQ", 1 << 20, 0, 0, 0)
    header += struct.pack("<QQ", AREA_BYTES, AREA_SIZE) * areas + struct.pack("<QQ", 0, 0)
    image[sector * 512 : sector * 512 + 32 + len(header)] = label + header
    words = text(number, uuid)
    area = struct.pack("<I16sIQQ", 0, MAGIC, 1, AREA_BYTES, AREA_SIZE) + struct.pack("<QQII", at, len(words), 0, 0)
    image[AREA_BYTES : AREA_BYTES + len(area)] = area
    first = words[: AREA_SIZE - at]
    image[AREA_BYTES + at : AREA_BYTES + at + len(first)] = first
    image[AREA_BYTES + 512 : AREA_BYTES + 512 + len(words) - len(first)] = words[len(first) :]
    path.write_bytes(image)
    return str(path)


@pytest.mark.parametrize("sector", [0, 1, 3])
def test_read(tmp_path, sector):
    assert metadata.sequence_number(UUID, [disk(tmp_path / "a", 42, sector=sector)]) == 42


@pytest.mark.parametrize("left", [1, 10, 60, 100, 511])
def test_text_that_goes_round_the_ring(tmp_path, left):
    assert metadata.sequence_number(UUID, [disk(tmp_path / "a", 7, at=AREA_SIZE - left)]) == 7


def test_the_newest_of_all_disks(tmp_path):
    disks = [disk(tmp_path / str(number), number) for number in (3, 9, 5)]
    assert metadata.sequence_number(UUID, disks) == 9


def test_what_is_none_of_this_group(tmp_path):
    other = disk(tmp_path / "other", 99, uuid=UUID[::-1])
    blank = tmp_path / "blank"
    blank.write_bytes(bytes(8192))
    short = tmp_path / "short"
    short.write_bytes(b"LABELONE")
    without = disk(tmp_path / "without", 4, areas=0)
    unreadable = [other, str(blank), str(short), without, str(tmp_path / "missing")]
    assert metadata.sequence_number(UUID, unreadable) is None
    assert metadata.sequence_number(UUID, [*unreadable, disk(tmp_path / "ours", 4)]) == 4
