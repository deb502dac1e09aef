"""A small client for a running server: the CSI calls over its Unix socket, with errors told in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import Any

import click

__all__ = ["Services", "connected", "key_values", "parameter_option", "secrets_option"]

_DEFAULT_ENDPOINT = "unix:///run/csi-core/csi.sock"
_TIMEOUT_S = 60.0
_PAGE_ENTRIES = 1000


@dataclass(frozen=True, slots=True)
class Services:
    """The stubs of one connection, and the message types."""

    identity: Any
    controller: Any
    node: Any
    pb: Any
    timeout_s: float

    def call(self, method: Callable[..., Any], request: Any) -> Any:
        """Make one call within the time-out."""
        return method(request, timeout=self.timeout_s)

    def entries(self, method: Callable[..., Any], request: Any) -> Iterator[Any]:
        """All entries of a listing, page after page, each within the time-out."""
        request.max_entries = _PAGE_ENTRIES
        while True:
            page = self.call(method, request)
            yield from page.entries
            request.starting_token = page.next_token
            if not page.next_token:
                return


def connected(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options ``--endpoint`` and ``--timeout``; the command's first argument are the :class:`Services`."""

    def command(endpoint: str, timeout: float, **arguments: Any) -> None:
        with _connection(endpoint, timeout) as services:
            function(services, **arguments)

    update_wrapper(command, function)
    command = click.option(
        "--timeout",
        type=click.FloatRange(min=0.1),
        metavar="SECONDS",
        default=_TIMEOUT_S,
        help=f"How long each call may take; {_TIMEOUT_S:g} unless given.",
    )(command)
    # \b keeps the lines as they are: the path would be broken in two at its hyphen.
    return click.option(
        "--endpoint",
        metavar="URL",
        envvar="CSI_ENDPOINT",
        default=_DEFAULT_ENDPOINT,
        help=f"\b\nSocket of the server; else $CSI_ENDPOINT, else\n{_DEFAULT_ENDPOINT}.",
    )(command)


def key_values(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """Click callback: ``key=value`` options as a mapping."""
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{pair!r}; write KEY=VALUE", context, parameter)
        values[key] = value
    return values


def parameter_option(of: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option ``--parameter KEY=VALUE`` of what ``of`` names, a StorageClass say."""
    return click.option(
        "--parameter",
        "-p",
        "parameters",
        metavar="KEY=VALUE",
        multiple=True,
        callback=key_values,
        help=f"Parameter of the {of}; once for each.",
    )


def secrets_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``--secrets FILE``: a YAML mapping, because arguments are seen by everybody in ``ps``."""
    return click.option(
        "--secrets",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=_read_secrets,
        help="YAML file with the secrets of the backend, one key and value in a line.",
    )(function)


def _read_secrets(context: click.Context, parameter: click.Parameter, path: Path | None) -> Mapping[str, str]:
    if path is None:
        return {}
    import yaml  # noqa: PLC0415 - the start-up time of every other command

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise click.BadParameter(f"{path} must hold `key: value` lines", context, parameter)
    return {str(key): str(value) for key, value in content.items()}


@contextmanager
def _connection(endpoint: str, timeout_s: float) -> Iterator[Services]:
    import grpc  # noqa: PLC0415 - the start-up time of every other command

    from csi_core._proto import csi_pb2, csi_pb2_grpc  # noqa: PLC0415
    from csi_core.config import socket_path  # noqa: PLC0415

    try:
        path = socket_path(endpoint)
    except ValueError as error:
        raise click.UsageError(f"--endpoint: {error}") from None
    try:
        there = path.is_socket()
    except PermissionError:
        raise click.ClickException(_not_allowed(path)) from None
    if not there:
        raise click.ClickException(_nobody(path))
    with grpc.insecure_channel(f"unix:{path}", options=(("grpc.max_receive_message_length", -1),)) as channel:
        try:
            yield Services(
                identity=csi_pb2_grpc.IdentityStub(channel),
                controller=csi_pb2_grpc.ControllerStub(channel),
                node=csi_pb2_grpc.NodeStub(channel),
                pb=csi_pb2,
                timeout_s=timeout_s,
            )
        except grpc.RpcError as error:
            raise click.ClickException(_sentence(error, path, timeout_s)) from None


def _sentence(error: Any, path: Path, timeout_s: float) -> str:
    code, details = error.code().name, error.details() or "no details"
    if code == "UNAVAILABLE" and "failed to connect" in details.lower():
        if "ermission denied" in details:
            return _not_allowed(path)
        return _nobody(path)
    if code == "DEADLINE_EXCEEDED":
        return f"no answer within {timeout_s:g} s; it may still be done. Ask again, or wait longer with --timeout"
    return f"{details} ({code})"


def _not_allowed(path: Path) -> str:
    return f"this user may not talk to the server at {path}; run the command as the user of the server"


def _nobody(path: Path) -> str:
    return f"no server answers at {path}; start one with `csi-core serve`, or name its socket with --endpoint"
