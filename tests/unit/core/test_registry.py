"""Entry points, in distributions that each test installs for itself."""

from __future__ import annotations

import sys

import pytest

from csi_core import registry
from csi_core.errors import ConfigError, PluginError


def test_the_built_in_backends_come_through_entry_points():
    found = {backend.name: backend for backend in registry.installed()}
    assert found["sim"].distribution == "csi-core"
    assert found["sim"].entry_point == "backends.sim.plugin:SimBackend"


def test_listing_imports_nothing(install):
    install("csi-core-bad", backends={"bad": "no_such_module:Factory"})
    bad = next(backend for backend in registry.installed() if backend.name == "bad")
    assert (bad.distribution, bad.version, bad.entry_point) == ("csi-core-bad", "1.2", "no_such_module:Factory")


def test_loading_makes_the_plugin_with_its_options(stranger):
    plugin = registry.load_plugin("stranger", {"directory": "/x"})
    assert plugin.options == {"directory": "/x"}


def test_only_what_is_configured_is_imported(install, stranger):
    install("csi-core-other", backends={"other": "other_backend:X"}, modules={"other_backend": "raise SystemError"})
    registry.load_plugin("stranger", {"directory": "/x"})
    assert "other_backend" not in sys.modules


def test_claimed_twice(install):
    install("csi-core-one", backends={"twin": "one:X"})
    install("csi-core-two", backends={"twin": "two:X"})
    with pytest.raises(PluginError) as caught:
        registry.load_plugin("twin", {})
    assert str(caught.value) == (
        "the backend type 'twin' is installed twice, by csi-core-one and csi-core-two; uninstall one of them"
    )
    assert [backend.name for backend in registry.installed()].count("twin") == 2


def test_missing_third_party():
    with pytest.raises(PluginError) as caught:
        registry.load_plugin("ceph", {})
    message = str(caught.value)
    assert message.startswith("there is no backend type 'ceph'; installed: ")
    assert message.endswith("pip install csi-core-ceph")


def test_missing_with_a_near_name():
    with pytest.raises(PluginError, match=r"there is no backend type 'lopo'; did you mean 'loop'\?"):
        registry.load_plugin("lopo", {})


def test_missing_built_in(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: ())
    with pytest.raises(PluginError, match="'loop' is not part of this installation; install the package csi-core anew"):
        registry.load_plugin("loop", {})


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("import no_such_thing", "cannot be imported: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("x = 1", "cannot be imported: AttributeError:"),
        ("def Factory(options): raise KeyError('path')", "could not be made from its options: KeyError: 'path'"),
        ("def Factory(): pass", "could not be made from its options: TypeError:"),
    ],
)
def test_a_factory_that_fails(install, module, said):
    install("csi-core-bad", backends={"bad": "bad_backend:Factory"}, modules={"bad_backend": module})
    with pytest.raises(PluginError) as caught:
        registry.load_plugin("bad", {})
    assert "the backend type 'bad'" in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_factory_may_refuse_its_options_itself(install):
    module = "from csi_core.errors import ConfigError\ndef Factory(options): raise ConfigError('no good')"
    install("csi-core-bad", backends={"bad": "bad_backend:Factory"}, modules={"bad_backend": module})
    with pytest.raises(ConfigError, match="^no good$"):
        registry.load_plugin("bad", {})


def test_options_are_checked_before_the_plugin_is_made(stranger):
    import stranger_backend

    stranger_backend.calls.clear()
    with pytest.raises(ConfigError) as caught:
        registry.load_plugin("stranger", {"directry": "/x", "limit": "10 apples"})
    message = str(caught.value)
    assert "option 'directory' is required" in message
    assert "unknown option 'directry'; did you mean 'directory'?" in message
    assert "option 'limit': '10 apples' is not a size" in message
    assert stranger_backend.calls == []


def test_wrappers_have_entry_points_of_their_own(install):
    install("audit", wrappers={"audit": "audit_wrapper:Audit"}, modules={"audit_wrapper": "def Audit(o): return o"})
    assert registry.load_wrapper("audit", {"to": "x"}) == {"to": "x"}
    with pytest.raises(PluginError, match="there is no wrapper type 'audt'; did you mean 'audit'"):
        registry.load_wrapper("audt", {})
