"""What the tests of this tier share."""

from __future__ import annotations

import shutil

import helm
import image as image_module
import pytest


@pytest.fixture(scope="session")
def image() -> image_module.Image:
    """The container image of this checkout."""
    return image_module.build()


@pytest.fixture(scope="session", autouse=True)
def helm_is_built(pytestconfig: pytest.Config) -> None:
    """Building takes a minute or two the first time: say so, past pytest's capturing."""
    terminal = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    if shutil.which("go") and not helm.is_built():
        if terminal:
            terminal.write_line("\nbuilding helm")
        helm.build()
