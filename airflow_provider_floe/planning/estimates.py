"""What an operation is expected to read and write."""

from __future__ import annotations

from airflow_provider_floe.health.report import HealthReport
from airflow_provider_floe.planning.model import Estimate
from airflow_provider_floe.tables import Operation
from airflow_provider_floe.text import bytes_text, count_text

_NOUNS = {Operation.REWRITE_MANIFESTS: "manifest", Operation.REWRITE_POSITION_DELETE_FILES: "delete file"}

_ONE_WAY = (Operation.COMPUTE_TABLE_STATS, Operation.EXPIRE_SNAPSHOTS, Operation.REMOVE_ORPHAN_FILES)
"""Operations that put nothing in the place of what they read or delete."""


def estimate(operation: Operation, report: HealthReport) -> Estimate:
    """From the work that the assessment found; where it could not know, the most that the table can ask for."""
    work = report.work.get(operation)
    if work is not None and work.found is not None:
        return Estimate(
            files_in=work.files_in or work.manifests_in,
            files_out=work.files_out or work.manifests_out,
            bytes_in=work.bytes_in,
            bytes_out=work.bytes_out,
        )
    metrics = report.metrics
    if operation is Operation.REWRITE_DATA_FILES:
        size = metrics.total_data_size_bytes or 0
        return Estimate(files_in=metrics.data_file_count or 0, bytes_in=size, bytes_out=size, known=False)
    if operation is Operation.REWRITE_MANIFESTS:
        size = metrics.total_manifest_size_bytes
        return Estimate(files_in=metrics.manifest_count, bytes_in=size, bytes_out=size, known=False)
    return Estimate(known=False)


def estimate_text(operation: Operation, expected: Estimate) -> str:
    """One line, for example ``40 files, 1.2 GiB -> 3 files, 1.2 GiB``."""
    noun = _NOUNS.get(operation, "file")
    before = f"{count_text(expected.files_in, noun)}, {bytes_text(expected.bytes_in)}"
    if not expected.known:
        return f"at most {before}" if expected.bytes_in else "unknown"
    if operation in _ONE_WAY:
        return before
    return f"{before} -> {count_text(expected.files_out, noun)}, {bytes_text(expected.bytes_out)}"
