"""What the tests of this tier share."""

from __future__ import annotations

import image as image_module
import pytest


@pytest.fixture(scope="session")
def image() -> image_module.Image:
    """The container image of this checkout."""
    return image_module.build()
