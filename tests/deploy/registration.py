"""Plugin registration (k8s.io/kubelet pluginregistration/v1): the registrar beside a driver, and kubelet's side."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from csi_core._proto import csi_pb2 as pb
from csi_core._proto import csi_pb2_grpc as rpc

__all__ = ["Registrar", "RegistrationError", "register"]

CALL_S = 10.0
PACKAGE = "pluginregistration"
SERVICE = f"{PACKAGE}.Registration"
# Of api.proto: message -> fields in the order of their numbers.
MESSAGES = {
    "InfoRequest": (),
    "PluginInfo": ("string type", "string name", "string endpoint", "repeated supported_versions"),
    "RegistrationStatus": ("bool plugin_registered", "string error"),
    "RegistrationStatusResponse": (),
}
LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
LABEL_PREFIX = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class RegistrationError(Exception):
    """Why kubelet refuses a driver."""


def _messages() -> dict[str, Any]:
    kinds = {
        "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        "repeated": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    }
    described = descriptor_pb2.FileDescriptorProto(name="pluginregistration.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = described.message_type.add(name=name)
        for number, text in enumerate(fields, 1):
            kind, field_name = text.split()
            label = "LABEL_REPEATED" if kind == "repeated" else "LABEL_OPTIONAL"
            message.field.add(name=field_name, number=number, type=kinds[kind], label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


MESSAGE = _messages()


@dataclass
class Registrar:
    """node-driver-registrar: asks the driver who it is, and serves kubelet a socket that says so.

    Args:
        driver: the driver's socket, as the registrar's container sees it.
        registration: the directory for its own socket, as its container sees it.
        kubelet_registration_path: its argument: where *kubelet* is to find the driver's socket.
    """

    driver: Path
    registration: Path
    kubelet_registration_path: str
    statuses: list[tuple[bool, str]] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator[Path]:
        """Serve until the end of the context; answers the socket."""
        with grpc.insecure_channel(f"unix://{self.driver}") as channel:
            name = rpc.IdentityStub(channel).GetPluginInfo(pb.GetPluginInfoRequest(), timeout=CALL_S).name
        info = MESSAGE["PluginInfo"](
            type="CSIPlugin", name=name, endpoint=self.kubelet_registration_path, supported_versions=["1.0.0"]
        )

        def notified(status: Any, _: grpc.ServicerContext) -> Any:
            self.statuses.append((status.plugin_registered, status.error))
            return MESSAGE["RegistrationStatusResponse"]()

        methods = {
            "GetInfo": _method(lambda _, __: info, "InfoRequest"),
            "NotifyRegistrationStatus": _method(notified, "RegistrationStatus"),
        }
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        socket = self.registration / f"{name}-reg.sock"
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        try:
            yield socket
        finally:
            server.stop(0).wait()


def _method(handler: Any, request: str) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        handler, MESSAGE[request].FromString, lambda answer: answer.SerializeToString()
    )


def register(socket: Path, host_path: Callable[[str], Path]) -> tuple[str, str, Mapping[str, str], Path]:
    """What kubelet does with a socket that appears in plugins_registry.

    Args:
        socket: the registrar's.
        host_path: from a path that the node knows to one here.

    Returns:
        The driver's name, its node id, its topology, and its socket.

    Raises:
        RegistrationError: kubelet refuses the driver; the registrar was told.
    """
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        info = _call(channel, "GetInfo", MESSAGE["InfoRequest"](), "PluginInfo")
        try:
            endpoint, answer = _driver_of(info, host_path)
        except RegistrationError as error:
            status = MESSAGE["RegistrationStatus"](plugin_registered=False, error=str(error))
            _call(channel, "NotifyRegistrationStatus", status, "RegistrationStatusResponse")
            raise
        status = MESSAGE["RegistrationStatus"](plugin_registered=True)
        _call(channel, "NotifyRegistrationStatus", status, "RegistrationStatusResponse")
    return info.name, answer.node_id, dict(answer.accessible_topology.segments), endpoint


def _driver_of(info: Any, host_path: Callable[[str], Path]) -> tuple[Path, pb.NodeGetInfoResponse]:
    if info.type != "CSIPlugin" or "1.0.0" not in info.supported_versions:
        raise RegistrationError(f"no CSI plugin of version 1: {info}")
    endpoint = host_path(info.endpoint)
    if not endpoint.is_socket():
        raise RegistrationError(f"there is no socket {info.endpoint} on the node")
    with grpc.insecure_channel(f"unix://{endpoint}") as channel:
        name = rpc.IdentityStub(channel).GetPluginInfo(pb.GetPluginInfoRequest(), timeout=CALL_S).name
        if name != info.name:
            raise RegistrationError(f"{info.endpoint} is the socket of {name}, not of {info.name}")
        answer = rpc.NodeStub(channel).NodeGetInfo(pb.NodeGetInfoRequest(), timeout=CALL_S)
    if not 0 < len(answer.node_id.encode()) <= 256:
        raise RegistrationError(f"{answer.node_id!r} is no node id")
    # Kubelet makes labels of the node from the topology; the API server refuses what is no label.
    for key, value in answer.accessible_topology.segments.items():
        prefix, _, name = key.rpartition("/")
        if not LABEL_NAME.fullmatch(name) or (prefix and not LABEL_PREFIX.fullmatch(prefix)):
            raise RegistrationError(f"{key!r} cannot be a node's label")
        if not LABEL_NAME.fullmatch(value):
            raise RegistrationError(f"{value!r} cannot be the value of the node's label {key}")
    return endpoint, answer


def _call(channel: grpc.Channel, method: str, request: Any, answer: str) -> Any:
    call: Any = channel.unary_unary(
        f"/{SERVICE}/{method}", lambda message: message.SerializeToString(), MESSAGE[answer].FromString
    )
    return call(request, timeout=CALL_S)
