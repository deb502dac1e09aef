"""The kit names the hook whose answer is not what its signature says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from backends.sim.plugin import SimBackend
from csi_core.health import HealthKind, HealthProblem
from csi_core.hookspecs import BackendSpec, hookimpl
from csi_core.model import (
    BlockMap,
    BlockSource,
    Created,
    Description,
    DirectorySource,
    Existing,
    Page,
    Volume,
    VolumeMode,
)
from csi_core.testing.contract import BackendCase
from csi_core.testing.contract.answers import mismatch

VOLUME = Volume("h", "name", 1 << 20, published_node_ids=("node-a",))


def judged(hook: str, answer: object) -> str:
    return mismatch(answer, get_type_hints(getattr(BackendSpec, hook))["return"], f"{hook}()")


@pytest.mark.parametrize(
    ("hook", "answer"),
    [
        ("create_volume", Created(VOLUME)),
        ("create_volume", Existing(VOLUME)),
        ("get_volume", None),
        ("get_volume", VOLUME),
        ("list_volumes", Page(())),
        ("list_volumes", Page((VOLUME, VOLUME), "cursor")),
        ("expand_volume", 1 << 20),
        ("publish_volume", {"path": "/dev/x"}),
        ("attach_volume", BlockSource(Path("/dev/x"), 1, mkfs_options=("-K",))),
        ("find_source", None),
        ("allocated_blocks", BlockMap(1, iter(()))),
        ("volume_health", (HealthProblem(HealthKind.DEGRADED, "Reason", "message"),)),
        ("diagnose", iter(())),
        ("repair", False),
    ],
)
def test_answers_as_the_contract_wants_them(hook: str, answer: object) -> None:
    assert judged(hook, answer) == ""


@pytest.mark.parametrize(
    ("hook", "answer", "said"),
    [
        ("create_volume", VOLUME, "create_volume() is Volume(handle='h'"),
        ("create_volume", None, "create_volume() is None; the contract wants Created[Volume] | Existing[Volume]"),
        ("create_volume", Created(None), "create_volume().value is None; the contract wants Volume"),
        ("create_volume", Existing(Volume("h", "n", "1Gi")), "().value.size_bytes is '1Gi'; the contract wants int"),  # type: ignore[arg-type]
        ("get_volume", Volume("h", "n", 1, {"pool": 1}), "().recorded['pool'] is 1; the contract wants str"),  # type: ignore[dict-item]
        ("list_volumes", [VOLUME], "the contract wants Page[Volume]"),
        ("list_volumes", Page([VOLUME]), "list_volumes().entries is [Volume("),  # type: ignore[arg-type]
        ("list_volumes", Page((VOLUME, None)), "list_volumes().entries[1] is None; the contract wants Volume"),
        ("list_volumes", Page((), None), "list_volumes().next_cursor is None; the contract wants str"),  # type: ignore[arg-type]
        ("expand_volume", True, "expand_volume() is True; the contract wants int"),
        ("attach_volume", "/srv/x", "the contract wants BlockSource | DirectorySource | ShareSource"),
        ("attach_volume", DirectorySource("/srv/x"), "attach_volume().path is '/srv/x'; the contract wants Path"),  # type: ignore[arg-type]
        ("allocated_blocks", BlockMap(1, []), "the contract wants Iterator[BlockRange]"),  # type: ignore[arg-type]
        ("volume_health", [], "volume_health() is []; the contract wants tuple[HealthProblem, ...]"),
        ("repair", None, "repair() is None; the contract wants bool"),
    ],
)
def test_answers_of_another_kind_are_named(hook: str, answer: object, said: str) -> None:
    assert said in judged(hook, answer)


class AnswersTheVolume(SimBackend):
    @hookimpl
    def create_volume(self, spec: Any) -> Any:
        return super().create_volume(spec).value

    @hookimpl
    def delete_volume(self, handle: str) -> Any:  # hooks that answer nothing may answer anything
        return True


class Policy:
    @hookimpl(wrapper=True)
    def get_volume(self) -> Iterator[None]:
        yield
        return "not the backend's fault"


def test_the_kit_judges_the_answers_of_the_backend_itself() -> None:
    with BackendCase(lambda: AnswersTheVolume({}), wrappers=(Policy(),)) as case:
        with pytest.raises(AssertionError, match=r"create_volume\(\) is Volume"):
            case.create("data", VolumeMode.FILESYSTEM)
        case.backend.delete_volume("v-unknown", case.secrets)
        assert case.backend.get_volume("v-unknown") == "not the backend's fault"


class NoBlock(SimBackend):
    @hookimpl
    def describe(self) -> Description:
        description = super().describe()
        return replace(description, access={VolumeMode.FILESYSTEM: description.access[VolumeMode.FILESYSTEM]})


def test_volumes_of_a_mode_that_is_not_declared() -> None:
    with (
        BackendCase(lambda: NoBlock({})) as case,
        pytest.raises(AssertionError, match="describe declares no block volumes; leave them out of volume_modes"),
    ):
        case.capability(VolumeMode.BLOCK)
