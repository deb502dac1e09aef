"""Building, starting, waiting for and stopping the backends of a configuration."""

from __future__ import annotations

import threading
import time

import pytest

from csi_core import runtime as runtime_module
from csi_core.config import Config
from csi_core.errors import ConfigError, PluginError, Unavailable
from csi_core.runtime import build


@pytest.fixture
def config(stranger):
    def config(*names, **overrides):
        return Config.model_validate(
            {
                "driver": {"name": "a.b", "nodeId": "n1"},
                "node": {"mounts": "simulated"},
                "defaultBackend": (names or ("s",))[0],
                "backends": {
                    name: {"type": "stranger", "options": {"directory": str(stranger)}} for name in names or ("s",)
                },
                **overrides,
            }
        )

    return config


@pytest.fixture
def calls(stranger):
    import stranger_backend

    stranger_backend.calls.clear()
    return stranger_backend.calls


@pytest.fixture
def quick_retries(monkeypatch):
    monkeypatch.setattr(runtime_module, "_FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(runtime_module, "_LAST_RETRY_S", 0.02)


def until(condition, seconds=5.0):
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "it never came true"
        time.sleep(0.005)


def test_ready_at_once(config, calls):
    runtime = build(config("one", "two"))
    assert runtime.ready
    assert [backend.name for backend in runtime.router.all] == ["one", "two"]
    assert "CREATE_DELETE_VOLUME" in runtime.capabilities.controller
    assert runtime.router.by_parameters({})[0].name == "one"
    runtime.stop()
    assert calls == ["made", "made", "start", "start", "stop", "stop"]


def test_storage_that_cannot_be_reached_is_tried_again(config, stranger, quick_retries):
    (stranger / "not-yet").write_text("the disk spins up")
    runtime = build(config())
    try:
        assert runtime.ready is False
        with pytest.raises(Unavailable, match="still starting \\(waiting for 's': the disk spins up\\)"):
            _ = runtime.capabilities
        with pytest.raises(Unavailable, match="backend 's' is not ready yet"):
            runtime.router.all[0].list_volumes("", 1)
        (stranger / "not-yet").unlink()
        until(lambda: runtime.ready)
        assert runtime.capabilities
        assert runtime.router.all[0].list_volumes("", 1).entries == ()
    finally:
        runtime.stop()


def test_stopping_ends_the_attempts(config, stranger, calls, quick_retries):
    (stranger / "not-yet").touch()
    runtime = build(config())
    runtime.stop()
    tried = calls.count("start")
    time.sleep(0.1)
    assert calls.count("start") == tried
    assert "stop" not in calls
    assert not [thread for thread in threading.enumerate() if thread.name == "start-backends"]


def test_a_refusal_while_waiting_is_told_to_whoever_asks(config, stranger, quick_retries):
    (stranger / "not-yet").touch()
    runtime = build(config())
    try:
        (stranger / "wrong").touch()
        (stranger / "not-yet").unlink()

        def refused():
            try:
                return runtime.ready
            except Unavailable as error:
                return str(error) == "this server cannot start: backends.s: the directory is wrong"

        until(refused)
        with pytest.raises(Unavailable, match="the directory is wrong"):
            _ = runtime.capabilities
    finally:
        runtime.stop()


def test_a_wrong_option_found_at_start_stops_what_was_started(config, install, stranger, calls):
    install(
        "csi-core-picky",
        backends={"picky": "picky_backend:Picky"},
        modules={
            "picky_backend": "from stranger_backend import *\n"
            "class Picky(Factory):\n"
            "    @hookimpl\n"
            "    def start(self, host): raise ConfigError('no such pool')\n"
        },
    )
    settings = config("one")
    picky = settings.backends["one"].model_copy(update={"type": "picky"})
    settings = settings.model_copy(update={"backends": {**settings.backends, "two": picky}})
    with pytest.raises(ConfigError, match="^backends.two: no such pool$"):
        build(settings)
    assert calls[-1] == "stop"
    assert calls.count("stop") == 1


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        ("ValueError('boom')", PluginError, "backend 'p' failed to start: ValueError: boom"),
        ("StorageFailure('disk on fire')", ConfigError, "backend 'p' cannot start: disk on fire"),
    ],
)
def test_a_start_that_fails_for_good(config, install, stranger, error, expected, said):
    install(
        "csi-core-picky",
        backends={"picky": "picky_backend:Picky"},
        modules={
            "picky_backend": "from stranger_backend import *\nfrom csi_core.errors import StorageFailure\n"
            f"class Picky(Factory):\n    @hookimpl\n    def start(self, host): raise {error}\n"
        },
    )
    section = {"type": "picky", "options": {"directory": str(stranger)}}
    with pytest.raises(expected) as caught:
        build(config("p", backends={"p": section}))
    assert str(caught.value) == said


def test_wrong_options_are_told_with_their_section(config):
    with pytest.raises(ConfigError, match=r"^backends\.s\.options: option 'directory' is required$"):
        build(config(backends={"s": {"type": "stranger"}}))


def test_wrappers_surround_the_backend(config, install, stranger):
    install(
        "policy",
        wrappers={"policy": "policy_wrapper:Policy"},
        modules={
            "policy_wrapper": "from csi_core.hookspecs import hookimpl\n"
            "class Policy:\n"
            "    def __init__(self, options): self.answer = options['answer']\n"
            "    @hookimpl(wrapper=True)\n"
            "    def list_volumes(self, cursor, limit):\n"
            "        yield\n"
            "        return self.answer\n"
        },
    )
    section = {
        "type": "stranger",
        "options": {"directory": str(stranger)},
        "wrappers": [{"type": "policy", "options": {"answer": "all of them"}}],
    }
    runtime = build(config(backends={"s": section}))
    assert runtime.router.all[0].list_volumes("", 1) == "all of them"
    runtime.stop()
    section["wrappers"] = [{"type": "policy"}]
    said = "backends.s.wrappers.0.options: the wrapper type 'policy' could not be made from its options: KeyError"
    with pytest.raises(PluginError, match=said):
        build(config(backends={"s": section}))


def test_stop_goes_on_where_one_backend_fails(config, calls, monkeypatch):
    runtime = build(config("one", "two"))

    def fail():
        raise OSError("cannot close")

    monkeypatch.setattr(runtime.router.all[1], "stop", fail)
    runtime.stop()
    assert calls.count("stop") == 1


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        ({"name": "a" * 55, "nodeId": "n"}, "driver.name: .* at most 54 characters"),
        ({"name": "a.b", "nodeId": "n" * 64}, "driver.nodeId: .* at most 63 characters"),
    ],
)
def test_names_that_do_not_fit_the_topology_of_node_local_volumes(config, stranger, monkeypatch, driver, said):
    import dataclasses

    import stranger_backend

    from csi_core.model import Reach

    build(config(driver=driver)).stop()  # fine on a network backend
    local = dataclasses.replace(stranger_backend.Factory.declaration, reach=Reach.NODE_LOCAL)
    monkeypatch.setattr(stranger_backend.Factory, "declaration", local)
    with pytest.raises(ConfigError, match=said):
        build(config(driver=driver))
