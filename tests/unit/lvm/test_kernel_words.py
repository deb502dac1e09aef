"""What the kernel and the thin pool's tools say, read."""

from __future__ import annotations

import pytest

from backends.lvm import blocks, devicemapper, fronts, pools
from backends.lvm.devicemapper import Target
from csi_core.model import BlockRange

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "data", "metadata", "mode", "queues"),
    [
        ("1 112/1024 0/16384 - rw no_discard_passdown queue_if_no_space - 256", 0, 112 / 1024, "rw", True),
        ("4 1024/1024 76/100 42 ro discard_passdown queue_if_no_space - 256", 0.76, 1, "ro", True),
        ("4 5/10 9/9 - out_of_data_space discard_passdown error_if_no_space - 256", 1, 0.5, "out_of_data_space", False),
        ("4 5/10 10/100 - rw discard_passdown error_if_no_space needs_check 256", 0.1, 0.5, "needs_check", False),
        ("Fail", 1, 1, "Fail", False),
        ("Error", 1, 1, "Error", False),
    ],
)  # fmt: skip
def test_thin_pool(text, data, metadata, mode, queues):
    status = pools._status(Target(0, 2048, "thin-pool", text))
    assert (status.total_bytes, status.mode, status.queues_when_full) == (MIB, mode, queues)
    assert (status.data_share, status.metadata_share) == (data, metadata)


DELTA = """<superblock uuid="" time="2" transaction="4" data_block_size="128" nr_data_blocks="0">
  <diff left="2" right="3">
    <same begin="0" length="5"/>
    <different begin="5" length="1"/>
    <left_only begin="6" length="2"/>
    <right_only begin="256" length="65"/>
"""
DUMP = """<superblock uuid="" time="2" transaction="4" flags="0" version="2" data_block_size="128" nr_data_blocks="0">
    <single_mapping origin_block="3" data_block="9" time="0"/>
    <range_mapping origin_begin="7" data_begin="12" length="4" time="1"/>
"""


def test_differences_and_mappings():
    assert [(int(m[1]), int(m[2])) for m in blocks._DIFFERENCE.finditer(DELTA)] == [(5, 1), (6, 2), (256, 65)]
    assert [(int(m[1] or m[2]), int(m[3] or 1)) for m in blocks._MAPPING.finditer(DUMP)] == [(3, 1), (7, 4)]


def test_ranges_are_joined_and_cut():
    found = blocks._merged([(0, 10), (10, 20), (30, 40), (95, 130), (140, 150)], 10, 100)
    assert list(found) == [BlockRange(10, 10), BlockRange(30, 10), BlockRange(95, 5)]
    assert list(blocks._merged([(0, 10)], 10, 100)) == []


def test_blocks_that_differ():
    before, after = bytes(16384), bytes(4096) + b"x" + bytes(16384 - 4097)
    assert list(blocks._differing(before, after, MIB)) == [(MIB + 4096, MIB + 8192)]
    assert list(blocks._differing(after, after, 0)) == []


def test_the_kernels_structures():
    """linux/dm-ioctl.h: a header of 312 bytes, 40 for each target."""
    assert devicemapper._HEADER.size == 312
    assert devicemapper._TARGET.size == 40


def test_a_fronts_uuid_has_no_suffix():
    lv = "LVM-ssTjNqo3RH80a4MSZ4yeAY58tXw6J3iyPCH8xoJq0LGdMo3Vds7mUUZrMPjdNBlk"
    front = fronts._uuid(lv)
    assert front != lv
    assert len(front) == len(lv)
    assert front.rpartition("-")[0] == "LVM"
    assert front[:36] == lv[:36]
