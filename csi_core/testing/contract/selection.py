"""Which tests a backend gets: chosen while they are collected, so that none is ever skipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import pytest

from csi_core.contract import HOOKS
from csi_core.hookspecs import PROJECT
from csi_core.model import SourceKind, VolumeMode

__all__ = ["Selection", "needs"]

F = TypeVar("F", bound=Callable[..., None])


def needs(*hooks: str, source: SourceKind | None = None, block: bool = False) -> Callable[[F], F]:
    """Mark a test as one for backends with all of ``hooks``, that fill volumes from ``source``, or serve raw block.

    Raises:
        ValueError: there is no such hook.
    """
    if unknown := [hook for hook in hooks if hook not in HOOKS]:
        raise ValueError(f"there is no hook {unknown[0]!r}")

    def mark(test: F) -> F:
        test.__dict__["kit_needs"] = (frozenset(hooks), source, block)
        return test

    return mark


class Selection:
    """Base of the contract: takes out of a subclass the tests that its plugin has no use for.

    Attributes:
        plugin: the plugin's class; its hooks choose the tests.
        volume_modes, sources: as ``describe`` declares them. A test compares the two, so no test is lost here.
    """

    plugin: ClassVar[type[object]]
    volume_modes: ClassVar[tuple[VolumeMode, ...]] = (VolumeMode.FILESYSTEM, VolumeMode.BLOCK)
    sources: ClassVar[tuple[SourceKind, ...]] = (SourceKind.SNAPSHOT, SourceKind.VOLUME)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse_shadowed_tests(cls)
        if not hasattr(cls, "plugin"):
            return
        implemented = {hook for hook in HOOKS if hasattr(getattr(cls.plugin, hook, None), f"{PROJECT}_impl")}
        for name in dir(cls):
            hooks, source, block = getattr(getattr(cls, name), "kit_needs", (frozenset(), None, False))
            lacks_mode = block and VolumeMode.BLOCK not in cls.volume_modes
            if not hooks <= implemented or (source and source not in cls.sources) or lacks_mode:
                setattr(cls, name, None)  # pytest collects callables only

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """Tests with an argument ``mode`` run once for each volume mode served."""
        if "mode" in metafunc.fixturenames:
            metafunc.parametrize("mode", cls.volume_modes, ids=lambda mode: mode.value)


def _refuse_shadowed_tests(cls: type) -> None:
    """Two parts of the contract with a test of one name: only one of the two would ever run."""
    parts = [base for base in cls.__bases__ if Selection in base.__mro__]
    names = [name for part in parts for name in vars(part) if name.startswith("test_")]
    if len(parts) > 1 and (twice := {name for name in names if names.count(name) > 1}):
        raise TypeError(f"{cls.__name__}: {min(twice)} is in two of its bases")
