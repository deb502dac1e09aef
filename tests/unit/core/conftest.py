"""The smallest backend that the contract admits, and ways to have one loaded, started or installed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from csi_core.facade import Backend
from csi_core.hookspecs import hookimpl
from csi_core.model import (
    AccessMode,
    Created,
    Description,
    DirectorySource,
    Page,
    Reach,
    Volume,
    VolumeMode,
)

DESCRIPTION = Description(
    summary="the smallest there is",
    reach=Reach.NETWORK,
    access={VolumeMode.FILESYSTEM: frozenset({AccessMode.MULTI_NODE_MULTI_WRITER})},
)


class Smallest:
    """The required hooks and no other. ``description`` may be set per object."""

    description = DESCRIPTION

    def __init__(self, options=None):
        self.options = options

    @hookimpl
    def describe(self):
        return self.description

    @hookimpl
    def create_volume(self, spec):
        return Created(Volume(handle=f"v-{spec.name}", name=spec.name, size_bytes=spec.size.required_bytes))

    @hookimpl
    def delete_volume(self, handle, secrets):
        pass

    @hookimpl
    def get_volume(self, handle):
        return Volume(handle, handle.removeprefix("v-"), 4096) if handle.startswith("v-") else None

    @hookimpl
    def list_volumes(self, cursor, limit):
        return Page((), cursor)

    @hookimpl
    def attach_volume(self, request):
        return DirectorySource(Path("/nowhere"))

    @hookimpl
    def detach_volume(self, handle):
        pass


class FakeHost:
    node_id = "node-1"
    backend_name = "b"

    @contextmanager
    def frozen(self, devices, time_limit_s):
        yield


@pytest.fixture
def smallest() -> type[Smallest]:
    return Smallest


@pytest.fixture
def description() -> Description:
    return DESCRIPTION


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def started(host) -> Callable[..., Backend]:
    """``started(plugin, *wrappers)``: loaded and started under the name "b"."""

    def start(plugin, *wrappers, name="b"):
        backend = Backend.load(name, plugin, wrappers)
        backend.start(host)
        return backend

    return start


@pytest.fixture
def install(tmp_path_factory, monkeypatch) -> Callable[..., None]:
    """``install("csi-core-foo", backends={"foo": "foo_module:Factory"}, modules={"foo_module": "..."})``."""

    def install(distribution, *, backends=None, wrappers=None, modules=None, version="1.2"):
        site = tmp_path_factory.mktemp("site")
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        sections = {"csi_core.backends": backends or {}, "csi_core.wrappers": wrappers or {}}
        (info / "entry_points.txt").write_text(
            "".join(
                f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()) + "\n"
                for group, points in sections.items()
                if points
            )
        )
        for module, text in (modules or {}).items():
            (site / f"{module}.py").write_text(text)
            monkeypatch.delitem(__import__("sys").modules, module, raising=False)
        monkeypatch.syspath_prepend(str(site))
        return site

    return install


SMALLEST_MODULE = """
from pathlib import Path
from csi_core.errors import ConfigError, Unavailable
from csi_core.hookspecs import hookimpl
from csi_core.health import Finding
from csi_core.model import (AccessMode, Created, Description, DirectorySource, Page, Reach, Volume, VolumeMode)
from csi_core.parameters import Parameters, SizeBytes
from pydantic import Field
from typing import Literal

class Options(Parameters):
    directory: Path = Field(description="Where it lies.")
    limit: SizeBytes = Field(default=0, description="How much.")

class ClassParameters(Parameters):
    speed: Literal["slow", "fast"] = Field(default="slow", description="How fast.")

calls = []

class Factory:
    options_model = Options
    declaration = Description(
        summary="a stranger's backend",
        reach=Reach.NETWORK,
        access={VolumeMode.FILESYSTEM: frozenset({AccessMode.MULTI_NODE_MULTI_WRITER})},
        parameters=ClassParameters,
    )

    def __init__(self, options):
        self.options = options
        calls.append("made")

    @hookimpl
    def start(self, host):
        calls.append("start")
        marker = Path(self.options["directory"]) / "not-yet"
        if marker.exists():
            raise Unavailable(marker.read_text() or "the storage cannot be reached")
        wrong = Path(self.options["directory"]) / "wrong"
        if wrong.exists():
            raise ConfigError("the directory is wrong")

    @hookimpl
    def stop(self):
        calls.append("stop")

    @hookimpl
    def describe(self):
        return self.declaration

    @hookimpl
    def create_volume(self, spec): ...

    @hookimpl
    def delete_volume(self, handle, secrets): ...

    @hookimpl
    def get_volume(self, handle): ...

    @hookimpl
    def list_volumes(self, cursor, limit):
        return Page(())

    @hookimpl
    def attach_volume(self, request): ...

    @hookimpl
    def detach_volume(self, handle): ...

    def _broken(self):
        return sorted(Path(self.options["directory"]).glob("broken-*"))

    @hookimpl
    def diagnose(self):
        for path in self._broken():
            yield Finding(path.name, "it is broken", "remove it", repairable=not path.name.endswith("precious"))

    @hookimpl
    def repair(self, finding):
        (Path(self.options["directory"]) / finding.subject).unlink()
        return True
"""


@pytest.fixture
def stranger(install, tmp_path) -> Path:
    """A third party's backend type ``stranger``, installed; answers the directory for its ``directory`` option."""
    install(
        "csi-core-stranger",
        backends={"stranger": "stranger_backend:Factory"},
        modules={"stranger_backend": SMALLEST_MODULE},
    )
    return tmp_path
