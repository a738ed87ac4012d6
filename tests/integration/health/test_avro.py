"""Projection of Avro files: every type that a partition can have, and files that are not as they should be."""

from __future__ import annotations

import zlib
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pytest
from harness.avro_files import SYNC, container, number, record, text
from harness.tables import append_files, create_table, lake
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.avro.decoder import StreamingBinaryDecoder
from pyiceberg.manifest import ManifestContent, ManifestFile, read_manifest_list
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestampType,
    TimeType,
)

from airflow_provider_floe.errors import TableUnreadable
from airflow_provider_floe.iceberg import avro
from airflow_provider_floe.iceberg.aggregates import Totals, aggregate_files
from airflow_provider_floe.iceberg.avro import Projection, read_rows
from airflow_provider_floe.iceberg.manifests import decode_files, first_row_id, live_files, snapshot_manifests

TYPES = {
    "int": (IntegerType(), [1, -7, None]),
    "long": (LongType(), [2**40, None, 0]),
    "text": (StringType(), ["ü", "", None]),
    "flag": (BooleanType(), [True, False, None]),
    "single": (FloatType(), [1.5, None, -0.25]),
    "double": (DoubleType(), [1e300, None, -0.1]),
    "day": (DateType(), [date(2026, 1, 2), None, date(1960, 1, 1)]),
    "moment": (TimestampType(), [datetime(2026, 1, 2, 3), None, datetime(1960, 1, 1)]),
    "clock": (TimeType(), [time(1, 2, 3), None, time(0)]),
    "money": (DecimalType(9, 2), [Decimal("1.50"), None, Decimal("-2.25")]),
    "bytes": (BinaryType(), [b"x", None, b""]),
    "fixed": (FixedType(3), [b"abc", None, b"xyz"]),
}


@pytest.fixture(params=TYPES)
def table_by_type(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    iceberg_type, values = TYPES[request.param]
    schema = Schema(NestedField(1, "key", iceberg_type), NestedField(2, "id", LongType()))
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "key"))
    table = lake(tmp_path).create_table("db.typed", schema=schema, partition_spec=spec)
    arrow = table.schema().as_arrow()
    table.append(pa.table([pa.array(values, arrow.field("key").type), pa.array([1, 2, 3])], schema=arrow))
    return table


def test_partition_values_are_those_of_pyiceberg(table_by_type: Table) -> None:
    snapshot = table_by_type.current_snapshot()
    assert snapshot is not None
    expected = [
        tuple(entry.data_file.partition)
        for manifest in snapshot.manifests(table_by_type.io)
        for entry in manifest.fetch_manifest_entry(table_by_type.io)
    ]
    found = [file.partition for file in live_files(table_by_type.io, snapshot_manifests(table_by_type))]
    assert found == expected
    assert len(found) == 3


def test_the_pure_python_decoder_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = append_files(create_table(lake(tmp_path), partitioned=True), 2, parts=("a", "b"))
    fast = list(live_files(table.io, snapshot_manifests(table)))
    monkeypatch.setattr(avro, "_decoder", StreamingBinaryDecoder)
    assert list(live_files(table.io, snapshot_manifests(table))) == fast


@pytest.mark.parametrize("version", [1, 2])
def test_manifest_lists_say_what_pyiceberg_reads(version: int, tmp_path: Path) -> None:
    table = create_table(lake(tmp_path), partitioned=True, properties={"format-version": str(version)})
    append_files(table, 2, parts=("a", "b"))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    expected = list(read_manifest_list(table.io.new_input(snapshot.manifest_list)))
    found = snapshot_manifests(table)
    assert len(found) == 4
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.partitions == theirs.partitions
        assert [*ours._data[: len(theirs)], None] == [*theirs._data, None]
        assert first_row_id(ours) is None


@pytest.mark.parametrize("codec", ["uncompressed", "gzip", "zstd"])
def test_codecs_that_writers_use(codec: str, tmp_path: Path) -> None:
    codecs = {"uncompressed": "null", "gzip": "deflate", "zstd": "zstandard"}
    table = create_table(lake(tmp_path), properties={"write.avro.compression-codec": codecs[codec]})
    append_files(table, 2)
    manifest = snapshot_manifests(table)[0].manifest_path.removeprefix("file://")
    assert codecs[codec].encode() in Path(manifest).read_bytes()
    assert len(list(live_files(table.io, snapshot_manifests(table)))) == 2


LONG = {"name": "n", "type": "long", "field-id": 1}
TEXT = {"name": "s", "type": ["null", "string"], "field-id": 2}
NUMBER = Projection((1,), frozenset((1,)))


@given(rows=st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.none() | st.text()), max_size=20))
def test_any_rows_are_read_back_and_fields_skipped(rows: list[tuple[int, str | None]]) -> None:
    body = b""
    for value, word in rows:
        body += number(value) + (number(0) if word is None else number(1) + text(word))
    data = container(record(LONG, TEXT), (len(rows), body))
    assert read_rows(data, Projection((2, 1, 99), frozenset()), "f") == [(word, value, None) for value, word in rows]
    assert read_rows(data, NUMBER, "f") == [(value,) for value, _ in rows]


def test_maps_arrays_and_sized_blocks_are_stepped_over_or_read() -> None:
    pair = {
        "type": "record",
        "name": "pair",
        "fields": [{"name": "key", "type": "int"}, {"name": "value", "type": "bytes"}],
    }
    bounds = {"name": "b", "type": {"type": "array", "items": pair, "logicalType": "map"}, "field-id": 5}
    ids = {"name": "i", "type": {"type": "array", "items": "int"}, "field-id": 6}
    names = {"name": "m", "type": {"type": "map", "values": ["null", "double"]}, "field-id": 7}
    one = number(7) + number(2) + b"xy"
    sized = number(-1) + number(len(one)) + one
    body = sized + number(1) + one + number(0)
    body += number(2) + number(3) + number(4) + number(-1) + number(1) + number(5) + number(0)
    body += number(1) + number(1) + b"k" + number(1) + bytes(8) + number(0)
    body += number(42)
    data = container(record(bounds, ids, names, LONG), (1, body))
    assert read_rows(data, Projection((1, 5, 6), frozenset()), "f") == [(42, {7: b"xy"}, (3, 4, 5))]
    assert read_rows(data, NUMBER, "f") == [(42,)]


def test_uuids_in_a_partition() -> None:
    kind = {"type": "fixed", "name": "uuid_fixed", "size": 16, "logicalType": "uuid"}
    partition = {
        "type": "record",
        "name": "r102",
        "fields": [
            {"name": "a", "type": ["null", kind], "field-id": 1000},
            {"name": "b", "type": ["null", "uuid_fixed"], "field-id": 1001},
            {"name": "c", "type": ["null", {"type": "bytes", "logicalType": "decimal", "scale": 1}], "field-id": 1002},
        ],
    }
    body = number(1) + UUID(int=7).bytes + number(0) + number(1) + number(1) + bytes([25])
    data = container(record({"name": "p", "type": partition, "field-id": 102}), (1, body))
    assert read_rows(data, Projection((102,), frozenset()), "f") == [((UUID(int=7), None, Decimal("2.5")),)]


GOOD = container(record(LONG), (2, number(1) + number(2)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PAR1 is another format", "is not an Avro file"),
        (b"", "is not an Avro file"),
        (GOOD[:-1], "damaged or cut off"),
        (GOOD[:-19], "damaged"),
        (GOOD[:30], "cannot be decoded"),
        (GOOD.replace(SYNC, b"another sync mark", 1), "damaged or cut off"),
        (container(record(LONG), (1, number(1) + number(2))), "1 records take 1 bytes of a block of 2"),
        (container(record(LONG), (3, number(1))), "cannot be decoded"),
        (container(record(LONG), (1, b"junk"), codec="deflate"), "cannot be decoded"),
        (container(record(LONG), (1, number(1)), codec="lzma"), "compressed with 'lzma'"),
        (container(record(TEXT), (1, number(0))), r"lacks the Iceberg fields with ids \[1\]"),
        (container(record({**LONG, "type": ["null", "long", "string"]}), (1, b"x")), "is not an optional value"),
        (container({"type": "array", "items": "long"}, (1, b"x")), "cannot be decoded"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_named(data: bytes, words: str) -> None:
    with pytest.raises(TableUnreadable, match=words) as caught:
        read_rows(data, NUMBER, "s3://bucket/m0.avro")
    assert "s3://bucket/m0.avro" in str(caught.value)


def test_deflated_blocks_are_raw_deflate() -> None:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(number(5)) + packer.flush()
    assert read_rows(container(record(LONG), (1, packed), codec="deflate"), NUMBER, "f") == [(5,)]


def test_a_deletion_vector_of_format_version_3() -> None:
    partition = {"type": "record", "name": "r102", "fields": []}
    file = {
        "type": "record",
        "name": "r2",
        "fields": [
            {"name": "content", "type": "int", "field-id": 134},
            {"name": "file_path", "type": "string", "field-id": 100},
            {"name": "file_format", "type": "string", "field-id": 101},
            {"name": "partition", "type": partition, "field-id": 102},
            {"name": "record_count", "type": "long", "field-id": 103},
            {"name": "file_size_in_bytes", "type": "long", "field-id": 104},
            {"name": "first_row_id", "type": ["null", "long"], "field-id": 142},
            {"name": "referenced_data_file", "type": ["null", "string"], "field-id": 143},
            {"name": "content_offset", "type": ["null", "long"], "field-id": 144},
            {"name": "content_size_in_bytes", "type": ["null", "long"], "field-id": 145},
        ],
    }
    schema = record(
        {"name": "status", "type": "int", "field-id": 0},
        {"name": "snapshot_id", "type": ["null", "long"], "field-id": 1},
        {"name": "sequence_number", "type": ["null", "long"], "field-id": 3},
        {"name": "data_file", "type": file, "field-id": 2},
    )
    body = number(1) + number(0) + number(0)
    body += number(1) + text("s3://b/dv.puffin") + text("puffin") + number(2) + number(100)
    body += number(0) + number(1) + text("s3://b/data.parquet") + number(1) + number(4) + number(1) + number(40)
    manifest = ManifestFile.from_args(
        manifest_path="m",
        manifest_length=1,
        partition_spec_id=0,
        content=ManifestContent.DELETES,
        sequence_number=9,
        added_snapshot_id=5,
    )
    (found,) = decode_files(manifest, container(schema, (1, body)))
    assert found.is_deletion_vector
    assert found.referenced_data_file == "s3://b/data.parquet"
    assert (found.sequence_number, found.snapshot_id, found.partition) == (9, 5, ())
    files = aggregate_files([found])
    assert (files.deletion_vectors, files.position_deletes.files) == (Totals(1, 40, 2), 0)


def test_an_existing_file_without_sequence_number_is_refused(tmp_path: Path) -> None:
    table = append_files(create_table(lake(tmp_path)), 1)
    (manifest,) = snapshot_manifests(table)
    data = Path(manifest.manifest_path.removeprefix("file://")).read_bytes()
    (added,) = decode_files(manifest, data)
    assert added.sequence_number == 1
    existing = container(
        record(
            {"name": "status", "type": "int", "field-id": 0},
            {"name": "file_path", "type": "string", "field-id": 100},
            {"name": "file_format", "type": "string", "field-id": 101},
            {"name": "partition", "type": record(), "field-id": 102},
            {"name": "record_count", "type": "long", "field-id": 103},
            {"name": "file_size_in_bytes", "type": "long", "field-id": 104},
        ),
        (1, number(0) + text("f") + text("PARQUET") + number(1) + number(1)),
    )
    with pytest.raises(TableUnreadable, match="existing file f has no sequence number"):
        list(decode_files(manifest, existing))
