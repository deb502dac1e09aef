"""Reads a Dockerfile and a .dockerignore: as much of the language as this one uses, and an error for the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

KEYWORDS = ("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "LABEL", "RUN", "STOPSIGNAL", "WORKDIR")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_PAIR = re.compile(r'([\w.-]+)=("(?:[^"\\]|\\.)*"|\S*)\s*')


class DockerfileError(Exception):
    """What is not understood, and where."""


@dataclass(frozen=True)
class Step:
    """One instruction, with continued lines joined; ``line`` is where it begins."""

    line: int
    keyword: str
    text: str

    def fail(self, why: str) -> DockerfileError:
        """The error that this step is."""
        return DockerfileError(f"line {self.line}: {self.keyword} {self.text}: {why}")

    def expanded(self, variables: Mapping[str, str]) -> str:
        """The text with ``$NAME`` and ``${NAME}`` replaced; an unknown name is empty, as in Docker."""
        return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), self.text)

    def pairs(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The ``name=value`` pairs of ARG, ENV and LABEL; a value may be in double quotes."""
        text = self.expanded(variables)
        found = list(_PAIR.finditer(text))
        if "".join(match[0] for match in found) != text:
            raise self.fail("write name=value")
        return {match[1]: json.loads(match[2]) if match[2][:1] == '"' else match[2] for match in found}

    def exec_form(self) -> list[str]:
        """The list of ENTRYPOINT and CMD; the shell form would put a shell between a signal and the driver."""
        try:
            words = json.loads(self.text)
        except ValueError:
            raise self.fail('write ["program", "argument"]') from None
        return [str(word) for word in words]

    def copied(self, variables: Mapping[str, str]) -> tuple[str, list[str], str]:
        """``--from`` (or ""), the sources and the destination of COPY."""
        words = self.expanded(variables).split()
        stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else ""
        if len(words) < 2 or words[0].startswith("--"):
            raise self.fail("write COPY [--from=STAGE] SOURCE... DESTINATION")
        return stage, words[:-1], words[-1]


def read_steps(text: str) -> Iterator[Step]:
    """The steps of a Dockerfile.

    Raises:
        DockerfileError: an instruction is unknown; none is ever skipped.
    """
    begun, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        begun = begun if parts else number
        parts.append(line.strip().removesuffix("\\").strip())
        if not line.rstrip().endswith("\\"):
            keyword, _, rest = " ".join(parts).partition(" ")
            step = Step(begun, keyword, rest.strip())
            if keyword not in KEYWORDS:
                raise step.fail(f"only {', '.join(KEYWORDS)} are known here")
            yield step
            parts.clear()


def ignore_filter(text: str) -> Callable[[Path], bool]:
    """Whether a .dockerignore leaves a path (relative to the build context) out: the last pattern that matches it or a
    directory above it decides."""
    rules = []
    for line in text.splitlines():
        if pattern := line.split("#", 1)[0].strip():
            rules.append((re.compile(_as_regex(pattern.removeprefix("!").strip("/"))), pattern.startswith("!")))

    def ignored(path: Path) -> bool:
        names = [str(above) for above in (path, *path.parents)]
        verdict = False
        for regex, kept in rules:
            if any(regex.fullmatch(name) for name in names):
                verdict = not kept
        return verdict

    return ignored


def _as_regex(pattern: str) -> str:
    parts = {"**/": r"(?:.*/)?", "*": r"[^/]*", "?": r"[^/]"}
    return "".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*|\?)", pattern))
