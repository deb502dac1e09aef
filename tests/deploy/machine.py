"""A machine for pods: the host's paths, and containers with namespaces of their own, as a runtime makes them.

A container gets exactly the mounts that its pod asks for, with their propagation, at exactly their paths. Only the
host's side of a path is elsewhere, below the machine's directory, so that this machine's own /var/lib/kubelet is safe.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from image import Image

from csi_core.testing.devices import unmount_below

__all__ = ["Container", "Machine", "Mount", "machine"]

REAL = ("/dev", "/sys", "/proc", "/run/udev", "/lib/modules")
"""There is only one kernel."""

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 60.0
# What a runtime puts into a container's own /dev where the pod does not mount the host's.
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


@dataclass(frozen=True)
class Mount:
    """One volumeMount: a path of this machine at a path of the container."""

    source: Path
    path: str
    read_only: bool = False
    propagation: str = "None"


@dataclass
class Machine:
    """Where host paths lie; ``root`` is a mount whose mounts propagate, as a node's "/" is.

    ``real`` are host paths that are this machine's own.
    """

    root: Path
    real: Sequence[str] = REAL
    containers: list[Container] = field(default_factory=list)

    def host_path(self, path: str) -> Path:
        """What a pod's hostPath means here."""
        real = any(Path(path).is_relative_to(kept) for kept in self.real)
        return Path(path) if real else self.root / path.lstrip("/")

    def start(
        self,
        image: Image,
        argv: Sequence[str],
        env: Mapping[str, str],
        mounts: Sequence[Mount],
        *,
        read_only: bool,
        host_network: bool = False,
    ) -> Container:
        """Start a container; see :class:`Container`."""
        scratch = self.root.with_name(f"{self.root.name}-container-{len(self.containers)}")
        container = Container(image, argv, env, mounts, scratch, read_only=read_only, host_network=host_network)
        self.containers.append(container)
        container.start()
        return container


@contextmanager
def machine(*real: str) -> Iterator[Machine]:
    """A machine with nothing on it; what is mounted and running on it ends with it.

    Args:
        real: host paths that are this machine's own, because its kernel or a daemon on it works with them.
    """
    # The path is short: a socket's may have 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="csi-node-", dir="/tmp"))
    made = Machine(root, (*REAL, *real))
    _command("mount", "--bind", root, root)
    _command("mount", "--make-shared", root)
    try:
        yield made
        left = loop_devices_over(root)
    finally:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, root)
            stack.callback(_detach_loop_devices_over, root)
            stack.callback(unmount_below, root)
            for container in made.containers:
                stack.callback(container.remove)
    assert not left, f"pods are gone, and the node still has {left}"


def loop_devices_over(directory: Path) -> list[str]:
    """Loop devices whose files lie below a directory; by inode, since their paths are those of a container."""
    files = {(path.stat().st_dev, path.stat().st_ino) for path in directory.rglob("*.img")}
    columns = ["--list", "--json", "--output", "NAME,BACK-MAJ:MIN,BACK-INO"]
    listed = subprocess.run(["losetup", *columns], capture_output=True, text=True, check=True).stdout
    devices = json.loads(listed or '{"loopdevices": []}')["loopdevices"]
    return [device["name"] for device in devices if _backing_file(device) in files]


def _backing_file(device: Mapping[str, Any]) -> tuple[int, int]:
    major, minor = map(int, device["back-maj:min"].split(":"))
    return os.makedev(major, minor), int(device["back-ino"])


def _detach_loop_devices_over(directory: Path) -> None:
    for device in loop_devices_over(directory):
        _command("losetup", "--detach", device)


class Container:
    """A process in mount, process and host name namespaces of its own, on a writable layer over an image.

    Args:
        image: its root filesystem and default environment.
        argv: the command, looked up on the image's PATH.
        env: on top of the image's.
        mounts: besides /proc, /sys and a small /dev.
        scratch: a directory to be made, for its layer and its log.
        read_only: whether its root filesystem is.
        host_network: whether it shares this machine's network; else it has none but its own loopback.
    """

    def __init__(
        self,
        image: Image,
        argv: Sequence[str],
        env: Mapping[str, str],
        mounts: Sequence[Mount],
        scratch: Path,
        *,
        read_only: bool,
        host_network: bool,
    ) -> None:
        self._argv = argv
        self._env = {**image.env, **env}
        self._mounts = mounts
        self._image = image
        self._read_only = read_only
        self._namespaces = ["--mount", "--pid", "--uts", *([] if host_network else ["--net"])]
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None
        scratch.mkdir()
        # Mounts below a private mount stay in the namespace in which they are made.
        _command("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", scratch)
        _command("mount", "--make-private", scratch)
        self._log = scratch / "log"

    def start(self) -> None:
        """Start it (again), with an empty layer, as a restarted container has."""
        for name in ("upper", "work", "root"):
            shutil.rmtree(self._scratch / name, ignore_errors=True)
            (self._scratch / name).mkdir()
        unshare = ["unshare", *self._namespaces, "--fork", "--kill-child", "--propagation", "unchanged"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*unshare, "sh", "-euc", "\n".join(self._entering())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _entering(self) -> Iterator[str]:
        if "--net" in self._namespaces:
            yield "ip link set lo up"
        root = self._scratch / "root"
        layers = f"lowerdir={self._image.rootfs},upperdir={self._scratch}/upper,workdir={self._scratch}/work"
        yield shlex.join(["mount", "-t", "overlay", "-o", layers, "overlay", str(root)])
        yield shlex.join(["mount", "-t", "proc", "proc", f"{root}/proc"])
        yield from _bound(root, Mount(Path("/sys"), "/sys"))
        if not any(mount.path == "/dev" for mount in self._mounts):
            yield shlex.join(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", f"{root}/dev"])
            for name, (major, minor) in DEVICES.items():
                yield f"mknod -m 666 {root}/dev/{name} c {major} {minor}"
        # A mount point may lie in another mount.
        for mount in sorted(self._mounts, key=lambda mount: mount.path):
            yield from _bound(root, mount)
        if self._read_only:
            yield shlex.join(["mount", "-o", "remount,bind,ro", str(root)])
        # Leave the machine's own tree, without taking down what it shares with this namespace.
        yield shlex.join(["cd", str(root)])
        yield "pivot_root . mnt; mount --make-rslave /mnt; umount -l /mnt"
        assignments = [f"{name}={value}" for name, value in self._env.items()]
        yield shlex.join(["exec", "env", "--ignore-environment", "--chdir=/", *assignments, *self._argv])

    @property
    def pid(self) -> int:
        """Its first process, by this machine's numbers; 0 when there is none."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return int((children.read_text(encoding="ascii").split() or ["0"])[0])

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """SIGTERM, as kubelet stops a container, and SIGKILL if that takes too long; answer its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL, as the kernel ends one that is out of memory."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self.running and (pid := self.pid):
            os.kill(pid, number)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGKILL)
            self._process.wait()
            raise

    def run(self, *argv: str) -> str:
        """Run a command in it, as ``kubectl exec`` does, and answer its standard output."""
        entered = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--uts", "--net", "--root", "--wd"]
        assignments = [f"{name}={value}" for name, value in self._env.items()]
        command = [*entered, "env", "--ignore-environment", *assignments, *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait(self) -> int:
        """Its exit status, once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(STOP_TIMEOUT_S)

    def remove(self) -> None:
        """Stop it, and remove its layer and its log."""
        try:
            self.stop()
        finally:
            unmount_below(self._scratch)
            self._scratch.rmdir()

    def log(self) -> str:
        """What it has written to its standard output and error."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for_answer(self, path: Path) -> None:
        """Wait until it listens on the socket that it makes; a killed one leaves its socket behind, and it is deaf."""
        ends_at = time.monotonic() + START_TIMEOUT_S
        while not _answers(path):
            assert self.running, f"the container ended with {self._process.returncode}:\n{self.log()}"  # type: ignore[union-attr]
            assert time.monotonic() < ends_at, f"nobody listens on {path} after {START_TIMEOUT_S} s:\n{self.log()}"
            time.sleep(0.02)


def _bound(root: Path, mount: Mount) -> Iterator[str]:
    target = f"{root}{mount.path}"
    yield shlex.join(["mkdir", "-p", target] if mount.source.is_dir() else ["touch", target])
    yield shlex.join(["mount", "--rbind", str(mount.source), target])
    if mount.propagation == "HostToContainer":
        yield shlex.join(["mount", "--make-rslave", target])
    elif mount.propagation == "None":
        yield shlex.join(["mount", "--make-rprivate", target])
    if mount.read_only:
        yield shlex.join(["mount", "-o", "remount,bind,ro", target])


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


def _command(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)
