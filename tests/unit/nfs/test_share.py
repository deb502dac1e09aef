"""Mode share: where directories are, what becomes of them, and who tries to leave the share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_share import LocalShare, share_case

from backends.nfs import share_storage
from backends.nfs.mutable import ShareMutable
from backends.nfs.share_parameters import ShareParameters
from csi_core.errors import AlreadyExists, ConfigError, FailedPrecondition, InvalidArgument, TimedOut, Unavailable
from csi_core.health import HealthKind
from csi_core.model import (
    AccessMode,
    ContentSource,
    PublishRequest,
    SizeRange,
    SourceKind,
    Volume,
    VolumeCapability,
    VolumeMode,
    VolumeSpec,
)
from csi_core.parameters import Parameters, parse_parameters
from csi_core.testing.contract import BackendCase

RWX = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.MULTI_NODE_MULTI_WRITER)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    return tmp_path / "share"


@pytest.fixture
def case(share: Path) -> Iterator[BackendCase]:
    with share_case(share, check_nodes=False) as case:
        yield case


def create(
    case: BackendCase, name: str, *, claim: str = "team/data", source: ContentSource | None = None, **parameters: str
) -> Volume:
    spec = VolumeSpec(
        name,
        SizeRange(1 << 20),
        (RWX,),
        parse_parameters(ShareParameters, parameters, "parameter"),
        recorded=parameters,
        source=source,
        claim=claim,
    )
    return case.backend.create_volume(spec).value


def delete(case: BackendCase, volume: Volume) -> None:
    case.backend.delete_volume(volume.handle, Parameters())


@pytest.mark.parametrize(
    ("parameters", "directory"),
    [
        ({}, "pvc-1"),
        ({"subDir": "${pvc.metadata.namespace}/${pvc.metadata.name}"}, "team/data"),
        ({"subDir": "a/b/${pv.metadata.name}-x"}, "a/b/pvc-1-x"),
        ({"pathPattern": "${.PVC.namespace}-${.PVC.name}"}, "team-data"),
        ({"subDir": "fixed", "server": "nfs.example", "share": "/exported/", "mountPermissions": "0"}, "fixed"),
    ],
)
def test_a_volume_is_where_its_class_says(
    case: BackendCase, share: Path, parameters: dict[str, str], directory: str
) -> None:
    volume = create(case, "pvc-1", **parameters)
    assert volume.context == {"server": "nfs.example", "share": f"/exported/{directory}"}
    assert (share / directory).is_dir()
    assert (share / directory).stat().st_mode & 0o777 == 0o777
    assert create(case, "pvc-1", **parameters) == volume
    delete(case, volume)
    assert not (share / directory).exists()
    assert list((share / ".csi-core" / "volumes").iterdir()) == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"subDir": "../out"}, "below the share"),
        ({"subDir": "a/../../out"}, "below the share"),
        ({"subDir": "/etc"}, "below the share"),
        ({"subDir": "a//b"}, "below the share"),
        ({"subDir": "./a"}, "below the share"),
        ({"subDir": ".csi-core/volumes/x"}, "records"),
        ({"subDir": "a\nb"}, "letters, digits"),
        ({"subDir": "a\x00b"}, "letters, digits"),
        ({"subDir": "/".join("abcdefghi")}, "deep"),
        ({"subDir": "${pvc.metadata.labels.app}"}, "labels and annotations do not reach"),
        ({"pathPattern": "${.PVC.annotations.nfs.io/storage-path}"}, "do not reach"),
        ({"subDir": "$(whoami)"}, "letters, digits"),
        ({"onDelete": "keep"}, "delete"),
        ({"mountPermissions": "rwx"}, "octal"),
        ({"subdir": "a"}, "did you mean 'subDir'"),
    ],
)
def test_what_could_lead_elsewhere_is_refused(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse_parameters(ShareParameters, parameters, "parameter")


@pytest.mark.parametrize(
    "name", ["../../etc", "a/b", "..", ".csi-core", "x\ty", "名前", "A" * 128, "archived-x", "-rf"]
)
def test_odd_names_become_one_component(case: BackendCase, share: Path, name: str) -> None:
    volume = create(case, name, claim=f"../{name}/x")
    directory = volume.context["share"].removeprefix("/exported/")
    assert "/" not in directory
    assert (share / directory).is_dir()
    nested = create(case, f"{name}2", claim=f"../{name}/x", subDir="by/${pvc.metadata.namespace}/${pvc.metadata.name}")
    path = share / nested.context["share"].removeprefix("/exported/")
    assert path.resolve().relative_to(share).parts[0] == "by"
    assert len(path.relative_to(share).parts) == 3
    assert sorted(p.name for p in share.parent.iterdir()) == ["share"], "nothing beside the share"


def test_a_claim_that_is_not_known_is_said(case: BackendCase) -> None:
    with pytest.raises(InvalidArgument, match="--extra-create-metadata"):
        create(case, "pvc-1", claim="", subDir="${pvc.metadata.name}")


@pytest.mark.parametrize(("server", "path"), [("other.example", ""), ("", "/other")])
def test_another_server_or_share_takes_another_backend(case: BackendCase, server: str, path: str) -> None:
    with pytest.raises(InvalidArgument, match="configure a backend for it"):
        create(case, "pvc-1", **{key: value for key, value in (("server", server), ("share", path)) if value})


@pytest.mark.parametrize("other", ["a/b", "a", "a/b/c"])
def test_no_two_volumes_have_one_directory_or_one_within_the_other(case: BackendCase, other: str) -> None:
    create(case, "pvc-1", subDir="a/b")
    with pytest.raises(AlreadyExists, match="volume pvc-1 has"):
        create(case, "pvc-2", subDir=other)
    create(case, "pvc-3", subDir="a/bb")


def test_what_is_on_the_share_already_is_left_alone(case: BackendCase, share: Path) -> None:
    (share / "precious").mkdir()
    (share / "precious" / "file").write_text("mine", encoding="ascii")
    (share / "file").write_text("mine", encoding="ascii")
    for directory in ("precious", "file"):
        with pytest.raises(AlreadyExists, match="on the share already"):
            create(case, "pvc-1", subDir=directory)
    assert (share / "precious" / "file").read_text(encoding="ascii") == "mine"
    create(case, "pvc-1")


@pytest.mark.parametrize(("first", "then", "left"), [("delete", "retain", ["x"]), ("retain", "delete", [])])
def test_what_becomes_of_the_directory_can_be_changed(
    case: BackendCase, share: Path, first: str, then: str, left: list[str]
) -> None:
    volume = create(case, "pvc-1", subDir="x", onDelete=first)
    given = {"onDelete": then}
    case.backend.modify_volume(volume.handle, ShareMutable.model_validate(given), given)
    case.reopen()
    delete(case, volume)
    assert [path.name for path in share.iterdir() if path.name != ".csi-core"] == left


def test_retain_keeps_the_data_and_a_later_volume_finds_it(case: BackendCase, share: Path) -> None:
    volume = create(case, "pvc-1", subDir="kept", onDelete="retain")
    (share / "kept" / "file").write_text("1", encoding="ascii")
    delete(case, volume)
    assert case.backend.get_volume(volume.handle) is None
    assert (share / "kept" / "file").exists()
    again = create(case, "pvc-2", subDir="kept", onDelete="retain")
    assert (share / "kept" / "file").exists()
    delete(case, again)
    empty = create(case, "pvc-3")
    with pytest.raises(AlreadyExists):
        create(case, "pvc-4", subDir="kept", onDelete="retain", source=ContentSource(SourceKind.VOLUME, empty.handle))


@pytest.mark.parametrize("parameters", [{"onDelete": "archive"}, {"archiveOnDelete": "true"}])
def test_archive_renames(case: BackendCase, share: Path, parameters: dict[str, str]) -> None:
    for number in range(2):
        volume = create(case, f"pvc-{number}", subDir="a/b", **parameters)
        (share / "a" / "b" / str(number)).touch()
        delete(case, volume)
    archived = sorted((share / "a").iterdir())
    assert [path.name.partition(".")[0] for path in archived] == ["archived-b", "archived-b"]
    assert [[file.name for file in path.iterdir()] for path in archived] == [["0"], ["1"]]


def test_on_delete_overrides_archive_on_delete(case: BackendCase, share: Path) -> None:
    delete(case, create(case, "pvc-1", subDir="x", archiveOnDelete="true", onDelete="delete"))
    assert [path.name for path in share.iterdir()] == [".csi-core"]


# -- attacks ----------------------------------------------------------------------------------------


def test_a_link_in_the_place_of_a_directory_leads_nowhere(case: BackendCase, share: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (share / "team").symlink_to(outside)
    (share / "last").symlink_to(outside)
    with pytest.raises(FailedPrecondition, match="'team' in team/data on the share is no directory"):
        create(case, "pvc-1", subDir="${pvc.metadata.namespace}/${pvc.metadata.name}")
    for on_delete in ("delete", "retain"):
        with pytest.raises((AlreadyExists, FailedPrecondition)):
            create(case, "pvc-2", subDir="last", onDelete=on_delete)
    assert list(outside.iterdir()) == []


def test_links_put_there_later_are_not_followed(case: BackendCase, share: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").mkdir()
    (outside / "x" / "file").write_text("precious", encoding="ascii")
    volume = create(case, "pvc-1", subDir="a/x")
    (share / "a").rename(share / "was")
    (share / "a").symlink_to(outside)
    for _ in range(2):
        with pytest.raises(FailedPrecondition):
            delete(case, volume)
    with pytest.raises(FailedPrecondition):
        create(case, "copy", source=ContentSource(SourceKind.VOLUME, volume.handle))
    assert (outside / "x" / "file").read_text(encoding="ascii") == "precious"
    (share / "a").unlink()
    (share / "was").rename(share / "a")
    delete(case, volume)


def test_links_in_a_tenants_data_are_data(case: BackendCase, share: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret", encoding="ascii")
    volume = create(case, "pvc-1")
    (share / "pvc-1" / "link").symlink_to(outside)
    (share / "pvc-1" / "file").symlink_to(outside / "file")
    (share / "pvc-1" / "up").symlink_to("../..")
    copy = create(case, "pvc-2", source=ContentSource(SourceKind.VOLUME, volume.handle))
    assert (share / "pvc-2" / "file").readlink() == outside / "file", "copied as a link, never read through"
    for one in (copy, volume):
        delete(case, one)
    assert (outside / "file").read_text(encoding="ascii") == "secret"


# -- nodes, starts ----------------------------------------------------------------------------------


def test_a_second_node_waits_for_the_first(case: BackendCase) -> None:
    volume = create(case, "pvc-1")
    single = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_WRITER)
    case.backend.publish_volume(PublishRequest(volume.handle, "any-node", single))
    with pytest.raises(FailedPrecondition, match="node any-node has it"):
        case.backend.publish_volume(PublishRequest(volume.handle, "another", single))
    with pytest.raises(FailedPrecondition, match="published to any-node"):
        delete(case, volume)


def test_another_controller_finds_everything(case: BackendCase, share: Path) -> None:
    volume = create(case, "pvc-1", subDir="a/b")
    with pytest.raises(Unavailable, match="served by another process"), share_case(share):
        pass
    case.reopen()
    assert case.backend.get_volume(volume.handle) == volume


def test_an_empty_mount_point_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="nothing is mounted there yet"), share_case(tmp_path, require_mount=True):
        pass


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (None, "needs a section share"),
        ({"root": "/x", "path": "/a/../b"}, "absolute path"),
        ({"root": "x", "path": "/"}, "absolute"),
    ],
)
def test_options(share: dict[str, str] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LocalShare({"mode": "share", "server": "nfs.example", "share": share})


def test_a_server_that_does_not_answer_is_said(case: BackendCase, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(argv: list[str], **options: object) -> None:
        raise TimedOut(f"{argv[0]} has not ended")

    monkeypatch.setattr(share_storage, "run", silent)
    (problem,) = case.backend.storage_health()
    assert (problem.kind, problem.reason) == (HealthKind.INACCESSIBLE, "ServerUnreachable")
    assert "does not answer" in problem.message
    with pytest.raises(Unavailable, match="does not answer"):
        create(case, "pvc-1")


@pytest.mark.parametrize(
    ("template", "claim"),
    [
        (".${pvc.metadata.name}", "csi-core"),
        (".${pvc.metadata.name}/mine", "csi-core"),
        (".csi-${pvc.metadata.name}", "core"),
    ],
)
def test_no_claims_name_leads_to_the_records(case: BackendCase, template: str, claim: str) -> None:
    with pytest.raises(InvalidArgument, match="records"):
        create(case, "pvc-1", claim=f"team/{claim}", subDir=template, onDelete="retain")
    assert case.volumes() == []
    create(case, "pvc-1", claim="team/other", subDir=template, onDelete="retain")


def test_a_volume_whose_place_is_taken_keeps_no_other_from_being_served(case: BackendCase, share: Path) -> None:
    """Killed before the content was at its place, where somebody has since made a directory; both hold something."""
    volume, other = create(case, "pvc-1", onDelete="retain"), create(case, "pvc-2")
    beside = share / ".csi-core/volumes" / volume.handle / "data"
    (share / "pvc-1").rename(beside)
    (beside / "file").touch()
    (share / "pvc-1").mkdir()
    case.reopen()
    assert {found.handle for found in case.volumes()} == {volume.handle, other.handle}
    assert (beside / "file").exists()
