"""Batches: every item to run in exactly one, tables whole and in run order, never too many."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_floe.engines.capabilities import Capabilities, OperationCapability
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.planning.batches import make_batches, make_helpers
from airflow_provider_floe.planning.model import Batching, Disposition, Estimate, PlanItem
from airflow_provider_floe.tables import RUN_ORDER, Operation


def wanted(rank: int, operation: Operation = Operation.REWRITE_DATA_FILES, size: int = 0, **fields: Any) -> PlanItem:
    return PlanItem(
        **{
            "id": f"{rank}-{operation}",
            "table": TableId(catalog="lake", namespace=("db",), name=f"t{rank:03d}"),
            "operation": operation,
            "disposition": Disposition.RUN,
            "reasons": ("work found",),
            "rank": rank,
            "estimate": Estimate(bytes_in=size),
            **fields,
        }
    )


@st.composite
def fleets(draw: st.DrawFn) -> list[PlanItem]:
    items = [
        wanted(
            rank,
            operation,
            draw(st.integers(0, 120)),
            disposition=draw(st.sampled_from([Disposition.RUN, Disposition.RUN, Disposition.CUT])),
        )
        for rank in range(1, draw(st.integers(1, 25)))
        for operation in draw(st.lists(st.sampled_from(RUN_ORDER), min_size=1, unique=True))
    ]
    return draw(st.permutations(items))


batchings = st.builds(
    Batching, max_batches=st.integers(1, 8), target_bytes=st.integers(1, 200), max_tables=st.integers(1, 6)
)


@given(fleets(), batchings)
def test_every_item_to_run_stands_in_exactly_one_batch_and_nothing_else_does(
    items: list[PlanItem], batching: Batching
) -> None:
    counted = Counter(item for batch in make_batches(items, batching) for item in batch)
    assert counted == Counter(item.id for item in items if item.disposition is Disposition.RUN)


@given(fleets(), batchings)
def test_a_table_stands_in_one_batch_in_run_order(items: list[PlanItem], batching: Batching) -> None:
    by_id = {item.id: item for item in items}
    seen: set[TableId] = set()
    for batch in make_batches(items, batching):
        members = [by_id[item] for item in batch]
        tables = list(dict.fromkeys(item.table for item in members))
        assert not seen & set(tables)
        seen |= set(tables)
        assert members == sorted(members, key=lambda item: (item.rank, RUN_ORDER.index(item.operation)))


@given(fleets(), batchings)
def test_there_are_never_more_batches_than_allowed_and_none_is_empty(items: list[PlanItem], batching: Batching) -> None:
    batches = make_batches(items, batching)
    assert len(batches) <= batching.max_batches
    assert all(batches)


@given(fleets(), batchings)
def test_without_the_limit_a_shared_batch_keeps_to_bytes_and_tables(items: list[PlanItem], batching: Batching) -> None:
    by_id = {item.id: item for item in items}
    roomy = Batching(max_batches=10_000, target_bytes=batching.target_bytes, max_tables=batching.max_tables)
    for batch in make_batches(items, roomy):
        members = [by_id[item] for item in batch]
        tables = {item.table for item in members}
        assert len(tables) <= roomy.max_tables
        assert len(tables) == 1 or sum(item.estimate.bytes_in for item in members) <= roomy.target_bytes


def test_a_large_table_is_alone_between_small_ones_that_share() -> None:
    items = [wanted(1, size=10), wanted(2, size=100), wanted(3, size=20)]
    batches = make_batches(items, Batching(target_bytes=100))
    assert batches == (("1-rewrite_data_files", "3-rewrite_data_files"), ("2-rewrite_data_files",))


def test_too_many_batches_put_the_smallest_together() -> None:
    items = [wanted(1, size=500), wanted(2, size=100), wanted(3, size=400), wanted(4, size=150)]
    batches = make_batches(items, Batching(target_bytes=100, max_batches=3))
    assert batches == (
        ("1-rewrite_data_files",),
        ("2-rewrite_data_files", "4-rewrite_data_files"),
        ("3-rewrite_data_files",),
    )


SHARING = {
    "local": Capabilities(
        engine="local",
        version="1",
        operations={
            Operation.REWRITE_DATA_FILES: OperationCapability(shares_groups=True),
            Operation.EXPIRE_SNAPSHOTS: OperationCapability(),
        },
    ),
    "spark": Capabilities(
        engine="spark", version="4", operations={Operation.REWRITE_DATA_FILES: OperationCapability()}
    ),
}


def test_a_table_gets_a_task_for_each_target_of_its_bytes_up_to_its_most() -> None:
    items = [
        wanted(1, size=1000, engine="local"),
        wanted(2, size=250, engine="local"),
        wanted(3, size=100, engine="local"),
        wanted(4, size=1000, engine="spark"),
        wanted(5, Operation.EXPIRE_SNAPSHOTS, size=1000, engine="local"),
        wanted(6, size=1000, engine="local", disposition=Disposition.CUT),
    ]
    batching = Batching(target_bytes=100, max_tasks_per_table=4)
    helpers = make_helpers(items, batching, 5, SHARING)
    assert Counter(helpers) == {items[0].id: 3, items[1].id: 2}
    assert make_helpers(items, Batching(target_bytes=100), 5, SHARING) == (), "one task a table is the default"
    assert make_helpers(items, Batching(target_bytes=100, max_tasks_per_table=4, max_batches=9), 5, SHARING) == (
        *[items[0].id] * 3,
        items[1].id,
    ), "the best ranked first"


@given(fleets(), batchings, st.integers(1, 5))
def test_helpers_are_never_too_many(items: list[PlanItem], batching: Batching, most: int) -> None:
    items = [item.model_copy(update={"engine": "local"}) for item in items]
    sharing = replace(batching, max_tasks_per_table=most)
    batches = make_batches(items, sharing)
    helpers = Counter(make_helpers(items, sharing, len(batches), SHARING))
    assert len(batches) + helpers.total() <= batching.max_batches
    running = {item.id: item for item in items if item.disposition is Disposition.RUN}
    for item_id, count in helpers.items():
        assert running[item_id].operation is Operation.REWRITE_DATA_FILES
        assert count < most
        assert count * batching.target_bytes < running[item_id].estimate.bytes_in, "each has something to do"
