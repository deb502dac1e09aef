"""Everything a server works with, built from the configuration in one place, and taken down again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import structlog

from csi_core import registry
from csi_core.capabilities import Capabilities, derive
from csi_core.config import BackendConfig, Config
from csi_core.errors import CallError, ConfigError, LoadError, PluginError, Unavailable
from csi_core.facade import Backend
from csi_core.model import Description, Reach
from csi_core.node.lifecycle import NodeVolumes
from csi_core.node.mounted import MountedFilesystem
from csi_core.node.mounts import KernelMounts, Mounts, SimulatedMounts
from csi_core.router import Router

__all__ = ["Runtime", "build", "load_backend"]

_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 30.0
_STOP_PATIENCE_S = 5.0
"""How long ``stop`` waits for a start that is under way; one that hangs ends with the process."""

_MAX_TOPOLOGY_PART = 63

_log = structlog.get_logger()


class Runtime:
    """The configured backends and this node. Made by :func:`build`.

    A backend whose storage cannot be reached yet is started again in the background until it can; its calls are
    UNAVAILABLE meanwhile, and the server is not ready.
    """

    def __init__(self, config: Config, backends: Sequence[Backend], node: NodeVolumes) -> None:
        self.config = config
        self.router = Router({backend.name: backend for backend in backends}, config.default_backend)
        self.node = node
        self._waiting = list(backends)
        self._reasons: dict[str, str] = {}
        self._started: list[Backend] = []
        self._capabilities: Capabilities | None = None
        self._refusal: LoadError | None = None
        self._stopping = threading.Event()
        self._starter: threading.Thread | None = None

    @property
    def ready(self) -> bool:
        """Whether every backend has started.

        Raises:
            Unavailable: one never will, and somebody must act; the message says why.
        """
        if self._refusal is not None:
            raise Unavailable(f"this server cannot start: {self._refusal}") from self._refusal
        return self._capabilities is not None

    @property
    def capabilities(self) -> Capabilities:
        """What this server advertises.

        Raises:
            Unavailable: not known before every backend has started.
        """
        if not self.ready or self._capabilities is None:
            waiting = "; ".join(f"{b.name!r}: {self._reasons.get(b.name, 'starting')}" for b in tuple(self._waiting))
            raise Unavailable(f"this server is still starting (waiting for {waiting}); repeat the call later")
        return self._capabilities

    def start(self) -> None:
        """Start every backend; go on trying in the background where the storage cannot be reached yet.

        Raises:
            LoadError: the configuration or a plugin is wrong; what had been started is stopped again.
        """
        try:
            self._start_waiting()
        except BaseException:
            self.stop()
            raise
        if self._waiting:
            self._starter = threading.Thread(target=self._keep_starting, name="start-backends", daemon=True)
            self._starter.start()

    def stop(self) -> None:
        """Stop every started backend, the last one first. Nothing that is published is touched."""
        self._stopping.set()
        if self._starter is not None:
            self._starter.join(_STOP_PATIENCE_S)
        while self._started:
            backend = self._started.pop()
            try:
                backend.stop()
            except Exception:
                _log.exception("backend did not stop cleanly", backend=backend.name)

    def _start_waiting(self) -> None:
        for backend in tuple(self._waiting):
            if self._stopping.is_set():
                return
            host = _Host(self.config.driver.node_id, backend.name, self.node)
            try:
                description = _start(backend, host)
            except CallError as error:
                self._reasons[backend.name] = str(error)
                _log.warning("backend is not ready yet", backend=backend.name, reason=str(error))
                continue
            self._started.append(backend)
            self._waiting.remove(backend)
            _log.info("backend started", backend=backend.name, summary=description.summary)
        if not self._waiting:
            capabilities = derive(self.router.all, self.config.driver.alpha_capabilities)
            _check_topology(self.config, capabilities)
            self._capabilities = capabilities

    def _keep_starting(self) -> None:
        pause_s = _FIRST_RETRY_S
        while self._waiting and not self._stopping.wait(pause_s):
            pause_s = min(2 * pause_s, _LAST_RETRY_S)
            try:
                self._start_waiting()
            except LoadError as error:
                _log.error("server cannot start", reason=str(error))
                self._refusal = error
                return


def build(config: Config) -> Runtime:
    """Load the configured backends and start them.

    Raises:
        LoadError: the configuration or a plugin is wrong; nothing is left running.
    """
    backends = [load_backend(name, section) for name, section in config.backends.items()]
    mounts: Mounts = SimulatedMounts() if config.node.mounts == "simulated" else KernelMounts()
    node = NodeVolumes(mounts, config.driver.node_id)
    # A filesystem left frozen by a killed process blocks its pod, and whoever touches it next: first of all, thaw.
    node.thaw_left_frozen()
    runtime = Runtime(config, backends, node)
    runtime.start()
    return runtime


def load_backend(name: str, section: BackendConfig) -> Backend:
    """Load one backend and its wrappers, without starting it.

    Raises:
        ConfigError: an option is wrong.
        PluginError: it is not installed, or breaks the contract.
    """
    with _under(f"backends.{name}.options"):
        plugin = registry.load_plugin(section.type, section.options)
    wrappers = []
    for index, wrapper in enumerate(section.wrappers):
        with _under(f"backends.{name}.wrappers.{index}.options"):
            wrappers.append(registry.load_wrapper(wrapper.type, wrapper.options))
    return Backend.load(name, plugin, wrappers)


@contextmanager
def _under(where: str) -> Iterator[None]:
    """Name the section of the configuration in a refusal of what is made from it."""
    try:
        yield
    except (ConfigError, PluginError) as error:
        raise type(error)(f"{where}: {error}") from error


def _start(backend: Backend, host: _Host) -> Description:
    """Start one backend; a CallError that comes out of here is worth another try, all else is a LoadError."""
    try:
        return backend.start(host)
    except ConfigError as error:
        raise ConfigError(f"backends.{backend.name}: {error}") from error
    except PluginError:
        raise
    except CallError as error:
        if not error.final:
            raise
        raise ConfigError(f"backend {backend.name!r} cannot start: {error}") from error
    except Exception as error:
        raise PluginError(f"backend {backend.name!r} failed to start: {type(error).__name__}: {error}") from error


def _check_topology(config: Config, capabilities: Capabilities) -> None:
    """Node-local volumes carry the driver's name and the node's in their topology, where CSI leaves less room."""
    if capabilities.reach is not Reach.NODE_LOCAL:
        return
    name, node_id = config.driver.name, config.driver.node_id
    if len(f"topology.{name}") > _MAX_TOPOLOGY_PART:
        longest = _MAX_TOPOLOGY_PART - len("topology.")
        raise ConfigError(f"driver.name: {name!r} is too long for node-local volumes; at most {longest} characters")
    if len(node_id) > _MAX_TOPOLOGY_PART:
        raise ConfigError(
            f"driver.nodeId: {node_id!r} is too long for node-local volumes; at most {_MAX_TOPOLOGY_PART} characters"
        )


class _Host:
    """What a backend is told about the node it runs on."""

    def __init__(self, node_id: str, backend_name: str, node: NodeVolumes) -> None:
        self.node_id = node_id
        self.backend_name = backend_name
        self._node = node

    def frozen(self, devices: tuple[Path, ...], time_limit_s: float) -> AbstractContextManager[None]:
        return self._node.frozen(devices, time_limit_s)

    def filesystem_on(self, device: Path) -> MountedFilesystem | None:
        return self._node.filesystem_on(device)
