"""Decoding ahead: the same batches in the same order, a bounded number of bytes, and an end whoever stops first."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_floe.engines.local.read_ahead import batches_ahead

ROW_BYTES = 8


def batch(number: int, rows: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array([number] * rows, pa.int64())], names=["n"])


def made(sizes: list[int]) -> Generator[pa.RecordBatch]:
    for number, rows in enumerate(sizes):
        yield batch(number, rows)


@given(st.lists(st.integers(0, 20), max_size=30), st.integers(1, 200))
def test_the_same_batches_in_the_same_order(sizes: list[int], most: int) -> None:
    found = [one.to_pydict() for one in batches_ahead(made(sizes), most)]
    assert found == [one.to_pydict() for one in made(sizes)]


def test_no_more_than_the_bound_is_made_ahead() -> None:
    begun: list[int] = []
    third = threading.Event()

    def counted() -> Generator[pa.RecordBatch]:
        for number in range(10):
            begun.append(number)
            if number == 2:
                third.set()
            yield batch(number, 10)

    rows = batches_ahead(counted(), 2 * 10 * ROW_BYTES)
    first = next(rows)
    assert third.wait(60)  # the first is still held, the second waits, and the third finds no room
    assert begun == [0, 1, 2]
    assert first.to_pydict() == batch(0, 10).to_pydict()
    assert [one["n"][0].as_py() for one in rows] == list(range(1, 10))


def test_what_the_maker_raises_is_raised_in_its_place() -> None:
    def failing() -> Generator[pa.RecordBatch]:
        yield batch(0, 1)
        raise OSError("connection reset by peer")

    rows = batches_ahead(failing(), 1000)
    assert next(rows).num_rows == 1
    with pytest.raises(OSError, match="connection reset"):
        next(rows)


def test_closing_ends_the_maker() -> None:
    ended = threading.Event()

    def endless() -> Generator[pa.RecordBatch]:
        try:
            while True:
                yield batch(0, 10)
        finally:
            ended.set()

    rows = batches_ahead(endless(), 10 * ROW_BYTES)
    next(rows)
    rows.close()
    assert ended.is_set()
