"""The hook reference, from the source of the contract."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator

from csi_core import hookspecs

__all__ = ["hooks"]


def hooks() -> str:
    """Every hook with its exact signature and its docstring, in the groups of the source."""
    lines = []
    group = ""
    for hook_group, hook in _hooks():
        if hook_group != group:
            group = hook_group
            lines += [f"## {group[0].upper()}{group[1:]}", ""]
        required = " (required)" if hook.name in hookspecs.REQUIRED else ""
        lines += [f"### `{hook.name}`{required}", "", "```python", signature(hook), "```", ""]
        lines += [*docstring(ast.get_docstring(hook) or ""), ""]
    return "\n".join(lines)


def signature(hook: ast.FunctionDef) -> str:
    """The hook's ``def`` line as it stands in the source."""
    return f"def {hook.name}({ast.unparse(hook.args)}) -> {ast.unparse(hook.returns) if hook.returns else 'None'}"


def docstring(text: str) -> Iterator[str]:
    """A docstring's lines as Markdown: literals as code, a ``Raises`` section as a list."""
    section = False
    for line in textwrap.dedent(text).splitlines():
        clean = _inline(line)
        if line.strip() == "Raises:":
            section = True
            yield from ("Raises:", "")
        elif section and line.startswith("    ") and ":" in line and not line.startswith("     "):
            names, _, meaning = clean.strip().partition(": ")
            yield f"- {', '.join(f'`{name}`' for name in names.split(', '))}: {meaning}"
        else:
            yield f"  {clean.strip()}" if section and clean.strip() else clean


def _inline(text: str) -> str:
    text = re.sub(r":(?:class|func|meth|mod|data):`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def _hooks() -> Iterator[tuple[str, ast.FunctionDef]]:
    source = inspect.getsource(hookspecs)
    groups = {
        number: line.strip().removeprefix("# -- ").rstrip("-").strip()
        for number, line in enumerate(source.splitlines(), start=1)
        if line.strip().startswith("# -- ")
    }
    spec = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "BackendSpec")
    for hook in (n for n in spec.body if isinstance(n, ast.FunctionDef)):
        yield groups[max(number for number in groups if number < hook.lineno)], hook
