"""Manifests with damaged bytes: an error that names the file, never a crash, never memory that is not the file's."""

from __future__ import annotations

import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from harness.avro_files import container, number, record, text
from harness.tables import append_files, create_table, lake
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_floe.errors import TableUnreadable
from airflow_provider_floe.iceberg.avro import Projection, read_blocks, read_rows
from airflow_provider_floe.iceberg.manifests import snapshot_manifests

PAIR = {
    "type": "record",
    "name": "pair",
    "fields": [{"name": "key", "type": "int"}, {"name": "value", "type": "bytes"}],
}
COUNTS = {**PAIR, "name": "counts", "fields": [{"name": "key", "type": "int"}, {"name": "value", "type": "long"}]}
SCHEMA = record(
    {"name": "path", "type": "string", "field-id": 1},
    {"name": "sizes", "type": ["null", {"type": "array", "items": COUNTS}], "field-id": 2},
    {"name": "bounds", "type": ["null", {"type": "array", "items": PAIR}], "field-id": 3},
    {"name": "splits", "type": {"type": "array", "items": "long"}, "field-id": 4},
    {"name": "word", "type": {"type": "fixed", "name": "f", "size": 4}, "field-id": 5},
    {"name": "names", "type": {"type": "map", "values": "double"}, "field-id": 6},
    {"name": "rows", "type": "long", "field-id": 7},
)
EVERYTHING = Projection((1, 3, 4, 5, 7), frozenset((1,)), (1, 7))
PATH = Projection((7,), frozenset((7,)))


def entry(path: str, long_bound: bytes = b"x" * 100) -> bytes:
    sizes = number(1) + number(2) + number(1) + number(7) + number(2) + number(2**40) + number(0)
    bounds = number(1) + number(2) + number(1) + number(8) + b"12345678" + number(2)
    bounds += number(len(long_bound)) + long_bound + number(0)
    splits = number(-2) + number(2) + number(4) + number(5) + number(0)
    head: bytes = text(path)
    return head + sizes + bounds + splits + b"word" + number(1) + text("k") + bytes(8) + number(0) + number(9)


BODY = entry("s3://b/one.parquet") + entry("s3://b/two.parquet", b"")
GOOD = container(SCHEMA, (2, BODY))
START = len(GOOD) - len(BODY) - 16


def test_undamaged_it_is_read_with_the_places_of_its_fields() -> None:
    (block,) = read_blocks(GOOD, EVERYTHING, "m")
    assert [row[:5] for row in block.rows] == [
        ("s3://b/one.parquet", {1: b"12345678", 2: b"x" * 100}, (4, 5), b"word", 9),
        ("s3://b/two.parquet", {1: b"12345678", 2: b""}, (4, 5), b"word", 9),
    ]
    assert [block.data[row[5] : row[6]] for row in block.rows] == [text(row[0]) for row in block.rows]
    assert [block.data[row[7] : row[8]] for row in block.rows] == [number(9)] * 2
    assert block.rows[1][5] == block.rows[0][8]


@settings(max_examples=500)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(BODY) - 1), st.binary(min_size=1, max_size=10)), min_size=1),
    cut=st.integers(0, len(BODY)),
)
def test_any_damage_inside_a_block_is_an_error_or_other_values(changes: list[tuple[int, bytes]], cut: int) -> None:
    body = bytearray(BODY)
    for place, junk in changes:
        body[place : place + len(junk)] = junk
    for damaged in (bytes(body), bytes(body[:cut])):
        for projection in (EVERYTHING, PATH):
            rows = []
            with suppress(TableUnreadable):
                rows = read_rows(container(SCHEMA, (2, damaged)), projection, "m0.avro")
            assert len(rows) in (0, 2)
            assert sum(len(value) for row in rows for value in row if isinstance(value, str | bytes)) <= len(body)


@pytest.mark.parametrize(
    ("place", "junk"),
    [
        (BODY.index(b"s3") - 1, number(2**40)),
        (BODY.index(b"s3") - 1, number(-1)),
        (BODY.index(b"12345678") - 1, number(2**31 - 1)),
        (BODY.index(b"12345678") - 1, number(-(2**62))),
        (BODY.index(b"xxx") - 2, number(2**40)),
        (BODY.index(b"word") - 7, number(2**40)),
        (BODY.index(b"word") + 4, number(2**50)),
    ],
)
@pytest.mark.parametrize("projection", [EVERYTHING, PATH])
def test_lengths_and_counts_beyond_the_block_are_refused(place: int, junk: bytes, projection: Projection) -> None:
    body = BODY[:place] + junk + BODY[place + len(junk) :]
    with pytest.raises(TableUnreadable, match=r"m0\.avro cannot be decoded, it may be damaged"):
        read_rows(container(SCHEMA, (2, body)), projection, "m0.avro")


def test_any_byte_of_a_real_manifest_may_be_damaged(tmp_path: Path) -> None:
    table = append_files(create_table(lake(tmp_path), properties={"write.avro.compression-codec": "null"}), 1)
    data = Path(snapshot_manifests(table)[0].manifest_path.removeprefix("file://")).read_bytes()
    fields = Projection((0, 100, 102, 103, 104, 125, 128, 132, 135), frozenset((100,)), (2,))
    (whole,) = read_rows(data, fields, "m0")
    errors = 0
    for place in range(len(data)):
        for junk in (b"\xff", b"\x00", b"\x7f"):
            try:
                read_rows(data[:place] + junk + data[place + 1 :], fields, "m0")
            except TableUnreadable:
                errors += 1
    assert errors > 100
    assert whole[3] == 10


def test_damage_that_still_inflates_is_found(tmp_path: Path) -> None:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(number(2**40) + BODY[1:]) + packer.flush()
    with pytest.raises(TableUnreadable, match="may be damaged"):
        read_rows(container(SCHEMA, (2, packed), codec="deflate"), PATH, "m0")
