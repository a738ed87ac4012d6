"""Budgets: never exceeded, spent by rank, and every item passed over says which budget could not pay."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from plan_builders import budgets, sizes

from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.planning.budgets import BYTES, OPERATIONS, TABLES, spend
from airflow_provider_floe.planning.model import Budgets, Disposition, Estimate, PlanItem
from airflow_provider_floe.tables import RUN_ORDER, Operation

REWRITE, _, MANIFESTS, _, EXPIRE, ORPHANS = RUN_ORDER
WHY = "work found: some"


def wanted(name: str, operation: Operation = REWRITE, size: int = 0, **fields: Any) -> PlanItem:
    return PlanItem(
        **{
            "table": TableId(catalog="lake", namespace=("db",), name=name),
            "operation": operation,
            "disposition": Disposition.RUN,
            "reasons": (WHY,),
            "estimate": Estimate(bytes_in=size),
            **fields,
        }
    )


@st.composite
def fleets(draw: st.DrawFn) -> list[PlanItem]:
    items = []
    for name in draw(st.lists(st.sampled_from("abcdef"), unique=True)):
        score = float(draw(st.integers(0, 3)))
        items += [
            wanted(
                name,
                operation,
                draw(sizes),
                score=score,
                schedule_priority=draw(st.integers(0, 1)),
                disposition=draw(st.sampled_from([Disposition.RUN, Disposition.RUN, Disposition.BLOCKED])),
            )
            for operation in draw(st.lists(st.sampled_from(list(Operation)), unique=True))
        ]
    return draw(st.permutations(items))


def spending_order(items: tuple[PlanItem, ...]) -> list[PlanItem]:
    return sorted(
        (item for item in items if item.rank is not None),
        key=lambda item: (item.rank, -item.schedule_priority, RUN_ORDER.index(item.operation)),
    )


def bytes_available(limits: Budgets) -> float:
    if not limits.max_bytes_per_hour:
        return float("inf")
    left = limits.bytes_left_this_hour
    return limits.max_bytes_per_hour if left is None else left


@given(fleets(), budgets())
def test_no_budget_is_ever_exceeded_by_estimate(items: list[PlanItem], limits: Budgets) -> None:
    spent, uses = spend(items, limits)
    run = [item for item in spent if item.disposition is Disposition.RUN]
    tables, size = {item.table for item in run}, sum(item.estimate.bytes_in for item in run)
    assert not limits.max_tables_per_run or len(tables) <= limits.max_tables_per_run
    assert not limits.max_operations_per_run or len(run) <= limits.max_operations_per_run
    assert size <= bytes_available(limits)
    assert {use.name: use.used for use in uses} == {TABLES: len(tables), OPERATIONS: len(run), BYTES: size}


@given(fleets(), budgets())
def test_an_item_that_could_have_been_paid_for_is_never_passed_over(items: list[PlanItem], limits: Budgets) -> None:
    """Replays the spending by rank: an item is left out exactly when a budget could not pay, and names that budget."""
    spent, _ = spend(items, limits)
    tables: set[TableId] = set()
    operations, left = 0, bytes_available(limits)
    for item in spending_order(spent):
        lacking = set()
        if limits.max_tables_per_run and item.table not in tables and len(tables) == limits.max_tables_per_run:
            lacking.add(TABLES)
        if limits.max_operations_per_run and operations == limits.max_operations_per_run:
            lacking.add(OPERATIONS)
        if item.estimate.bytes_in > left:
            lacking.add(BYTES)
        if lacking:
            assert item.disposition in (Disposition.CUT, Disposition.NEVER_FITS)
            never = bool(limits.max_bytes_per_hour) and item.estimate.bytes_in > limits.max_bytes_per_hour
            assert (item.disposition is Disposition.NEVER_FITS) is never
            named = {reason.partition("=")[0] for reason in item.reasons if reason != WHY}
            assert named == ({BYTES} if never else lacking)
        else:
            assert item.disposition is Disposition.RUN
            tables.add(item.table)
            operations += 1
            left -= item.estimate.bytes_in


@given(fleets(), budgets(), st.randoms(use_true_random=False))
def test_the_order_in_which_items_come_does_not_matter(items: list[PlanItem], limits: Budgets, shuffle: Any) -> None:
    other = list(items)
    shuffle.shuffle(other)
    first = {item.id: item for item in spend(items, limits)[0]}
    assert first == {item.id: item for item in spend(other, limits)[0]}


@given(fleets(), budgets())
def test_items_that_were_not_to_run_are_left_as_they_are(items: list[PlanItem], limits: Budgets) -> None:
    spent, _ = spend(items, limits)
    assert [item.id for item in spent] == [item.id for item in items]
    for before, after in zip(items, spent, strict=True):
        if before.disposition is not Disposition.RUN:
            assert after == before
        else:
            assert after.rank is not None
            assert WHY in after.reasons


def test_tables_rank_by_score_then_priority_then_bytes_then_name() -> None:
    spent, _ = spend(
        [
            wanted("last", size=5),
            wanted("b", size=1),
            wanted("a", size=1),
            wanted("urgent", size=9, schedule_priority=1),
            wanted("worst", size=9, score=500.0),
        ],
        Budgets(),
    )
    ranks = {item.table.name: item.rank for item in spent}
    assert ranks == {"worst": 1, "urgent": 2, "a": 3, "b": 4, "last": 5}


def test_one_item_too_large_does_not_stop_smaller_ones_below_it() -> None:
    spent, _ = spend(
        [wanted("a", size=80, score=2.0), wanted("b", size=30, score=1.0), wanted("c", size=20)],
        Budgets(max_bytes_per_hour=100),
    )
    assert [item.disposition for item in spent] == [Disposition.RUN, Disposition.CUT, Disposition.RUN]
    assert spent[1].reasons[0] == (
        "max_bytes_per_hour=100 (100 B): needs 30 B, 20 B are left; this plan spent 80 B on higher ranks, "
        "other plans of the hour 0 B"
    )


def test_what_is_larger_than_the_whole_budget_says_what_to_change() -> None:
    spent, uses = spend([wanted("a", size=101)], Budgets(max_bytes_per_hour=100, bytes_left_this_hour=0))
    assert spent[0].disposition is Disposition.NEVER_FITS
    assert "raise max_bytes_per_hour or narrow the policy's filter" in spent[0].reasons[0]
    assert uses[2].available == 0


def test_an_operation_without_input_bytes_runs_when_the_byte_budget_is_used_up() -> None:
    spent, _ = spend([wanted("a", EXPIRE)], Budgets(max_bytes_per_hour=100, bytes_left_this_hour=0))
    assert spent[0].disposition is Disposition.RUN


def test_an_operation_says_when_an_earlier_one_of_its_table_was_cut() -> None:
    spent, _ = spend(
        [wanted("a", REWRITE, 80), wanted("a", EXPIRE)], Budgets(max_bytes_per_hour=100, bytes_left_this_hour=10)
    )
    assert spent[0].disposition is Disposition.CUT
    assert spent[1].disposition is Disposition.RUN
    assert spent[1].reasons == (WHY, "runs without rewrite_data_files before it, which no budget pays for")
