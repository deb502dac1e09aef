"""Build the root filesystem of the container image without a container engine, by the steps of deploy/Dockerfile.

    python3 deploy/rootfs build/image

leaves ``build/image/rootfs`` and ``build/image/config.json`` (environment, entry point, labels). It proves in CI that
every package, COPY and entry point exists and works. To ship an image, use docker, podman or buildah.

What it does differently from an engine:

- The base image. ``debian:RELEASE-slim`` is made by mmdebstrap from the Debian mirror that this machine uses, with the
  settings of the official image. No other base image is possible.
- RUN steps see this machine's network, devices and CA certificates (through SSL_CERT_FILE), so that it works where a
  proxy stands between the machine and the world.
- There are no layers and there is no cache; but when nothing changed since the last time, nothing is done.

Needs root, mmdebstrap and util-linux.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

from language import DockerfileError, ignore_filter, read_steps
from stages import Build

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKERFILE = CHECKOUT / "deploy" / "Dockerfile"


def main() -> int:
    """Build, unless the result is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="directory for rootfs/ and config.json; made anew")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="value of an ARG")
    given = parser.parse_args()
    arguments = dict(argument.split("=", 1) for argument in given.build_arg)
    output, context = given.output.resolve(), context_files()
    stamp, expected = output / "inputs.sha256", digest(arguments, context)
    if stamp.exists() and stamp.read_text(encoding="ascii") == expected:
        return 0
    shutil.rmtree(output, ignore_errors=True)
    work = output / "work"
    work.mkdir(parents=True)
    try:
        steps = list(read_steps(DOCKERFILE.read_text(encoding="utf-8")))
        image = Build(steps, arguments, CHECKOUT, context, work).run()
    except DockerfileError as error:
        sys.stderr.write(f"{DOCKERFILE}: {error}\n")
        return 1
    image.root.rename(output / "rootfs")
    config = {"Env": image.env, "WorkingDir": image.directory, **image.config}
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(work)
    stamp.write_text(expected, encoding="ascii")
    return 0


def context_files() -> list[Path]:
    """The build context: the files of the checkout, relative to it, that .dockerignore lets an engine see."""
    ignored = ignore_filter((CHECKOUT / ".dockerignore").read_text(encoding="utf-8"))
    found = []
    # Below a directory that is left out nothing is looked for, as in Docker where no pattern begins with "!**".
    for top in (path for path in CHECKOUT.iterdir() if not ignored(path.relative_to(CHECKOUT))):
        files = [path for path in top.rglob("*") if path.is_file()] if top.is_dir() else [top]
        found += [path.relative_to(CHECKOUT) for path in files]
    return sorted(path for path in found if not ignored(path))


def digest(arguments: dict[str, str], context: list[Path]) -> str:
    """Of all that the result depends on, but for what Debian, PyPI and crates.io answer."""
    inputs = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode())
    for path in [DOCKERFILE, *sorted(Path(__file__).parent.glob("*.py")), *(CHECKOUT / path for path in context)]:
        inputs.update(f"{path}\0".encode() + path.read_bytes())
    return inputs.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
