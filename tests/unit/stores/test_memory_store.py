from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.store_contract import StoreContract
from harness.store_documents import EXPIRE, MINUTE, NOON, TABLE, execution, plan
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_floe.stores.open import open_store
from airflow_provider_floe.stores.protocols import FloeStore, SlotOutcome


@pytest.fixture
def store() -> Iterator[FloeStore]:
    opened = open_store("memory://")
    yield opened
    opened.close()


class TestMemory(StoreContract):
    def test_it_is_this_process_s_own(self, store: FloeStore) -> None:
        assert not store.shared
        store.record_slot(execution(NOON, SlotOutcome.EXECUTED))
        assert open_store("memory://").consumed_slot(TABLE, EXPIRE) is None


@pytest.mark.property
@settings(max_examples=25, deadline=None)
@given(
    limit=st.integers(1, 100),
    steps=st.lists(st.tuples(st.lists(st.integers(0, 60), max_size=3), st.integers(0, 60) | st.none()), max_size=12),
)
def test_reservations_never_exceed_the_budget(limit: int, steps: list[tuple[list[int], int | None]]) -> None:
    """After any sequence of plans and settlements, what is reserved is what was granted, and a grant never exceeds."""
    store = open_store("memory://")
    granted: dict[str, int] = {}
    for estimates, settled in steps:
        one = plan(*estimates)
        before = sum(granted.values())
        fits = store.reserve_and_save(one, max_bytes=limit)
        assert fits == (sum(estimates) == 0 or before + sum(estimates) <= limit)
        if fits:
            granted |= {item.id: item.estimate.bytes_in for item in one.to_run}
        if settled is not None and granted:
            item_id = min(granted)
            store.settle_bytes(item_id, settled)
            granted[item_id] = settled
        assert store.bytes_reserved() == sum(granted.values())
    store.close()


@pytest.mark.property
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(SlotOutcome)), max_size=20))
def test_a_slot_has_at_most_one_consuming_execution(steps: list[tuple[int, SlotOutcome]]) -> None:
    store = open_store("memory://")
    last: dict[int, SlotOutcome] = {}
    for number, outcome in steps:
        slot = NOON + number * MINUTE
        written = store.record_slot(execution(slot, outcome))
        assert written == (number not in last or not last[number].consumes)
        if written:
            last[number] = outcome
    assert [one.outcome for one in store.slots(TABLE, EXPIRE)] == [
        last[number] for number in sorted(last, reverse=True)
    ]
    consumed = [NOON + number * MINUTE for number, outcome in last.items() if outcome.consumes]
    assert store.consumed_slot(TABLE, EXPIRE) == max(consumed, default=None)
    store.close()
