"""The gRPC server on its socket: started, waited for, drained and stopped."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import structlog
from prometheus_client import start_http_server

from csi_core._proto import csi_pb2_grpc as services
from csi_core.errors import ConfigError
from csi_core.runtime import Runtime, build
from csi_core.server.admission import Admission
from csi_core.server.controller import Controller
from csi_core.server.driver import Driver
from csi_core.server.endpoint import claim, created_with_mode
from csi_core.server.group import GroupController
from csi_core.server.identity import Identity
from csi_core.server.interceptor import CallInterceptor
from csi_core.server.metadata import SnapshotMetadata
from csi_core.server.metrics import CallMetrics
from csi_core.server.node import Node

if TYPE_CHECKING:
    from csi_core.config import Config, MetricsConfig

__all__ = ["Server", "serve"]

_MAX_REQUEST_BYTES = 4 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
    # A listing without max_entries answers all there is.
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    # Sidecars keep a connection for days, and ping it more often than gRPC would like.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_log = structlog.get_logger()


class Server:
    """All five services of one driver on its Unix socket.

    Args:
        runtime: the backends; they may still be starting, Probe says so.
        metrics: where calls are counted.
    """

    def __init__(self, runtime: Runtime, metrics: CallMetrics | None = None) -> None:
        self._runtime = runtime
        settings = runtime.config
        self._path = settings.driver.socket_path
        self._driver = Driver(runtime)
        self._admission = Admission(settings.server.workers, settings.server.queued)
        interceptor = CallInterceptor(
            self._admission, metrics or CallMetrics(), log_requests=settings.log.level == "debug"
        )
        self._server = grpc.server(
            ThreadPoolExecutor(self._admission.threads, thread_name_prefix="csi"),
            interceptors=[interceptor],
            options=_OPTIONS,
        )
        services.add_IdentityServicer_to_server(Identity(self._driver), self._server)
        services.add_ControllerServicer_to_server(Controller(self._driver), self._server)
        services.add_NodeServicer_to_server(Node(self._driver), self._server)
        services.add_GroupControllerServicer_to_server(GroupController(self._driver), self._server)
        services.add_SnapshotMetadataServicer_to_server(SnapshotMetadata(self._driver), self._server)

    def start(self) -> None:
        """Take the socket and answer calls from now on.

        Raises:
            ConfigError: the socket cannot be had; another server answers on it, say.
        """
        claim(self._path)
        with created_with_mode(self._runtime.config.driver.socket_mode_bits):
            try:
                self._server.add_insecure_port(f"unix:{self._path}")
            except RuntimeError as error:
                raise ConfigError(f"driver.endpoint: cannot listen on {self._path}: {error}") from error
        self._server.start()
        _log.info("listening", socket=str(self._path), driver=self._driver.name, node=self._driver.node_id)

    def wait(self) -> None:
        """Return when the server has stopped."""
        self._server.wait_for_termination()

    def stop(self, grace_s: float) -> bool:
        """Accept nothing more, let the calls under way end, stop the backends.

        Args:
            grace_s: seconds to wait for the calls.

        Returns:
            Whether all of them ended. Where not, the backends are left alone: a storage is not closed under
            a call that works on it, and every step of a call bears being cut off.
        """
        self._server.stop(grace_s).wait()
        if self._admission.running:
            _log.warning("stopped before all calls ended", held=self._driver.locks.held())
            return False
        self._runtime.stop()
        return True


def serve(config: Config) -> int:
    """Run the driver until SIGTERM or SIGINT.

    Returns:
        The exit status of the process: 0 when every call ended in time.

    Raises:
        LoadError: a backend is refused, or the socket cannot be had.
    """
    stop_requests = _stop_requests()
    # Before any storage is touched: the other server may have it open.
    claim(config.driver.socket_path)
    if config.metrics is not None:
        _serve_metrics(config.metrics)
    runtime = build(config)
    try:
        server = Server(runtime)
        server.start()
    except BaseException:
        runtime.stop()
        raise
    os.read(stop_requests, 1)
    _log.info("stopping", grace_s=config.server.shutdown_grace_seconds)
    if server.stop(config.server.shutdown_grace_seconds):
        return 0
    # Threads inside a storage call cannot be ended, and a plain exit would wait for them.
    os._exit(1)


def _stop_requests() -> int:
    """A descriptor that can be read once SIGTERM or SIGINT came.

    The kernel may hand a signal to one of gRPC's threads; Python's handler then waits for the main thread, and nothing
    would wake that from a lock.
    """
    requests, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return requests


def _serve_metrics(metrics: MetricsConfig) -> None:
    host, port = metrics.address
    try:
        start_http_server(port, host)
    except OSError as error:
        raise ConfigError(f"metrics.listen: cannot listen on {metrics.listen}: {error.strerror or error}") from error
