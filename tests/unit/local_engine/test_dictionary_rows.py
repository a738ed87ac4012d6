"""Dictionaries that a Parquet writer may take as they are, whatever those of the files look like."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.types import LongType, NestedField, StringType

from airflow_provider_floe.engines.local.pyiceberg_adapter import ParquetLayout
from airflow_provider_floe.engines.local.writer import one_dictionary

VALUES = st.lists(st.text(max_size=2), min_size=1, max_size=5)


@st.composite
def arrays(draw: st.DrawFn) -> pa.DictionaryArray:
    """Rows may be NULL; values may stand twice, or be used by no row."""
    values = draw(VALUES)
    indices = draw(st.lists(st.one_of(st.none(), st.integers(0, len(values) - 1)), max_size=10))
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(values, pa.string()))


@given(st.lists(arrays(), max_size=4))
def test_one_dictionary_for_all_rows_with_every_value_once(chunks: list[pa.DictionaryArray]) -> None:
    kind = pa.dictionary(pa.int32(), pa.string())
    rows = pa.table({"text": pa.chunked_array(chunks, kind), "n": pa.array(range(sum(map(len, chunks))))})
    found = one_dictionary(rows)
    assert found.to_pydict() == rows.to_pydict()
    assert found.schema == rows.schema
    dictionaries = [chunk.dictionary for chunk in found.column("text").chunks]
    for one in dictionaries:
        assert one.equals(dictionaries[0])
        assert len(set(one.to_pylist())) == len(one)


def layout() -> ParquetLayout:
    schema = Schema(
        NestedField(1, "text", StringType(), required=False), NestedField(2, "n", LongType(), required=False)
    )
    metadata = new_table_metadata(
        schema, UNPARTITIONED_PARTITION_SPEC, UNSORTED_SORT_ORDER, "file:///nowhere", {"format-version": "2"}
    )
    return ParquetLayout(metadata).with_dictionaries(["text", "n", "other"])


def good_schema(kind: pa.DataType) -> pa.Schema:
    """That of the rows to write, field ids and all, with a column of this type."""
    return pa.schema([layout().rows.field(0).with_type(kind), layout().rows.field(1)])


def test_only_text_and_bytes_come_as_dictionaries() -> None:
    assert layout().dictionaries == ("text",)
    assert [pa.types.is_dictionary(kind) for kind in layout().rows.types] == [True, False]
    assert not any(pa.types.is_dictionary(kind) for kind in layout().arrow.types)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_dictionary_whose_indices_point_beyond_it_is_refused(kind: pa.DataType) -> None:
    good = pa.DictionaryArray.from_arrays(pa.array([0, None, 1], pa.int32()), pa.array(["a", "b"], kind))
    numbers = pa.array([1, 2, 3], pa.int64())
    found = layout().conform(pa.record_batch([good, numbers], names=["text", "n"]))
    assert found.schema.equals(layout().rows, check_metadata=True)
    assert found.to_pydict() == {"text": ["a", None, "b"], "n": [1, 2, 3]}
    bad = pa.DictionaryArray.from_arrays(good.indices, pa.array(["a"], kind), safe=False)
    for schema in (pa.schema({"text": bad.type, "n": pa.int64()}), good_schema(bad.type)):
        with pytest.raises(pa.ArrowInvalid):
            layout().conform(pa.RecordBatch.from_arrays([bad, numbers], schema=schema))
