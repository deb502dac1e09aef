"""The documentation against the code: hooks, generated parts, links, code blocks."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csi_core.config import parse_config
from csi_core.config_source import Source
from csi_core.facade import Backend
from csi_core.hookspecs import REQUIRED, BackendSpec
from csi_core.model import (
    AccessMode,
    AttachRequest,
    Created,
    Existing,
    SizeRange,
    VolumeCapability,
    VolumeMode,
    VolumeSpec,
)
from csi_core.parameters import Parameters
from csi_core.registry import installed, load_plugin

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benches/**/*.md")])
HOOKS = [name for name, value in vars(BackendSpec).items() if inspect.isfunction(value)]

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_with_its_exact_signature(name: str) -> None:
    signature = str(inspect.signature(getattr(BackendSpec, name))).replace("'", "")
    required = " (required)" if name in REQUIRED else ""
    page = (ROOT / "docs/hooks.md").read_text(encoding="utf-8")
    assert f"### `{name}`{required}\n\n```python\ndef {name}{signature}\n```\n" in page


def test_the_generated_parts_are_up_to_date() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    broken = [link for link in links(FENCE.sub("", text)) if not leads_somewhere(page, link)]
    assert not broken, f"{page_id(page)}: {broken}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_blocks_compile(page: Path) -> None:
    for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python" and not code.startswith("def "):  # a bare signature is no statement
            ast.parse(code)


def configurations() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
            if language == "yaml" and text.startswith(("driver:", "# csi.yaml\ndriver:")):
                yield page_id(page), text


@pytest.mark.parametrize(("page", "text"), list(configurations()))
def test_whole_configurations_are_accepted(page: str, text: str) -> None:
    config = parse_config(Source.parse(text, page))
    known = {backend.name for backend in installed()}
    for backend in config.backends.values():
        if backend.type in known:  # examples' own backends are not
            load_plugin(backend.type, backend.options)


def test_the_backend_in_the_readme_works(tmp_path: Path) -> None:
    """Not what it looks like, what it does: the facade loads it, and it keeps its volumes."""
    code = next(text for language, text in FENCE.findall((ROOT / "README.md").read_text()) if language == "python")
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    backend = Backend.load("directories", names["Directories"]({"root": str(tmp_path)}))
    backend.start(None)
    capability = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_WRITER)
    specs = [VolumeSpec(name, SizeRange(5 << 20), (capability,), Parameters()) for name in ("a", "b/../c", "\u00fc")]
    made = [backend.create_volume(spec) for spec in specs]
    assert all(isinstance(outcome, Created) for outcome in made)
    assert backend.create_volume(specs[1]) == Existing(made[1].value)
    assert backend.get_volume("../a") is None
    first = backend.list_volumes("", 2)
    rest = backend.list_volumes(first.next_cursor, 2)
    assert {v.name for v in (*first.entries, *rest.entries)} == {"a", "b/../c", "\u00fc"}
    assert rest.next_cursor == ""
    source = backend.attach_volume(AttachRequest(made[2].value.handle, capability))
    assert source.path.is_dir()
    for outcome in made:
        for _ in range(2):
            backend.delete_volume(outcome.value.handle, Parameters())
    assert list(tmp_path.iterdir()) == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        targets = (link.partition("#")[0] for link in links(FENCE.sub("", page.read_text(encoding="utf-8"))))
        waiting += [(page.parent / target).resolve() for target in targets if target and "://" not in target]
    assert sorted(page_id(page) for page in set(PAGES) - reached) == []


def links(text: str) -> Iterator[str]:
    for match in LINK.finditer(text):
        yield match[1] or match[2]


def leads_somewhere(page: Path, link: str) -> bool:
    if "://" in link:
        return True  # the tests stay off the network
    target, _, anchor = link.partition("#")
    path = (page.parent / target).resolve() if target else page
    if not path.exists():
        return False
    return not anchor or anchor in {slug(heading) for heading in HEADING.findall(path.read_text(encoding="utf-8"))}


def slug(heading: str) -> str:
    """A heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
