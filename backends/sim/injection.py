"""Hooks that take their time or fail because the options say so."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from backends.sim.options import FailureOption
from csi_core import errors
from csi_core.hookspecs import hookimpl

__all__ = ["Injection", "simulated"]

P = ParamSpec("P")
R = TypeVar("R")


class Injection:
    """Latency and failures by the name of the hook."""

    def __init__(self, latency_seconds: Mapping[str, float], failures: Mapping[str, FailureOption]) -> None:
        self._latency_seconds = latency_seconds
        self._failures = failures
        self._left = {hook: failure.times for hook, failure in failures.items()}
        self._lock = threading.Lock()

    def before(self, hook: str) -> None:
        """Sleep, then fail while failures of ``hook`` are left."""
        if seconds := self._latency_seconds.get(hook):
            time.sleep(seconds)
        if hook not in self._failures:
            return
        with self._lock:
            self._left[hook] -= 1
            fails = self._left[hook] >= 0
        if fails:
            raise getattr(errors, self._failures[hook].error)(f"{hook} fails because the option failures says so")


class _Injected(Protocol):
    @property
    def injection(self) -> Injection: ...


S = TypeVar("S", bound=_Injected)


def simulated(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """``hookimpl`` with :class:`Injection` before it."""

    @functools.wraps(method)
    def hook(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        self.injection.before(method.__name__)
        return method(self, *args, **kwargs)

    return cast(Callable[Concatenate[S, P], R], hookimpl(hook))
