"""The client commands against the real server on the simulator."""

from __future__ import annotations

import json
import socket

import pytest
import structlog
from click.testing import CliRunner

from csi_core.cli import client
from csi_core.cli.main import main
from csi_core.config import Config
from csi_core.runtime import build
from csi_core.server.app import Server


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("server")
    config = Config.model_validate(
        {
            "driver": {"name": "sim.example.com", "nodeId": "n1", "endpoint": f"unix://{directory}/csi.sock"},
            "node": {"mounts": "simulated"},
            "backends": {"sim": {"options": {"secretKey": "s3cret"}}},
        }
    )
    # The server shares this process with the program whose output is tested, and must not write into it.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    server = Server(build(config))
    server.start()
    yield config.driver.endpoint
    server.stop(1)
    structlog.reset_defaults()


@pytest.fixture
def secrets(tmp_path):
    path = tmp_path / "secrets.yaml"
    path.write_text("secretKey: s3cret\n")
    return path


@pytest.fixture
def cli(endpoint):
    def run(*arguments, code=0):
        argv = [*map(str, arguments), "--endpoint", endpoint]
        result = CliRunner().invoke(main, argv, prog_name="csi-core")
        assert result.exit_code == code, result.output + repr(result.exception)
        return result.output

    return run


def rows(text):
    return json.loads(text)


def test_the_life_of_a_volume(cli, secrets):
    assert cli("volumes", "list") == "There are no volumes.\n"
    (made,) = rows(cli("volumes", "create", "pvc-1", "--size", "2Gi", "--secrets", secrets, "-o", "json"))
    assert made["sizeBytes"] == 2 << 30
    (again,) = rows(cli("volumes", "create", "pvc-1", "--size", "2Gi", "--secrets", secrets, "-o", "json"))
    assert again["id"] == made["id"]
    assert rows(cli("volumes", "list", "-o", "json")) == [made]
    table = cli("volumes", "show", made["id"]).splitlines()
    assert table[0].split() == ["VOLUME", "SIZE", "SOURCE", "NODES", "TOPOLOGY", "CONTEXT"]
    assert table[2].split()[:3] == [made["id"], "2", "GiB"]
    assert cli("volumes", "expand", made["id"], "--size", "3Gi") == f"{made['id']} has 3 GiB.\n"

    (snapshot,) = rows(cli("snapshots", "create", made["id"], "snap-1", "--secrets", secrets, "-o", "json"))
    assert (snapshot["volumeId"], snapshot["sizeBytes"], snapshot["ready"]) == (made["id"], 3 << 30, True)
    assert snapshot["createdAt"].endswith("+00:00")
    assert rows(cli("snapshots", "list", "--volume", made["id"], "--secrets", secrets, "-o", "json")) == [snapshot]
    (restored,) = rows(
        cli("volumes", "create", "pvc-2", "--from-snapshot", snapshot["id"], "--secrets", secrets, "-o", "json")
    )
    assert restored["source"] == snapshot["id"]
    assert restored["sizeBytes"] == 3 << 30

    assert cli("snapshots", "delete", snapshot["id"], "--secrets", secrets) == f"{snapshot['id']} is deleted.\n"
    cli("volumes", "delete", made["id"], restored["id"], "--secrets", secrets)
    cli("volumes", "delete", made["id"], "--secrets", secrets)
    assert cli("volumes", "list") == "There are no volumes.\n"
    assert cli("snapshots", "list", "--secrets", secrets) == "There are no snapshots.\n"


@pytest.mark.parametrize("page_entries", [1, 2, 3])
def test_listings_are_read_to_the_end_page_by_page(cli, secrets, monkeypatch, page_entries):
    monkeypatch.setattr(client, "_PAGE_ENTRIES", page_entries)
    made = [rows(cli("volumes", "create", f"pvc-{n}", "--secrets", secrets, "-o", "json"))[0]["id"] for n in range(3)]
    taken = [
        rows(cli("snapshots", "create", made[0], f"snap-{n}", "--secrets", secrets, "-o", "json"))[0]["id"]
        for n in range(3)
    ]
    try:
        assert sorted(row["id"] for row in rows(cli("volumes", "list", "-o", "json"))) == sorted(made)
        listed = rows(cli("snapshots", "list", "--secrets", secrets, "-o", "json"))
        assert sorted(row["id"] for row in listed) == sorted(taken)
    finally:
        cli("snapshots", "delete", *taken, "--secrets", secrets)
        cli("volumes", "delete", *made, "--secrets", secrets)


def test_capacity(cli):
    (row,) = rows(cli("capacity", "-o", "json"))
    assert row["availableBytes"] > 0
    assert "AVAILABLE" in cli("capacity")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("volumes", "show", "sim/none"), "sim/none"),
        (("volumes", "show", "none"), "nothing has the id 'none'"),
        (("volumes", "expand", "lvm/x", "--size", "1Gi"), "which is not configured here"),
        (("volumes", "create", "x", "-p", "provisoning=thin"), "did you mean 'provisioning'?"),
        (("volumes", "create", "x", "-p", "backend=smi"), "there is no backend 'smi' here; did you mean 'sim'?"),
        (("snapshots", "create", "sim/none", "s"), "sim/none"),
    ],
)
def test_refusals_are_sentences(cli, arguments, said):
    message = cli(*arguments, code=1)
    assert message.startswith("Error: ")
    assert said in message
    assert message.count("\n") == 1


def test_block_volumes_and_options_that_exclude_each_other(cli, secrets):
    (made,) = rows(cli("volumes", "create", "raw", "--block", "--size", "1Gi", "--secrets", secrets, "-o", "json"))
    cli("volumes", "delete", made["id"], "--secrets", secrets)
    assert "--block and --fs-type exclude each other" in cli(
        "volumes", "create", "x", "--block", "--fs-type", "ext4", code=2
    )
    assert "exclude each other" in cli("volumes", "create", "x", "--from-volume", "a", "--from-snapshot", "b", code=2)


def test_a_time_out_says_that_it_may_still_be_done(tmp_path):
    """Somebody accepts the connection and never says a word."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        argv = ["volumes", "list", "--timeout", "0.3", "--endpoint", f"unix://{tmp_path}/silent.sock"]
        result = CliRunner().invoke(main, argv)
    assert result.exit_code == 1
    assert result.output == (
        "Error: no answer within 0.3 s; it may still be done. Ask again, or wait longer with --timeout\n"
    )
