"""What a test can need of a kernel, and whether this one has it: probed, never concluded from a name or a version."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

__all__ = ["PROBES", "has", "in_guest"]

TARGETS = frozenset({"linear", "striped", "snapshot", "thin-pool", "raid", "flakey", "dust", "log-writes"})
CAP_SYS_ADMIN = 1 << 21
CAP_SYS_RESOURCE = 1 << 24


def in_guest() -> bool:
    """Whether this process runs in a guest that :mod:`guest_machine` has booted."""
    return os.environ.get("CSICORE_GUEST") == "1"


def has_device_mapper() -> bool:
    """Every target that a test uses."""
    if not _may(CAP_SYS_ADMIN):
        return False
    _load(*(f"dm-{target}" for target in TARGETS - {"linear", "striped"}), "dm-mod")
    answer = _output("dmsetup", "targets")
    return {line.split()[0] for line in answer.splitlines() if line} >= TARGETS


def has_nfs() -> bool:
    """A server and a client."""
    if not _may(CAP_SYS_ADMIN):
        return False
    _load("nfsd", "nfs", "nfsv4")
    known = Path("/proc/filesystems").read_text(encoding="ascii").split()
    return {"nfsd", "nfs4"} <= set(known)


def may_grow_mounted_ext4() -> bool:
    """The kernel asks for CAP_SYS_RESOURCE, which some containers and virtual machines keep from their root."""
    return _may(CAP_SYS_ADMIN | CAP_SYS_RESOURCE)


PROBES: dict[str, Callable[[], bool]] = {
    "device-mapper": has_device_mapper,
    "nfs": has_nfs,
    "ext4-growth": may_grow_mounted_ext4,
}


@cache
def has(feature: str) -> bool:
    """Whether this machine's kernel has a feature, one of ``PROBES``, and this process may use it."""
    return PROBES[feature]()


def _may(capabilities: int) -> bool:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return int(effective.split()[1], 16) & capabilities == capabilities


def _load(*modules: str) -> None:
    for module in modules:  # one that is built in, or not there, hinders no other
        _output("modprobe", "--quiet", module)


def _output(*argv: str) -> str:
    path = os.pathsep.join(["/usr/sbin", "/sbin", os.environ.get("PATH", "")])
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": path}).stdout
    except FileNotFoundError:
        return ""
