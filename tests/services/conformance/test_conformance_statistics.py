"""Computing table statistics, on each engine that can."""

from __future__ import annotations

import pytest
from conformance import REWRITE, STATISTICS, Target
from conformance_lake import Lake
from harness.tables import rows
from pyiceberg.table import Table

pytestmark = pytest.mark.services


@pytest.mark.every_version
def test_the_columns_that_are_named_get_statistics(target: Target, lake: Lake) -> None:
    table = lake.table(3)
    if not refused(target, table):
        done = target.maintain(table, STATISTICS, {"columns": ["id", "part"]})
        assert distinct_values(done.table) == {"id": 30, "part": 1}


def test_statistics_are_computed_again_when_enough_rows_changed(target: Target, lake: Lake) -> None:
    table = lake.table(3)
    if refused(target, table):
        return
    done = target.maintain(table, STATISTICS)
    assert distinct_values(done.table).keys() == {field.name for field in table.schema().fields}
    target.maintain(table, REWRITE)
    target.nothing_to_do(table, STATISTICS)  # the rows are what they were
    table.refresh().append(rows(1000, 6))
    target.nothing_to_do(table, STATISTICS, {"minChangedShare": 0.5})
    done = target.maintain(table, STATISTICS)
    assert distinct_values(done.table)["id"] == 36


def refused(target: Target, table: Table) -> bool:
    """Whether the engine cannot do this; then the plan says why."""
    capability = target.engine.probe().operation(STATISTICS)
    if not capability.supported:
        target.refuses(capability.reason, table, STATISTICS)
    return not capability.supported


def distinct_values(table: Table) -> dict[str, int]:
    """By column, as the newest statistics of the current snapshot say."""
    current = table.metadata.current_snapshot_id
    (entry,) = (one for one in table.metadata.statistics if one.snapshot_id == current)
    return {
        table.schema().find_field(blob.fields[0]).name: int((blob.properties or {})["ndv"])
        for blob in entry.blob_metadata
    }
