"""Where on a share a volume's directory is: from a template to a path that cannot leave the share.

Names go into one component each, whatever they are; and a path is walked from the share's root, component by component,
each opened relative to the one before and never through a symbolic link. So neither ``..`` in a template, nor a claim's
odd name, nor a link that somebody has put on the share leads anywhere else.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from csi_core.errors import FailedPrecondition, InvalidArgument

__all__ = ["OWN", "check_template", "directory_of", "overlap", "parent_of"]

OWN: Final = ".csi-core"
"""The directory of a share that holds the records; no volume's."""

_VARIABLES: Final = {
    "${pvc.metadata.name}": "claim",
    "${pvc.metadata.namespace}": "namespace",
    "${pv.metadata.name}": "volume",
    "${.PVC.name}": "claim",
    "${.PVC.namespace}": "namespace",
    "${.PV.name}": "volume",
}
_VARIABLE: Final = re.compile(r"\$\{[^}]*\}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_LITERAL: Final = re.compile(r"[A-Za-z0-9._@+=,-]*")
_DEPTH: Final = 8
_COMPONENT_BYTES: Final = 255
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def check_template(template: str) -> str:
    """Refuse a template that could never be a path below the share.

    Raises:
        ValueError: says what is wrong with it.
    """
    if not template:
        return template
    for variable in _VARIABLE.findall(template):
        if variable not in _VARIABLES:
            raise ValueError(
                f"{variable} is not known; use {', '.join(_VARIABLES)} (labels and annotations do not reach a CSI "
                "driver)"
            )
    literal = _VARIABLE.sub("x", template)
    components = literal.split("/")
    if any(component in ("", ".", "..") for component in components):
        raise ValueError("must be a path below the share: no / at its ends, no empty component, no . or ..")
    if not all(_LITERAL.fullmatch(component) for component in components):
        raise ValueError("may have letters, digits and . _ - @ + = , beside its variables")
    if components[0].startswith(OWN):
        raise ValueError(f"{OWN} holds the driver's records")
    if len(components) > _DEPTH:
        raise ValueError(f"may be {_DEPTH} directories deep")
    return template


def directory_of(template: str, volume: str, claim: str) -> str:
    """The path of a volume's directory, relative to the share's root.

    Args:
        template: checked by :func:`check_template`.
        volume: the volume's name, which is the PersistentVolume's.
        claim: namespace/name, "" where it is not known.

    Raises:
        InvalidArgument: the template needs a claim and none is known, or no volume can be there.
    """
    namespace, _, name = claim.partition("/")
    values: Mapping[str, str] = {"volume": volume, "claim": name, "namespace": namespace}

    def value(variable: re.Match[str]) -> str:
        found = values[_VARIABLES[variable[0]]]
        if not found:
            raise InvalidArgument(
                f"{variable[0]} in subDir is not known: run csi-provisioner with --extra-create-metadata"
            )
        return _component(found)

    path = _VARIABLE.sub(value, template)
    if any(len(component.encode()) > _COMPONENT_BYTES for component in path.split("/")):
        raise InvalidArgument(f"subDir would be {path!r}, and a name may have {_COMPONENT_BYTES} bytes")
    if overlap(path, OWN):  # out of a name, too
        raise InvalidArgument(f"subDir would be {path!r}, and {OWN} holds the driver's records")
    return path


def _component(name: str) -> str:
    """A name as a part of one component: as it is where it is plain, else what is plain of it and a hash."""
    if _PLAIN.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:40].strip("_")
    return f"{readable or 'volume'}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def overlap(one: str, other: str) -> bool:
    """Whether two directories are the same, or one lies in the other: then one pod would see another's data."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


@contextmanager
def parent_of(root: int, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Open the directory that ``path`` lies in; yields it and the last name.

    Args:
        root: the share's root, open.
        path: relative to it.
        make: make the directories on the way.

    Raises:
        FileNotFoundError: a directory on the way is missing.
        FailedPrecondition: something on the way is a symbolic link, or no directory.
    """
    *parents, name = path.split("/")
    here = os.dup(root)
    try:
        for parent in parents:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(parent, 0o755, dir_fd=here)
            try:
                below = os.open(parent, _DIRECTORY, dir_fd=here)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise FailedPrecondition(
                        f"{parent!r} in {path} on the share is no directory; move it away"
                    ) from error
                raise
            os.close(here)
            here = below
        yield here, name
    finally:
        os.close(here)
