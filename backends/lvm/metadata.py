"""The sequence number of a volume group, read from its disks: whether anything has changed since the last report.

LVM counts every change of a group in ``seqno``, at the head of the metadata that each physical volume holds. Two small
reads for each disk take microseconds where a report takes a process and tens of milliseconds; so a report is kept until
the group really changes, whoever changed it. The format is LVM2's text format, version 1, which does not change:

========================  ==============================================================
sectors 0 to 3            a label: ``LABELONE``, type ``LVM2 001``, offset of the header
the header                the disk's UUID and size, then lists of (offset, size), each ended by zeros: data areas,
                          then metadata areas
a metadata area's sector  checksum, magic, version, start, size, then (offset, size, checksum, flags) of the text
the text                  ``NAME {``, ``id = "..."``, ``seqno = 42``, ...
========================  ==============================================================
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from typing import Final

__all__ = ["sequence_number"]

_SECTOR_BYTES: Final = 512
_LABEL_SECTORS: Final = 4
_HEAD_BYTES: Final = 4096
_MAGIC: Final = b"\x20LVM2\x20x[5A%r0N*>"
_SEQNO: Final = re.compile(rb"\A[A-Za-z0-9_+.-]+ \{\s+id = \"([A-Za-z0-9-]+)\"\s+seqno = (\d+)\s")


def sequence_number(group_uuid: str, devices: Iterable[str]) -> int | None:
    """The newest sequence number of a volume group on its disks.

    Args:
        group_uuid: other groups' metadata is not looked at.
        devices: paths of its physical volumes.

    Returns:
        None where no disk could be read as expected: the caller must ask LVM.
    """
    found = [number for device in devices if (number := _of_device(device, group_uuid)) is not None]
    return max(found, default=None)


def _of_device(device: str, group_uuid: str) -> int | None:
    try:
        disk = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        head = os.pread(disk, _HEAD_BYTES, 0)
        for area_bytes in _metadata_areas(head):
            if (number := _of_area(disk, area_bytes, group_uuid)) is not None:
                return number
    except (OSError, struct.error):
        pass
    finally:
        os.close(disk)
    return None


def _metadata_areas(head: bytes) -> list[int]:
    """Offsets in bytes of a disk's metadata areas."""
    for sector in range(_LABEL_SECTORS):
        label = head[sector * _SECTOR_BYTES : (sector + 1) * _SECTOR_BYTES]
        if label[:8] == b"LABELONE" and label[24:32] == b"LVM2 001":
            (offset,) = struct.unpack_from("<I", label, 20)
            position = sector * _SECTOR_BYTES + offset + 32 + 8
            position = _after_list(head, position)[0]
            return _after_list(head, position)[1]
    return []


def _after_list(head: bytes, position: int) -> tuple[int, list[int]]:
    """Where a list of (offset, size) ends, and its offsets."""
    offsets = []
    while (entry := struct.unpack_from("<QQ", head, position))[0]:
        offsets.append(entry[0])
        position += 16
    return position + 16, offsets


def _of_area(disk: int, area_bytes: int, group_uuid: str) -> int | None:
    header = os.pread(disk, _SECTOR_BYTES, area_bytes)
    _, magic, _, start, size = struct.unpack_from("<I16sIQQ", header)
    text_offset, text_size, _, _ = struct.unpack_from("<QQII", header, 40)
    if magic != _MAGIC or not text_offset or not text_size:
        return None
    text = os.pread(disk, min(_SECTOR_BYTES, size - text_offset), start + text_offset)
    if len(text) < min(_SECTOR_BYTES, text_size):  # the area is a ring, and the text goes on at its beginning
        text += os.pread(disk, _SECTOR_BYTES, start + _SECTOR_BYTES)
    match = _SEQNO.match(text)
    return int(match[2]) if match and match[1].decode() == group_uuid else None
