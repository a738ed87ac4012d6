"""Rank over all tables of a run, and the spending of its budgets in that order.

Tables rank by debt score, then by the highest priority among their schedules, then the cheaper one (fewer bytes
expected), then by name. Within a table the schedule's priority decides which operation spends first, then the run
order. Whatever the budgets can still pay for is taken; an item is passed over only when a budget that is named cannot
pay for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.planning.model import Budgets, BudgetUse, Disposition, PlanItem
from airflow_provider_floe.tables import RUN_ORDER
from airflow_provider_floe.text import bytes_text

TABLES = "max_tables_per_run"
OPERATIONS = "max_operations_per_run"
BYTES = "max_bytes_per_hour"


def spend(items: Iterable[PlanItem], budgets: Budgets) -> tuple[tuple[PlanItem, ...], tuple[BudgetUse, ...]]:
    """Rank the items that are to run, and cut those that the budgets cannot pay for.

    :returns: all items, in the order given, and what each budget paid.
    """
    items = tuple(items)
    purse = _Purse(budgets)
    decided: dict[str, PlanItem] = {}
    for rank, group in enumerate(_ranked(items), start=1):
        outcome: list[PlanItem] = []
        for item in group:
            outcome.append(_decide(item, rank, purse, outcome))
        decided |= {item.id: item for item in _say_what_was_left_out(outcome)}
    return tuple(decided.get(item.id, item) for item in items), purse.uses()


@dataclass(slots=True)
class _Purse:
    budgets: Budgets
    tables: set[TableId] = field(default_factory=set)
    operations: int = 0
    size: int = 0

    @property
    def bytes_available(self) -> int | None:
        """What this plan may spend in all; None = unlimited."""
        limit, left = self.budgets.max_bytes_per_hour, self.budgets.bytes_left_this_hour
        if not limit:
            return None
        return limit if left is None else max(0, min(left, limit))

    def lacking(self, item: PlanItem) -> list[str]:
        """One reason for each budget that cannot pay for the item."""
        reasons = []
        tables, operations = self.budgets.max_tables_per_run, self.budgets.max_operations_per_run
        if tables and item.table not in self.tables and len(self.tables) >= tables:
            reasons.append(f"{TABLES}={tables}: all spent on tables of a higher rank")
        if operations and self.operations >= operations:
            reasons.append(f"{OPERATIONS}={operations}: all spent on operations of a higher rank")
        available, need = self.bytes_available, item.estimate.bytes_in
        if available is not None and need > max(0, available - self.size):
            left = bytes_text(max(0, available - self.size))
            limit = bytes_text(self.budgets.max_bytes_per_hour)
            reasons.append(
                f"{BYTES}={self.budgets.max_bytes_per_hour} ({limit}): needs {bytes_text(need)}, {left} are left; "
                f"this plan spent {bytes_text(self.size)} on higher ranks, "
                f"other plans of the hour {bytes_text(self.budgets.max_bytes_per_hour - available)}"
            )
        return reasons

    def pay(self, item: PlanItem) -> None:
        self.tables.add(item.table)
        self.operations += 1
        self.size += item.estimate.bytes_in

    def uses(self) -> tuple[BudgetUse, ...]:
        tables, operations = self.budgets.max_tables_per_run, self.budgets.max_operations_per_run
        return (
            BudgetUse(name=TABLES, limit=tables, available=tables or None, used=len(self.tables)),
            BudgetUse(name=OPERATIONS, limit=operations, available=operations or None, used=self.operations),
            BudgetUse(
                name=BYTES, limit=self.budgets.max_bytes_per_hour, available=self.bytes_available, used=self.size
            ),
        )


def _ranked(items: Sequence[PlanItem]) -> list[list[PlanItem]]:
    by_table: dict[TableId, list[PlanItem]] = {}
    for item in items:
        if item.disposition is Disposition.RUN:
            by_table.setdefault(item.table, []).append(item)
    groups = [
        sorted(
            group,
            key=lambda item: (item.follows is not None, -item.schedule_priority, RUN_ORDER.index(item.operation)),
        )
        for group in by_table.values()
    ]
    return sorted(groups, key=_table_key)


def _table_key(group: list[PlanItem]) -> tuple[float, int, int, str]:
    return (
        -group[0].score,
        -group[0].schedule_priority,
        sum(item.estimate.bytes_in for item in group),
        str(group[0].table.ref()),
    )


def _decide(item: PlanItem, rank: int, purse: _Purse, before: Sequence[PlanItem]) -> PlanItem:
    if item.follows is not None and not any(
        leader.operation is item.follows and leader.disposition is Disposition.RUN for leader in before
    ):
        return _with(item, Disposition.NO_WORK, rank, (f"{item.follows} does not run, so it leaves nothing to do",))
    limit, need = purse.budgets.max_bytes_per_hour, item.estimate.bytes_in
    if limit and need > limit:
        least = "" if item.estimate.known else "at most, not known exactly: "
        reason = (
            f"{BYTES}={limit} ({bytes_text(limit)}) never pays for it: needs {least}{bytes_text(need)}; "
            f"raise {BYTES} or narrow the policy's filter"
        )
        return _with(item, Disposition.NEVER_FITS, rank, (reason,))
    lacking = purse.lacking(item)
    if lacking:
        return _with(item, Disposition.CUT, rank, lacking)
    purse.pay(item)
    return _with(item, Disposition.RUN, rank, ())


def _say_what_was_left_out(group: list[PlanItem]) -> list[PlanItem]:
    """An operation runs although an earlier one of its table does not: say so on it."""
    said = []
    for item in group:
        earlier = [
            other.operation
            for other in sorted(group, key=lambda other: RUN_ORDER.index(other.operation))
            if other.disposition is not Disposition.RUN
            and RUN_ORDER.index(other.operation) < RUN_ORDER.index(item.operation)
        ]
        if item.disposition is Disposition.RUN and earlier:
            note = f"runs without {', '.join(earlier)} before it, which no budget pays for"
            item = _with(item, Disposition.RUN, item.rank, (note,))
        said.append(item)
    return said


def _with(item: PlanItem, disposition: Disposition, rank: int | None, more: Iterable[str]) -> PlanItem:
    return item.model_copy(
        update={"disposition": disposition, "rank": rank, "reasons": (*more, *item.reasons)}
        if disposition is not Disposition.RUN
        else {"rank": rank, "reasons": (*item.reasons, *more)}
    )
