"""A real ``csi-core serve`` on a real socket, and the messages that tests send to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import yaml

from csi_core._proto import csi_pb2 as pb
from csi_core._proto import csi_pb2_grpc as rpc

__all__ = [
    "AccessMode",
    "ServerProcess",
    "ServerStoppedError",
    "create_request",
    "from_snapshot",
    "from_volume",
    "mounted",
    "raw_block",
]

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 45.0
_POLL_S = 0.02
_LOG_TAIL_LINES = 40

AccessMode = pb.VolumeCapability.AccessMode


class ServerStoppedError(Exception):
    """The server is not there, or does not get ready; the message holds the end of its log."""


class ServerProcess:
    """``csi-core serve`` as a child process, ready to be called when the constructor returns.

    ::

        with ServerProcess({"backends": {"sim": {}}}, tmp_path) as server:
            server.controller.CreateVolume(create_request("data"))
            server.kill()
            server.restart()

    Args:
        config: as in the YAML file. A driver name, node id and socket are added where they are left out; the
            socket is in a directory of its own, because its path may have 107 bytes at most.
        directory: for the configuration file and the log, which goes on through restarts.
        env: added to this process's environment, ``CSICORE_FAULT`` for instance.
        run_on: a command line to begin with, such as ``nsenter ... --`` for a server in other namespaces. It must end
            by becoming the server, whose signals it gets.
        wait: False answers at once, for servers that are meant to fail or to get ready late.

    Attributes:
        channel: the connection; controller, node, identity, group and metadata are the services' stubs on it.

    Raises:
        ServerStoppedError: it ended or was not ready in time.
    """

    channel: grpc.Channel
    identity: rpc.IdentityStub
    controller: rpc.ControllerStub
    node: rpc.NodeStub
    group: rpc.GroupControllerStub
    metadata: rpc.SnapshotMetadataStub

    def __init__(
        self,
        config: Mapping[str, object],
        directory: Path,
        env: Mapping[str, str] | None = None,
        *,
        run_on: Sequence[str] = (),
        wait: bool = True,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._socket_directory = Path(tempfile.mkdtemp(prefix="csi-"))
        self._log = directory / "server.log"
        self._config = directory / "config.yaml"
        self._env = dict(env or {})
        self._run_on = tuple(run_on)
        self._process: subprocess.Popen[bytes] | None = None
        driver = config.get("driver")
        given = driver if isinstance(driver, Mapping) else {}
        defaults = {
            "name": "test.csi-core.dev",
            "nodeId": "node-a",
            "endpoint": f"unix://{self._socket_directory}/csi.sock",
        }
        self.config: dict[str, object] = {**config, "driver": {**defaults, **given}}
        self.endpoint = str({**defaults, **given}["endpoint"])
        try:
            self.restart(wait=wait)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether the process is there; False as soon as it was killed at a fault point."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's id, for looking at its memory and open files."""
        if self._process is None:
            raise ServerStoppedError("the server was never started")
        return self._process.pid

    def restart(self, env: Mapping[str, str] | None = None, *, wait: bool = True) -> None:
        """Start it (again), after ending what still runs; ``env`` replaces what the constructor was given."""
        self.terminate()
        if env is not None:
            self._env = dict(env)
        self._config.write_text(yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        # -P: what runs is the installed csi-core, also where the tests are started in a checkout.
        argv = [*self._run_on, sys.executable, "-P", "-m", "csi_core.cli.main", "serve", "--config", str(self._config)]
        with self._log.open("ab") as log:
            # A session of its own, so that Ctrl-C reaches the tests only.
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONFAULTHANDLER": "1", **self._env},
                start_new_session=True,
            )
        self._connect()
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when Probe says ready.

        Raises:
            ServerStoppedError: it ended or was not ready in time.
        """
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at:
            if not self.running:
                raise ServerStoppedError(f"the server ended with status {self.exit_code}:\n{self.log_tail()}")
            try:
                if self.identity.Probe(pb.ProbeRequest(), timeout=1, wait_for_ready=True).ready.value:
                    return
            except grpc.RpcError:
                pass  # not listening yet
            time.sleep(_POLL_S)
        raise ServerStoppedError(f"the server was not ready within {timeout_s:.0f} s:\n{self.log_tail()}")

    @property
    def exit_code(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def kill(self) -> None:
        """SIGKILL: the power cut that a process can have."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, as Kubernetes ends a pod; answer the exit status.

        One that does not end in time is ended by SIGABRT, which puts the stack of every thread into the log.
        """
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)
        return self._process.wait()

    def close(self) -> None:
        """End it, and remove the socket's directory. The log stays."""
        self.terminate()
        if hasattr(self, "channel"):
            self.channel.close()
        shutil.rmtree(self._socket_directory, ignore_errors=True)

    def log_text(self) -> str:
        """All that it logged, over all restarts."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def log_tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log_text().splitlines()[-_LOG_TAIL_LINES:])

    def _connect(self) -> None:
        if hasattr(self, "channel"):
            self.channel.close()
        # The client must not wait between attempts while a server is being restarted.
        options = [
            ("grpc.initial_reconnect_backoff_ms", 20),
            ("grpc.min_reconnect_backoff_ms", 20),
            ("grpc.max_reconnect_backoff_ms", 100),
        ]
        self.channel = grpc.insecure_channel(self.endpoint, options)
        self.identity = rpc.IdentityStub(self.channel)
        self.controller = rpc.ControllerStub(self.channel)
        self.node = rpc.NodeStub(self.channel)
        self.group = rpc.GroupControllerStub(self.channel)
        self.metadata = rpc.SnapshotMetadataStub(self.channel)


def mounted(
    fs_type: str = "",
    mode: AccessMode.Mode.ValueType = AccessMode.SINGLE_NODE_WRITER,
    mount_flags: tuple[str, ...] = (),
) -> pb.VolumeCapability:
    """The capability of a claim with volumeMode Filesystem."""
    mount = pb.VolumeCapability.MountVolume(fs_type=fs_type, mount_flags=mount_flags)
    return pb.VolumeCapability(mount=mount, access_mode=AccessMode(mode=mode))


def raw_block(mode: AccessMode.Mode.ValueType = AccessMode.SINGLE_NODE_WRITER) -> pb.VolumeCapability:
    """The capability of a claim with volumeMode Block."""
    return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=AccessMode(mode=mode))


def from_snapshot(snapshot_id: str) -> pb.VolumeContentSource:
    """The content source "this snapshot"."""
    return pb.VolumeContentSource(snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=snapshot_id))


def from_volume(volume_id: str) -> pb.VolumeContentSource:
    """The content source "this volume": a clone."""
    return pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=volume_id))


def create_request(
    name: str,
    size_bytes: int = 0,
    *,
    limit_bytes: int = 0,
    capability: pb.VolumeCapability | None = None,
    parameters: Mapping[str, str] | None = None,
    source: pb.VolumeContentSource | None = None,
) -> pb.CreateVolumeRequest:
    """A request for a volume; :func:`mounted` unless another capability is given."""
    return pb.CreateVolumeRequest(
        name=name,
        capacity_range=pb.CapacityRange(required_bytes=size_bytes, limit_bytes=limit_bytes),
        volume_capabilities=[capability or mounted()],
        parameters=parameters or {},
        volume_content_source=source,
    )
