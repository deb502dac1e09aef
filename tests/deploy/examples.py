"""The files of deploy/examples: their objects, and the three lines on what to expect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["DIRECTORY", "EXAMPLES", "Example"]

DIRECTORY = Path(__file__).parents[2] / "deploy/examples"


@dataclass(frozen=True)
class Example:
    """One story.

    Attributes:
        edit: what its reader does to the file before applying it.
    """

    path: Path
    edit: Callable[[str], str] = str

    @property
    def name(self) -> str:
        """Its driver and its file: ``loop/clone``."""
        return str(self.path.relative_to(DIRECTORY).with_suffix(""))

    @property
    def text(self) -> str:
        """What is applied."""
        return self.edit(self.path.read_text(encoding="utf-8"))

    @property
    def expectation(self) -> list[str]:
        """The comment lines at its top."""
        lines = self.text.splitlines()
        end = next(number for number, line in enumerate(lines) if not line.startswith("# "))
        return [line.removeprefix("# ") for line in lines[:end]]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """What ``kubectl apply`` makes of it."""
        return [document for document in yaml.safe_load_all(self.text) if document]


EXAMPLES = [Example(path) for path in sorted(DIRECTORY.rglob("*.yaml"))]
