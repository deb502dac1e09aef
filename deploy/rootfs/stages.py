"""Executes the stages of a Dockerfile, each in a directory of its own."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from base import make_base, run
from language import Step

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CERTIFICATES = "/run/host-certificates"
# $1 is the root, $2 the working directory, $3 the command; the rest are its environment. Mounts and processes are in
# namespaces of their own, which end with the command however it ends.
_ENTER = f"""
root=$1 directory=$2 command=$3; shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
: >"$root{_CERTIFICATES}"
mount --bind /etc/ssl/certs/ca-certificates.crt "$root{_CERTIFICATES}"
# The host's tree is left, not only hidden: this namespace's copy of somebody's mount would keep its device busy.
cd "$root"; pivot_root . mnt; umount -l /mnt
exec env --ignore-environment --chdir="$directory" "$@" /bin/sh -c "$command"
"""


@dataclass
class Stage:
    """One stage: its steps, its directory, and what it configures so far."""

    name: str
    image: str
    root: Path
    steps: list[Step] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    directory: str = "/"
    config: dict[str, object] = field(default_factory=dict)

    def inside(self, path: str) -> Path:
        """A path of the stage, seen from outside; relative ones begin in its working directory."""
        return self.root / os.path.join(self.directory, path).lstrip("/")  # noqa: PTH118 - "/" at the end counts


class Build:
    """All stages of one Dockerfile.

    Args:
        steps: of the whole file.
        arguments: values for its ARGs.
        checkout: the directory that the build context is in.
        context: the files that COPY may take, relative to ``checkout``.
        work: an empty directory for the stages.
    """

    def __init__(
        self, steps: list[Step], arguments: dict[str, str], checkout: Path, context: list[Path], work: Path
    ) -> None:
        self._given = arguments
        self._checkout = checkout
        self._context = context
        self._work = work
        self._global: dict[str, str] = {}
        self._stages: list[Stage] = []
        self._done: dict[str, Future[Stage]] = {}
        for step in steps:
            if step.keyword == "FROM":
                image, *named = step.expanded(self._global).split()
                name = named[1] if named else str(len(self._stages))
                self._stages.append(Stage(name, image, work / name))
            elif self._stages:
                self._stages[-1].steps.append(step)
            else:
                self._global |= {name: arguments.get(name, value) for name, value in step.pairs(self._global).items()}

    def run(self) -> Stage:
        """Execute all stages at the same time, where only COPY --from waits for another, and answer the last.

        Raises:
            DockerfileError: a step failed.
        """
        images = {stage.image for stage in self._stages}
        with ThreadPoolExecutor(len(images) + len(self._stages)) as pool:
            bases = {image: pool.submit(make_base, image, self._work) for image in images}
            for stage in self._stages:
                self._done[stage.name] = pool.submit(self._run, stage, bases[stage.image])
            return self._done[self._stages[-1].name].result()

    def _run(self, stage: Stage, base: Future[Path]) -> Stage:
        run("cp", "--archive", "--reflink=auto", str(base.result()), str(stage.root))
        for step in stage.steps:
            sys.stdout.write(f"[{stage.name}] {step.keyword} {step.text}\n")
            self._execute(stage, step)
        stage.inside(_CERTIFICATES).unlink(missing_ok=True)
        return stage

    def _execute(self, stage: Stage, step: Step) -> None:
        variables = stage.arguments | stage.env
        match step.keyword:
            case "ARG":
                name, _, default = step.expanded(variables).partition("=")
                stage.arguments[name] = self._given.get(name, default.strip('"') or self._global.get(name, ""))
            case "ENV":
                stage.env |= step.pairs(variables)
            case "RUN":
                _execute(stage, step)
            case "COPY":
                self._copy(stage, step, *step.copied(variables))
            case "WORKDIR":
                stage.directory = step.expanded(variables)
                stage.inside(".").mkdir(parents=True, exist_ok=True)
            case "LABEL":
                stage.config["Labels"] = step.pairs(variables)
            case "ENTRYPOINT" | "CMD":
                stage.config[step.keyword.title()] = step.exec_form()
            case "STOPSIGNAL":
                stage.config["StopSignal"] = step.text

    def _copy(self, stage: Stage, step: Step, origin: str, sources: list[str], destination: str) -> None:
        target = stage.inside(destination)
        into = len(sources) > 1 or destination.endswith("/")
        for source in sources:
            if origin:
                copied = self._done[origin].result().root / source.lstrip("/")
                if not copied.exists():
                    raise step.fail(f"stage {origin} made no {source}")
                target.parent.mkdir(parents=True, exist_ok=True)
                run("cp", "--archive", "--no-target-directory", str(copied), str(target))
                continue
            found = [path for path in self._context if path.is_relative_to(source)]
            if not found:
                raise step.fail(f"{source} is not in the build context, or .dockerignore leaves it out")
            for path in found:
                # A directory's content is copied, not the directory.
                to = target / path.name if into and path == Path(source) else target / path.relative_to(source)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self._checkout / path, to)


def _execute(stage: Stage, step: Step) -> None:
    environment = stage.arguments | stage.env | {"SSL_CERT_FILE": _CERTIFICATES}
    assignments = [f"{name}={value}" for name, value in environment.items()]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    entering = ["sh", "-euc", _ENTER, "sh", str(stage.root), stage.directory, step.text]
    run(*namespaces, *entering, *assignments, error=step.fail("failed"))
