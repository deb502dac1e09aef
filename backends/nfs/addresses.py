"""From a node's id to the addresses it mounts from."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

from backends.nfs.exportfs import same_address
from backends.nfs.options import ExportOptions
from csi_core.errors import NotFound, Unavailable

__all__ = ["addresses_of"]

_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


def addresses_of(node_id: str, options: ExportOptions) -> tuple[str, ...]:
    """The addresses of a node: by the map, by its id being one, or by the resolver.

    Raises:
        NotFound: there is no such node.
        Unavailable: the resolver does not answer.
    """
    mapped = options.node_addresses.get(node_id)
    if mapped:
        return (mapped,) if isinstance(mapped, str) else mapped
    with suppress(ValueError):
        ip_address(node_id)
        return (same_address(node_id),)
    if not options.resolve_nodes:
        raise NotFound(f"node {node_id!r} is not in nodeAddresses, and its id is no address")
    try:
        found = socket.getaddrinfo(node_id, None, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise NotFound(f"node {node_id!r} is not in nodeAddresses, and its id is no name") from None
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_NAME:
            raise NotFound(f"node {node_id!r} is not in nodeAddresses, and nothing has that name") from None
        raise Unavailable(f"the address of node {node_id!r} cannot be looked up: {error.strerror}") from error
    addresses = {same_address(str(entry[4][0]).partition("%")[0]) for entry in found}
    # Of its own name a host says 127.0.1.1, and from there no node mounts.
    reachable = tuple(sorted(address for address in addresses if not ip_address(address).is_loopback))
    if not reachable:
        raise NotFound(f"node {node_id!r} has no address but {', '.join(sorted(addresses))}; put it in nodeAddresses")
    return reachable
