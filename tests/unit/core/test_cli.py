"""The program, as its user sees it: words, exit codes, and how fast it starts."""

from __future__ import annotations

import json
import logging
import re
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
import structlog
from click.testing import CliRunner

from csi_core import __version__
from csi_core.cli import main as main_module
from csi_core.cli.main import main


@pytest.fixture
def cli(monkeypatch):
    monkeypatch.delenv("CSI_ENDPOINT", raising=False)

    def run(*arguments, code=0):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="csi-core")
        assert result.exit_code == code, result.output + repr(result.exception)
        return result.output

    return run


@pytest.fixture(autouse=True)
def logging_as_before():
    """doctor and its kind set up the logging of their process, which here is that of all tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def config_file(stranger):
    path = stranger / "config.yaml"
    path.write_text(
        f"driver: {{name: a.b, endpoint: unix://{stranger}/csi.sock}}\n"
        "node: {mounts: simulated}\n"
        "backends:\n"
        "  mine:\n"
        "    type: stranger\n"
        f"    options: {{directory: {stranger}}}\n"
    )
    return path


@pytest.fixture
def server_socket(stranger):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stranger / "csi.sock"))
        listener.listen()
        yield stranger / "csi.sock"


# -- the program itself -----------------------------------------------------------------------------


def test_version(cli):
    assert cli("--version") == f"csi-core {__version__}\n"


def test_help_names_every_command(cli):
    text = cli("--help")
    for name in main_module._COMMANDS:
        assert f"\n  {name} " in text


@pytest.mark.parametrize("name", sorted(main_module._COMMANDS))
def test_every_command_has_help_of_its_own(cli, name):
    assert f"Usage: csi-core {name}" in cli(name, "--help")


def every_command(command, path=()):
    """All commands below ``command``, those of the backends included, by their words."""
    yield path, command
    if isinstance(command, click.Group):
        names = [*command.list_commands(click.Context(command)), *(() if path else ("pool",))]
        for name in names:
            yield from every_command(command.get_command(click.Context(command), name), (*path, name))


@pytest.mark.parametrize("words", [words for words, _ in every_command(main)], ids=" ".join)
def test_help_fits_into_80_columns_and_says_what_each_option_takes(cli, words):
    text = cli(*words, "--help")
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.partition("Commands:")[2], "cut off"
    assert " TEXT" not in text and " RANGE" not in text, "what text, which number?"
    assert not re.search(r"[a-z]-\n", text), "a name or a path is broken in two"


def test_bad_usage_is_2(cli):
    assert "No such command 'volume'" in cli("volume", code=2)
    assert "Missing option '--config'" in cli("serve", code=2)
    assert "does not exist" in cli("serve", "--config", "/none.yaml", code=2)


@pytest.mark.parametrize("arguments", [["--help"], ["volumes", "--help"], ["serve", "--help"], ["backends", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom csi_core.cli.main import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        "heavy = {'grpc', 'google.protobuf', 'pydantic', 'pluggy', 'rich', 'yaml', 'structlog', 'prometheus_client'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_errors_of_the_project_are_sentences_without_a_traceback(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("driver: {name: 1a}\nbackends: {loop: }\n")
    argv = [sys.executable, "-m", "csi_core.cli.main", "serve", "--config", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"Error: {path}:1: driver.name: '1a' is no driver name; write a domain of at most 63 characters that begins "
        f"and ends with a letter, like loop.csi.example.com\n"
    )


# -- config -----------------------------------------------------------------------------------------


def test_config_check(cli, config_file):
    assert cli("config", "check", "--config", config_file) == (
        f"{config_file} is right: driver a.b with the backends mine.\n"
    )


def test_config_check_does_not_touch_the_storage(cli, config_file):
    import stranger_backend

    stranger_backend.calls.clear()
    cli("config", "check", "--config", config_file)
    assert stranger_backend.calls == ["made"]


def test_config_check_finds_a_plugin_that_breaks_the_contract(cli, install, config_file):
    install(
        "csi-core-bad", backends={"bad": "bad_backend:F"}, modules={"bad_backend": "class F:\n  def __init__(s,o):0"}
    )
    config_file.write_text("driver: {name: a.b}\nbackends: {bad: }\n")
    assert "backend 'bad' (F) lacks required hooks" in cli("config", "check", "--config", config_file, code=1)


def test_config_schema(cli):
    assert json.loads(cli("config", "schema"))["required"] == ["driver", "backends"]


# -- backends ---------------------------------------------------------------------------------------


def test_backends_installed(cli, stranger):
    text = cli("backends")
    assert "\nstranger\n" in text
    assert "package                  csi-core-stranger 1.2" in text
    assert "about                    a stranger's backend" in text
    assert "filesystem volumes       ReadWriteMany" in text
    assert "parameters               speed" in text
    assert "CREATE_DELETE_VOLUME" in text


def test_backends_that_cannot_be_imported_are_listed_with_the_reason(cli, install):
    install("csi-core-bad", backends={"bad": "no_such_module:F"})
    assert "(no_such_module:F, from csi-core-bad) cannot be imported: ModuleNotFoundError" in cli("backends")


def test_backends_installed_json(cli, stranger):
    entry = next(entry for entry in json.loads(cli("backends", "-o", "json")) if entry["name"] == "stranger")
    assert entry["access"] == {"filesystem": ["multi_node_multi_writer"]}
    assert entry["reach"] == "network"
    assert "diagnose" in entry["hooks"]
    assert "GET_VOLUME" in entry["capabilities"]["controller"]
    assert [doc["key"] for doc in entry["keys"]["Options in the configuration file"]] == ["directory", "limit"]


def test_backends_configured(cli, config_file):
    text = cli("backends", "--config", config_file)
    assert text.startswith("mine (type stranger)\n")
    assert "about                    a stranger's backend" in text
    assert "not opened" not in text


def test_backends_of_a_running_server_are_not_opened(cli, config_file, server_socket):
    import stranger_backend

    stranger_backend.calls.clear()
    text = cli("backends", "--config", config_file)
    assert "not opened: a server runs at" in text
    assert "a stranger's backend" in text
    assert stranger_backend.calls == []


def test_backends_show(cli, stranger):
    text = cli("backends", "show", "stranger")
    assert "Options in the configuration file" in text
    assert "directory" in text and "Where it lies." in text and "required" in text
    assert "StorageClass parameters" in text
    assert "slow or fast" in text


def test_backends_show_markdown(cli, stranger):
    assert cli("backends", "show", "stranger", "-o", "markdown") == (
        "### Options in the configuration file\n\n"
        "| key | value | default | |\n|---|---|---|---|\n"
        "| `directory` | path | required | Where it lies. |\n"
        "| `limit` | size (10Gi) | `0` | How much. |\n"
        "\n### StorageClass parameters\n\n"
        "| key | value | default | |\n|---|---|---|---|\n"
        "| `speed` | slow or fast | `slow` | How fast. |\n"
    )


def test_backends_show_something_else(cli, stranger, config_file):
    assert "no backend 'strangr' is installed; did you mean 'stranger'?" in cli("backends", "show", "strangr", code=1)
    text = cli("backends", "show", "zzz", "--config", config_file, code=1)
    assert f"no backend 'zzz' is configured in {config_file}; there are: mine" in text


# -- doctor and gc ----------------------------------------------------------------------------------


def test_doctor(cli, config_file, stranger):
    assert cli("doctor", "--config", config_file) == "Nothing is wrong.\n"
    (stranger / "broken-a").touch()
    (stranger / "broken-precious").touch()
    text = cli("doctor", "--config", config_file, code=1)
    assert "broken-a" in text and "it is broken" in text and "remove it" in text
    rows = json.loads(cli("doctor", "--config", config_file, "-o", "json", code=1))
    assert [(row["backend"], row["subject"], row["repairable"]) for row in rows] == [
        ("mine", "broken-a", True),
        ("mine", "broken-precious", False),
    ]


def test_gc_changes_nothing_unless_told(cli, config_file, stranger):
    assert cli("gc", "--config", config_file) == "There is nothing to repair.\n"
    (stranger / "broken-a").touch()
    (stranger / "broken-precious").touch()
    text = cli("gc", "--config", config_file)
    assert "broken-a" in text and "broken-precious" not in text
    assert "Nothing was changed. Repair with --apply." in text
    assert (stranger / "broken-a").exists()
    rows = json.loads(cli("gc", "--config", config_file, "--apply", "-o", "json"))
    assert [(row["subject"], row["repaired"]) for row in rows] == [("broken-a", True)]
    assert not (stranger / "broken-a").exists()
    assert (stranger / "broken-precious").exists()


@pytest.mark.parametrize("command", [["doctor"], ["gc", "--apply"]])
def test_care_keeps_off_a_running_server(cli, config_file, server_socket, command):
    assert f"a server runs at {server_socket} and holds the storage open; stop it first" in cli(
        *command, "--config", config_file, code=1
    )


def test_doctor_on_storage_that_cannot_be_reached(cli, config_file, stranger):
    (stranger / "not-yet").write_text("the disk spins up")
    said = cli("doctor", "--config", config_file, code=1)
    assert "Error: this server is still starting (waiting for 'mine': the disk spins up)" in said


# -- without a server -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["volumes", "list"], ["snapshots", "list"], ["capacity"]])
def test_nobody_answers(cli, tmp_path, command):
    assert cli(*command, "--endpoint", f"unix://{tmp_path}/none.sock", code=1) == (
        f"Error: no server answers at {tmp_path}/none.sock; start one with `csi-core serve`, "
        f"or name its socket with --endpoint\n"
    )


def test_a_socket_of_another_user(cli, tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_socket", refused)
    said = f"this user may not talk to the server at {tmp_path}/csi.sock; run the command as the user of the server"
    assert cli("volumes", "list", "--endpoint", f"unix://{tmp_path}/csi.sock", code=1) == f"Error: {said}\n"


def test_a_stale_socket(cli, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "stale.sock"))
    assert f"no server answers at {tmp_path}/stale.sock" in cli(
        "volumes", "list", "--endpoint", f"unix://{tmp_path}/stale.sock", code=1
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list", "--endpoint", "/run/x.sock"], "'/run/x.sock' is no endpoint; write unix:///run/csi-core/csi.sock"),
        (["create", "x", "--size", "10Zi"], "'10Zi' is not a size; write it like 10Gi, 500M or 4096"),
        (["create", "x", "-p", "thin"], "'thin'; write KEY=VALUE"),
        (["create", "x", "-p", "=thin"], "'=thin'; write KEY=VALUE"),
        (["expand", "x"], "Missing option '--size'"),
        (["delete"], "Missing argument 'VOLUME_ID...'"),
        (["create", "x", "--access-mode", "rwx"], "'rwx' is not one of 'single_node_writer'"),
    ],
)
def test_bad_usage_of_volumes(cli, arguments, said):
    assert said in cli("volumes", *arguments, code=2)


def test_secrets_come_from_a_file(cli, tmp_path):
    path = tmp_path / "secrets"
    path.write_text("just text")
    assert "must hold `key: value` lines" in cli("volumes", "delete", "x", "--secrets", path, code=2)


# -- commands of backends ---------------------------------------------------------------------------

COMMAND_MODULE = "import click\n@click.command()\ndef hello():\n    click.echo('hello from a backend')\nnothing = 1\n"


def backend_with(commands: dict[str, str]) -> str:
    return f"class Factory:\n    commands = {commands!r}\n    def __init__(self, options): pass\n"


def test_a_backend_brings_a_command_along(cli, install):
    install(
        "csi-core-greeting",
        backends={"greeting": "greeting_backend:Factory"},
        modules={
            "greeting_backend": backend_with(
                {"hello": "greeting_commands:hello", "broken": "greeting_commands:nothing"}
            ),
            "greeting_commands": COMMAND_MODULE,
        },
    )
    assert cli("hello") == "hello from a backend\n"
    assert "is no click.Command" in cli("broken", code=1)
    assert "No such command 'unheard-of'" in cli("unheard-of", code=2)


def test_a_command_that_two_backends_bring_is_refused(cli, install):
    for name in ("one", "two"):
        install(
            f"csi-core-{name}",
            backends={name: f"{name}_backend:Factory"},
            modules={f"{name}_backend": backend_with({"hello": f"{name}_commands:hello"})},
        )
    assert "the backends one and two both bring a command 'hello'" in cli("hello", code=1)


def test_the_pool_command_of_loop(cli):
    assert "Make, grow, show, check and defragment pools" in cli("pool", "--help")
