"""Several machines on one kernel: each has a network, a mount table and a host name of its own, on one bridge.

The host name matters: a Linux NFSv4 client calls itself by it, and a server takes two clients of one name for one that
was rebooted. The root matters too: an NFSv4 server shows all of its exports below ``/``, and not every filesystem that
a test machine has there can be exported; so each host's root is a tmpfs on which the machine's directories are bound.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

__all__ = ["Host", "Lab", "Network", "NfsServer", "until"]

H = TypeVar("H", bound="Host")

_COMMAND_S: Final = 30.0
_START_S: Final = 10.0
_OWN_ROOT: Final = """
set -e
root=$(mktemp -d)
mount -t tmpfs -o mode=755 tmpfs "$root"
for path in /*; do
    if [ -L "$path" ]; then cp -a "$path" "$root$path"
    elif [ -d "$path" ]; then
        mkdir "$root$path"
        case $path in /srv|/run) ;; *) mount --rbind "$path" "$root$path";; esac
    fi
done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/old"
cd "$root"
pivot_root . old
umount -l /old
rmdir /old
echo ready
exec sleep infinity
"""


class Host:
    """A machine with one network interface; :class:`Network` makes them.

    Attributes:
        name: its host name.
        address: its IPv4 address.
        enter: the command line that what runs on this host begins with.
    """

    def __init__(self, name: str, address: str, bridge: str) -> None:
        self.name = name
        self.address = address
        self._interface = f"{bridge}-{name}"
        self._started: list[subprocess.Popen[str]] = []
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "sh", "-c", _OWN_ROOT], stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", f"host {name} did not come up"
        self.enter = ("nsenter", "--target", str(self._holder.pid), "--net", "--mount", "--uts", "--")
        _command("ip", "link", "add", self._interface, "type", "veth", "peer", "eth0", "netns", str(self._holder.pid))
        _command("ip", "link", "set", self._interface, "master", bridge, "up")
        self.run(
            "sh", "-c", f"hostname {name}; ip link set lo up; ip link set eth0 up; ip address add {address}/24 dev eth0"
        )

    def run(self, *argv: str, timeout_s: float = _COMMAND_S, check: bool = True) -> str:
        """Run a command here to its end; answer what it wrote to its output and its errors."""
        return _command(*self.enter, *argv, timeout_s=timeout_s, check=check)

    def start(self, *argv: str, log: Path | None = None) -> subprocess.Popen[str]:
        """Start a command here; it is killed with the host at the latest. Its input is a pipe, and its output too
        unless it goes to ``log``."""
        with ExitStack() as stack:
            output = stack.enter_context(log.open("ab")) if log else subprocess.PIPE
            process = subprocess.Popen(
                [*self.enter, *argv], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, text=True
            )
        self._started.append(process)
        return process

    def path(self, path: Path | str) -> Path:
        """A path of this host, for the test to use. Mind what is mounted there: a dead server hangs the test."""
        return Path(f"/proc/{self._holder.pid}/root") / str(path).lstrip("/")

    def cut_off(self) -> None:
        """Pull the network cable: nothing gets through, and nobody is told."""
        _command("ip", "link", "set", self._interface, "down")

    def reconnect(self) -> None:
        """Put it back."""
        _command("ip", "link", "set", self._interface, "up")

    def mounts(self) -> list[str]:
        """The paths of what is mounted from NFS here."""
        lines = self.path("/proc").parent.joinpath(f"proc/{self._holder.pid}/mounts").read_text(encoding="utf-8")
        fields = (line.split(" ") for line in lines.splitlines())
        return [path for _, path, fs_type, *_ in fields if fs_type in ("nfs", "nfs4")]

    def tidy(self) -> None:
        """End what a test started here, unmount what it mounted, and plug the cable in."""
        self.reconnect()
        for process in self._started:
            process.kill()
        for path in reversed(self.mounts()):
            self.run("umount", "--internal-only", "--no-canonicalize", "--lazy", path, check=False)

    def close(self) -> None:
        """Switch it off. Its mounts go with it, without a word to their servers."""
        for process in self._started:
            process.kill()
        for process in [*self._started, self._holder]:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # stuck in the kernel, for as long as its server is gone
                process.wait(2)
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with suppress(OSError):
                        pipe.close()
        _command("ip", "link", "delete", self._interface, check=False)


class NfsServer(Host):
    """A host with the kernel's NFS server, version 4.1 and 4.2; it exports nothing until it is told to."""

    def __init__(self, name: str, address: str, bridge: str) -> None:
        super().__init__(name, address, bridge)
        self._daemons: list[subprocess.Popen[str]] = []
        self.run(
            "sh",
            "-ec",
            "mkdir -p /etc/exports.d; mount -t tmpfs tmpfs /etc/exports.d; mount -t tmpfs tmpfs /var/lib/nfs;"
            "if [ -e /etc/exports ]; then mount --bind /dev/null /etc/exports; fi;"
            "cd /var/lib/nfs; mkdir rpc_pipefs nfsdcld v4recovery; touch etab rmtab;"
            "mount -t rpc_pipefs sunrpc rpc_pipefs; mount -t nfsd nfsd /proc/fs/nfsd",
        )
        self.start_nfsd()

    def start_nfsd(self) -> None:
        """Serve. Clients that a stopped server knew have 10 s in which they alone may go on."""
        self._daemons = [
            self.start("nfsdcld", "--foreground", "--pipefsdir", "/var/lib/nfs/rpc_pipefs", log=Path(os.devnull)),
            self.start("rpc.mountd", "--foreground", "--no-nfs-version", "3", log=Path(os.devnull)),
        ]
        until(self.path("/var/lib/nfs/nfsdcld/main.sqlite").exists, "nfsdcld keeps its records")
        self.run("exportfs", "-ra")
        self.run("rpc.nfsd", "--grace-time", "10", "--lease-time", "10", "--no-nfs-version", "3", "4")

    def serve_again(self) -> None:
        """Undo what a test that failed did to the server."""
        self.reconnect()
        if int(self.path("/proc/fs/nfsd/threads").read_text(encoding="ascii")) == 0:
            for daemon in self._daemons:
                daemon.kill()
                daemon.wait(_COMMAND_S)
            self.start_nfsd()

    def clear(self) -> None:
        """Export nothing, and have no files."""
        self.run("sh", "-c", "rm -rf /etc/exports.d/*; exportfs -ua; rm -rf /srv/*")

    def stop_nfsd(self) -> None:
        """Stop serving, as in a reboot: clients are told nothing."""
        self.run("rpc.nfsd", "0")
        for daemon in self._daemons:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(_COMMAND_S)

    def export(self, directory: str, clients: str = "*", options: str = "rw,no_root_squash,no_subtree_check") -> None:
        """Make a directory and export it; for as long as the server is not told otherwise by exportfs."""
        self.run("mkdir", "-p", directory)
        number = len(list(self.path("/etc/exports.d").iterdir())) + 1
        line = f"{directory} {clients}({options},fsid={number})\n"
        self.path(f"/etc/exports.d/test{number}.exports").write_text(line, encoding="utf-8")
        self.run("exportfs", "-ra")

    def mount_disk(self, device: Path, path: str, fs_type: str = "xfs", options: str = "prjquota") -> None:
        """Make a filesystem on a disk and mount it."""
        keep = {"ext4": ("-F", "-E", "nodiscard")}.get(fs_type, ("-f", "-K"))
        self.run(f"mkfs.{fs_type}", "-q", *keep, str(device))
        self.run("mkdir", "-p", path)
        self.run("mount", "-t", fs_type, "-o", options, str(device), path)

    def close(self) -> None:
        """Stop the server first: what it exports would stay in use."""
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.stop_nfsd()
        super().close()


class Network:
    """A bridge and the hosts on it; ``with`` switches all of them off in the end."""

    def __init__(self, bridge: str = "csinfs") -> None:
        self._bridge = bridge
        self._hosts: list[Host] = []
        _command("modprobe", "-qa", "bridge", "veth", "nfsd", "nfsv4", check=False)
        _command("ip", "link", "add", bridge, "type", "bridge")
        _command("ip", "link", "set", bridge, "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self._hosts:  # clients first: a server that goes first leaves their mounts hanging
            host.reconnect()
        for host in sorted(self._hosts, key=lambda host: isinstance(host, NfsServer)):
            host.close()
        _command("ip", "link", "delete", self._bridge)

    def host(self, name: str) -> Host:
        """A client."""
        return self._add(Host(name, self._next_address(), self._bridge))

    def server(self, name: str) -> NfsServer:
        """An NFS server."""
        return self._add(NfsServer(name, self._next_address(), self._bridge))

    def _next_address(self) -> str:
        return f"10.77.0.{len(self._hosts) + 11}"

    def _add(self, host: H) -> H:
        self._hosts.append(host)
        return host


@dataclass(frozen=True)
class Lab:
    """Clients ``a`` and ``b``, servers ``s`` and ``t``. Each server has an empty XFS with quotas at ``/srv``."""

    a: Host
    b: Host
    s: NfsServer
    t: NfsServer


def until(condition: Callable[[], object], what: str, timeout_s: float = _START_S) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: it was not in time.
    """
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def _command(*argv: str, timeout_s: float = _COMMAND_S, check: bool = True) -> str:
    finished = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert not check or finished.returncode == 0, f"{' '.join(argv)}: {finished.stdout}"
    return finished.stdout
