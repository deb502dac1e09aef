"""Who keeps a mount busy: for the error message only, as it looks at every process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["holders"]

_NAMED = 5


def holders(path: Path) -> str:
    """The processes with a file, working directory or root under ``path``, in words."""
    found = [f"{pid} ({name})" for pid, name in _processes(f"{path}/")]
    if not found:
        return "no process that this container can see holds it: look for one on the host, or for a mount within it"
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"held by process {', '.join(found[:_NAMED])}{more}"


def _processes(prefix: str) -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and any(f"{target}/".startswith(prefix) for target in _open_paths(entry)):
            try:
                name = (entry / "comm").read_text(errors="replace").strip()
            except OSError:
                continue
            yield int(entry.name), name


def _open_paths(process: Path) -> Iterator[str]:
    try:
        links = [process / "cwd", process / "root", *(process / "fd").iterdir()]
    except OSError:  # it has ended, or is not ours to look into
        return
    for link in links:
        try:
            yield str(link.readlink())
        except OSError:
            continue
