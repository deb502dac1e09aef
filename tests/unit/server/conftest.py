"""A real server on a Unix socket, over the fakes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_driver import DRIVER, NODE, Client, FakeNode, Full, Network
from prometheus_client import CollectorRegistry

from csi_core.capabilities import derive
from csi_core.config import Config
from csi_core.facade import Backend
from csi_core.router import Router
from csi_core.server.app import Server
from csi_core.server.metrics import CallMetrics


@pytest.fixture
def socket_directory() -> Iterator[Path]:
    """Short, as the path of a socket must be."""
    directory = Path(tempfile.mkdtemp(prefix="csi-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def serve(socket_directory: Path) -> Iterator[Callable[..., Client]]:
    """Start a server with the given plugins (by name; the first is the default) and settings."""
    with ExitStack() as stack:

        def start(settings: dict[str, Any] | None = None, ready: bool = True, **plugins: Any) -> Client:
            plugins = plugins or {"fake": Full()}
            path = socket_directory / f"{len(list(socket_directory.iterdir()))}.sock"
            given = {
                "driver": {"name": DRIVER, "nodeId": NODE, "endpoint": f"unix://{path}"},
                "backends": {name: {} for name in plugins},
                "defaultBackend": next(iter(plugins)),
            }
            for key, value in (settings or {}).items():
                given[key] = {**given.get(key, {}), **value}
            config = Config.model_validate(given)
            backends = {name: Backend.load(name, plugin) for name, plugin in plugins.items()}
            for backend in backends.values():
                backend.start(SimpleNamespace(node_id=NODE, backend_name=backend.name))
            runtime = SimpleNamespace(
                config=config,
                router=Router(backends, config.default_backend),
                node=FakeNode(),
                ready=ready,
                capabilities=derive(backends.values(), config.driver.alpha_capabilities),
                stopped=[],
                stop=lambda: runtime.stopped.append(True),
            )
            registry = CollectorRegistry()
            server = Server(runtime, CallMetrics(registry))
            server.start()
            stack.callback(server.stop, 0)
            first = next(iter(plugins.values()))
            client = Client(
                path, server=server, runtime=runtime, fake_node=runtime.node, backend=first, metrics=registry
            )
            stack.callback(client.channel.close)
            return client

        yield start


@pytest.fixture
def client(serve: Callable[..., Client]) -> Client:
    """One server over one backend that has every node-local hook."""
    return serve()


@pytest.fixture
def network(serve: Callable[..., Client]) -> Client:
    """One server over one network backend that has every hook."""
    return serve(fake=Network())
