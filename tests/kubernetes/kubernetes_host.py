"""A machine of its own but for the kernel: network, mounts and processes in namespaces, all of which end with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ADDRESS", "Host", "HostError", "connect"]

ADDRESS = "10.96.0.1"
"""That of the control plane, and at the same time of the service ``kubernetes``: nothing has to be forwarded to it."""
START_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 120.0

# $1: where the directories of this machine lie that must not be those of the machine around it. $2: its address. The
# last line is what an init does: it takes in the dead. What else is mounted in here goes into containers, hence the
# propagation.
INIT = """
set -e
mount --make-rshared /
for path in /var/lib/kubelet /var/lib/csi-core /var/lib/cni; do
    mkdir -p "$path" "$1$path"; mount --bind "$1$path" "$path"; mount --make-rshared "$path"
done
mount -t tmpfs tmpfs /run/netns 2>/dev/null || { mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns; }
ip link set lo up
ip address add "$2/32" dev lo
echo 1 >/proc/sys/net/ipv4/ip_forward
touch "$1/up"
exec "$3" -c 'import os, time
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.2)'
"""


class HostError(Exception):
    """A command on the machine failed: the command, and what it said."""


@dataclass
class Host:
    """One machine; ``directory`` is its disk, and survives :meth:`kill` as a disk does.

    Attributes:
        address: its own, in its network.
        environment: of every command on it, on top of this process's own.
    """

    directory: Path
    address: str
    environment: Mapping[str, str] = field(default_factory=dict)
    _around: subprocess.Popen[bytes] | None = None
    _init: int = 0

    @property
    def runs(self) -> bool:
        """Whether it is on."""
        return self._around is not None

    def start(self) -> None:
        """Switch it on."""
        ready = self.directory / "up"
        ready.unlink(missing_ok=True)
        (self.directory / "log").mkdir(parents=True, exist_ok=True)
        namespaces = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
        with self.log("init").open("ab") as log:
            self._around = subprocess.Popen(
                ["unshare", *namespaces, "bash", "-c", INIT, "init", self.directory, self.address, sys.executable],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        ends_at = time.monotonic() + START_TIMEOUT_S
        while not ready.exists():
            if self._around.poll() is not None or time.monotonic() > ends_at:
                raise HostError(f"the machine does not start:\n{self.log('init').read_text(encoding='utf-8')}")
            time.sleep(0.05)
        children = Path(f"/proc/{self._around.pid}/task/{self._around.pid}/children").read_text(encoding="ascii")
        self._init = int(children.split()[0])

    def kill(self) -> None:
        """Switch it off at the plug: every process of it, containers included, dies where it is."""
        if self._around is None:
            return
        self._around.kill()
        self._around.wait()
        self._around = None
        while Path(f"/proc/{self._init}").exists():
            time.sleep(0.05)

    def log(self, name: str) -> Path:
        """What the program ``name`` has written."""
        return self.directory / "log" / f"{name}.log"

    def spawn(self, name: str, *argv: object) -> subprocess.Popen[bytes]:
        """Start a program that stays, with a log of that name."""
        with self.log(name).open("ab") as log:
            return subprocess.Popen(
                self._inside(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env()
            )

    def run(self, *argv: object, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """What a command prints.

        Raises:
            HostError: it failed.
        """
        finished = subprocess.run(
            self._inside(argv),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=self._env(),
        )
        if finished.returncode:
            raise HostError(f"{' '.join(map(str, argv))}:\n{finished.stdout}{finished.stderr}")
        return finished.stdout

    def _inside(self, argv: Sequence[object]) -> list[str]:
        return ["nsenter", "--target", str(self._init), "--mount", "--net", "--pid", "--", *map(str, argv)]

    def _env(self) -> dict[str, str]:
        return {**os.environ, **self.environment}


def connect(one: Host, pods_of_one: str, other: Host, pods_of_other: str) -> None:
    """A cable between two machines, and the ways over it to each other and to each other's pods.

    Args:
        pods_of_one: the first two numbers of its pods' addresses.
        pods_of_other: the same.
    """
    ends = [f"cable netns {one._init}", "type veth peer", f"cable netns {other._init}"]
    subprocess.run(["ip", "link", "add", *" ".join(ends).split()], check=True)
    for here, there, pods in ((one, other, pods_of_other), (other, one, pods_of_one)):
        here.run("ip", "link", "set", "cable", "up")
        here.run("ip", "route", "add", there.address, "dev", "cable", "src", here.address)
        here.run("ip", "route", "add", f"{pods}.0.0/16", "via", there.address, "dev", "cable", "onlink")
