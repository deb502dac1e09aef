"""A guest: Linux as an ordinary program (User Mode Linux), on this machine's file tree, for one command.

For tests that need what this machine's kernel lacks, or keeps from us. The guest sees the host's files where they
are, and writes to a layer in memory; it has root, one CPU, a few blank disks, no network, and its own kernel with
device-mapper, NFS and every filesystem.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["SCRATCH_DISKS", "Guest", "lacks_guest"]

MEMORY_BYTES = 3 << 30
DISK_BYTES = 8 << 30
SCRATCH_DISKS = tuple(f"/dev/ubd{letter}" for letter in "abcdef")
CONSOLE_LINES = 60
STOP_TIMEOUT_S = 10

HERE = Path(__file__).parent
MODULES = Path("/usr/lib/uml/modules")
PROGRAM_VARIABLE = "CSICORE_UML"
"""Another User Mode Linux than Debian's."""

HOST_ONLY = {"PYTHONDONTWRITEBYTECODE", "TMPDIR", "PWD", "OLDPWD", "LD_PRELOAD"}
"""Not for the guest: there bytecode is written to the layer in memory, which spares every later start the compiling."""


def program() -> str:
    """The kernel, a program."""
    return os.environ.get(PROGRAM_VARIABLE, "linux.uml")


def lacks_guest() -> str:
    """What is missing on this machine to run a guest."""
    missing = {
        "user-mode-linux": not shutil.which(program()),
        "kmod": not shutil.which("insmod", path="/usr/sbin:/sbin:/usr/bin:/bin"),
        "gcc": _needs_wide_state() and not shutil.which("cc"),
    }
    packages = [package for package, is_missing in missing.items() if is_missing]
    return f"a guest needs apt-get install {' '.join(packages)}" if packages else ""


class Guest:
    """One boot, one command, power off.

    Args:
        name: for its directory and messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        # Not in /tmp, which may be in memory, as the disks must not be.
        self.directory = Path(tempfile.mkdtemp(prefix=f"csi-core-guest-{name}-", dir="/var/tmp"))
        self._process: subprocess.Popen[bytes] | None = None

    def boot(
        self, argv: Sequence[str], working_directory: Path, environment: Mapping[str, str], cpu: int, niceness: int
    ) -> None:
        """Start the guest, which runs ``argv`` and ends.

        Args:
            argv: a command, of this machine's files.
            working_directory: where it starts.
            environment: on top of this process's own.
            cpu: where it runs. Its kernel and its programs are processes that hand over to each other at every system
                call and page fault; between two CPUs a handover takes several times as long.
            niceness: how much it stands back for other processes there.
        """
        variables = {
            **{name: value for name, value in os.environ.items() if name not in HOST_ONLY},
            "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"]),
            "CSICORE_GUEST": "1",
            "CSICORE_SCRATCH_DISK": SCRATCH_DISKS[0],
            "CSICORE_SCRATCH_DISKS": ":".join(SCRATCH_DISKS),
            **environment,
        }
        assignments = [f"{name}={value}" for name, value in variables.items()]
        command = shlex.join(["env", "-i", "-C", str(working_directory), *assignments, *argv])
        self._write("run", f"#!/bin/bash\nexec {command}\n")
        self._write("guest-init", (HERE / "guest-init").read_text(encoding="utf-8"))
        for number in range(len(SCRATCH_DISKS)):
            with (self.directory / f"disk-{number}").open("wb") as disk:
                disk.truncate(DISK_BYTES)
        with (self.directory / "console").open("wb") as console:
            self._process = subprocess.Popen(
                # Should this process be killed, its guests are, too.
                [
                    *("setpriv", "--pdeathsig", "KILL", "--", "taskset", "--cpu-list", str(cpu)),
                    *("nice", "-n", str(niceness)),
                    *self._command_line(working_directory),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._host_environment()},
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it has started and not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def panicked(self) -> bool:
        """Whether its kernel has given up."""
        return "Kernel panic - not syncing" in self._console()

    def console_tail(self) -> str:
        """The last lines of its console."""
        return "\n".join(self._console().splitlines()[-CONSOLE_LINES:])

    def _console(self) -> str:
        console = self.directory / "console"
        return console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""

    def kill(self) -> None:
        """End it, however it is."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)

    def remove(self) -> None:
        """Remove its disks and everything else of it."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _command_line(self, checkout: Path) -> list[str]:
        modules = max(MODULES.glob("*"), default=MODULES)
        disks = [f"ubd{number}dt={self.directory}/disk-{number}" for number in range(len(SCRATCH_DISKS))]
        return [
            *(
                program(),
                f"mem={MEMORY_BYTES >> 20}M",
                "con=null",
                "con0=null,fd:1",
                "quiet",
                f"uml_dir={self.directory}",
            ),
            *("rootfstype=hostfs", "root=/dev/root", "hostfs=/", "ro", f"init={self.directory}/guest-init"),
            *disks,
            # What the kernel does not know becomes the environment of its first process.
            f"CSICORE_GUEST_DIRECTORY={self.directory}",
            f"CSICORE_GUEST_MODULES={modules}",
            f"CSICORE_GUEST_CHECKOUT={checkout}",
        ]

    def _host_environment(self) -> dict[str, str]:
        environment = {}
        shared = os.statvfs("/dev/shm")
        if shared.f_bavail * shared.f_frsize < MEMORY_BYTES:
            environment["TMPDIR"] = str(self.directory)  # where the guest's memory lies
        if _needs_wide_state():
            library = self.directory / "wide_xstate.so"
            source = HERE / "wide_xstate.c"
            subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
            environment["LD_PRELOAD"] = str(library)
        return environment

    def _write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)


def _needs_wide_state() -> bool:
    """A CPU with more registers than a User Mode Linux of Debian 12 knows; see wide_xstate.c."""
    return sys.platform == "linux" and " amx_tile" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
