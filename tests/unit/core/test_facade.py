from __future__ import annotations

import inspect

import pytest

from csi_core.contract import HOOKS
from csi_core.errors import NotFound, Unavailable, Unsupported
from csi_core.facade import Backend
from csi_core.hookspecs import hookimpl
from csi_core.model import CapacityQuery, Created, SizeRange, VolumeSpec
from csi_core.parameters import Parameters

SERVED = sorted(HOOKS.keys() - {"describe", "start", "stop"})


@pytest.mark.parametrize("hook", SERVED)
def test_every_hook_is_a_method_of_the_same_signature(hook):
    assert inspect.signature(getattr(Backend, hook)) == HOOKS[hook]


@pytest.mark.parametrize("hook", SERVED)
def test_arguments_and_answers_pass_through(hook, started, smallest):
    """Every method calls its own hook and hands every argument to it, under the right name."""
    names = [name for name in HOOKS[hook].parameters if name != "self"]
    seen = {}
    scope = {"seen": seen}
    exec(f"def method(self, {', '.join(names)}): seen.update({', '.join(f'{n}={n}' for n in names)}); return 42", scope)
    Plugin = type("Plugin", (smallest,), {hook: hookimpl(scope["method"])})  # noqa: N806
    plugin = Plugin()
    backend = started_alone(plugin, hook)
    given = {name: object() for name in names}
    answer = getattr(backend, hook)(*given.values())
    assert seen == given
    assert answer == (42 if HOOKS[hook].return_annotation != "None" else None)


def started_alone(plugin, hook):
    """Started without the checks of declarations: a hook is tested here without those that belong to it."""
    from csi_core import facade

    backend = Backend.load("b", plugin)
    backend._call = facade._Started("b", backend.hooks, backend._manager.hook)
    return backend


def test_creating(started, smallest):
    backend = started(smallest())
    outcome = backend.create_volume(VolumeSpec("pvc", SizeRange(4096), (), Parameters()))
    assert isinstance(outcome, Created)
    assert outcome.value.handle == "v-pvc"
    assert backend.get_volume("v-pvc").size_bytes == 4096


def test_none_is_an_answer(started, smallest):
    assert started(smallest()).get_volume("unknown") is None


def test_a_hook_that_is_not_implemented(started, smallest):
    with pytest.raises(Unsupported, match="backend 'b' cannot do this: it does not implement get_capacity"):
        started(smallest()).get_capacity(CapacityQuery(Parameters()))


def test_not_started(smallest):
    backend = Backend.load("b", smallest())
    for call in (lambda: backend.get_volume("x"), lambda: backend.description, backend.diagnose):
        with pytest.raises(Unavailable, match="backend 'b' is not ready yet"):
            call()


def test_stopped(started, smallest):
    backend = started(smallest())
    backend.stop()
    with pytest.raises(Unavailable):
        backend.get_volume("x")


def test_start_that_fails_may_be_repeated(smallest, host):
    class Plugin(smallest):
        ready = False

        @hookimpl
        def start(self, host):
            if not self.ready:
                raise Unavailable("the storage does not answer")
            self.node_id = host.node_id

    plugin = Plugin()
    backend = Backend.load("b", plugin)
    with pytest.raises(Unavailable, match="the storage does not answer"):
        backend.start(host)
    with pytest.raises(Unavailable, match="not ready"):
        backend.get_volume("x")
    plugin.ready = True
    assert backend.start(host).summary == "the smallest there is"
    assert plugin.node_id == "node-1"
    assert backend.get_volume("v-x") is not None


def test_describe_is_called_after_start(smallest, host):
    order = []

    class Plugin(smallest):
        @hookimpl
        def start(self, host):
            order.append("start")

        @hookimpl
        def describe(self):
            order.append("describe")
            return self.description

    Backend.load("b", Plugin()).start(host)
    assert order == ["start", "describe"]


class Tracing:
    def __init__(self, name, trace):
        self.name, self.trace = name, trace

    @hookimpl(wrapper=True)
    def get_volume(self, handle):
        self.trace.append(f"{self.name} before")
        try:
            return (yield)
        finally:
            self.trace.append(f"{self.name} after")


def test_the_first_wrapper_is_the_outermost(started, smallest):
    trace = []
    backend = started(smallest(), Tracing("outer", trace), Tracing("inner", trace))
    assert backend.get_volume("v-x").name == "x"
    assert trace == ["outer before", "inner before", "inner after", "outer after"]


def test_a_wrapper_sees_none_and_may_change_the_answer(started, smallest):
    class Wrapper:
        @hookimpl(wrapper=True)
        def get_volume(self, handle):
            answer = yield
            return "made up" if answer is None else answer

    assert started(smallest(), Wrapper()).get_volume("unknown") == "made up"


def test_a_wrapper_may_refuse(started, smallest):
    class Policy:
        @hookimpl(wrapper=True)
        def create_volume(self, spec):
            if spec.name.startswith("forbidden"):
                raise Unsupported("not this name")
            return (yield)

    backend = started(smallest(), Policy())
    with pytest.raises(Unsupported, match="not this name"):
        backend.create_volume(VolumeSpec("forbidden", SizeRange(), (), Parameters()))


def test_errors_come_through_a_wrapper_as_they_are(started, smallest):
    class Plugin(smallest):
        @hookimpl
        def get_volume(self, handle):
            raise NotFound("gone")

    trace = []
    with pytest.raises(NotFound, match="gone"):
        started(Plugin(), Tracing("w", trace)).get_volume("x")
    assert trace == ["w before", "w after"]


def test_a_wrapper_does_not_make_a_hook_implemented(started, smallest):
    class Wrapper:
        @hookimpl(wrapper=True)
        def get_capacity(self, query):
            return (yield)

    backend = started(smallest(), Wrapper())
    assert "get_capacity" not in backend.hooks
    with pytest.raises(Unsupported):
        backend.get_capacity(CapacityQuery(Parameters()))


def test_backends_do_not_see_each_other(smallest, started):
    class Other(smallest):
        @hookimpl
        def get_volume(self, handle):
            return "other"

    one, two = started(smallest(), name="one"), started(Other(), name="two")
    assert one.get_volume("v-x").name == "x"
    assert two.get_volume("v-x") == "other"
