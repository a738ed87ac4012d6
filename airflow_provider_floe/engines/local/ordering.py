"""The order that the settings of a rewrite ask for, and the rows of a file group put into it."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortDirection
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import NestedField

from airflow_provider_floe.engines.local.external_sort import ExternalSort
from airflow_provider_floe.engines.local.key_sample import sample_columns
from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout
from airflow_provider_floe.engines.local.sort_keys import SortTerm
from airflow_provider_floe.engines.local.z_curve import MOST_COLUMNS, ZCurve
from airflow_provider_floe.errors import ConfigurationError, UnsupportedSetting
from airflow_provider_floe.iceberg.selection import FileGroup
from airflow_provider_floe.policies.model import RewriteDataFiles

KEY = "floe_order_key"
"""Column that holds a row's place on the z-order curve while rows are sorted."""

_TERM = re.compile(
    r"^\s*(?:`(?P<quoted>[^`]+)`|(?P<plain>[^\s`]+))(?:\s+(?P<direction>ASC|DESC))?(?:\s+NULLS\s+(?P<nulls>FIRST|LAST))?\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Ordering:
    """What to order by: terms, or columns of a z-order curve; neither means that rows stay in file order.

    :ivar sort_order_id: the table's own order when the rows follow it.
    """

    terms: tuple[SortTerm, ...] = ()
    z_columns: tuple[NestedField, ...] = ()
    sort_order_id: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns that are compared."""
        return (*(term.column for term in self.terms), *(field.name for field in self.z_columns))


def ordering_of(table: Table, settings: RewriteDataFiles) -> Ordering:
    """The order that the settings ask for.

    :raises ConfigurationError: for a term that cannot be read, an unknown column, or no order at all.
    :raises UnsupportedSetting: for a table order with transforms, and columns that cannot be compared.
    """
    if settings.strategy == "SORT":
        if settings.sort_order:
            return Ordering(tuple(_term(table, text) for text in settings.sort_order))
        return Ordering(_table_terms(table), sort_order_id=table.metadata.sort_order().order_id)
    if settings.strategy == "ZORDER":
        columns = tuple(_column(table, name, "zOrderColumns") for name in settings.z_order_columns)
        if len(columns) > MOST_COLUMNS:
            raise UnsupportedSetting(
                f"setting zOrderColumns: {len(columns)} columns are too many to order by, use 4 or less"
            )
        return Ordering(z_columns=columns)
    return Ordering()


def ordered(
    table: Table,
    layout: ParquetLayout,
    ordering: Ordering,
    group: FileGroup,
    partition: Record,
    rows: Iterator[pa.RecordBatch],
    memory_bytes: int,
) -> Generator[pa.RecordBatch]:
    """The rows in the order asked for."""
    expected_rows = sum(file.record_count for file in group.files)
    if ordering.terms:
        fields = [table.schema().find_field(term.column) for term in ordering.terms]
        terms = [replace(term, column=layout.file_name(term.column)) for term in ordering.terms]
        sort = ExternalSort(
            terms, lambda: sample_columns(table, layout, group, partition, fields), expected_rows, memory_bytes
        )
        yield from sort.rows(rows)
    elif ordering.z_columns:
        sample = sample_columns(table, layout, group, partition, ordering.z_columns)
        curve = ZCurve(sample)
        names = [layout.file_name(field.name) for field in ordering.z_columns]
        sort = ExternalSort([SortTerm(KEY, False, True)], lambda: [curve.keys(sample)], expected_rows, memory_bytes)
        keyed = (batch.append_column(KEY, curve.keys([batch.column(name) for name in names])) for batch in rows)
        for batch in sort.rows(keyed):
            yield pa.RecordBatch.from_arrays(batch.columns[:-1], schema=layout.rows)
    else:
        yield from rows


def _table_terms(table: Table) -> tuple[SortTerm, ...]:
    order = table.metadata.sort_order()
    if not order.fields:
        raise ConfigurationError(
            f"strategy SORT without sortOrder: {'.'.join(table.name())} has no sort order of its own; give sortOrder"
        )
    terms = []
    for field in order.fields:
        name = table.schema().find_column_name(field.source_id)
        if not isinstance(field.transform, IdentityTransform) or name is None:
            raise UnsupportedSetting(
                f"setting strategy=SORT: the table's sort order uses {field.transform}({name}), which the local engine "
                "does not compute: give sortOrder, or use engine spark"
            )
        _column(table, name, "sort order")
        terms.append(SortTerm(name, field.direction == SortDirection.DESC, field.null_order == NullOrder.NULLS_FIRST))
    return tuple(terms)


def _term(table: Table, text: str) -> SortTerm:
    found = _TERM.match(text)
    if found is None:
        raise ConfigurationError(
            f"sortOrder {text!r}: write a column, then ASC or DESC, then NULLS FIRST or NULLS LAST"
        )
    name = found["quoted"] or found["plain"]
    descending = (found["direction"] or "ASC").upper() == "DESC"
    nulls = (found["nulls"] or ("LAST" if descending else "FIRST")).upper()
    return SortTerm(_column(table, name, "sortOrder").name, descending, nulls == "FIRST")


def _column(table: Table, name: str, setting: str) -> NestedField:
    for field in table.schema().fields:
        if field.name == name:
            if not field.field_type.is_primitive:
                raise UnsupportedSetting(
                    f"setting {setting}: column {name} is a {field.field_type}, which has no order"
                )
            return field
    known = ", ".join(field.name for field in table.schema().fields)
    raise ConfigurationError(f"{setting} {name!r} is no column of {'.'.join(table.name())}: use one of {known}")
