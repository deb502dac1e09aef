"""What the tests import is the installed wheel, and the wheel is whole and typed."""

from __future__ import annotations

import importlib
import sys
import sysconfig
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest

SITE_PACKAGES = Path(sysconfig.get_path("platlib"))
CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name", ["csi_core", "csi_core._allocator", "csi_core._proto.csi_pb2", "backends.loop", "backends.sim"]
)
def test_the_tests_import_the_wheel_and_not_the_checkout(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).is_relative_to(SITE_PACKAGES), (
        f"{name} comes from {module.__file__}; `make test` installs the wheel"
    )


def test_the_checkout_is_not_importable() -> None:
    assert str(CHECKOUT) not in sys.path


def test_backends_is_a_namespace_that_others_may_add_to() -> None:
    backends = importlib.import_module("backends")
    assert backends.__file__ is None


def test_the_extension_works_on_every_python_from_3_11() -> None:
    module = importlib.import_module("csi_core._allocator")
    assert module.__file__ is not None
    assert Path(module.__file__).name == "_allocator.abi3.so"
    assert "Tag: cp311-abi3-" in (distribution("csi-core").read_text("WHEEL") or "")


def test_every_file_of_the_packages_is_in_the_wheel() -> None:
    listed = {str(path) for path in distribution("csi-core").files or ()}
    sources = {
        str(path.relative_to(CHECKOUT))
        for package in ("csi_core", "backends")
        for path in (CHECKOUT / package).rglob("*")
        if path.is_file() and path.suffix not in (".so", ".pyc")
    }
    assert not sources - listed
    assert {"csi_core/py.typed", "csi_core/_allocator.pyi"} <= listed


def test_nothing_but_the_packages_is_in_the_wheel() -> None:
    top = {path.parts[0] for path in distribution("csi-core").files or ()}
    assert {name for name in top if not name.endswith(".dist-info")} - {".."} == {"csi_core", "backends"}


def test_the_built_in_backends_are_reached_as_strangers_are() -> None:
    found = {point.name: point.value for point in entry_points(group="csi_core.backends") if point.dist}
    assert found.keys() >= {"loop", "sim"}
    for point in entry_points(group="csi_core.backends"):
        assert callable(point.load()), f"{point.value} is not a factory"


def test_the_licence_travels_with_the_wheel() -> None:
    assert any(path.name == "LICENSE" for path in distribution("csi-core").files or ())
