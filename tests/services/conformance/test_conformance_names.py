"""Names that have to be quoted, and nested namespaces, on each engine."""

from __future__ import annotations

import pyarrow as pa
import pytest
from conformance import EXPIRE, MANIFESTS, ORPHANS, REWRITE, Target
from conformance_lake import Lake
from harness.tables import data_files
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType

pytestmark = pytest.mark.services

NAMES = (
    "with.dot",
    "with-dash",
    "it's a name",
    "größe_表",
    "select",
    'a "b"',
    "back`tick",
    "50%25",
    "x; drop table y --",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_any_name(target: Target, lake: Lake, name: str) -> None:
    done = target.maintain(lake.table(2, name=name), REWRITE)
    assert len(done.after.data) == 1


def test_names_with_upper_case(target: Target, lake: Lake) -> None:
    table = lake.table(2, name="UPPER", namespace=lake.namespace("Inner"))
    if target.is_one_of("trino"):
        # To Trino all names are lower case, unless its catalog is set up otherwise
        target.fails("Trino", table, REWRITE)
        return
    assert len(target.maintain(table, REWRITE).after.data) == 1


def test_each_operation_in_a_nested_namespace(target: Target, lake: Lake) -> None:
    table = lake.table(3, name="o'dd t.able", namespace=lake.namespace("in ner", "größe", "select"))
    target.maintain(table, REWRITE)
    table = lake.catalog.load_table(table.name())
    table.append(table.scan().to_arrow())
    table = lake.aged(table, [9, 8, 7, 6, 5])
    target.maintain(table, MANIFESTS)
    target.maintain(table, EXPIRE, {"retainLast": 1, "maxSnapshotAge": "P1D"})


def test_orphans_in_a_nested_namespace(target: Target, lake: Lake) -> None:
    table = lake.table(1, name="o'dd t.able", namespace=lake.namespace("in ner", "größe"))
    stray = lake.put(table, "data/lost.parquet")
    target.look_later(days=9)
    assert target.maintain(table, ORPHANS).deleted == {stray}


def test_columns_of_any_name(target: Target, lake: Lake) -> None:
    names = ["größe m", 'it\'s "quoted"', "select", "a.b", "part-key"]
    kinds = [LongType(), StringType(), StringType(), StringType(), StringType()]
    fields = [NestedField(number, name, kind) for number, (name, kind) in enumerate(zip(names, kinds, strict=True), 1)]
    identifier = (*lake.namespace(), "t")
    lake.made.append(identifier)
    table = lake.catalog.create_table(
        identifier,
        Schema(*fields),
        partition_spec=PartitionSpec(PartitionField(5, 1000, IdentityTransform(), "part-key")),
        properties={"format-version": "2"},
    )
    for number in range(2):
        table.append(pa.table({names[0]: [number], **{name: ["x y/z"] for name in names[1:]}}))
    done = target.maintain(table, REWRITE)
    assert len(data_files(done.table)) == 1
