"""The kernel's NFS server on this machine itself, so that a backend in the tests' own process manages its exports.

``hosts.py`` has servers on machines of their own; a backend reaches those only from a process in their namespaces. Here
the pseudo root matters again: mountd gets a root directory of its own in which everything can be exported.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hosts import until

__all__ = ["Disks", "local_server", "mounted"]

Disks = dict[str, Path]
"""Mounted filesystems with quotas, by their type."""

_MAKE = {
    "xfs": (("mkfs.xfs", "-q", "-f", "-K"), "prjquota"),
    "ext4": (("mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota,nodiscard"), "prjquota"),
    "btrfs": (("mkfs.btrfs", "-q", "-f", "-K"), "noatime"),
}
_BOUND = ("usr", "etc", "proc", "sys", "dev", "var", "run")
_LINKS = ("bin", "sbin", "lib", "lib64")


def command(*argv: str) -> str:
    """Run to its end, and fail with what it said."""
    finished = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, f"{' '.join(argv)}: {finished.stdout}{finished.stderr}"
    return finished.stdout


@contextmanager
def mounted(fs_type: str, device: Path, path: Path) -> Iterator[Path]:
    """A new filesystem that enforces sizes, for the time being."""
    make, options = _MAKE[fs_type]
    command(*make, str(device))
    path.mkdir(parents=True, exist_ok=True)
    command("mount", "-t", fs_type, "-o", options, str(device), str(path))
    try:
        if fs_type == "btrfs":
            command("btrfs", "quota", "enable", str(path))
        yield path
    finally:
        command("umount", "-l", str(path))


@contextmanager
def local_server(disks: dict[str, Path]) -> Iterator[Disks]:
    """Serve NFS, version 4.1 and 4.2, with a filesystem of each type on its disk below ``/srv``."""
    with ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="export-", dir=_existing(Path("/srv"))))
        found = {name: stack.enter_context(mounted(name, disk, base / name)) for name, disk in disks.items()}
        root = Path(tempfile.mkdtemp(prefix="export-root-"))
        subprocess.run(["modprobe", "-qa", "nfsd", "nfsv4"], check=False)
        command("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root))
        stack.callback(command, "umount", "-R", "-l", str(root))
        for name in _LINKS:
            (root / name).symlink_to(f"usr/{name}")
        if not os.path.ismount("/proc/fs/nfsd"):
            command("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
        Path("/var/lib/nfs").mkdir(parents=True, exist_ok=True)
        for name in ("etab", "rmtab"):
            (Path("/var/lib/nfs") / name).touch()
        for path in (*(Path("/", name) for name in _BOUND), *found.values()):
            inside = root / path.relative_to("/")
            inside.mkdir(parents=True)
            command("mount", "--rbind", str(path), str(inside))
            command("mount", "--make-rslave", str(inside))
        argv = ["chroot", str(root), "rpc.mountd", "--foreground", "--no-nfs-version", "3"]
        mountd = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        stack.callback(mountd.wait)
        stack.callback(mountd.terminate)
        command("rpc.nfsd", "--grace-time", "10", "--lease-time", "10", "--no-nfs-version", "3", "4")
        stack.callback(command, "rpc.nfsd", "0")
        stack.callback(command, "exportfs", "-ua")
        until(lambda: Path("/proc/fs/nfsd/threads").read_text(encoding="ascii").strip() == "4", "nfsd runs")
        yield found


def _existing(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
