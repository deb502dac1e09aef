"""From the socket to the last call: start, stale and live sockets, permissions, readiness, drain, SIGTERM."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from unittest.mock import Mock

import grpc
import pytest
import structlog
from fake_driver import Client, create_request, refuses
from test_calls import Stuck

from csi_core._proto import csi_pb2 as pb
from csi_core._proto.csi_pb2_grpc import ControllerStub, IdentityStub
from csi_core.config import MetricsConfig
from csi_core.errors import ConfigError, Unavailable
from csi_core.server import app
from csi_core.server.endpoint import claim


def test_a_stale_socket_is_taken_over(socket_directory: Path) -> None:
    path = socket_directory / "csi.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    claim(path)
    assert not path.exists()


def test_a_live_one_is_not(socket_directory: Path) -> None:
    path = socket_directory / "csi.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(ConfigError, match="another server answers"):
            claim(path)
    assert path.exists()


def test_a_live_one_that_is_too_busy_to_answer_is_not_either(socket_directory: Path) -> None:
    path = socket_directory / "csi.sock"
    with socket.socket(socket.AF_UNIX) as living, contextlib.ExitStack() as waiting:
        living.bind(str(path))
        living.listen(0)
        with pytest.raises(BlockingIOError):
            while True:
                client = waiting.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(ConfigError, match="another server answers"):
            claim(path)
    assert path.exists()


def test_a_server_does_not_push_another_one_away(client: Client) -> None:
    with pytest.raises(ConfigError, match="another server answers"):
        claim(client.path)
    assert client.identity.Probe(pb.ProbeRequest()).ready.value


def test_what_is_no_socket_stays(socket_directory: Path) -> None:
    path = socket_directory / "csi.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is no socket"):
        claim(path)
    assert path.read_text() == "precious"
    path.unlink()
    path.symlink_to("/nowhere")
    with pytest.raises(ConfigError, match="is no socket"):
        claim(path)


def test_a_missing_directory(socket_directory: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        claim(socket_directory / "missing" / "csi.sock")


def test_a_directory_of_another_user(socket_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (socket_directory, os.W_OK | os.X_OK))
    with pytest.raises(ConfigError, match=f"may not make a socket in {socket_directory}; run as root"):
        claim(socket_directory / "csi.sock")


@pytest.mark.parametrize("mode", ["0600", "0660"])
def test_the_socket_has_its_mode_and_nothing_beside_it(serve, mode: str) -> None:
    before = os.umask(0o022)
    try:
        client = serve({"driver": {"socketMode": mode}})
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert stat.S_IMODE(client.path.stat().st_mode) == int(mode, 8)
    assert list(client.path.parent.iterdir()) == [client.path]


def test_never_open_to_others_not_even_while_it_is_bound(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    bind = grpc._server._Server.add_insecure_port

    def watch(server: object, address: str) -> int:
        port = bind(server, address)
        seen.append(stat.S_IMODE(Path(address.removeprefix("unix:")).stat().st_mode))
        return port

    monkeypatch.setattr(grpc._server._Server, "add_insecure_port", watch)
    serve()
    assert seen == [0o600]


def test_not_ready_while_backends_start(serve) -> None:
    client = serve(ready=False)
    assert not client.identity.Probe(pb.ProbeRequest()).ready.value
    client.runtime.ready = True
    assert client.identity.Probe(pb.ProbeRequest()).ready.value


def test_capabilities_that_are_not_known_yet(serve) -> None:
    client = serve()

    class Starting:
        @property
        def capabilities(self) -> None:
            raise Unavailable("still starting")

    client.server._driver._runtime = Starting()
    with refuses("UNAVAILABLE", "still starting"):
        client.identity.GetPluginCapabilities(pb.GetPluginCapabilitiesRequest())


def test_calls_under_way_end_and_new_ones_are_refused(client: Client) -> None:
    stuck = Stuck(client.backend, "create_volume")
    under_way = client.controller.CreateVolume.future(create_request())
    stuck.wait()
    ended: list[bool] = []
    stopping = threading.Thread(target=lambda: ended.append(client.server.stop(10)))
    stopping.start()
    deadline = time.monotonic() + 5
    while client.path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    # A connection of its own: on the one that is open, the call may overtake the server's goodbye and be CANCELLED.
    own = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"unix:{client.path}", own) as late, refuses("UNAVAILABLE"):
        IdentityStub(late).Probe(pb.ProbeRequest(), timeout=2)
    assert not client.runtime.stopped
    stuck.go.set()
    assert under_way.result().volume.volume_id
    stopping.join(10)
    assert ended == [True]
    assert client.runtime.stopped == [True]


def test_backends_are_not_stopped_under_a_call(client: Client) -> None:
    stuck = Stuck(client.backend, "create_volume")
    under_way = client.controller.CreateVolume.future(create_request())
    stuck.wait()
    assert not client.server.stop(0.1)
    assert not client.runtime.stopped
    assert under_way.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    with structlog.testing.capture_logs() as logs:
        stuck.go.set()
        deadline = time.monotonic() + 5
        while not any(log["event"] == "served" for log in logs) and time.monotonic() < deadline:
            time.sleep(0.005)
    assert client.server.stop(0)
    assert client.runtime.stopped == [True]


PROCESS = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from csi_core import registry
from csi_core.config import Config
from csi_core.server.app import serve
from fake_driver import Full

def take_long(hook):
    if hook == "create_volume":
        print("creating", flush=True)
        time.sleep(float(sys.argv[3]))

def plugin(*_):
    backend = Full()
    backend.before = take_long
    return backend

registry.load_plugin = plugin
sys.exit(serve(Config.model_validate(json.loads(sys.argv[2]))))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def run_and_terminate(path: Path, takes_s: float, grace_s: float) -> tuple[grpc.Future, int, float]:
    """A driver in a process of its own gets SIGTERM in the middle of a creation that takes so long."""
    metrics = f"127.0.0.1:{free_port()}"
    config = {
        "driver": {"name": "fake.csi-core.dev", "nodeId": "n", "endpoint": f"unix://{path}"},
        "server": {"shutdownGraceSeconds": grace_s},
        "node": {"mounts": "simulated"},
        "metrics": {"listen": metrics},
        "backends": {"fake": {}},
    }
    argv = [sys.executable, "-c", PROCESS, str(Path(__file__).parent), json.dumps(config), str(takes_s)]
    with (
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process,
        grpc.insecure_channel(f"unix:{path}") as channel,
    ):
        create = ControllerStub(channel).CreateVolume
        creating = create.future(create_request(), wait_for_ready=True, timeout=30)
        while "creating" not in process.stdout.readline():
            assert process.poll() is None
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as page:
            assert b"csi_core_calls_in_flight 1.0" in page.read()
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        exit_status = process.wait(30)
        spent_s = time.monotonic() - started
        creating.exception()
    return creating, exit_status, spent_s


def test_a_port_that_is_taken_is_named(socket_directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"metrics\.listen: cannot listen on {listen}: Address already in use"):
            app._serve_metrics(MetricsConfig(listen=listen))


def test_another_server_is_noticed_before_any_storage_is_touched(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(app, "build", lambda _config: pytest.fail("the storage was opened"))
    with pytest.raises(ConfigError, match="another server answers"):
        app.serve(client.runtime.config)


def test_backends_are_stopped_where_the_socket_cannot_be_had(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(app, "CallMetrics", lambda: None)
    monkeypatch.setattr(app, "build", lambda _config: client.runtime)
    # The other server comes up while the backends start.
    monkeypatch.setattr(app, "claim", Mock(side_effect=[None, ConfigError("another server answers")]))
    with pytest.raises(ConfigError, match="another server answers"):
        app.serve(client.runtime.config)
    assert client.runtime.stopped == [True]


def test_sigterm_lets_a_call_end(socket_directory: Path) -> None:
    path = socket_directory / "csi.sock"
    creating, exit_status, _ = run_and_terminate(path, takes_s=1, grace_s=20)
    assert creating.result().volume.volume_id
    assert exit_status == 0
    assert not list(socket_directory.iterdir())


def test_sigterm_does_not_wait_for_ever(socket_directory: Path) -> None:
    path = socket_directory / "csi.sock"
    creating, exit_status, spent_s = run_and_terminate(path, takes_s=60, grace_s=0.5)
    assert creating.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert exit_status == 1
    assert spent_s < 5
    claim(path)
