"""How the items to run are spread over execute tasks."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from airflow_provider_floe.engines.capabilities import Capabilities
from airflow_provider_floe.health.report import TableId
from airflow_provider_floe.planning.model import Batching, Disposition, PlanItem
from airflow_provider_floe.tables import RUN_ORDER


@dataclass(frozen=True, slots=True)
class _Batch:
    """Tables with their input bytes; ``first`` is the best rank in it, by position."""

    first: int
    size: int
    tables: tuple[tuple[int, tuple[str, ...]], ...]

    def joined(self, other: _Batch) -> _Batch:
        tables = tuple(sorted((*self.tables, *other.tables)))
        return _Batch(min(self.first, other.first), self.size + other.size, tables)


def make_batches(items: Iterable[PlanItem], batching: Batching) -> tuple[tuple[str, ...], ...]:
    """Ids of the items to run, one tuple per task.

    Batches stand in the order of their best rank. All items of a table stand in one batch, in run order. A table of
    ``target_bytes`` or more is alone; smaller ones share a batch up to ``target_bytes`` and ``max_tables``, in the
    order of rank. When that makes more than ``max_batches``, the smallest batches are put together.
    """
    batches: list[_Batch] = []
    open_batch: _Batch | None = None
    for position, group in enumerate(_tables(items)):
        size = sum(item.estimate.bytes_in for item in group)
        alone = _Batch(position, size, ((position, tuple(item.id for item in group)),))
        if size >= batching.target_bytes:
            batches.append(alone)
        elif open_batch is None:
            open_batch = alone
        elif open_batch.size + size <= batching.target_bytes and len(open_batch.tables) < max(1, batching.max_tables):
            open_batch = open_batch.joined(alone)
        else:
            batches.append(open_batch)
            open_batch = alone
    if open_batch is not None:
        batches.append(open_batch)
    merged = sorted(_merge(batches, batching.max_batches), key=lambda batch: batch.first)
    return tuple(tuple(item for _, ids in batch.tables for item in ids) for batch in merged)


def make_helpers(
    items: Iterable[PlanItem], batching: Batching, batches: int, capabilities: Mapping[str, Capabilities]
) -> tuple[str, ...]:
    """Ids of the items that more tasks than their batch's own take part in, one for each such task.

    As many tasks for a table as its input has ``target_bytes``, up to ``max_tasks_per_table``, where the engine can
    share the operation's file groups; the best ranked first, and never more than ``max_batches`` tasks in all.

    :param batches: tasks that there are already.
    """
    helpers: list[str] = []
    for item in sorted(items, key=lambda item: (item.rank or 0, item.id)):
        capability = capabilities.get(item.engine or "")
        if item.disposition is Disposition.RUN and capability and capability.operation(item.operation).shares_groups:
            tasks = min(batching.max_tasks_per_table, -(-item.estimate.bytes_in // batching.target_bytes))
            helpers += [item.id] * max(0, tasks - 1)
    return tuple(helpers[: max(0, batching.max_batches - batches)])


def _tables(items: Iterable[PlanItem]) -> list[list[PlanItem]]:
    by_table: dict[TableId, list[PlanItem]] = {}
    for item in items:
        if item.disposition is Disposition.RUN:
            by_table.setdefault(item.table, []).append(item)
    groups = [sorted(group, key=lambda item: RUN_ORDER.index(item.operation)) for group in by_table.values()]
    return sorted(groups, key=lambda group: (group[0].rank or 0, str(group[0].table.ref())))


def _merge(batches: list[_Batch], most: int) -> list[_Batch]:
    heap = [(batch.size, batch.first, batch) for batch in batches]
    heapq.heapify(heap)
    while len(heap) > max(1, most):
        smallest, next_smallest = heapq.heappop(heap)[2], heapq.heappop(heap)[2]
        joined = smallest.joined(next_smallest)
        heapq.heappush(heap, (joined.size, joined.first, joined))
    return [batch for _, _, batch in heap]
