"""What a plugin must look like: the refusals while loading, before one of its hooks is called.

pluggy is forgiving where a storage driver must not be: it ignores a misspelled hook, hands out the coroutine of an
``async def``, lets two implementations of one hook shadow each other and never fills an argument that has a default.
All of that is refused here, with the plugin, the hook and the nearest right name in the message.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from csi_core.errors import PluginError
from csi_core.hookspecs import API_VERSION, PROJECT, REQUIRED, BackendSpec

__all__ = ["HOOKS", "check_backend", "check_wrapper", "declared_hooks", "nearest"]

HOOKS: Mapping[str, inspect.Signature] = {
    name: inspect.signature(function)
    for name, function in vars(BackendSpec).items()
    if hasattr(function, f"{PROJECT}_spec")
}
"""Every hook there is, with its signature."""

_ITERATOR_HOOKS = frozenset({"diagnose"})
"""Hooks that answer an iterator, so that a generator function may implement them."""

_marks = pluggy.PluginManager(PROJECT)


@dataclass(frozen=True, slots=True)
class _Implementation:
    method_name: str
    hook: str
    wrapper: bool
    optional: bool
    function: Callable[..., Any]


def check_backend(name: str, plugin: object) -> frozenset[str]:
    """The hooks that a backend's plugin implements.

    Args:
        name: the backend's configured name, for messages.
        plugin: what its factory answered.

    Raises:
        PluginError: it breaks the contract; the message names the hook and the fix.
    """
    who = f"backend {name!r} ({_type_name(plugin)})"
    implementations = _check_object(who, plugin)
    for implementation in implementations:
        if implementation.wrapper:
            raise PluginError(
                f"{who}: {implementation.method_name} is a wrapper, and a backend cannot wrap itself; "
                f"remove wrapper=True, or configure the wrapper as an object of its own"
            )
        generator = inspect.isgeneratorfunction(implementation.function)
        if generator and implementation.hook not in _ITERATOR_HOOKS:
            raise PluginError(
                f"{who}: {implementation.method_name} has a yield, so the core would get a generator instead of the "
                f"hook's answer; return it"
            )
    hooks = frozenset(implementation.hook for implementation in implementations)
    missing = sorted(REQUIRED - hooks)
    if missing:
        raise PluginError(
            f"{who} lacks {'a required hook' if len(missing) == 1 else 'required hooks'}: {', '.join(missing)}; "
            f"implement {'it' if len(missing) == 1 else 'them'} with @hookimpl"
        )
    return hooks


def check_wrapper(name: str, wrapper: object) -> None:
    """Whether an object may surround the hooks of backend ``name``.

    Raises:
        PluginError: it breaks the contract, or would be a second implementation.
    """
    who = f"wrapper {_type_name(wrapper)} of backend {name!r}"
    implementations = _check_object(who, wrapper)
    for implementation in implementations:
        if not implementation.wrapper:
            raise PluginError(
                f"{who}: {implementation.method_name} would be a second implementation of the hook "
                f"{implementation.hook} beside the backend's own; use @hookimpl(wrapper=True) and yield once"
            )
        if not inspect.isgeneratorfunction(implementation.function):
            raise PluginError(
                f"{who}: {implementation.method_name} is a wrapper without a yield; "
                f"write `result = yield` where the backend is to be called, and return the result"
            )
    if not implementations:
        raise PluginError(f"{who} has no hooks; mark its methods with @hookimpl(wrapper=True)")


def declared_hooks(plugin_class: type) -> frozenset[str]:
    """The hooks that a plugin's class marks as its own, for showing them before there is an object to check."""
    options = (
        (name, _marks.parse_hookimpl_opts(plugin_class, name))
        for name in dir(plugin_class)
        if not isinstance(inspect.getattr_static(plugin_class, name, None), property)
    )
    return frozenset(found.get("specname") or name for name, found in options if found is not None) & HOOKS.keys()


def nearest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` where one of ``known`` is close to ``word``, else ""."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_object(who: str, plugin: object) -> list[_Implementation]:
    _check_version(who, plugin)
    try:
        hash(plugin)
    except TypeError:
        raise PluginError(
            f"{who} cannot be hashed, so pluggy cannot register it; for a dataclass use @dataclass(eq=False)"
        ) from None
    implementations: list[_Implementation] = []
    for method_name in dir(plugin):
        implementation = _implementation(who, plugin, method_name)
        if implementation is None:
            continue
        if implementation.hook not in HOOKS and not implementation.optional:
            raise PluginError(f"{who}: there is no hook {implementation.hook!r}{nearest(implementation.hook, HOOKS)}")
        _check_function(who, implementation)
        implementations.append(implementation)
    _check_once(who, implementations)
    return [implementation for implementation in implementations if implementation.hook in HOOKS]


def _check_version(who: str, plugin: object) -> None:
    version = getattr(plugin, "csi_core_api", API_VERSION)
    if version != API_VERSION:
        raise PluginError(
            f"{who} was written for version {version!r} of the hooks, and this csi-core has version {API_VERSION}; "
            f"install a csi-core and a backend that fit together"
        )


def _implementation(who: str, plugin: object, method_name: str) -> _Implementation | None:
    static = inspect.getattr_static(plugin, method_name, None)
    if isinstance(static, property):
        return None  # never evaluated: it may do anything
    options = _marks.parse_hookimpl_opts(plugin, method_name)
    if options is None:
        if method_name in HOOKS and callable(static):
            raise PluginError(
                f"{who}: the method {method_name} is named like a hook but has no @hookimpl, so it would never be "
                f"called; mark it (an override in a subclass needs the mark again) or rename it"
            )
        return None
    return _Implementation(
        method_name=method_name,
        hook=options.get("specname") or method_name,
        wrapper=bool(options.get("wrapper") or options.get("hookwrapper")),
        optional=bool(options.get("optionalhook")),
        function=getattr(plugin, method_name),
    )


def _check_function(who: str, implementation: _Implementation) -> None:
    function, hook = implementation.function, implementation.hook
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(
            f"{who}: {implementation.method_name} is an `async def`; hooks are plain functions, "
            f"called from a thread of their own"
        )
    if hook not in HOOKS:
        return
    known = [name for name in HOOKS[hook].parameters if name != "self"]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            raise PluginError(f"{who}: {implementation.method_name} must take plain arguments, not {str(parameter)!r}")
        if parameter.name not in known:
            raise PluginError(
                f"{who}: the hook {hook} has no argument {parameter.name!r}"
                f"{nearest(parameter.name, known) or '; it has ' + (', '.join(known) or 'none')}"
            )
        if parameter.default is not parameter.empty:
            raise PluginError(
                f"{who}: the argument {parameter.name!r} of {implementation.method_name} has a default, "
                f"and pluggy would always use that; remove it"
            )


def _check_once(who: str, implementations: Iterable[_Implementation]) -> None:
    seen: dict[str, str] = {}
    for implementation in implementations:
        other = seen.setdefault(implementation.hook, implementation.method_name)
        if other != implementation.method_name:
            raise PluginError(
                f"{who} has two implementations of the hook {implementation.hook}: "
                f"{other} and {implementation.method_name}; keep one"
            )


def _type_name(plugin: object) -> str:
    return getattr(plugin, "__name__", None) or type(plugin).__name__
