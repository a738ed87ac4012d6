"""What the job is asked to do: the settings of a policy in the words of Iceberg's procedures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pyiceberg.table.metadata import TableMetadata

from airflow_provider_floe.engines.base import OPERATION_ID_PROPERTY
from airflow_provider_floe.engines.spark.job import identifier
from airflow_provider_floe.iceberg.listing import ListedFile
from airflow_provider_floe.iceberg.marks import MARK_PROPERTY
from airflow_provider_floe.iceberg.selection import target_file_size
from airflow_provider_floe.policies.model import (
    OrphanCleanup,
    RewriteDataFiles,
    RewriteManifests,
    RewritePositionDeleteFiles,
)

ORPHANS_VIEW = "floe_orphans"
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(moment: datetime) -> dict[str, str]:
    """A timestamp argument."""
    return {"timestamp": moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}


def rewrite_data_files(
    table: Sequence[str], metadata: TableMetadata, settings: RewriteDataFiles, *, rewrite_all: bool
) -> dict[str, Any]:
    """The call of ``rewrite_data_files``.

    The size limits are those by which the work was found; deletes are applied wherever there are some.

    :param rewrite_all: files of a good size too, because they are not in order yet.
    """
    options = {
        "target-file-size-bytes": str(target_file_size(metadata, settings)),
        "max-file-group-size-bytes": str(settings.max_file_group_size_bytes),
        "max-concurrent-file-group-rewrites": str(settings.max_concurrent_file_group_rewrites),
        "min-input-files": "2",
        "delete-file-threshold": str(settings.delete_file_threshold),
        "rewrite-all": str(rewrite_all).lower(),
        "rewrite-job-order": settings.rewrite_job_order.lower().replace("_", "-"),
        "use-starting-sequence-number": str(settings.use_starting_sequence_number).lower(),
        "partial-progress.enabled": str(settings.partial_progress_enabled).lower(),
    }
    if settings.partial_progress_enabled:
        options["partial-progress.max-commits"] = str(settings.partial_progress_max_commits)
        if settings.partial_progress_max_failed_commits is not None:
            options["partial-progress.max-failed-commits"] = str(settings.partial_progress_max_failed_commits)
    if settings.remove_dangling_deletes:
        options["remove-dangling-deletes"] = "true"
    if settings.output_spec_id is not None:
        options["output-spec-id"] = str(settings.output_spec_id)
    arguments: dict[str, Any] = {
        "table": identifier(list(table)),
        "strategy": "binpack" if settings.strategy == "BINPACK" else "sort",
        "options": options,
    }
    if settings.strategy == "ZORDER":
        arguments["sort_order"] = f"zorder({','.join(identifier([name]) for name in settings.z_order_columns)})"
    elif settings.sort_order:
        arguments["sort_order"] = ", ".join(settings.sort_order)
    if settings.filter:
        arguments["where"] = settings.filter
    return {"procedure": "rewrite_data_files", "arguments": arguments}


def rewrite_position_delete_files(
    table: Sequence[str], settings: RewritePositionDeleteFiles, target_bytes: int, *, rewrite_all: bool
) -> dict[str, Any]:
    """The call of ``rewrite_position_delete_files``.

    :param rewrite_all: files of a good size too, because some are dangling: Spark finds those as it rewrites.
    """
    options = {
        "target-file-size-bytes": str(target_bytes),
        "min-input-files": str(settings.min_input_files),
        "max-file-group-size-bytes": str(settings.max_file_group_size_bytes),
        "rewrite-all": str(rewrite_all).lower(),
    }
    return {
        "procedure": "rewrite_position_delete_files",
        "arguments": {"table": identifier(list(table)), "options": options},
    }


def compute_table_stats(table: Sequence[str], snapshot_id: int, columns: Sequence[str]) -> dict[str, Any]:
    """The call of ``compute_table_stats`` for one snapshot."""
    arguments = {"table": identifier(list(table)), "snapshot_id": snapshot_id, "columns": list(columns)}
    return {"procedure": "compute_table_stats", "arguments": arguments}


def expire_snapshots(
    table: Sequence[str], snapshot_ids: Sequence[int], *, clean_metadata: bool = False
) -> dict[str, Any]:
    """The call of ``expire_snapshots`` that expires these snapshots and none for its age."""
    arguments: dict[str, Any] = {
        "table": identifier(list(table)),
        "older_than": timestamp(_NEVER),
        "stream_results": True,
    }
    if snapshot_ids:
        arguments["snapshot_ids"] = list(snapshot_ids)
    if clean_metadata:
        arguments["clean_expired_metadata"] = True
    return {"procedure": "expire_snapshots", "arguments": arguments}


def remove_orphan_files(table: Sequence[str], root: str, settings: OrphanCleanup, before: datetime) -> dict[str, Any]:
    """The call of ``remove_orphan_files`` that looks at the files of a view only.

    :param before: UTC; younger files stay.
    """
    arguments: dict[str, Any] = {
        "table": identifier(list(table)),
        "older_than": timestamp(before),
        "location": root,
        "prefix_mismatch_mode": settings.prefix_mismatch_mode,
        "file_list_view": ORPHANS_VIEW,
    }
    if settings.equal_schemes:
        arguments["equal_schemes"] = dict(settings.equal_schemes)
    if settings.equal_authorities:
        arguments["equal_authorities"] = dict(settings.equal_authorities)
    return {"procedure": "remove_orphan_files", "arguments": arguments}


def orphans_view(files: Sequence[ListedFile]) -> list[list[Any]]:
    """The rows of the view: path, and modification time in milliseconds."""
    return [[file.path, int(file.modified.timestamp() * 1000)] for file in files if file.modified is not None]


def rewrite_manifests(
    table: Sequence[str], settings: RewriteManifests, spec_id: int, manifests: Sequence[str] | None
) -> dict[str, Any]:
    """The call, or where the procedure has no argument for a setting, the Java action.

    :param manifests: paths of the manifests that ``rewriteIf`` chooses; None without it.
    """
    if settings.sort_by or settings.staging_location or manifests is not None:
        return {
            "java_action": {
                "spec_id": spec_id,
                "staging_location": settings.staging_location,
                "sort_by": settings.sort_by,
                "manifests": None if manifests is None else list(manifests),
            }
        }
    arguments = {"table": identifier(list(table)), "use_caching": False, "spec_id": spec_id}
    return {"procedure": "rewrite_manifests", "arguments": arguments}


def snapshot_properties(operation_id: str, mark: str | None) -> dict[str, str]:
    """What the summaries of the snapshots are to hold."""
    return {OPERATION_ID_PROPERTY: operation_id, **({MARK_PROPERTY: mark} if mark else {})}
