"""A second pytest on this machine, for tests that mostly wait: the same as a guest, with the host's own kernel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["Beside"]

CONSOLE_LINES = 60
TEARDOWN_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10


class Beside:
    """One command, beside what runs here.

    Args:
        name: for its directory and messages.
    """

    panicked = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = Path(tempfile.mkdtemp(prefix=f"csi-core-{name}-", dir="/var/tmp"))
        self._process: subprocess.Popen[bytes] | None = None

    def boot(
        self, argv: Sequence[str], working_directory: Path, environment: Mapping[str, str], cpu: int, niceness: int
    ) -> None:
        """Start the command; ``environment`` is on top of this process's own, the last two are for guests."""
        with (self.directory / "console").open("wb") as console:
            self._process = subprocess.Popen(
                # Should this process be killed, the tests there are interrupted, too: their fixtures still clean up.
                ["setpriv", "--pdeathsig", "INT", "--", *argv],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=working_directory,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it has started and not ended."""
        return self._process is not None and self._process.poll() is None

    def console_tail(self) -> str:
        """The last lines of what it printed."""
        text = (self.directory / "console").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-CONSOLE_LINES:])

    def kill(self) -> None:
        """End it: its fixtures clean up, unless it hangs."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            self._process.send_signal(signal.SIGINT)
            self._process.wait(TEARDOWN_TIMEOUT_S)
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_S)

    def remove(self) -> None:
        """Remove what it printed."""
        shutil.rmtree(self.directory, ignore_errors=True)
