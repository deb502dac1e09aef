"""Every refusal while loading: what it catches, and that the message says what and how to mend it."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from csi_core.contract import HOOKS, declared_hooks
from csi_core.errors import PluginError
from csi_core.facade import Backend
from csi_core.hookspecs import REQUIRED, BackendSpec, hookimpl


def refusal(plugin, *wrappers) -> str:
    with pytest.raises(PluginError) as caught:
        Backend.load("pool", plugin, wrappers)
    return str(caught.value)


def test_every_hook_of_the_contract_is_known():
    assert {name for name in vars(BackendSpec) if not name.startswith("_")} == set(HOOKS)
    assert HOOKS.keys() >= REQUIRED


def test_the_smallest_backend_is_taken(smallest):
    assert Backend.load("pool", smallest()).hooks == REQUIRED


def test_misspelled_hook(smallest):
    class Plugin(smallest):
        @hookimpl
        def expand_volumes(self, handle, size): ...

    assert refusal(Plugin()) == (
        "backend 'pool' (Plugin): there is no hook 'expand_volumes'; did you mean 'expand_volume'?"
    )


def test_hook_like_no_other(smallest):
    class Plugin(smallest):
        @hookimpl
        def qwerty(self): ...

    assert refusal(Plugin()) == "backend 'pool' (Plugin): there is no hook 'qwerty'"


def test_misspelled_specname(smallest):
    class Plugin(smallest):
        @hookimpl(specname="get_capacty")
        def room(self, query): ...

    assert "no hook 'get_capacty'; did you mean 'get_capacity'?" in refusal(Plugin())


def test_a_hook_of_a_later_version_may_be_marked_optional(smallest):
    class Plugin(smallest):
        @hookimpl(optionalhook=True)
        def teleport_volume(self, handle): ...

    assert "teleport_volume" not in Backend.load("pool", Plugin()).hooks


def test_two_implementations_in_one_plugin(smallest):
    class Plugin(smallest):
        @hookimpl(specname="delete_volume")
        def remove(self, handle, secrets): ...

    assert refusal(Plugin()) == (
        "backend 'pool' (Plugin) has two implementations of the hook delete_volume: delete_volume and remove; keep one"
    )


def test_a_second_backend_as_a_wrapper(smallest):
    message = refusal(smallest(), smallest())
    assert "wrapper Smallest of backend 'pool'" in message
    assert "a second implementation of the hook attach_volume" in message
    assert "@hookimpl(wrapper=True)" in message


def test_async_def(smallest):
    class Plugin(smallest):
        @hookimpl
        async def get_volume(self, handle): ...

    assert "get_volume is an `async def`; hooks are plain functions" in refusal(Plugin())


def test_async_generator(smallest):
    class Plugin(smallest):
        @hookimpl
        async def diagnose(self):
            yield

    assert "diagnose is an `async def`" in refusal(Plugin())


def test_async_wrapper(smallest):
    class Wrapper:
        @hookimpl(wrapper=True)
        async def get_volume(self, handle):
            yield

    assert "get_volume is an `async def`" in refusal(smallest(), Wrapper())


def test_generator_where_a_value_is_wanted(smallest):
    class Plugin(smallest):
        @hookimpl
        def list_volumes(self, cursor, limit):
            yield

    assert "list_volumes has a yield" in refusal(Plugin())


def test_diagnose_may_be_a_generator(smallest):
    class Plugin(smallest):
        @hookimpl
        def diagnose(self):
            yield

    assert "diagnose" in Backend.load("pool", Plugin()).hooks


@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_required_hook_missing(smallest, missing):
    Plugin = type("Plugin", (smallest,), {missing: None})  # noqa: N806
    message = refusal(Plugin())
    assert message == f"backend 'pool' (Plugin) lacks a required hook: {missing}; implement it with @hookimpl"


def test_several_required_hooks_missing():
    message = refusal(object())
    assert "lacks required hooks: attach_volume, create_volume" in message


@pytest.mark.parametrize("hook", ["create_volume", "expand_volume", "stop"])
def test_a_hook_without_its_mark(smallest, hook):
    """Also the trap of a subclass: an override without the mark hides the marked original."""
    Plugin = type("Plugin", (smallest,), {hook: lambda self: None})  # noqa: N806
    message = refusal(Plugin())
    assert f"the method {hook} is named like a hook but has no @hookimpl" in message


def test_argument_that_the_hook_does_not_have(smallest):
    class Plugin(smallest):
        @hookimpl
        def get_volume(self, handel): ...

    assert refusal(Plugin()) == (
        "backend 'pool' (Plugin): the hook get_volume has no argument 'handel'; did you mean 'handle'?"
    )


def test_argument_like_no_other_names_those_there_are(smallest):
    class Plugin(smallest):
        @hookimpl
        def list_volumes(self, xyz): ...

    assert "has no argument 'xyz'; it has cursor, limit" in refusal(Plugin())


def test_argument_of_a_hook_without_any(smallest):
    class Plugin(smallest):
        @hookimpl
        def describe(self, host): ...

    assert "the hook describe has no argument 'host'; it has none" in refusal(Plugin())


def test_default_that_pluggy_would_always_use(smallest):
    class Plugin(smallest):
        @hookimpl
        def list_volumes(self, cursor, limit=100): ...

    assert "the argument 'limit' of list_volumes has a default, and pluggy would always use that" in refusal(Plugin())


@pytest.mark.parametrize(
    "method",
    [
        lambda self, *args: None,
        lambda self, **kwargs: None,
        lambda self, *, handle: None,
    ],
)
def test_arguments_that_pluggy_cannot_fill(smallest, method):
    Plugin = type("Plugin", (smallest,), {"get_volume": hookimpl(method)})  # noqa: N806
    assert "get_volume must take plain arguments" in refusal(Plugin())


def test_fewer_arguments_are_fine(smallest, started):
    class Plugin(smallest):
        @hookimpl
        def list_volumes(self, limit):
            return limit

    assert started(Plugin()).list_volumes("", 7) == 7


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_unknown_api_version(smallest, version):
    class Plugin(smallest):
        csi_core_api = version

    assert f"was written for version {version!r} of the hooks, and this csi-core has version 1" in refusal(Plugin())


def test_known_api_version(smallest):
    class Plugin(smallest):
        csi_core_api = 1

    Backend.load("pool", Plugin())


def test_unhashable(smallest):
    @dataclasses.dataclass
    class Plugin(smallest):
        size: int = 0

    assert refusal(Plugin()) == (
        "backend 'pool' (Plugin) cannot be hashed, so pluggy cannot register it; for a dataclass use "
        "@dataclass(eq=False)"
    )


def test_a_backend_that_wraps_itself(smallest):
    class Plugin(smallest):
        @hookimpl(wrapper=True)
        def get_volume(self, handle):
            return (yield)

    assert "get_volume is a wrapper, and a backend cannot wrap itself" in refusal(Plugin())


def test_wrapper_without_a_yield(smallest):
    class Wrapper:
        @hookimpl(wrapper=True)
        def get_volume(self, handle): ...

    assert "wrapper Wrapper of backend 'pool': get_volume is a wrapper without a yield" in refusal(
        smallest(), Wrapper()
    )


def test_wrapper_without_hooks(smallest):
    assert "wrapper object of backend 'pool' has no hooks" in refusal(smallest(), object())


def test_misspelled_hook_of_a_wrapper(smallest):
    class Wrapper:
        @hookimpl(wrapper=True)
        def creat_volume(self, spec):
            return (yield)

    assert "wrapper Wrapper of backend 'pool': there is no hook 'creat_volume'; did you mean 'create_volume'?" in (
        refusal(smallest(), Wrapper())
    )


def test_the_same_wrapper_twice(smallest):
    class Wrapper:
        @hookimpl(wrapper=True)
        def get_volume(self, handle):
            return (yield)

    wrapper = Wrapper()
    assert "backend 'pool'" in refusal(smallest(), wrapper, wrapper)


def test_a_property_is_never_evaluated(smallest):
    class Plugin(smallest):
        @property
        def dangerous(self):
            raise RuntimeError("evaluated while loading")

    Backend.load("pool", Plugin())


def test_a_decorated_hook_keeps_its_signature(smallest, started):
    def traced(function):
        @hookimpl
        @functools.wraps(function)
        def call(*args, **kwargs):
            return function(*args, **kwargs)

        return call

    class Plugin(smallest):
        @traced
        def get_volume(self, handle):
            return handle

    assert started(Plugin()).get_volume("x") == "x"


def test_a_module_may_be_a_plugin(smallest):
    """Any object will do; functions have no ``self``."""
    plugin = type("Namespace", (), {})()
    for hook in REQUIRED:
        arguments = ", ".join(name for name in HOOKS[hook].parameters if name != "self")
        setattr(plugin, hook, hookimpl(eval(f"lambda {arguments}: None")))
    assert Backend.load("pool", plugin).hooks == REQUIRED


def test_hooks_of_a_class_are_known_without_an_object(smallest):
    class Plugin(smallest):
        @hookimpl(specname="find_volume")
        def by_name(self, name): ...

        @property
        def dangerous(self):
            raise RuntimeError("evaluated")

    assert declared_hooks(Plugin) == REQUIRED | {"find_volume"}
