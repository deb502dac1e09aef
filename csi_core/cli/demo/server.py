"""``csi-core serve`` as a process of its own beside the demo."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import grpc
import yaml

from csi_core._proto.csi_pb2 import ProbeRequest
from csi_core._proto.csi_pb2_grpc import IdentityStub

__all__ = ["DemoServer", "ServerFailedError"]

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 40.0
LOG_TAIL_LINES = 15


class ServerFailedError(Exception):
    """The server did not come up; the message holds the end of its log."""


class DemoServer:
    """The server, from entering (ready) until leaving (stopped).

    Args:
        config: the configuration, as it would stand in the YAML file.
        directory: for that file and the log.
        socket: where it will listen.
    """

    def __init__(self, config: Mapping[str, object], directory: Path, socket: Path) -> None:
        self._config_path = directory / "config.yaml"
        self._config_path.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
        self._log_path = directory / "server.log"
        self._socket = socket
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DemoServer:
        # -P: the installed csi-core, also where the demo is started in a checkout.
        argv = [sys.executable, "-P", "-m", "csi_core.cli.main", "serve", "--config", str(self._config_path)]
        with self._log_path.open("wb") as log:
            # A session of its own: Ctrl-C reaches the demo only, which then takes its volumes down through the server.
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """Stop it as Kubernetes would, SIGTERM and then SIGKILL; answer its exit status."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def log_tail(self) -> str:
        """The last lines of its log."""
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def _wait_until_ready(self) -> None:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        with grpc.insecure_channel(f"unix://{self._socket}") as channel:
            identity = IdentityStub(channel)
            while time.monotonic() < give_up_at:
                if self._process is not None and self._process.poll() is not None:
                    raise ServerFailedError(
                        f"the server ended with status {self._process.returncode}:\n{self.log_tail()}"
                    )
                try:
                    if identity.Probe(ProbeRequest(), timeout=1, wait_for_ready=True).ready.value:
                        return
                except grpc.RpcError:
                    pass  # not listening yet
                time.sleep(0.02)
        raise ServerFailedError(f"the server was not ready within {START_TIMEOUT_S:.0f} s:\n{self.log_tail()}")
