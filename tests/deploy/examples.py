"""The files of deploy/examples: their objects, and the three lines on what to expect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["EXAMPLES", "Example"]

DIRECTORY = Path(__file__).parents[2] / "deploy/examples"


@dataclass(frozen=True)
class Example:
    """One story."""

    path: Path

    @property
    def name(self) -> str:
        """Its driver and its file: ``loop/clone``."""
        return str(self.path.relative_to(DIRECTORY).with_suffix(""))

    @property
    def expectation(self) -> list[str]:
        """The comment lines at its top."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        end = next(number for number, line in enumerate(lines) if not line.startswith("# "))
        return [line.removeprefix("# ") for line in lines[:end]]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """What ``kubectl apply`` makes of it."""
        documents = yaml.safe_load_all(self.path.read_text(encoding="utf-8"))
        return [document for document in documents if document]


EXAMPLES = [Example(path) for path in sorted(DIRECTORY.rglob("*.yaml"))]
