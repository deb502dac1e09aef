"""Several stores in one backend: which of them a parameter, a handle or a cursor means."""

from __future__ import annotations

from bisect import bisect_right

import pytest

from csi_core.errors import FailedPrecondition, InvalidArgument, NotFound
from csi_core.handles import join, make_key
from csi_core.model import ContentSource, Page, SourceKind, Volume
from csi_core.stores import Stores


class Shelf:
    """A store; falsy while it is empty, as a class with ``__len__`` is."""

    def __init__(self, name: str, volumes: int, closed: list[str]) -> None:
        self.name = name
        self.keys = sorted(make_key("v", f"{name}-{number}") for number in range(volumes))
        self.asked: list[int] = []
        self._closed = closed

    def __len__(self) -> int:
        return len(self.keys)

    def close(self) -> None:
        self._closed.append(self.name)

    def volumes(self, after: str, most: int) -> list[Volume]:
        self.asked.append(most)
        keys = self.keys[bisect_right(self.keys, after) :][:most]
        return [Volume(join(self.name, key), key, 1) for key in keys]


KEY = make_key("v", "one")


@pytest.fixture
def closed() -> list[str]:
    return []


@pytest.fixture
def shelves(closed: list[str]) -> Stores[Shelf]:
    stores: Stores[Shelf] = Stores("shelf", "shelfName", "c")
    for name, volumes in (("c", 3), ("a", 2), ("b", 0)):
        stores.add(Shelf(name, volumes, closed))
    return stores


def test_stores_are_in_the_order_of_their_names_until_they_are_closed(
    shelves: Stores[Shelf], closed: list[str]
) -> None:
    assert [shelf.name for shelf in shelves] == ["a", "b", "c"]
    shelves.close()
    assert not list(shelves) and sorted(closed) == ["a", "b", "c"]


def test_a_new_volume_goes_where_it_is_told_else_to_its_source_else_to_the_default(shelves: Stores[Shelf]) -> None:
    source = ContentSource(SourceKind.VOLUME, join("a", KEY))
    empty = ContentSource(SourceKind.SNAPSHOT, join("b", make_key("s", "one")))
    chosen = [shelves.chosen(*asked).name for asked in (("a",), ("",), ("", source), ("a", source), ("", empty))]
    assert chosen == ["a", "c", "a", "a", "b"]


@pytest.mark.parametrize(
    ("name", "source", "error", "said"),
    [
        ("d", None, InvalidArgument, "parameter 'shelfName': there is no shelf 'd'; there are a, b, c"),
        (
            "a",
            join("c", KEY),
            InvalidArgument,
            "a copy stays in the shelf of its source: set shelfName to 'c'",
        ),
        ("a", join("b", KEY), InvalidArgument, "set shelfName to 'b'"),
        ("", join("d", KEY), NotFound, f"no volume d:{KEY}"),
        ("", "nonsense", NotFound, "no volume nonsense"),
    ],
)
def test_a_choice_that_cannot_be_met_says_why(
    shelves: Stores[Shelf], name: str, source: str | None, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as raised:
        shelves.chosen(name, ContentSource(SourceKind.VOLUME, source) if source else None)
    assert said in str(raised.value)


def test_a_handle_names_its_store_also_an_empty_one(shelves: Stores[Shelf]) -> None:
    for name in "abc":
        located = shelves.locate(join(name, KEY), "v")
        assert located == shelves.present(join(name, KEY), "v") == shelves.removable(join(name, KEY), "v")
        assert located and (located[0].name, located[1]) == (name, KEY)


def test_what_cannot_be_there_is_gone_but_a_store_that_is_not_configured_is_no_proof(shelves: Stores[Shelf]) -> None:
    assert shelves.locate("a:nonsense", "v") is None is shelves.removable("a:nonsense", "v")
    assert shelves.locate(join("a", KEY), "s") is None
    assert shelves.locate(join("d", KEY), "v") is None
    with pytest.raises(NotFound):
        shelves.present(join("d", KEY), "v")
    with pytest.raises(FailedPrecondition, match="is in shelf 'd', which is not configured here; add the shelf"):
        shelves.removable(join("d", KEY), "v")


def test_members_of_one_call_are_in_one_store(shelves: Stores[Shelf]) -> None:
    other = make_key("v", "other")
    shelf, keys = shelves.together([join("a", KEY), join("a", other)], "v")
    assert (shelf.name, keys) == ("a", [KEY, other])
    with pytest.raises(InvalidArgument, match="must lie in one shelf, and these are in a, c"):
        shelves.together([join("c", KEY), join("a", other)], "v")


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6])
def test_pages_are_all_entries_once_whatever_their_size(shelves: Stores[Shelf], limit: int) -> None:
    pages = [shelves.page("", limit, "v", Shelf.volumes)]
    while pages[-1].next_cursor:
        pages.append(shelves.page(pages[-1].next_cursor, limit, "v", Shelf.volumes))
    assert all(len(page.entries) == limit for page in pages[:-1]) and pages[-1].entries
    listed = [volume.handle for page in pages for volume in page.entries]
    assert listed == [join(shelf.name, key) for shelf in shelves for key in shelf.keys]


def test_no_store_is_asked_for_more_than_the_page_needs(shelves: Stores[Shelf]) -> None:
    shelves.page("", 2, "v", Shelf.volumes)
    assert [shelf.asked for shelf in shelves] == [[3], [1], [1]]


def test_a_store_that_answers_more_than_asked_makes_no_longer_page(shelves: Stores[Shelf]) -> None:
    asked: list[int] = []

    def greedy(shelf: Shelf, after: str, most: int) -> list[Volume]:
        asked.append(most)
        return shelf.volumes(after, 1 << 30)

    shelves.add(Shelf("a", 3, []))
    page: Page[Volume] = shelves.page("", 1, "v", greedy)
    assert len(page.entries) == 1 and page.next_cursor == page.entries[0].handle
    assert asked == [2]


def test_a_cursor_may_be_of_what_is_gone_but_not_nonsense(shelves: Stores[Shelf]) -> None:
    assert shelves.page("b:v-00000000000000000000", 9, "v", Shelf.volumes).entries[0].handle.startswith("c:")
    assert shelves.page(join("bb", KEY), 9, "v", Shelf.volumes).entries[0].handle.startswith("c:")
    with pytest.raises(InvalidArgument, match="is not a cursor of a listing of volumes"):
        shelves.page("nonsense", 9, "v", Shelf.volumes)
