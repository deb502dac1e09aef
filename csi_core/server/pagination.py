"""Listings that run through several backends, one after the other.

A token is ``<backend>/<cursor>``: where to go on, and in whose listing. The cursor is the backend's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from csi_core import deadline
from csi_core.errors import Busy, InvalidArgument
from csi_core.model import Page

if TYPE_CHECKING:
    from csi_core.facade import Backend

__all__ = ["BadToken", "list_through"]

T = TypeVar("T")
_PAGE = 1000


class BadToken(Busy):
    """A ``starting_token`` that does not lead anywhere. ABORTED: the CO starts the listing anew (CSI "ListVolumes")."""


def list_through(
    backends: Sequence[Backend],
    token: str,
    max_entries: int,
    read: Callable[[Backend, str, int], Page[T]],
) -> tuple[list[tuple[Backend, T]], str]:
    """One page over all of ``backends``.

    Args:
        backends: in the order to list them; the same for every page.
        token: "" for the start, or what the page before answered.
        max_entries: how many at most; 0 for all the rest.
        read: one page of one backend: after a cursor, at most so many.

    Returns:
        The entries, each with its backend, and the token for the next page ("" on the last one).

    Raises:
        BadToken: the token is not one of these backends'.
    """
    position, cursor = _position(backends, token)
    found: list[tuple[Backend, T]] = []
    while position < len(backends):
        backend = backends[position]
        limit = min(_PAGE, max_entries - len(found)) if max_entries else _PAGE
        if limit == 0:
            return found, f"{backend.name}/{cursor}"
        deadline.check()
        try:
            page = read(backend, cursor, limit)
        except InvalidArgument as error:
            if not cursor:
                raise
            raise BadToken(f"starting_token {token!r}: {error}") from error
        found.extend((backend, entry) for entry in page.entries)
        cursor = page.next_cursor
        position += not cursor
    return found, ""


def _position(backends: Sequence[Backend], token: str) -> tuple[int, str]:
    if not token:
        return 0, ""
    name, separator, cursor = token.partition("/")
    for position, backend in enumerate(backends):
        if separator and backend.name == name:
            return position, cursor
    raise BadToken(f"starting_token {token!r} is none of this driver's; start the listing anew")
