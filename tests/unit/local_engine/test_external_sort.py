"""Rows that do not fit into memory come out as those that do, whatever the keys; nothing stays on disk."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from sort_cases import expected_order, sorts

from airflow_provider_floe.engines.local import external_sort
from airflow_provider_floe.engines.local.duck_sort import sorted_by_duckdb
from airflow_provider_floe.engines.local.external_sort import ExternalSort
from airflow_provider_floe.engines.local.sort_keys import SortTerm

PLENTY, LITTLE = 1024**3, 400_000
STATE = pa.dictionary(pa.int32(), pa.string())
BY_KEY = [SortTerm("key", False, True)]
COUNTED = pa.proxy_memory_pool(pa.default_memory_pool())
"""Outlives whatever it gave out."""


@pytest.fixture(autouse=True)
def spills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where spills go; nothing of them may stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.iterdir())


def states(first: int) -> pa.Array:
    """1,000 rows with a dictionary of their own."""
    return pa.array([f"state {n // 700}" if n % 9 else None for n in range(first, first + 1000)]).dictionary_encode()


def table(keys: Sequence[Any], kind: pa.DataType) -> pa.Table:
    """A key, the row's number, and payload of other types."""
    count = len(keys)
    return pa.table(
        {
            "key": pa.array(keys, kind),
            "row": pa.array(range(count), pa.int64()),
            "state": pa.chunked_array(
                [
                    pa.array(
                        [f"state {(start + n) // 700}" if n % 9 else None for n in range(1000)]
                    ).dictionary_encode()
                    for start in range(0, count, 1000)
                ],
                STATE,
            )[:count],
            "uuid": pa.array([number.to_bytes(16, "big") for number in range(count)], pa.uuid()),
            "list": pa.array([[{"a": number, "b": str(number)}] * (number % 3) for number in range(count)]),
            "map": pa.array(
                [[(f"k{number}", number)] if number % 5 else None for number in range(count)],
                pa.map_(pa.large_string(), pa.int32()),
            ),
        }
    )


def sort(rows: pa.Table, terms: Sequence[SortTerm], memory_bytes: int, sample: pa.Table | None = None) -> pa.Table:
    """Sorted in batches of 1,000 rows; the sample is every 10th row unless another is given."""
    sample = rows.take(list(range(0, len(rows), 10))) if sample is None else sample
    columns = [sample[term.column].combine_chunks() for term in terms]
    work = ExternalSort(terms, lambda: columns, len(rows), memory_bytes)
    return pa.Table.from_batches(work.rows(iter(rows.to_batches(max_chunksize=1000))), schema=rows.schema)


def same(one: pa.Table, other: pa.Table) -> bool:
    """NaN included, which pyarrow holds for different from itself, and dictionaries, which need not be the same."""
    assert one["state"].type == other["state"].type == STATE
    assert one["state"].to_pylist() == other["state"].to_pylist()
    mixed = ["key", "state"]
    return one.drop(mixed).equals(other.drop(mixed)) and str(one["key"].to_pylist()) == str(other["key"].to_pylist())


maker = random.Random(5)
KEYS = {
    "random": ([maker.randrange(10**12) for _ in range(20_000)], pa.int64()),
    "few": ([maker.choice([None, 1, 2, 3]) for _ in range(20_000)], pa.int64()),
    "one": ([7] * 20_000, pa.int64()),
    "null": ([None] * 20_000, pa.int64()),
    "one of most": ([7 if maker.random() < 0.9 else maker.randrange(100) for _ in range(20_000)], pa.int64()),
    "ascending": (list(range(20_000)), pa.int64()),
    "descending": (list(range(20_000, 0, -1)), pa.int64()),
    "text": ([f"{maker.randrange(10**6)}" for _ in range(20_000)], pa.large_string()),
    "text with one beginning": ([f"https://example.org/{maker.randrange(10**6)}" for _ in range(20_000)], pa.string()),
    "double": ([maker.choice([float("nan"), -0.0, 0.0, None, maker.random()]) for _ in range(20_000)], pa.float64()),
    "uuid": ([maker.randbytes(16) for _ in range(20_000)], pa.uuid()),
}


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", KEYS)
def test_rows_that_are_spilled_come_out_as_those_that_fit(name: str, descending: bool) -> None:
    rows = table(*KEYS[name])
    terms = [SortTerm("key", descending, not descending)]
    fits = sort(rows, terms, PLENTY)
    assert fits["row"].to_pylist() == expected_order([rows["key"].combine_chunks()], terms)
    assert same(fits, rows.take(fits["row"]))
    assert same(sort(rows, terms, LITTLE), fits)


def test_a_sample_that_knows_nothing_of_most_rows_costs_only_more_splits() -> None:
    keys = list(range(20_000))
    maker.shuffle(keys)
    rows = table(keys, pa.int64())
    poor = rows.filter(pa.array([key < 50 for key in keys]))
    assert sort(rows, BY_KEY, LITTLE, poor)["key"].to_pylist() == sorted(keys)
    assert sort(rows, BY_KEY, LITTLE, rows.slice(0, 0))["key"].to_pylist() == sorted(keys)


def test_texts_that_differ_far_behind_alone_are_sorted_too() -> None:
    """Nothing of what stands in front tells them apart: eight bytes after what all have in common are all alike."""
    keys = [f"{maker.choice('ab')}{'x' * 100}{maker.randrange(10**6)}" for _ in range(20_000)]
    keys[:40] = [None] * 40
    rows = table(keys, pa.large_string())
    terms = [SortTerm("key", True, False), SortTerm("row", True, True)]
    assert same(sort(rows, terms, LITTLE), sort(rows, terms, PLENTY))


@given(sorts(most_rows=200))
@settings(max_examples=25)
def test_any_terms_are_spilled_alike(case: tuple[list[pa.Array], list[SortTerm]]) -> None:
    columns, terms = case
    times = 3_000 // len(columns[0]) + 1
    columns = [pa.concat_arrays([column] * times) for column in columns]
    rows = pa.table([*columns, pa.array(range(len(columns[0])))], [*(term.column for term in terms), "row"])
    terms = [*terms, SortTerm("row", False, True)]
    assert sort(rows, terms, LITTLE // 10)["row"].to_pylist() == sort(rows, terms, PLENTY)["row"].to_pylist()


def test_memory_stays_below_the_limit_whatever_the_number_of_rows() -> None:
    limit, rows_each = 16 * 1024**2, 20_000
    outer = pa.default_memory_pool()
    pa.set_memory_pool(COUNTED)
    try:
        numbers = np.random.default_rng(1)

        def batches(count: int) -> Iterator[pa.RecordBatch]:
            for _ in range(count):
                key = pa.array(numbers.integers(0, 10**9, rows_each))
                yield pa.record_batch(
                    [key, *[pa.array(numbers.random(rows_each)) for _ in range(9)]], list("abcdefghij")
                )

        sample = [next(batches(1))["a"]]
        work = ExternalSort([SortTerm("a", False, True)], lambda: sample, rows_each * 100, limit)
        last, total = -1, 0
        for batch in work.rows(batches(100)):  # 160 MB
            first = batch["a"][0].as_py()
            assert first >= last
            last, total = batch["a"][-1].as_py(), total + batch.num_rows
        assert total == rows_each * 100
        assert COUNTED.max_memory() < limit
    finally:
        pa.set_memory_pool(outer)


class Broken(Exception):
    """What the input raises."""


@pytest.mark.parametrize("batches", [1, 15])
def test_what_the_input_raises_comes_as_it_is_and_nothing_stays(batches: int) -> None:
    rows = table(*KEYS["random"])

    def breaking() -> Iterator[pa.RecordBatch]:
        yield from rows.to_batches(max_chunksize=1000)[:batches]
        raise Broken

    work = ExternalSort(BY_KEY, lambda: [rows["key"].combine_chunks()], len(rows), LITTLE)
    with pytest.raises(Broken):
        list(work.rows(breaking()))


def test_whoever_stops_half_way_leaves_nothing(spills: Path) -> None:
    rows = table(*KEYS["random"])
    work = ExternalSort(BY_KEY, lambda: [rows["key"].combine_chunks()], len(rows), LITTLE)
    given = work.rows(iter(rows.to_batches(max_chunksize=1000)))
    next(given)
    assert list(spills.iterdir())
    given.close()


@pytest.mark.parametrize("name", KEYS)
def test_what_cannot_be_split_is_sorted_by_duckdb_in_the_same_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(*arguments: Any) -> Iterator[pa.RecordBatch]:
        asked.append(1)
        return sorted_by_duckdb(*arguments)

    monkeypatch.setattr(external_sort, "_MOST_SPLITS", 1)
    monkeypatch.setattr(external_sort, "sorted_by_duckdb", counted)
    rows = table(*KEYS[name])
    terms = [SortTerm("key", True, True), SortTerm("row", False, True)]
    assert same(sort(rows, terms, LITTLE, rows.slice(0, 0)), sort(rows, terms, PLENTY))
    assert asked
