"""Deletion vectors come back as they were put in, and another reader of the format gets the same."""

from __future__ import annotations

import json

import pytest
from harness.version_3 import positions_in
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_floe.errors import TableUnreadable
from airflow_provider_floe.iceberg.deletion_vectors import PuffinFile, Vector, decode_vector, encode_vector

SOME = st.sets(st.one_of(st.integers(0, 200), st.integers(0, 70_000), st.integers(0, 2**40)))
RANGES = st.builds(lambda start, count: set(range(start, start + count)), st.integers(0, 2**33), st.integers(0, 9_000))


@given(st.one_of(SOME, RANGES, st.builds(set.union, SOME, RANGES)))
def test_positions_come_back(positions: set[int]) -> None:
    blob = encode_vector(positions)
    assert decode_vector(blob, "it").tolist() == sorted(positions)
    assert list(positions_in(blob)) == sorted(positions)


@given(st.data())
def test_damage_is_an_error(data: st.DataObject) -> None:
    blob = bytearray(encode_vector({1, 5, 70_000}))
    place = data.draw(st.integers(0, len(blob) - 1))
    blob[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(TableUnreadable, match="the vector of x is damaged"):
        decode_vector(bytes(blob), "the vector of x")


@given(st.integers(0, 30))
def test_a_cut_off_vector_is_an_error(length: int) -> None:
    with pytest.raises(TableUnreadable, match="damaged"):
        decode_vector(encode_vector({1, 5, 70_000})[:length], "it")


def test_a_puffin_file_says_where_its_vectors_stand() -> None:
    puffin = PuffinFile()
    places = [puffin.add(Vector(f"file {number}", list(range(number + 1)))) for number in range(3)]
    assert puffin.size_bytes == sum(place.length for place in places)
    whole = puffin.finished("nobody")
    assert whole[:4] == whole[-4:] == b"PFA1"
    length = int.from_bytes(whole[-12:-8], "little")
    footer = json.loads(whole[-12 - length : -12])
    assert whole[-16 - length : -12 - length] == b"PFA1"
    for number, (blob, place) in enumerate(zip(footer["blobs"], places, strict=True)):
        assert (blob["offset"], blob["length"]) == (place.offset, place.length)
        assert (blob["snapshot-id"], blob["sequence-number"], blob["type"]) == (-1, -1, "deletion-vector-v1")
        assert blob["properties"] == {"referenced-data-file": f"file {number}", "cardinality": str(number + 1)}
        assert decode_vector(whole[place.offset : place.offset + place.length], "it").tolist() == [*range(number + 1)]
