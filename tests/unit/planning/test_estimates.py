"""Estimates: from the work found, else the most that the table can ask for."""

from __future__ import annotations

import pytest
from plan_builders import report, work

from airflow_provider_floe.health.report import TableMetrics
from airflow_provider_floe.planning.estimates import estimate, estimate_text
from airflow_provider_floe.planning.model import Estimate
from airflow_provider_floe.tables import RUN_ORDER

REWRITE, _, MANIFESTS, STATISTICS, EXPIRE, ORPHANS = RUN_ORDER
SEEN = TableMetrics(
    data_file_count=40, total_data_size_bytes=5 * 1024**3, manifest_count=9, total_manifest_size_bytes=3 * 1024**2
)


def test_known_work_is_taken_as_it_is() -> None:
    found = work(REWRITE, files_in=12, files_out=1, bytes_in=1024**2, bytes_out=1024**2)
    expected = estimate(REWRITE, report(works=(found,), metrics=SEEN))
    assert expected == Estimate(files_in=12, files_out=1, bytes_in=1024**2, bytes_out=1024**2)
    assert estimate_text(REWRITE, expected) == "12 files, 1 MiB -> 1 file, 1 MiB"


def test_manifests_are_the_files_of_a_manifest_rewrite() -> None:
    found = work(MANIFESTS, manifests_in=300, manifests_out=2, bytes_in=1024, bytes_out=512)
    expected = estimate(MANIFESTS, report(works=(found,), metrics=SEEN))
    assert estimate_text(MANIFESTS, expected) == "300 manifests, 1 KiB -> 2 manifests, 512 B"


def test_statistics_read_files_and_put_none_in_their_place() -> None:
    found = work(STATISTICS, files_in=12, files_out=1, bytes_in=1024**2)
    expected = estimate(STATISTICS, report(works=(found,), metrics=SEEN))
    assert estimate_text(STATISTICS, expected) == "12 files, 1 MiB"


@pytest.mark.parametrize(
    ("operation", "size", "text"),
    [
        (REWRITE, 5 * 1024**3, "at most 40 files, 5 GiB"),
        (MANIFESTS, 3 * 1024**2, "at most 9 manifests, 3 MiB"),
        (EXPIRE, 0, "unknown"),
        (ORPHANS, 0, "unknown"),
    ],
)
def test_unknown_work_is_bounded_by_the_table(operation: object, size: int, text: str) -> None:
    for works in ((), (work(operation, None),)):
        expected = estimate(operation, report(works=works, metrics=SEEN))
        assert (expected.known, expected.bytes_in) == (False, size)
        assert estimate_text(operation, expected) == text
