from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.manifest import ManifestContent, ManifestFile

from airflow_provider_floe.iceberg.aggregates import FileAggregate, Totals, aggregate_files, merge, sample_manifests
from airflow_provider_floe.iceberg.files import FileContent, LiveFile

FILES = st.lists(
    st.builds(
        LiveFile,
        path=st.just("f"),
        content=st.sampled_from(FileContent),
        file_format=st.sampled_from(("PARQUET", "ORC", "PUFFIN")),
        spec_id=st.integers(0, 1),
        partition=st.tuples(st.sampled_from((None, "a", "b"))),
        record_count=st.integers(0, 10**6),
        file_size_bytes=st.one_of(st.integers(0, 5), st.integers(0, 2**40)),
        sequence_number=st.just(1),
    ),
    max_size=40,
)


def comparable(aggregate: FileAggregate) -> tuple[object, ...]:
    return (
        aggregate.partitions,
        aggregate.deletes,
        sorted(size for sizes in aggregate.sizes for size in sizes),
        aggregate.data,
        aggregate.position_deletes,
        aggregate.equality_deletes,
        aggregate.deletion_vectors,
        aggregate.data_formats,
        aggregate.histogram(),
        aggregate.min_size,
        aggregate.max_size,
    )


@pytest.mark.property
@given(manifests=st.lists(FILES, max_size=5))
def test_sums_do_not_depend_on_how_files_are_spread_over_manifests(manifests: list[list[LiveFile]]) -> None:
    together = aggregate_files(file for files in manifests for file in files)
    apart = merge([aggregate_files(files) for files in manifests])
    assert comparable(apart) == comparable(together)


@pytest.mark.property
@given(files=FILES, limit=st.one_of(st.integers(0, 6), st.integers(0, 2**40)))
def test_sums_are_those_of_the_files(files: list[LiveFile], limit: int) -> None:
    aggregate = aggregate_files(files)
    sizes = [file.file_size_bytes for file in files if file.content is FileContent.DATA]
    assert aggregate.below(limit) == sum(size < limit for size in sizes)
    assert aggregate.above(limit) == sum(size > limit for size in sizes)
    assert aggregate.data == Totals(
        len(sizes), sum(sizes), sum(file.record_count for file in files if file.content is FileContent.DATA)
    )
    assert aggregate.delete_files == len(files) - len(sizes)
    assert aggregate.deletion_vectors.files == sum(file.is_deletion_vector for file in files)
    assert sum(totals.files for totals in aggregate.partitions.values()) == len(sizes)
    assert sum(totals.files for totals in aggregate.deletes.values()) == aggregate.delete_files
    assert aggregate.histogram() == dict(Counter(max(size.bit_length() - 1, 0) for size in sizes))


def manifest(number: int, files: int) -> ManifestFile:
    return ManifestFile.from_args(
        manifest_path=f"m{number}",
        manifest_length=1,
        partition_spec_id=0,
        content=ManifestContent.DATA,
        added_files_count=files,
        existing_files_count=0,
    )


@pytest.mark.property
@given(counts=st.lists(st.integers(0, 50), max_size=30), most=st.integers(1, 100), seed=st.integers())
def test_a_sample_is_repeatable_and_bounded(counts: list[int], most: int, seed: int) -> None:
    manifests = [manifest(number, count) for number, count in enumerate(counts)]
    drawn = sample_manifests(manifests, most, seed)
    assert drawn == sample_manifests(manifests, most, seed)
    assert len({own.manifest_path for own in drawn}) == len(drawn)
    assert bool(drawn) == bool(manifests)
    assert len(drawn) <= 1 or sum(own.added_files_count or 0 for own in drawn) <= most
