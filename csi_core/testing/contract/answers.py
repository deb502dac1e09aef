"""Whether a hook answers what its signature says: pluggy hands on whatever it gets, and the core stumbles later."""

from __future__ import annotations

import re
import types
from collections.abc import Generator, Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from csi_core.contract import HOOKS
from csi_core.hookspecs import BackendSpec, hookimpl

__all__ = ["AnswerChecks", "mismatch"]

_LIFE_CYCLE: Final = frozenset({"describe", "start", "stop"})


class AnswerChecks:
    """A wrapper around every hook that answers something, to be the innermost one of a backend under test."""


def mismatch(value: object, wanted: Any, where: str) -> str:
    """How a value differs from a type of the contract, fields and items included; "" where it does not.

    Args:
        value: what is judged.
        wanted: an annotation of :mod:`csi_core.hookspecs` or :mod:`csi_core.model`.
        where: what the value is called in the answer.
    """
    if isinstance(wanted, types.UnionType) or get_origin(wanted) is Union:
        problems = {arm: mismatch(value, arm, where) for arm in get_args(wanted)}
        if "" in problems.values():
            return ""
        closest = next((arm for arm in problems if isinstance(value, get_origin(arm) or arm)), None)
        return problems[closest] if closest else _not_a(value, wanted, where)
    kind = get_origin(wanted) or wanted
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        return _not_a(value, wanted, where)
    return next(filter(None, (mismatch(*part) for part in _parts(value, kind, get_args(wanted), where))), "")


def _parts(value: Any, kind: Any, arguments: tuple[Any, ...], where: str) -> Iterator[tuple[object, Any, str]]:
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        for field in fields(kind):
            hint = hints[field.name]
            if arguments:  # Created, Existing and Page are generic in one type
                hint = arguments[0] if isinstance(hint, TypeVar) else _filled(hint, arguments)
            yield getattr(value, field.name), hint, f"{where}.{field.name}"
    elif arguments and kind is tuple:
        yield from ((item, arguments[0], f"{where}[{index}]") for index, item in enumerate(value))
    elif arguments and issubclass(kind, Mapping):
        yield from ((item, arguments[1], f"{where}[{key!r}]") for key, item in value.items())
    elif arguments and issubclass(kind, Set):
        yield from ((item, arguments[0], f"an item of {where}") for item in value)


def _filled(hint: Any, arguments: tuple[Any, ...]) -> Any:
    return hint[arguments] if getattr(hint, "__parameters__", ()) else hint


def _not_a(value: object, wanted: Any, where: str) -> str:
    return f"{where} is {value!r:.100}; the contract wants {_text(wanted)}"


def _text(wanted: Any) -> str:
    if isinstance(wanted, types.UnionType) or get_origin(wanted) is Union:
        return " | ".join(map(_text, get_args(wanted)))
    if isinstance(wanted, type) and not get_args(wanted):
        return wanted.__name__
    return re.sub(r"\b[a-z_.]+\.(?=[A-Z])", "", str(wanted))  # the names of modules


def _check(hook: str, wanted: Any) -> Any:
    def check(self: AnswerChecks) -> Generator[None, object, object]:  # noqa: ARG001
        answer = yield
        problem = mismatch(answer, wanted, f"{hook}()")
        if problem:
            raise AssertionError(problem)
        return answer

    return hookimpl(wrapper=True)(check)


for _hook in HOOKS.keys() - _LIFE_CYCLE:
    _wanted = get_type_hints(getattr(BackendSpec, _hook))["return"]
    if _wanted is not type(None):
        setattr(AnswerChecks, _hook, _check(_hook, _wanted))
