"""A volume group for tests, on real disks, and what tests ask of it by hand."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CONFIG = (
    "activation { udev_sync=0 udev_rules=0 monitoring=0 } backup { backup=0 archive=0 } "
    'devices { obtain_device_list_from_udev=0 external_device_info_source="none" }'
)
MIB = 1 << 20
DEVICES_DEEP = 6
"""So many lie on each other at most: front, LV, pool, its data, a RAID image below that."""
BLKZEROOUT = 0x127F
"""The kernel's request to have a range of a device read as zeros."""


def lvm(*argv: str) -> str:
    """Run a command of LVM's by hand, as an administrator would."""
    answer = subprocess.run(
        [argv[0], "--config", CONFIG, *argv[1:]],
        env={"LVM_SUPPRESS_FD_WARNINGS": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, f"{argv}: {answer.stderr}"
    return answer.stdout


def volumes(group: str, fields: str = "lv_name,lv_size,lv_attr,lv_tags") -> dict[str, dict[str, str]]:
    """The visible LVs of a group by name."""
    said = lvm("lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields, group)
    return {line["lv_name"]: line for line in json.loads(said)["report"][0]["lv"]}


@contextmanager
def volume_group(
    disks: Sequence[Path], name: str, size_bytes: int = 4 << 30, metadata_bytes: int = MIB
) -> Iterator[str]:
    """A new volume group on the first ``size_bytes`` of each disk, which read as zeros; room for its metadata."""
    sizes = ("--setphysicalvolumesize", f"{size_bytes}b", "--metadatasize", f"{metadata_bytes}b")
    for disk in disks:
        lvm("pvcreate", "-y", "-ff", *sizes, str(disk))
    lvm("vgcreate", name, *map(str, disks))
    try:
        yield name
    finally:
        clear(name)
        lvm("vgremove", "-y", name)
        for disk in disks:
            lvm("pvremove", "-y", "-ff", str(disk))


def clear(group: str, keep: Sequence[str] = ()) -> None:
    """Take away all LVs but ``keep``; without it, what may have been written to reads as zeros again."""
    if keep:
        lvm("lvremove", "-y", "-f", "-S", " && ".join(f"lv_name!={lv}" for lv in keep), group)
        return
    said = lvm(
        "pvs", "--reportformat", "json", "--units", "b", "--nosuffix", "--segments", "-S", f"vg_name={group}",
        "-o", "pv_name,pe_start,pvseg_start,pvseg_size,lv_name,lv_attr,lv_tags,vg_extent_size",
    )  # fmt: skip
    found = [line for line in json.loads(said)["report"][0]["pvseg"] if line["lv_name"]]
    if not found:
        return
    lvm("lvremove", "-y", "-f", group)
    for line in found:
        if line["lv_attr"][0] == "-" and "csi.blank=1" in line["lv_tags"]:
            continue  # never attached
        extent = int(line["vg_extent_size"])
        start = int(line["pe_start"]) + int(line["pvseg_start"]) * extent
        with Path(line["pv_name"]).open("r+b", buffering=0) as disk:
            fcntl.ioctl(disk, BLKZEROOUT, struct.pack("QQ", start, int(line["pvseg_size"]) * extent))


def forget_devices(group: str) -> None:
    """What a power cut does: no device of the group is there any more, and no state of LVM's outside its disks."""
    prefix = f"{group.replace('-', '--')}-"
    for _ in range(DEVICES_DEEP):
        for name in dmsetup("ls").split()[::2]:
            if name.startswith(prefix):
                dmsetup("remove", name, check=False)  # one that others lie on refuses, and goes in a later round
    assert prefix not in dmsetup("ls")
    for state in ("/run/lvm", f"/dev/{group}"):
        shutil.rmtree(state, ignore_errors=True)


def dmsetup(*arguments: str, check: bool = True) -> str:
    """Run dmsetup, and answer what it says."""
    environment = {**os.environ, "DM_DISABLE_UDEV": "1"}
    return subprocess.run(["dmsetup", *arguments], env=environment, check=check, capture_output=True, text=True).stdout
