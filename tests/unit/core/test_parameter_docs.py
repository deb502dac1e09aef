from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from csi_core.parameter_docs import KeyDoc, key_docs, markdown_table
from csi_core.parameters import Parameters, SizeBytes


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Part(Parameters):
    path: Path = Field(description="Where.")


class Model(Parameters):
    mkfs_options: str = Field(default="", description="For a | b.")
    size: SizeBytes = Field(default=0, description="How much.")
    kind: Literal["thin", "thick"] = "thin"
    colour: Colour = Colour.RED
    ratio: Annotated[float, Field(ge=1, le=1000)] = 1.0
    on: bool = True
    maybe: int | None = None
    needed: int
    parts: dict[str, Part] = Field(default_factory=dict)
    one: Part
    list_of: tuple[Part, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)


def test_every_key():
    assert key_docs(Model) == (
        KeyDoc("mkfsOptions", "text", "", "", "For a | b."),
        KeyDoc("size", "size (10Gi)", "0", "", "How much."),
        KeyDoc("kind", "", "thin", "thin or thick", ""),
        KeyDoc("colour", "", "red", "red or blue", ""),
        KeyDoc("ratio", "number", "1.0", "at least 1, at most 1000", ""),
        KeyDoc("on", "true or false", "true", "", ""),
        KeyDoc("maybe", "integer", "", "", ""),
        KeyDoc("needed", "integer", None, "", ""),
        KeyDoc("parts", "section by name", "", "", ""),
        KeyDoc("parts.NAME.path", "path", None, "", "Where."),
        KeyDoc("one", "section", None, "", ""),
        KeyDoc("one.path", "path", None, "", "Where."),
        KeyDoc("listOf", "list", "", "", ""),
        KeyDoc("listOf[].path", "path", None, "", "Where."),
        KeyDoc("labels", "text by name", "", "", ""),
    )


def test_markdown():
    lines = markdown_table(Model).splitlines()
    assert lines[0] == "| key | value | default | |"
    assert lines[2] == "| `mkfsOptions` | text |  | For a \\| b. |"
    assert "| `kind` | thin or thick | `thin` |  |" in lines
    assert "| `ratio` | number; at least 1, at most 1000 | `1.0` |  |" in lines
    assert "| `needed` | integer | required |  |" in lines
    assert markdown_table(Parameters) == "None.\n"
