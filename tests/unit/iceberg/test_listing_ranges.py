"""A listing in ranges finds what a listing in one piece finds, once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from airflow_provider_floe.iceberg import listing
from airflow_provider_floe.iceberg.listing import list_ranges
from airflow_provider_floe.iceberg.merging import merged

PARTS = st.lists(st.text("abé0", min_size=1, max_size=3), min_size=1, max_size=3)
KEYS = PARTS.map(lambda parts: "/".join(["t", *parts]))


@given(
    keys=st.sets(KEYS, max_size=30), points=st.lists(KEYS | st.just("elsewhere"), max_size=5), chunk=st.integers(1, 4)
)
def test_every_object_is_listed_once_wherever_the_ranges_part(keys: set[str], points: list[str], chunk: int) -> None:
    store = MemoryStore()
    for key in keys:
        store.put(key, b"content")
    store.put("other/x", b"content")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "BATCH", chunk)
        found = list(list_ranges(store, "t", "s3://b/t", points))
    assert sorted(file.path for file in found) == sorted(f"s3://b/{key}" for key in keys)
    assert all(file.size_bytes == 7 and file.modified and file.modified.tzinfo == UTC for file in found)


def test_sources_are_read_side_by_side_and_all_given() -> None:
    assert sorted(merged([iter(range(0, 50)), iter(range(50, 60)), iter([])])) == [*range(60)]


def test_the_error_of_one_source_ends_all() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("the store went away")

    def endless() -> Iterator[int]:
        while True:
            yield 0

    with pytest.raises(ValueError, match="the store went away"):
        sum(merged([endless(), broken()]))


def test_who_stops_listening_leaves_no_thread() -> None:
    before = threading.active_count()
    items = merged([iter(range(1000)), iter(range(1000))])
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
