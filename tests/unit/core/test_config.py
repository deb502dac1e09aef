"""The configuration: what is taken, what is refused, and that a refusal says where and how to mend it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from csi_core.config import Config, load_config
from csi_core.config_check import json_schema, load_checked_config
from csi_core.errors import ConfigError, PluginError

SMALLEST = "driver: {name: loop.example.com}\nbackends: {loop: }\n"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("NODE_NAME", raising=False)
    monkeypatch.delenv("CSI_ENDPOINT", raising=False)


@pytest.fixture
def load(tmp_path):
    def load(text: str, loader=load_config) -> Config:
        path = tmp_path / "c.yaml"
        path.write_text(text)
        return loader(path)

    return load


@pytest.fixture
def refusal(load, tmp_path):
    def refused(text: str, loader=load_config, error=ConfigError) -> str:
        with pytest.raises(error) as caught:
            load(text, loader)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refused


def test_defaults(load):
    config = load(SMALLEST)
    assert config.driver.node_id == socket.gethostname()
    assert config.driver.socket_path == Path("/run/csi-core/csi.sock")
    assert config.driver.socket_mode_bits == 0o600
    assert config.driver.alpha_capabilities is False
    assert (config.server.workers, config.server.queued, config.server.shutdown_grace_seconds) == (32, 256, 30.0)
    assert (config.log.format, config.log.level) == ("json", "info")
    assert config.metrics is None
    assert config.node.mounts == "kernel"
    assert config.default_backend == "loop"
    assert config.backends["loop"].type == "loop"


def test_everything_said(load):
    config = load(
        """
driver:
  name: a.b
  nodeId: n1
  endpoint: unix:///tmp/x.sock
  socketMode: "0660"
  alphaCapabilities: true
server: {workers: 2, queued: 0, shutdownGraceSeconds: 1.5}
log: {format: console, level: debug}
metrics: {listen: "[::1]:9808"}
node: {mounts: simulated}
defaultBackend: fast
backends:
  slow: {type: loop, options: {pools: {}}}
  fast:
    type: loop
    wrappers:
      - type: audit
        options: {to: x}
"""
    )
    assert config.driver.socket_mode_bits == 0o660
    assert config.metrics is not None
    assert config.metrics.address == ("::1", 9808)
    assert config.default_backend == "fast"
    assert config.backends["slow"].options == {"pools": {}}
    assert config.backends["fast"].wrappers[0].options == {"to": "x"}


def test_environment(load, monkeypatch):
    monkeypatch.setenv("NODE_NAME", "node-7")
    monkeypatch.setenv("CSI_ENDPOINT", "unix:///csi/csi.sock")
    config = load(SMALLEST)
    assert (config.driver.node_id, config.driver.endpoint) == ("node-7", "unix:///csi/csi.sock")
    config = load("driver: {name: a.b, nodeId: n1, endpoint: unix:///tmp/x.sock}\nbackends: {loop: }")
    assert (config.driver.node_id, config.driver.endpoint) == ("n1", "unix:///tmp/x.sock")


def test_a_bad_environment_is_refused_too(refusal, monkeypatch):
    monkeypatch.setenv("CSI_ENDPOINT", "tcp://0.0.0.0:1")
    assert "driver.endpoint: 'tcp://0.0.0.0:1' is no endpoint" in refusal(SMALLEST)


@pytest.mark.parametrize("name", ["a", "loop.csi-core.dev", "A.b-c.D", "x1.y2z", "a" * 63])
def test_driver_names(load, name):
    assert load(f"driver: {{name: {name}}}\nbackends: {{loop: }}").driver.name == name


@pytest.mark.parametrize(
    "name", ["", "1a.b", "a.b1", "a..b", "-a.b", "a.b-", "a_b.c", "a.-b.c", "a b", "ä.de", "a" * 64, "a.b\n", ".a"]
)
def test_driver_names_that_are_none(refusal, name):
    message = refusal(f"driver: {{name: {json.dumps(name)}}}\nbackends: {{loop: }}")
    assert message.startswith(f"c.yaml:1: driver.name: {name!r} is no driver name; write a domain of at most 63")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  socketMode: 0600", 'c.yaml:3: driver.socketMode: write it in quotes, like "0600"'),
        ("  socketMode: 600", 'c.yaml:3: driver.socketMode: write it in quotes, like "0600"'),
        ('  socketMode: "0999"', 'c.yaml:3: driver.socketMode: write it in quotes, like "0600"'),
        ("  endpoint: /run/x.sock", "c.yaml:3: driver.endpoint: '/run/x.sock' is no endpoint; write unix:///run/"),
        ("  endpoint: unix://x.sock", "c.yaml:3: driver.endpoint: 'unix://x.sock' is no endpoint"),
        (f"  endpoint: unix:///{'x' * 107}", "c.yaml:3: driver.endpoint: the path of a socket has at most 107 bytes"),
        ('  nodeId: ""', "c.yaml:3: driver.nodeId: a node id has 1 to 256 bytes"),
        ("  nodeID: x", "c.yaml:3: driver.nodeID: unknown key; did you mean 'nodeId'?"),
        ("  xyz: x", "c.yaml:3: driver.xyz: unknown key; known here: name, nodeId, endpoint, socketMode, alphaCapa"),
        ("  alphaCapabilities: maybe", "c.yaml:3: driver.alphaCapabilities: must be a valid boolean"),
        ("server: {workers: 0}", "c.yaml:3: server.workers: must be greater than or equal to 1"),
        ("server: {workers: many}", "c.yaml:3: server.workers: must be a valid integer"),
        ("server: 3", "c.yaml:3: server: must be a section with keys of its own"),
        ("log: {format: xml}", "c.yaml:3: log.format: must be 'json' or 'console'"),
        ("log: {levle: info}", "c.yaml:3: log.levle: unknown key; did you mean 'level'?"),
        ("metrics: {}", "c.yaml:3: metrics.listen: missing; it is required"),
        ("metrics: {listen: 9808}", "c.yaml:3: metrics.listen: must be a valid string"),
        ('metrics: {listen: ":9808"}', "c.yaml:3: metrics.listen: ':9808' is no address to listen on"),
        ('metrics: {listen: "h:99999"}', "c.yaml:3: metrics.listen: 'h:99999' is no address to listen on"),
        ("node: {mounts: fuse}", "c.yaml:3: node.mounts: must be 'kernel' or 'simulated'"),
        ("backend: {}", "c.yaml:3: backend: unknown key; did you mean 'backends'?"),
        ("defaultBackend: lop", "c.yaml:3: defaultBackend: there is no backend 'lop'; name one of loop"),
    ],
)
def test_one_wrong_line(refusal, line, said):
    text = f"driver:\n  name: a.b\n{line}\nbackends: {{loop: }}\n"
    message = refusal(text)
    assert message.startswith(said)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("backends", "said"),
    [
        ("backends: {}", "c.yaml:2: backends: must not be empty"),
        ("backends: [loop]", "c.yaml:2: backends: must be a section with keys of its own"),
        (
            "backends: {Loop: }",
            "c.yaml:2: backends.Loop: 'Loop' is no name for a backend: it has at most 31",
        ),
        (f"backends: {{{'a' * 32}: }}", "is no name for a backend"),
        ("backends: {loop: 3}", "c.yaml:2: backends.loop: must be a section with keys of its own"),
        ("backends: {loop: {optoins: {}}}", "c.yaml:2: backends.loop.optoins: unknown key; did you mean 'options'?"),
        ("backends: {a: , b: }", "defaultBackend: missing, and there are several backends; name one of a, b"),
        (
            "backends:\n  a:\n    wrappers:\n      - type: x\n      - tpye: y",
            "c.yaml:6: backends.a.wrappers.1.type: missing; it is required\n"
            "c.yaml:6: backends.a.wrappers.1.tpye: unknown key; did you mean 'type'?",
        ),
        ("", "c.yaml: backends: missing; it is required"),
    ],
)
def test_backends(refusal, backends, said):
    assert said in refusal(f"driver: {{name: a.b}}\n{backends}\n")


def test_every_problem_at_once_in_the_order_of_the_file(refusal):
    message = refusal("driver: {name: 1a}\nservr: {}\nlog: {level: loud}\nbackends: {loop: {x: 1}}")
    assert [line.split(":")[1] for line in message.splitlines()] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "c.yaml:1: is not YAML"),
        ("driver: {}\na: &a\n- x\n- *a", "c.yaml:2: contains itself, by an alias (*)"),
        ("driver:\n\tname: x", "c.yaml:2: is not YAML"),
        ("", "c.yaml: is no configuration; it begins with the sections `driver:` and `backends:`"),
        ("- a", "c.yaml: is no configuration"),
        ("a: !!python/object:os.system {}", "c.yaml:1: is not YAML"),
        ("driver: {name: a.b}\ndriver: {name: c.d}\nbackends: {x: }", "c.yaml:2: driver: is there already in line 1"),
        (
            "backends:\n  a: {type: loop}\n  a: {type: sim}",
            "c.yaml:3: backends.a: is there already in line 2",
        ),
    ],
)
def test_what_is_no_configuration(refusal, text, said):
    assert refusal(text).startswith(said)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "latin").write_bytes(b"driver: \xff")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(tmp_path / "latin")


def test_options_are_checked_with_their_lines(refusal, stranger):
    text = """driver: {name: a.b}
backends:
  mine:
    type: stranger
    options:
      directry: /x
      limit: 10 apples
"""
    assert refusal(text, load_checked_config).splitlines() == [
        "c.yaml:5: backends.mine.options.directory: missing; it is required",
        "c.yaml:6: backends.mine.options.directry: unknown key; did you mean 'directory'?",
        "c.yaml:7: backends.mine.options.limit: '10 apples' is not a size; write it like 10Gi, 500M or 4096",
    ]


def test_a_backend_that_is_not_installed_is_told_with_its_line(refusal):
    text = "driver: {name: a.b}\nbackends:\n  mine:\n    type: ceph\n"
    message = refusal(text, load_checked_config, PluginError)
    assert message.startswith("c.yaml:4: backends.mine: there is no backend type 'ceph'")


def test_the_schema_knows_the_options_of_installed_backends(stranger):
    schema = json_schema()
    assert schema["properties"]["driver"] == {"$ref": "#/$defs/DriverConfig"}
    rule = next(
        rule
        for rule in schema["$defs"]["BackendConfig"]["allOf"]
        if rule["if"]["properties"]["type"] == {"const": "stranger"}
    )
    options = rule["then"]["properties"]["options"]
    assert options["required"] == ["directory"]
    assert options["additionalProperties"] is False
    assert options["properties"]["limit"]["type"] == ["string", "integer"]
    assert "stranger" in schema["properties"]["backends"]["properties"]


def test_every_reference_of_the_schema_leads_somewhere():
    schema = json_schema()

    def references(part):
        if isinstance(part, dict):
            if "$ref" in part:
                yield part["$ref"]
            for value in part.values():
                yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    found = set(references(schema))
    assert {reference for reference in found if "loop." in reference}
    assert {reference.removeprefix("#/$defs/") for reference in found} <= set(schema["$defs"])


def test_a_backend_that_cannot_be_imported_does_not_spoil_the_schema(install):
    install("csi-core-bad", backends={"bad": "no_such_module:X"})
    assert "bad" not in json.dumps(json_schema()["$defs"]["BackendConfig"])


def test_reading_a_configuration_needs_no_server():
    """The commands that read it must start quickly."""
    code = "import sys, csi_core.config; print(sorted({'grpc', 'google.protobuf'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
