"""Projection of Avro files: every type that a partition can have, and files that are not as they should be."""

from __future__ import annotations

import json
import zlib
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from harness.tables import append_files, create_table, lake
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.avro.decoder import StreamingBinaryDecoder
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
from airflow_provider_floe.iceberg.avro import Projection, read_rows
from airflow_provider_floe.iceberg.manifests import live_files, snapshot_manifests

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


def container(schema: Any, *blocks: tuple[int, bytes], codec: str = "null") -> bytes:
    text = json.dumps(schema).encode()
    header = b"Obj\x01" + number(2)
    for key, value in ((b"avro.schema", text), (b"avro.codec", codec.encode())):
        header += number(len(key)) + key + number(len(value)) + value
    sync = b"0123456789abcdef"
    return header + number(0) + sync + b"".join(number(n) + number(len(b)) + b + sync for n, b in blocks)


def number(value: int) -> bytes:
    zigzag = (value << 1) ^ (value >> 63)
    out = b""
    while zigzag > 0x7F:
        out += bytes([zigzag & 0x7F | 0x80])
        zigzag >>= 7
    return out + bytes([zigzag])


def record(*fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "entry", "fields": list(fields)}


@given(rows=st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.none() | st.text()), max_size=20))
def test_any_rows_are_read_back_and_fields_skipped(rows: list[tuple[int, str | None]]) -> None:
    body = b""
    for value, text in rows:
        body += number(value)
        encoded = (text or "").encode()
        body += number(0) if text is None else number(1) + number(len(encoded)) + encoded
    data = container(record(LONG, TEXT), (len(rows), body))
    assert read_rows(data, Projection((2, 1, 99), frozenset()), "f") == [(text, value, None) for value, text in rows]
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
        (GOOD.replace(b"0123456789abcdef", b"0123456789abcdeX", 1), "damaged or cut off"),
        (container(record(LONG), (1, number(1) + number(2))), "1 bytes left"),
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
