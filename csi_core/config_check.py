"""The configuration together with the plugins it names: their options checked, and the JSON Schema of it all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from csi_core import registry
from csi_core.config import Config, check_options, parse_config
from csi_core.config_source import Source
from csi_core.errors import PluginError

__all__ = ["json_schema", "load_checked_config"]


def load_checked_config(path: Path) -> Config:
    """Read a configuration and check the backends' options too, where they declare an ``options_model``.

    Raises:
        ConfigError: one line a problem, with the line in the file, the key and the fix.
        PluginError: a backend type is not installed or cannot be imported.
    """
    source = Source.read(path)
    config = parse_config(source)
    for name, section in config.backends.items():
        try:
            factory = registry.load_factory(section.type)
        except PluginError as error:
            raise PluginError(f"{source.place(('backends', name, 'type'))}: backends.{name}: {error}") from error
        model = registry.options_model(factory)
        if model is not None:
            check_options(source, name, model, section.options)
    return config


def json_schema() -> dict[str, Any]:
    """JSON Schema of the configuration file, with the options of every installed backend that declares them.

    A backend that cannot be imported keeps its place, with options of any form.
    """
    schema = Config.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    definitions = schema["$defs"]
    rules = []
    named = {}
    for type_name in dict.fromkeys(backend.name for backend in registry.installed()):
        options = _options_schema(type_name, definitions)
        if options is None:
            continue
        given = {"properties": {"options": options}}
        is_type = {"properties": {"type": {"const": type_name}}, "required": ["type"]}
        rules.append({"if": is_type, "then": given})
        # A section without a type has the type of its key.
        by_key = {"if": {"not": {"required": ["type"]}}, "then": given}
        named[type_name] = {"anyOf": [{"$ref": "#/$defs/BackendConfig", **by_key}, {"type": "null"}]}
    section = definitions["BackendConfig"]
    section["allOf"] = rules
    backends = schema["properties"]["backends"]
    backends["properties"] = named
    backends["additionalProperties"] = {"anyOf": [{"$ref": "#/$defs/BackendConfig"}, {"type": "null"}]}
    return schema


def _options_schema(type_name: str, definitions: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of a backend's options, its own definitions moved among those of the whole."""
    try:
        model = registry.options_model(registry.load_factory(type_name))
    except PluginError:
        return None
    if model is None:
        return None
    schema = model.model_json_schema(by_alias=True, ref_template=f"#/$defs/{type_name}.{{model}}")
    for name, definition in schema.pop("$defs", {}).items():
        definitions[f"{type_name}.{name}"] = definition
    return schema
