"""Parameter models: one declaration gives validation, JSON Schema, documentation and chart values.

A backend subclasses :class:`Parameters` with one field a key::

    class LoopParameters(FilesystemParameters):
        pool: str = Field(default="", description="Pool to take the volume from.")
        provisioning: Literal["thin", "thick"] = Field(default="thin", description="...")

Keys are spelled as in a StorageClass (``mkfsOptions``): fields are snake_case in Python and
camelCase outside. An unknown key is refused with a suggestion.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel

from csi_core.errors import InvalidArgument

__all__ = ["FilesystemParameters", "Parameters", "SizeBytes", "parse_parameters", "parse_size"]

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15} | {
    f"{prefix}i": 1 << (10 * power) for power, prefix in enumerate("KMGTP", start=1)
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P|)B?")


def parse_size(text: object) -> int:
    """Bytes of a Kubernetes quantity such as ``10Gi``, ``500M`` or ``4096``.

    Raises:
        ValueError: not a size; the message shows how one is written.
    """
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if not match:
        raise ValueError(f"{text!r} is not a size; write it like 10Gi, 500M or 4096")
    return int(float(match[1]) * _UNITS[match[2]]) if "." in match[1] else int(match[1]) * _UNITS[match[2]]


SizeBytes = Annotated[
    int, BeforeValidator(parse_size), WithJsonSchema({"type": ["string", "integer"], "format": "quantity"})
]
"""A field in bytes, written as a Kubernetes quantity."""


class Parameters(BaseModel):
    """Base of every parameter model, and the model of "takes none"."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, validate_default=True
    )


class FilesystemParameters(Parameters):
    """Keys for backends whose sources are block devices; the core's node side uses them."""

    mkfs_options: str = Field(
        default="",
        description="Further options for mkfs, separated by spaces, from the allow-list in docs/parameters.md.",
    )


P = TypeVar("P", bound=Parameters)


def keys(model: type[Parameters]) -> list[str]:
    """The keys of ``model`` as they are spelled in a StorageClass."""
    return [f.alias or name for name, f in model.model_fields.items()]


def parse_parameters(model: type[P], given: Mapping[str, str], what: str) -> P:
    """Validate ``given`` against ``model``.

    Args:
        model: the backend's model.
        given: keys and values as they came.
        what: how to call them in an error: "parameter", "mutable parameter", "secret". Values of secrets are
            never part of a message.

    Raises:
        InvalidArgument: names every wrong key and how to mend it.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise InvalidArgument(explain(error, keys(model), what)) from None


def explain(error: ValidationError, known: list[str], what: str) -> str:
    """One line for people from pydantic's report; no value of a secret appears in it."""
    return "; ".join(_explain_one(problem, known, what) for problem in error.errors(include_url=False))


def _explain_one(problem: Any, known: list[str], what: str) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key.lower(), [k.lower() for k in known], n=1)
        match = next((k for k in known if close and k.lower() == close[0]), None)
        hint = f"did you mean {match!r}?" if match else f"known: {', '.join(known) or 'none'}"
        return f"unknown {what} {key!r}; {hint}"
    if problem["type"] == "missing":
        return f"{what} {key!r} is required"
    said = problem["msg"].removeprefix("Value error, ")
    if what == "secret":
        return f"{what} {key!r}: not valid"
    return f"{what} {key!r}: {said}"
