"""The image: built by the steps of deploy/Dockerfile, and what is in it works."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from image import BUILT, CHECKOUT, Image, build_rootfs
from machine import Container, Machine, machine

from csi_core import run

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_tool("mmdebstrap")]

DOCKERFILE = (CHECKOUT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def host() -> Iterator[Machine]:
    with machine() as made:
        yield made


def output_of(container: Container) -> str:
    """What a command printed that ends by itself, and well."""
    assert container.wait() == 0, container.log()
    return container.log()


def in_image(host: Machine, image: Image, *argv: str) -> str:
    """Run a command in the image with a read-only root and nothing mounted, as a pod may."""
    return output_of(host.start(image, argv, {}, [], read_only=True))


def test_the_entry_point_is_the_driver_of_this_version(host: Machine, image: Image) -> None:
    said = in_image(host, image, *image.entrypoint, "--version")
    assert said.split() == ["csi-core", PYPROJECT["project"]["version"]]
    assert image.labels["org.opencontainers.image.version"] == PYPROJECT["project"]["version"]


def test_the_default_command_reads_the_configuration_where_the_chart_mounts_it(host: Machine, image: Image) -> None:
    container = host.start(image, [*image.entrypoint, *image.cmd], {}, [], read_only=True)
    assert container.wait() != 0
    assert "/etc/csi-core/config.yaml" in container.log()


def test_every_backend_is_there_and_can_be_imported(host: Machine, image: Image) -> None:
    program = (
        "from importlib.metadata import entry_points\n"
        "print(*(point.load() and point.name for point in entry_points(group='csi_core.backends')))"
    )
    said = in_image(host, image, "/opt/csi-core/bin/python", "-c", program)
    assert set(said.split()) == set(PYPROJECT["project"]["entry-points"]["csi_core.backends"])


def test_the_extension_is_linked_against_this_base(host: Machine, image: Image) -> None:
    program = "import csi_core._allocator as extension; print(extension.__file__)"
    assert "_allocator.abi3.so" in in_image(host, image, "/opt/csi-core/bin/python", "-c", program)


def called_programs() -> set[str]:
    """The programs that csi-core calls: those it knows the packages of, and every literal command line."""
    programs = {program for names in run._DEBIAN_PACKAGES.values() for program in names}
    for path in (file for package in ("csi_core", "backends") for file in (CHECKOUT / package).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match call:
                case ast.Call(func=ast.Name("run"), args=[ast.List([ast.Constant(str(program)), *_]), *_]):
                    programs.add(program)
    return programs


def test_every_program_that_the_driver_calls_is_in_it(image: Image) -> None:
    programs = called_programs()
    assert {"mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "losetup", "lvcreate", "exportfs", "mount.nfs"} <= programs
    places = [image.rootfs / directory for directory in ("usr/sbin", "usr/bin")]
    assert not [program for program in programs if not any((place / program).exists() for place in places)]


def test_thin_pools_can_be_checked(host: Machine, image: Image) -> None:
    in_image(host, image, "thin_check", "--version")


def test_it_holds_the_wheel_and_nothing_that_made_it(image: Image) -> None:
    assert not list(image.rootfs.glob("src/*"))
    assert not list(image.rootfs.glob("opt/build*"))
    assert not list(image.rootfs.glob("opt/csi-core/lib/python3*/site-packages/pip"))
    assert not [name for name in ("gcc", "cargo", "rustup", "pip") if (image.rootfs / "usr/bin" / name).exists()]
    assert not list((image.rootfs / "var/lib/apt/lists").iterdir())


def test_nothing_in_it_makes_anybody_root(image: Image) -> None:
    searched = ["find", image.rootfs, "-xdev", "-type", "f", "-perm", "/6000"]
    assert not subprocess.run(searched, capture_output=True, text=True, check=True).stdout


def test_what_the_build_lent_from_this_machine_is_not_in_it(image: Image) -> None:
    assert not (image.rootfs / "run/host-certificates").exists()
    assert (image.rootfs / "etc/resolv.conf").read_text(encoding="utf-8") == ""


def test_an_unchanged_checkout_is_not_built_again(image: Image) -> None:
    assert build_rootfs(BUILT).stdout == ""


def test_the_same_packages_are_there_for_arm64(tmp_path: Path) -> None:
    """Nothing can run here that was built for arm64, but all that the steps fetch is there for it."""
    installed = re.search(r"\n        python3 \\\n(.*?)    && rm", DOCKERFILE, re.DOTALL)
    release = re.search(r"BASE_IMAGE=\S*debian:([a-z]+)-slim", DOCKERFILE)
    assert installed
    assert release
    packages = ",".join(["python3", *re.findall(r"[a-z][a-z0-9-]+", installed[1])])
    simulated = ["mmdebstrap", "--simulate", "--mode=chrootless", "--quiet", "--variant=minbase"]
    debian = [*simulated, "--architectures=arm64", f"--include={packages}", release[1], str(tmp_path / "root")]
    platforms = ["--platform=manylinux_2_28_aarch64", "--platform=manylinux2014_aarch64", "--python-version=3.13"]
    wheels = ["--only-binary=:all:", *platforms, f"--target={tmp_path}/wheels", *PYPROJECT["project"]["dependencies"]]
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", *wheels]
    for argv in (debian, pip):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


# -- the builder: it must not pass by doing less ---------------------------------------------------


@pytest.fixture(scope="module")
def language() -> ModuleType:
    spec = importlib.util.spec_from_file_location("language", CHECKOUT / "deploy" / "rootfs" / "language.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["language"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("line", ["VOLUME /data", "ADD a b", "HEALTHCHECK NONE", "ONBUILD RUN true", "run true"])
def test_an_instruction_that_is_not_known_is_an_error(language: ModuleType, line: str) -> None:
    with pytest.raises(language.DockerfileError, match="line 2"):
        list(language.read_steps(f"FROM debian:trixie-slim\n{line}\n"))


@pytest.mark.parametrize("line", ["COPY --chown=1:1 a b", "COPY a", "ENTRYPOINT csi-core serve", "LABEL a b"])
def test_a_form_that_is_not_known_is_an_error(language: ModuleType, line: str) -> None:
    (step,) = language.read_steps(line)
    read = {"COPY": lambda: step.copied({}), "ENTRYPOINT": step.exec_form, "LABEL": lambda: step.pairs({})}
    with pytest.raises(language.DockerfileError):
        read[step.keyword]()


def test_lines_go_on_comments_do_not_and_variables_are_filled_in(language: ModuleType) -> None:
    text = 'RUN one \\\n    # two\n    && three\n\nLABEL a="x ${A}" \\\n  b=$B\n'
    command, label = language.read_steps(text)
    assert (command.line, command.text) == (1, "one && three")
    assert label.pairs({"A": "y z", "B": "2"}) == {"a": "x y z", "b": "2"}


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("README.md", False),
        ("tests/conftest.py", True),
        ("csi_core/cli/main.py", False),
        ("csi_core/__pycache__/run.pyc", True),
        ("csi_core/_allocator.abi3.so", True),
        ("allocator_rs/target/release/x", True),
        (".git/config", True),
    ],
)
def test_the_build_context_is_what_the_image_is_made_from(language: ModuleType, path: str, ignored: bool) -> None:
    rules = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8")
    assert language.ignore_filter(rules)(Path(path)) is ignored


def test_nothing_stays_mounted_in_the_base_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(CHECKOUT / "deploy" / "rootfs")
    unmount_below = importlib.import_module("base").unmount_below
    root = tmp_path / "a base"
    for place in (root / "proc", root / "proc" / "bus"):
        place.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    unmount_below(root)
    assert not (root / "proc").is_mount()
    assert not (root / "proc" / "bus").exists()
