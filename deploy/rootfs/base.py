"""The base image, made by mmdebstrap, and the one way to run a command on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from language import DockerfileError

_IMAGE = re.compile(r"(?:docker\.io/library/)?debian:([a-z]+)-slim")
# What the official image has (see debuerreotype). Without policy-rc.d, packages would start services on this machine.
_SLIM = (
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    """--customize-hook=printf '#!/bin/sh\\nexit 101\\n' >"$1/usr/sbin/policy-rc.d" """,
    '--customize-hook=chmod 755 "$1/usr/sbin/policy-rc.d"; : >"$1/etc/resolv.conf"',
)


def make_base(image: str, directory: Path) -> Path:
    """A root below ``directory`` like that of ``debian:RELEASE-slim``.

    Raises:
        DockerfileError: it is another image, or cannot be made.
    """
    match = _IMAGE.fullmatch(image)
    if not match:
        raise DockerfileError(f"FROM {image}: only debian:RELEASE-slim can be made here")
    release, root = match[1], directory / f"base-{match[1]}"
    archive, security = _mirrors()
    sources = (
        f"deb {archive} {release} main",
        f"deb {archive} {release}-updates main",
        f"deb {security} {release}-security main",
    )
    # Not in a namespace of its own: that would keep copies of this machine's mounts, and so their devices, busy.
    run("mmdebstrap", "--quiet", "--variant=minbase", *_SLIM, release, str(root), *sources)
    unmount_below(root)
    return root


def unmount_below(root: Path) -> None:
    """mmdebstrap only warns where it cannot unmount its /proc again, and then all of that would be copied.

    Raises:
        DockerfileError: something cannot be unmounted.
    """
    fields = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text(encoding="ascii").splitlines()]
    mounted = [Path(field.encode().decode("unicode_escape")) for field in fields]
    for path in reversed([path for path in mounted if path.is_relative_to(root.resolve())]):
        run("umount", "--lazy", str(path))


def _mirrors() -> tuple[str, str]:
    """Where this machine's apt gets Debian and its security updates from; Debian's own servers on other systems."""
    found = {}
    if shutil.which("apt-get"):
        columns = "$(LABEL) $(REPO_URI)"
        argv = ["apt-get", "indextargets", "--format", columns, "Identifier: Packages"]
        listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        found = dict(line.rsplit(" ", 1) for line in listed.splitlines())
    return (
        found.get("Debian", "http://deb.debian.org/debian"),
        found.get("Debian-Security", "http://security.debian.org/debian-security"),
    )


def run(*argv: str, error: DockerfileError | None = None) -> None:
    """Run a command; show what it said where it fails.

    Raises:
        DockerfileError: it failed; ``error`` where given.
    """
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout)
        raise error or DockerfileError(f"{argv[0]} failed with status {done.returncode}")
