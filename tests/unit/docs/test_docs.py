"""The documentation against the code: hooks, generated parts, links, code blocks."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_core.hookspecs import REQUIRED, BackendSpec

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
