"""Writes the generated parts of the documentation; with ``--check``, fails where they are not up to date.

A part stands between two comments in a Markdown file, ``<!-- generated: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generator import PARTS

DOCS = Path(__file__).parent
PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def main() -> int:
    """Bring every page up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and show what would change")
    check = parser.parse_args().check
    stale = [path for path in sorted(DOCS.rglob("*.md")) if _bring_up_to_date(path, check)]
    if stale and check:
        sys.stdout.write("Not up to date: run `make docs` and commit the result.\n")
    return 1 if stale and check else 0


def _bring_up_to_date(path: Path, check: bool) -> bool:
    """Fill the parts of one file; answer whether it was stale."""
    old = path.read_text(encoding="utf-8")
    new = PART.sub(lambda match: f"{match[1]}\n{PARTS[match[2]]()}\n{match[3]}", old)
    if new == old:
        return False
    name = str(path.relative_to(DOCS.parent))
    if check:
        sys.stdout.writelines(
            difflib.unified_diff(old.splitlines(True), new.splitlines(True), name, f"{name}, generated")
        )
    else:
        path.write_text(new, encoding="utf-8")
        sys.stdout.write(f"wrote {name}\n")
    return True


if __name__ == "__main__":
    sys.exit(main())
