"""The named fault points, read from the source: ``fault("loop.create.before_commit")``.

The crash tests kill the server at each of them, so the list must come from the code and the names in it
must be literal strings.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable

__all__ = ["fault_points"]

_PACKAGES = ("csi_core", "backends")


def fault_points(packages: Sequence[str] = _PACKAGES) -> tuple[str, ...]:
    """The names of all fault points in the installed packages, sorted.

    Args:
        packages: importable packages to read; a plugin's author adds their own.

    Raises:
        ValueError: a call of ``fault`` whose argument is not a literal string, or one name at two places,
            of which the tests could reach the first only.
    """
    places: dict[str, str] = {}
    for package in packages:
        for path, module in _modules(resources.files(package), package):
            for name, line in _names(path, module):
                place = f"{module} line {line}"
                if name in places:
                    raise ValueError(f"fault point {name!r} is at two places: {places[name]} and {place}")
                places[name] = place
    return tuple(sorted(places))


def _modules(directory: Traversable, name: str) -> Iterator[tuple[Traversable, str]]:
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _modules(entry, f"{name}.{entry.name}")
        elif entry.name.endswith(".py"):
            yield entry, f"{name}.{entry.name.removesuffix('.py')}"


def _names(path: Traversable, module: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and _called(node.func) == "fault"):
            continue
        argument = node.args[0] if len(node.args) == 1 and not node.keywords else None
        if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
            raise ValueError(f"{module} line {node.lineno}: fault() takes one literal string, so that it can be found")
        yield argument.value, node.lineno


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
