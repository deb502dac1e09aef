"""A volume group for tests, on real disks, and what tests ask of it by hand."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CONFIG = (
    "activation { udev_sync=0 udev_rules=0 monitoring=0 } backup { backup=0 archive=0 } "
    'devices { obtain_device_list_from_udev=0 external_device_info_source="none" }'
)
MIB = 1 << 20


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
    """Take away all LVs but ``keep``, and zero the start of each disk as far as they reached."""
    said = lvm(
        "pvs", "--reportformat", "json", "--units", "b", "--nosuffix", "--segments", "-S", f"vg_name={group}",
        "-o", "pv_name,pe_start,pvseg_start,pvseg_size,lv_name,vg_extent_size",
    )  # fmt: skip
    found = json.loads(said)["report"][0]["pvseg"]
    if {line["lv_name"] for line in found} <= {"", *keep}:
        return
    extent = int(found[0]["vg_extent_size"])
    lvm("lvremove", "-y", "-f", *(f"{group}/{lv}" for lv in volumes(group) if lv not in keep))
    begin: dict[str, int] = {}
    reach: dict[str, int] = {}
    for line in found:
        if line["lv_name"]:
            begin[line["pv_name"]] = int(line["pe_start"])
            end = int(line["pe_start"]) + (int(line["pvseg_start"]) + int(line["pvseg_size"])) * extent
            reach[line["pv_name"]] = max(reach.get(line["pv_name"], 0), end)
    if keep:
        return
    for device, end in reach.items():
        first = begin[device]  # before it lies the group's metadata
        subprocess.run(["blkdiscard", "-f", "-z", "-o", str(first), "-l", str(end - first), device], check=True)
